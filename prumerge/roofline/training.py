"""What a step of training costs: forward, backward, AdamW, and the memory that lasts through them.

The vision tower is frozen and runs forward only. Of a matrix whose inputs come from something that is trained
the backward pass computes the gradient of the inputs, with the FLOPs of the forward pass once more, and where
the matrix itself is trained the gradient of the weights, once more again. Every number here falls with the
tokens but those of the tower, the weights and the optimizer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from prumerge.errors import PrumergeError
from prumerge.roofline import cost
from prumerge.roofline.configs import LanguageModel, Model
from prumerge.roofline.cost import Op, Setting, elementwise, linear
from prumerge.roofline.estimate import Stage, Workload, estimate
from prumerge.roofline.hardware import Machine
from prumerge.roofline.precision import Precision

KINDS = {
    "lora": "the projector, and beside the matrices of all decoder layers low-rank ones",
    "projector": "the projector alone",
    "full": "the language model and the projector",
}
_SINGLE = 4  # bytes of fp32, in which norms, softmax, the loss and AdamW compute
_MOMENTS = 2 * _SINGLE


@dataclass(frozen=True)
class Recipe:
    """What of a model is trained, and how."""

    train: str = "lora"
    """One of `KINDS`."""
    rank: int = 128
    """Of LoRA's matrices."""
    dropout: bool = False
    """Whether inputs of LoRA's matrices go through dropout (which each of them then keeps for itself)."""
    checkpointing: bool = False
    """Whether decoder layers keep their inputs only, and run forward once more in the backward pass."""

    def __post_init__(self) -> None:
        if self.train not in KINDS:
            raise PrumergeError(f"train is lora, projector or full, not {self.train!r}")
        if self.rank < 1:
            raise PrumergeError(f"rank must be at least 1, not {self.rank}")


@dataclass(frozen=True)
class Memory:
    """Bytes that last through a step."""

    weights: float
    gradients: float
    optimizer: float
    """AdamW's two moments in fp32 of what is trained, and where weights have 16 bits a copy of it in fp32."""
    activations: float
    """Saved for the backward pass."""

    @property
    def fixed(self) -> float:
        """Whatever the tokens."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> float:
        return self.fixed + self.activations


@dataclass(frozen=True)
class Step:
    """One step on one machine."""

    workload: Workload
    setting: Setting
    machine: Machine
    recipe: Recipe
    trained: int
    """Parameters that are trained."""
    stages: tuple[Stage, ...]
    memory: Memory

    @cached_property
    def whole(self) -> Stage:
        """All stages as one."""
        return Stage("step", tuple(op for stage in self.stages for op in stage.ops), self.machine)

    @property
    def rule(self) -> float:
        """The rule of thumb for the cost against that with all visual tokens: (k + W) / (all + W)."""
        kept = sum(self.workload.visual) / len(self.workload.visual)
        return (kept + self.workload.text) / (self.workload.encoded + self.workload.text)

    @property
    def fits(self) -> bool:
        return self.machine.memory is None or self.memory.total <= self.machine.memory

    @property
    def largest_batch(self) -> int | None:
        """Rows of a batch that the machine's memory has room for."""
        if self.machine.memory is None:
            return None
        row = self.memory.activations / self.setting.batch
        return max(0, int((self.machine.memory - self.memory.fixed) / row))


def training_step(
    model: Model, workload: Workload, machine: Machine, setting: Setting, recipe: Recipe
) -> Step:
    """Cost, time and memory of one step on one device, whose answers are among the workload's text."""
    _check(setting, recipe)
    seen = estimate(model, workload, machine, setting)
    projector = list(seen.connector.ops)
    embedding, *layers, norm, head = cost.prefill(
        model.language, workload.prompt, setting, logits=workload.prompt[0]
    )
    adapters = lora(model.language, workload.prompt, setting, recipe.rank) if recipe.train == "lora" else []
    logits = workload.prompt[0] * setting.batch * model.language.vocabulary
    decoder = [embedding, *layers, norm, head, elementwise("loss", logits, 0, Precision(32, 32, 32, "fp32"))]
    everything = recipe.train == "full"
    backward = [
        *(op for each in decoder for op in gradients(each, setting, trained=everything)),
        *(op for each in adapters for op in gradients(each, setting, trained=True)),
        *(
            op
            for place, each in enumerate(projector)
            for op in gradients(each, setting, trained=True, inputs=place > 0)
        ),
    ]
    trained = trained_parameters(model, recipe)
    stages = {
        "vision": [*seen.tower.ops, *seen.reduction.ops, *projector],
        "forward": [*decoder, *adapters],
        "recomputation": [*layers, *adapters] if recipe.checkpointing else [],
        "backward": backward,
        "optimizer": [adamw(trained, setting)],
    }
    return Step(
        workload=workload,
        setting=setting,
        machine=machine,
        recipe=recipe,
        trained=trained,
        stages=tuple(Stage(name, tuple(ops), machine) for name, ops in stages.items() if ops),
        memory=memory(model, workload, projector, setting, recipe),
    )


