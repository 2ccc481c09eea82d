"""What each operation of a model costs: FLOPs, and bytes moved, term by term.

FLOPs are counted as torch's FlopCounterMode does: a multiply-accumulate is 2; only products of matrices
count, so norms, activations, softmax and rotary positions have bytes and no FLOPs (memory limits them on any
machine); a causal mask saves nothing unless asked. Bytes are the least that must move: each operand once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from prumerge.errors import PrumergeError
from prumerge.roofline.configs import Experts, LanguageModel, Projector, VisionTower
from prumerge.roofline.precision import Precision


@dataclass(frozen=True)
class Op:
    """One operation, on one device; everything but `name` and `count` is for one execution."""

    name: str
    flops: int = 0
    weights: float = 0.0
    """Bytes, as the five that follow."""
    read: float = 0.0
    written: float = 0.0
    """Activations."""
    cache_read: float = 0.0
    cache_written: float = 0.0
    """Keys and values."""
    sent: float = 0.0
    """To other devices."""
    count: int = 1
    arithmetic: str = "fp16"
    """What multiplies."""

    @property
    def bytes(self) -> float:
        """Traffic with the device's memory."""
        return self.weights + self.read + self.written + self.cache_read + self.cache_written

    @property
    def intensity(self) -> float:
        """FLOPs per byte."""
        return self.flops / self.bytes if self.bytes else 0.0


@dataclass(frozen=True)
class Setting:
    """How a model is run."""

    precision: Precision = field(default_factory=Precision)
    batch: int = 1
    shards: int = 1
    """Devices that share each matrix of the language model (tensor parallel)."""
    attention: str = "fused"
    """fused or eager; fused attention never writes the N x N scores to memory."""
    causal: str = "full"
    """full or half: are pairs that the mask removes computed? Kernels may skip them, counters do not."""

    def __post_init__(self) -> None:
        for name, number in (("batch", self.batch), ("tensor_parallel", self.shards)):
            if number < 1:
                raise PrumergeError(f"{name} must be at least 1, not {number}")
        for name, choice, choices in (
            ("attention", self.attention, ("fused", "eager")),
            ("causal", self.causal, ("full", "half")),
        ):
            if choice not in choices:
                raise PrumergeError(f"{name} is {' or '.join(choices)}, not {choice!r}")


# Parts


def linear(name: str, tokens: int, inputs: int, outputs: int, precision: Precision) -> Op:
    """[tokens, inputs] @ [inputs, outputs]: 2 N i o FLOPs."""
    activation = precision.activations / 8
    return Op(
        name,
        flops=2 * tokens * inputs * outputs,
        arithmetic=precision.arithmetic,
        weights=inputs * outputs * precision.weights / 8,
        read=tokens * inputs * activation,
        written=tokens * outputs * activation,
    )


def elementwise(name: str, read: int, written: int, precision: Precision) -> Op:
    """Norms, activations, sums: so many elements."""
    size = precision.activations / 8
    return Op(name, arithmetic=precision.arithmetic, read=read * size, written=written * size)


def attention(
    queries: int, keys: int, pairs: int, heads: int, kv_heads: int, head_dim: int, setting: Setting
) -> list[Op]:
    """softmax(Q K^T) V: two products of 2 x pairs x heads x head_dim FLOPs; K and V come from the cache."""
    p, batch, arithmetic = setting.precision, setting.batch, setting.precision.arithmetic
    product = 2 * pairs * heads * head_dim * batch
    q = queries * heads * head_dim * batch * p.activations / 8
    k = keys * kv_heads * head_dim * batch * p.cache / 8
    if setting.attention == "fused":
        return [Op("attention", 2 * product, arithmetic=arithmetic, read=q, written=q, cache_read=2 * k)]
    scores = pairs * heads * batch * p.activations / 8
    return [
        Op("scores", product, arithmetic=arithmetic, read=q, written=scores, cache_read=k),
        Op("softmax", read=scores, written=scores),
        Op("values", product, arithmetic=arithmetic, read=scores, written=q, cache_read=k),
    ]


def all_reduce(elements: int, setting: Setting) -> list[Op]:
    """A sum over devices in a ring: each sends 2 (P - 1) / P of the data."""
    if setting.shards == 1:
        return []
    data = elements * setting.precision.activations / 8
    return [Op("all-reduce", sent=2 * (setting.shards - 1) / setting.shards * data)]


def feed_forward(width: int, ffn: int, tokens: int, setting: Setting, name: str = "") -> list[Op]:
    """down(act(gate x) * up x)."""
    p = setting.precision
    ffn = _share(ffn, setting)
    return [
        linear(f"{name}gate", tokens, width, ffn, p),
        linear(f"{name}up", tokens, width, ffn, p),
        elementwise(f"{name}activation", 2 * tokens * ffn, tokens * ffn, p),
        linear(f"{name}down", tokens, ffn, width, p),
    ]


