"""Stage A: the vision tower learns what each patch shows, and its class token what the picture contains.

The tower sees a subset of the patches (with their true positions), mostly objects: enough to learn from at a
quarter of the cost. Nothing supervises the attention: its sparsity comes from the losses on the class token.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.utils.data import Dataset

from prumerge.tiny.scenes import (
    COLOURS,
    GRID,
    PATCH,
    PATCH_COLOURS,
    SHAPES,
    UNSEEN_PAIRS,
    WHAT,
    Scene,
    scene,
)

PAIRS = [(colour, shape) for colour in COLOURS for shape in SHAPES]
LABELS = [*WHAT[1:], *COLOURS, *(" ".join(pair) for pair in PAIRS if pair not in UNSEEN_PAIRS)]
FOREGROUND = 0.75  # at most this share of a subset shows objects


class VisionBatches(Dataset):
    """Batch number i of the run, the same whether or not the run was interrupted."""

    def __init__(self, first: int, batch: int, patches: int, count: int):
        self.first, self.batch, self.patches, self.count = first, batch, patches, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        if place >= self.count:
            raise IndexError(place)
        seeds = range(self.first + place * self.batch, self.first + (place + 1) * self.batch)
        rows = [self.row(scene(seed)) for seed in seeds]
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}

    def row(self, drawn: Scene) -> dict[str, np.ndarray]:
        what, colours = drawn.what.ravel(), drawn.colours.ravel()
        index = subset(what, self.patches, np.random.default_rng((drawn.seed, 1)))
        return {
            "patches": cut(drawn)[index],
            "index": index,
            "what": what[index].astype(np.int64),
            "colours": colours[index].astype(np.int64),
            "centres": centres(drawn)[index],
            "labels": labels(drawn),
        }


def cut(drawn: Scene) -> UInt8[np.ndarray, "576 588"]:
    """The patches, each flattened as the patch embedding's weight is: channel, row, column."""
    pixels = np.asarray(drawn.image).reshape(GRID, PATCH, GRID, PATCH, 3)
    return pixels.transpose(0, 2, 4, 1, 3).reshape(GRID * GRID, -1)


def centres(drawn: Scene) -> Int[np.ndarray, "576"]:
    """Of each patch that shows an object, the patch in the object's middle; of the others, themselves."""
    places = np.arange(GRID * GRID)
    if not drawn.objects:
        return places
    edges = np.arange(GRID) * PATCH
    left, top, width, height = np.array([thing.box for thing in drawn.objects]).T[..., None]
    across = (np.minimum(edges + PATCH, left + width) - np.maximum(edges, left)).clip(0)
    down = (np.minimum(edges + PATCH, top + height) - np.maximum(edges, top)).clip(0)
    owner = (down[:, :, None] * across[:, None, :]).reshape(len(left), -1).argmax(0)
    rows, columns = np.divmod(places, GRID)
    middle = (np.arange(GRID) + 0.5) * PATCH
    for number, thing in enumerate(drawn.objects):
        shows = np.flatnonzero((drawn.what.ravel() > 0) & (owner == number))
        if len(shows):
            x, y = thing.centre
            away = np.hypot(middle[columns[shows]] - x, middle[rows[shows]] - y)
            places[shows] = shows[away.argmin()]
    return places


def subset(
    what: UInt8[np.ndarray, "576"], count: int, random: np.random.Generator
) -> Int[np.ndarray, "count"]:
    """Random patches, objects first; all patches if `count` says so."""
    if count >= len(what):
        return np.arange(len(what))
    objects = random.permutation(np.flatnonzero(what))[: int(FOREGROUND * count)]
    rest = random.permutation(np.setdiff1d(np.arange(len(what)), objects))[: count - len(objects)]
    return np.sort(np.concatenate([objects, rest]))


def labels(drawn: Scene) -> Float[np.ndarray, "labels"]:
    """What the whole picture contains: things, letters, colours and coloured shapes."""
    present = {WHAT[label] for label in np.unique(drawn.what)} | {thing.kind for thing in drawn.objects}
    present |= {thing.colour for thing in drawn.objects if thing.colour}
    present |= {f"{thing.colour} {thing.kind}" for thing in drawn.objects}
    return np.array([label in present for label in LABELS], np.float32)