def _check(setting: Setting, recipe: Recipe) -> None:
    p = setting.precision
    if p.activations < 16:
        raise PrumergeError(
            f"gradients need activations of 16 or 32 bits, unlike {p.name}; write w{p.weights}a16"
        )
    if p.cache != p.activations:
        raise PrumergeError(
            f"training has no KV cache to store in {p.cache} bits; write w{p.weights}a{p.activations}"
        )
    if recipe.train == "full" and p.weights != p.activations:
        raise PrumergeError(
            f"full training has weights and activations of one width, unlike {p.name}; "
            "write w16a16 or w32a32, or train lora beside frozen weights"
        )
    if setting.shards > 1:
        raise PrumergeError("a step of training is predicted for one device; leave tensor_parallel at 1")


# Operations


def gradients(op: Op, setting: Setting, *, trained: bool, inputs: bool = True) -> list[Op]:
    """The backward pass of an operation: of its inputs unless nothing wants that, of its weights if trained.

    It reads what the forward pass read and the gradient of what that wrote, and writes the gradient of what
    that read. Attention's two products have two gradients each; fused attention computes the first product
    anew besides.
    """
    if not op.weights:
        times = 5 if setting.attention == "fused" else 4
        return [
            replace(
                op,
                name=f"{op.name}'s inputs",
                flops=op.flops * times // 2,
                read=op.read + op.written,
                written=op.read,
                cache_written=op.cache_read,
            )
        ]
    found, back = [], replace(op, cache_read=op.cache_written, cache_written=0.0)
    if inputs and op.flops:  # a look-up has no inputs that could have a gradient
        found.append(replace(back, name=f"{op.name}'s inputs", read=op.written, written=op.read))
    if trained:
        name, read = f"{op.name}'s weights", op.read + op.written
        found.append(replace(back, name=name, weights=0.0, read=read, written=op.weights))
    return found


def lora_targets(llm: LanguageModel, sparse: bool = False) -> dict[str, tuple[int, int]]:
    """The matrices of a decoder layer that LoRA stands beside, as (inputs, outputs): all seven.

    Experts are no matrices of their own in Transformers and get none.
    """
    d, queries, keys = llm.width, llm.heads * llm.head_dim, llm.kv_heads * llm.head_dim
    mixer = {"q": (d, queries), "k": (d, keys), "v": (d, keys), "out": (queries, d)}
    return mixer if sparse else mixer | {"gate": (d, llm.ffn), "up": (d, llm.ffn), "down": (llm.ffn, d)}


def lora(llm: LanguageModel, prompt: Sequence[int], setting: Setting, rank: int) -> list[Op]:
    """LoRA's own two matrices beside each of the targets, and their sum with what that gives."""
    precision, ops = setting.precision.outside(), []
    for (length, sparse), count in Counter(_layers(llm, prompt)).items():
        tokens = length * setting.batch
        for name, (inputs, outputs) in lora_targets(llm, sparse).items():
            ops += [
                replace(linear(f"{name}, LoRA A", tokens, inputs, rank, precision), count=count),
                replace(linear(f"{name}, LoRA B", tokens, rank, outputs, precision), count=count),
                replace(
                    elementwise(f"{name}, LoRA add", 2 * tokens * outputs, tokens * outputs, precision),
                    count=count,
                ),
            ]
    return ops


def adamw(trained: int, setting: Setting) -> Op:
    """One update: 28 bytes move for each parameter.

    Read are the gradient, the parameter in fp32 and the moments; the last two are written, and where weights
    have 16 bits these as well.
    """
    size, single = _size(setting), _SINGLE + _MOMENTS
    return Op("AdamW", read=trained * (single + size), written=trained * (single + _SINGLE - size))