def distinct_experts(experts: Experts, tokens: int) -> float:
    """Experts that at least one token chose, if all are equally likely: E (1 - (1 - k/E)^N)."""
    return experts.count * (1 - (1 - experts.active / experts.count) ** tokens)


def mixture(width: int, experts: Experts, tokens: int, setting: Setting) -> list[Op]:
    """Each token through k of E experts; weights are read of those experts that were chosen at all."""
    chosen = distinct_experts(experts, tokens)
    ops = [linear("router", tokens, width, experts.count, setting.precision)]
    for op in feed_forward(width, experts.width, tokens * experts.active, setting, "experts' "):
        ops.append(replace(op, weights=op.weights * chosen))
    if experts.shared:
        ops += feed_forward(width, experts.shared, tokens, setting, "shared expert's ")
    return ops


# The language model


def decoder_layer(
    llm: LanguageModel, new: int, past: int, setting: Setting, sparse: bool = False
) -> list[Op]:
    """`new` tokens of each sequence through one layer whose cache holds `past` tokens of each."""
    p, d = setting.precision, llm.width
    heads, kv_heads = _share(llm.heads, setting), _kv_heads(llm, setting)
    q_width, kv_width = heads * llm.head_dim, kv_heads * llm.head_dim
    tokens = new * setting.batch
    pairs = new * (past + new)
    if setting.causal == "half":
        pairs = new * past + new * (new + 1) // 2
    norm = elementwise("norm", tokens * d, tokens * d, p)
    add = elementwise("add", 2 * tokens * d, tokens * d, p)
    keys_or_values = linear("k", tokens, d, kv_width, p)
    keys_or_values = replace(keys_or_values, written=0.0, cache_written=tokens * kv_width * p.cache / 8)
    rotated = tokens * (q_width + kv_width)
    return [
        norm,
        linear("q", tokens, d, q_width, p),
        keys_or_values,
        replace(keys_or_values, name="v"),
        elementwise("rotary", rotated, rotated, p),
        *attention(new, past + new, pairs, heads, kv_heads, llm.head_dim, setting),
        linear("out", tokens, q_width, d, p),
        *all_reduce(tokens * d, setting),
        add,
        norm,
        *(
            mixture(d, llm.experts, tokens, setting)
            if sparse and llm.experts
            else feed_forward(d, llm.ffn, tokens, setting)
        ),
        *all_reduce(tokens * d, setting),
        add,
    ]