class VisionHeads(nn.Module):
    """What stage A reads the tower with; thrown away afterwards."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.what = nn.Linear(width, len(WHAT))
        self.colours = nn.Linear(width, len(PATCH_COLOURS))
        self.rows = nn.Linear(width, GRID)
        self.columns = nn.Linear(width, GRID)
        self.middle = nn.Linear(width, 1)
        self.labels = nn.Linear(width, len(LABELS))
        self.picture = nn.Linear(width, width, bias=False)
        self.caption = nn.Linear(len(LABELS), width, bias=False)  # a bag of words
        self.scale = nn.Parameter(torch.tensor(2.3))


def encode(
    tower: Any, patches: UInt8[Tensor, "batch patches pixels"], index: Int[Tensor, "batch patches"]
) -> tuple[Float[Tensor, "batch patches width"], Float[Tensor, "batch width"]]:
    """CLIP on some of the patches: the features LLaVA takes, and the class token's output of the last layer.

    The last layer is computed for the class token only, whose output depends on no other query.
    """
    embeddings = tower.embeddings
    pixels = patches.float() / 127.5 - 1
    hidden = pixels @ embeddings.patch_embedding.weight.flatten(1).T
    hidden = torch.cat([embeddings.class_embedding.expand(len(hidden), 1, -1), hidden], 1)
    places = torch.cat([index.new_zeros(len(index), 1), index + 1], 1)
    hidden = tower.pre_layrnorm(hidden + embeddings.position_embedding(places))
    for layer in tower.encoder.layers[:-1]:
        hidden = layer(hidden, attention_mask=None)
    return hidden[:, 1:], tower.post_layernorm(class_output(tower.encoder.layers[-1], hidden))


def class_output(layer: Any, hidden: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch width"]:
    """One CLIP layer for the class token alone."""
    attention, normed = layer.self_attn, layer.layer_norm1(hidden)

    def heads(states: Tensor) -> Tensor:
        return states.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)

    query = heads(attention.q_proj(normed[:, :1]))
    mixed = F.scaled_dot_product_attention(
        query, heads(attention.k_proj(normed)), heads(attention.v_proj(normed))
    )
    state = hidden[:, 0] + attention.out_proj(mixed.transpose(1, 2).flatten(2))[:, 0]
    return state + layer.mlp(layer.layer_norm2(state))


def vision_loss(tower: Any, heads: VisionHeads, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum to minimise, and what to log."""
    return loss_of(heads, *encode(tower, batch["patches"], batch["index"]), batch)


def loss_of(
    heads: VisionHeads,
    features: Float[Tensor, "batch patches width"],
    state: Float[Tensor, "batch width"],
    batch: dict[str, Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """The same of what the tower made of the patches, and of its class token."""
    normed = heads.norm(features)
    what, colours = heads.what(normed), heads.colours(normed)
    seen, coloured = batch["what"] > 0, batch["colours"] > 0
    per_patch = F.cross_entropy(what.transpose(1, 2), batch["what"], reduction="none")
    dense = average(per_patch, seen) + 0.3 * average(per_patch, ~seen)
    per_patch = F.cross_entropy(colours.transpose(1, 2), batch["colours"], reduction="none")
    dense_colour = average(per_patch, coloured) + 0.3 * average(per_patch, ~coloured)
    row, column = batch["centres"] // GRID, batch["centres"] % GRID
    rows, columns = heads.rows(normed).transpose(1, 2), heads.columns(normed).transpose(1, 2)
    place = F.cross_entropy(rows, row, reduction="none") + F.cross_entropy(columns, column, reduction="none")
    place = average(place, seen) + 0.3 * average(place, ~seen)
    is_middle = (batch["centres"] == batch["index"]) & seen
    middle = F.binary_cross_entropy_with_logits(
        heads.middle(normed)[..., 0], is_middle.float(), reduction="none"
    )
    middle = average(middle, is_middle) + average(middle, seen & ~is_middle)
    contained = F.binary_cross_entropy_with_logits(heads.labels(state), batch["labels"])
    match = contrastive(heads.picture(state), heads.caption(batch["labels"]), heads.scale)
    right = what.argmax(-1) == batch["what"]
    letters = batch["what"] > WHAT.index("sign")
    log = {
        "dense": dense,
        "colour": dense_colour,
        "place": place,
        "middle": middle,
        "labels": contained,
        "contrastive": match,
        "things_right": average(right, seen & ~letters),
        "letters_right": average(right, letters),
        "rows_right": average(rows.argmax(1) == row, seen),
        "colours_right": average(colours.argmax(-1) == batch["colours"], coloured),
    }
    return dense + 0.5 * dense_colour + 0.25 * place + 0.5 * middle + 5 * contained + match, log


def contrastive(
    pictures: Float[Tensor, "batch width"], captions: Float[Tensor, "batch width"], scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """CLIP's loss: each picture is closest to its own caption, and the other way round."""
    similarity = F.normalize(pictures, dim=-1) @ F.normalize(captions, dim=-1).T * scale.exp().clamp(max=100)
    target = torch.arange(len(similarity), device=similarity.device)
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2


def average(values: Tensor, where: Tensor) -> Tensor:
    """Mean over the true places, 0 if there are none."""
    return (values * where).sum() / where.sum().clamp(min=1)


def class_attention(
    tower: Any, patches: UInt8[Tensor, "batch 576 pixels"], index: Int[Tensor, "batch 576"]
) -> Float[Tensor, "batch 576"]:
    """Attention of the class token to the patches in the last layer, averaged over heads."""
    caught: list[Tensor] = []
    layer = tower.encoder.layers[-1]
    with torch.no_grad():
        hook = layer.layer_norm1.register_forward_hook(lambda _, __, output: caught.append(output))
        encode(tower, patches, index)
        hook.remove()
        attention, normed = layer.self_attn, caught[0]
        query = attention.q_proj(normed[:, 0]).unflatten(-1, (attention.num_heads, -1))
        keys = attention.k_proj(normed).unflatten(-1, (attention.num_heads, -1))
        scores = torch.einsum("bhd,bnhd->bhn", query, keys) * attention.scale
    return scores.softmax(-1)[..., 1:].mean(1)


def outliers(attention: Float[Tensor, "batch patches"]) -> Int[Tensor, "batch"]:
    """How many patches stand out (beyond the third quartile by 1.5 interquartile ranges)."""
    first, third = attention.quantile(torch.tensor([0.25, 0.75], device=attention.device), dim=-1)
    return (attention > (third + 1.5 * (third - first))[:, None]).sum(-1)