def _layers(llm: LanguageModel, prompt: Sequence[int]) -> list[tuple[int, bool]]:
    """For each layer its tokens, and whether it has experts."""
    return [(tokens, llm.is_sparse(layer)) for layer, tokens in enumerate(prompt)]


# Memory


def trained_parameters(model: Model, recipe: Recipe) -> int:
    """Entries of the matrices that are trained."""
    llm, projector = model.language, model.projector
    count = sum(inputs * outputs for inputs, outputs in projector.matrices) * projector.copies
    if recipe.train == "lora":
        for _, sparse in _layers(llm, [0] * llm.layers):
            count += recipe.rank * sum(map(sum, lora_targets(llm, sparse).values()))
    if recipe.train == "full":
        count += round(cost.language_weights(llm, Setting()) / 2)  # 16 bits each
    return count


def memory(
    model: Model, workload: Workload, projector: Sequence[Op], setting: Setting, recipe: Recipe
) -> Memory:
    """Bytes that last through a step; what one operation needs while it runs is not among them."""
    trained, size = trained_parameters(model, recipe), _size(setting)
    weights = cost.language_weights(model.language, setting)
    weights += cost.vision_weights(model.tower, model.projector, setting)
    if recipe.train == "lora":
        weights += (trained - trained_parameters(model, replace(recipe, train="projector"))) * size
    copy = _SINGLE if size < _SINGLE else 0
    return Memory(
        weights=weights,
        gradients=trained * size,
        optimizer=trained * (_MOMENTS + copy),
        activations=saved(model.language, workload.prompt, projector, setting, recipe),
    )


def saved(
    llm: LanguageModel, prompt: Sequence[int], projector: Sequence[Op], setting: Setting, recipe: Recipe
) -> float:
    """Bytes of activations that wait for the backward pass, where they are most.

    Of the projector: inputs of its matrices and of the activations between them. Behind the last layer: the
    input of the norm, the logarithms of the answers' probabilities (fp32), and what head and norm want if
    they are trained. With checkpointing: the input of each layer, and what one layer or the end keeps.
    """
    size = _size(setting)
    joining = sum(op.read * op.count for op in projector)
    joining += sum(op.written * op.count for op in projector[:-1])
    layers = [
        tokens * setting.batch * saved_by_layer(llm, tokens, setting, recipe, sparse)
        for tokens, sparse in _layers(llm, prompt)
    ]
    end = _SINGLE * (llm.vocabulary + llm.width) + (2 * llm.width * size if recipe.train == "full" else 0)
    end *= prompt[0] * setting.batch
    if recipe.checkpointing:
        return joining + sum(prompt) * setting.batch * llm.width * size + max(*layers, end)
    return joining + sum(layers) + end


def saved_by_layer(
    llm: LanguageModel, tokens: int, setting: Setting, recipe: Recipe, sparse: bool = False
) -> float:
    """Bytes that a decoder layer keeps of each of its `tokens`, as Transformers computes it.

    Always: the inputs of both norms (fp32); queries, keys, values and the output of attention, with the
    logarithm of its denominators; gate, its activation, and up. Trained matrices keep their inputs: the
    outputs of the norms and the product of gate and up. Trained norms keep what they scale. LoRA keeps r
    numbers for each pair of matrices, and with dropout each pair has an input of its own, with a mask of one
    byte a number. Eager attention keeps the probabilities (fp32, and a copy in 16 bits).
    """
    d, queries, keys = llm.width, llm.heads * llm.head_dim, llm.kv_heads * llm.head_dim
    wide = llm.experts.active * llm.experts.width + llm.experts.shared if sparse and llm.experts else llm.ffn
    size = _size(setting)
    kept, masks = 2 * queries + 2 * keys + 3 * wide, 0
    if recipe.train == "full":
        kept += 4 * d + wide
    if recipe.train == "lora":
        targets = lora_targets(llm, sparse)
        own = sum(inputs for inputs, _ in targets.values())
        shared = d if sparse else 2 * d + wide  # the output of attention is kept anyway
        kept += recipe.rank * len(targets) + (own if recipe.dropout else shared)
        masks = own if recipe.dropout else 0
    copy = size if size < _SINGLE else 0
    pairs = llm.heads * (tokens * (_SINGLE + copy) if setting.attention == "eager" else _SINGLE)
    return kept * size + masks + 2 * d * _SINGLE + pairs


def _size(setting: Setting) -> int:
    """Bytes of an activation, and of a gradient."""
    return setting.precision.activations // 8