def language_model(
    llm: LanguageModel, new: Sequence[int], past: Sequence[int], setting: Setting, logits: int = 1
) -> list[Op]:
    """One pass; `new` and `past` tokens of each layer. The head works on the last `logits` tokens."""
    outside = setting.precision.outside()
    row = llm.width * setting.batch
    ops = [
        Op(
            "embedding",
            weights=new[0] * row * outside.weights / 8,
            written=new[0] * row * setting.precision.activations / 8,
        )
    ]
    alike = Counter(zip(new, past, map(llm.is_sparse, range(llm.layers)), strict=True))
    for (layer_new, layer_past, sparse), count in alike.items():
        ops += [replace(op, count=count) for op in decoder_layer(llm, layer_new, layer_past, setting, sparse)]
    ops.append(elementwise("last norm", logits * row, logits * row, setting.precision))
    vocabulary = -(-llm.vocabulary // setting.shards)
    ops.append(linear("head", logits * setting.batch, llm.width, vocabulary, outside))
    return ops


def prefill(llm: LanguageModel, prompt: Sequence[int], setting: Setting, logits: int = 1) -> list[Op]:
    """The prompt, with so many tokens in each layer (all alike unless a method prunes inside the model)."""
    return language_model(llm, prompt, [0] * llm.layers, setting, logits)


def decode(llm: LanguageModel, context: Sequence[int], setting: Setting) -> list[Op]:
    """One new token of each sequence, with so many cached tokens in each layer."""
    return language_model(llm, [1] * llm.layers, context, setting)


# Vision


def vision_tower(
    tower: VisionTower, patches: int, tiles: int, setting: Setting, whole: bool = False
) -> list[Op]:
    """`tiles` pictures of `patches` each; `whole` runs the layers, too, whose output nobody reads.

    Every device of a tensor-parallel group runs the tower for itself.
    """
    setting = replace(setting, precision=setting.precision.outside(), shards=1)
    p, d, batch = setting.precision, tower.width, tiles * setting.batch
    seen = patches + tower.class_token
    tokens = seen * batch
    norm = elementwise("norm", tokens * d, tokens * d, p)
    add = elementwise("add", 2 * tokens * d, tokens * d, p)
    wide = tower.ffn * (1 + tower.gated)
    layers = tower.layers if whole else tower.read_layers
    full = layers if tower.window is None else min(tower.full_layers, layers)
    ops = [linear("patches", patches * batch, tower.patch, d, p)]
    for reach, count in ((seen, full), (min(tower.window or seen, seen), layers - full)):
        layer = [
            norm,
            linear("qkv", tokens, d, 3 * d, p),
            *attention(
                seen,
                seen,
                seen * reach,
                tower.heads,
                tower.heads,
                d // tower.heads,
                replace(setting, batch=batch),
            ),
            linear("out", tokens, d, d, p),
            add,
            norm,
            linear("up", tokens, d, wide, p),
            elementwise("activation", tokens * wide, tokens * tower.ffn, p),
            linear("down", tokens, tower.ffn, d, p),
            add,
        ]
        ops += [replace(op, count=count) for op in layer if count]
    return ops


def scoring(tower: VisionTower, patches: int, tiles: int, setting: Setting) -> list[Op]:
    """Keys of the layer that reads the features, where that layer is otherwise left out."""
    tokens = (patches + tower.class_token) * tiles * setting.batch
    return [linear("keys", tokens, tower.width, tower.width, setting.precision.outside())]


def reduction(width: int, tokens: int, kept: int, setting: Setting) -> list[Op]:
    """From N tokens to M: an N x N similarity, and an M x N matrix of merging weights.

    That is what the dearest methods compute; pruning by class attention does less.
    """
    p, n, m, d, batch = setting.precision.outside(), tokens, kept, width, setting.batch
    similarity = elementwise("similarity", 2 * n * d * batch, n * n * batch, p)
    merge = elementwise("merge", (m * n + n * d) * batch, m * d * batch, p)
    return [
        replace(similarity, flops=2 * n * n * d * batch),
        replace(merge, flops=2 * m * n * d * batch),
    ]


def connector(projector: Projector, visual: int, setting: Setting) -> list[Op]:
    """The projector on so many visual tokens of each sequence."""
    precision = setting.precision.outside()
    return [
        replace(
            linear("projector", visual * setting.batch, inputs, outputs, precision), count=projector.copies
        )
        for inputs, outputs in projector.matrices
    ]


# Sizes


def language_weights(llm: LanguageModel, setting: Setting) -> float:
    """Bytes of the decoder's matrices, the embedding and the head on one device."""
    p, outside = setting.precision, setting.precision.outside()
    heads, kv_heads = _share(llm.heads, setting), _kv_heads(llm, setting)
    mixer = 2 * llm.width * llm.head_dim * (heads + kv_heads)
    dense = mixer + 3 * llm.width * _share(llm.ffn, setting)
    total = 0
    for layer in range(llm.layers):
        if (experts := llm.experts) and llm.is_sparse(layer):
            wide = _share(experts.count * experts.width + experts.shared, setting)
            total += mixer + 3 * llm.width * wide + llm.width * experts.count
        else:
            total += dense
    vocabulary = -(-llm.vocabulary // setting.shards) * llm.width * (1 if llm.tied else 2)
    return total * p.weights / 8 + vocabulary * outside.weights / 8


def vision_weights(tower: VisionTower, projector: Projector, setting: Setting) -> float:
    """Bytes of the tower's (all layers are loaded) and the projector's matrices."""
    d = tower.width
    layer = 4 * d * d + (2 + tower.gated) * d * tower.ffn
    joint = sum(inputs * outputs for inputs, outputs in projector.matrices) * projector.copies
    return (tower.patch * d + tower.layers * layer + joint) * setting.precision.outside().weights / 8


def cache_size(llm: LanguageModel, tokens: Sequence[int], setting: Setting) -> float:
    """Bytes of keys and values on one device: 2 x kv_heads x head_dim for each token of each layer."""
    kv_heads = _kv_heads(llm, setting)
    return 2 * sum(tokens) * kv_heads * llm.head_dim * setting.batch * setting.precision.cache / 8


def live_activations(ops: Sequence[Op], stream: float) -> float:
    """Bytes of activations at the worst moment: of one operation, and of the residual stream."""
    return stream + max(op.read + op.written for op in ops)


def _share(size: int, setting: Setting) -> int:
    """What one of the devices holds."""
    if size % setting.shards:
        raise PrumergeError(f"{size} heads or columns cannot be divided among {setting.shards} devices")
    return size // setting.shards


def _kv_heads(llm: LanguageModel, setting: Setting) -> int:
    """Of one device; more devices than heads hold copies."""
    return -(-llm.kv_heads // setting.shards)
