"""The official code's own outputs: a few scenes that are part of the project, or all of `PRUMERGE_GOLDEN`."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import LlavaConfig, LlavaForConditionalGeneration

import prumerge
from prumerge import ops

OWN = Path(__file__).parents[1] / "golden"
WHOLE = Path(os.environ.get("PRUMERGE_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
FOLDER = WHOLE if WHOLE.is_dir() else OWN


def recorded(pattern):
    """A parameter for each file: its tensors, and what its metadata says."""
    paths = sorted(FOLDER.glob(pattern))
    assert paths, f"no {pattern} in {FOLDER}"
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def read(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def grid_of(told):
    return [int(side) for side in told["grid"].split("x")]


def same_places(reduction, official):
    assert reduction.index.sort().values.tolist() == official.flatten().tolist()


def same_rows(rows, official, tolerance=1e-4):
    torch.testing.assert_close(rows, official, atol=tolerance, rtol=tolerance)


# one picture of 24 x 24 patches

OFFICIAL = {
    "prumerge": "prumerge_adaptive",
    "prumerge:keep=72": "prumerge_fixed_72",
    "prumerge_plus": "prumerge_plus_adaptive",
    "visionzip:keep=65,contextual=10": "visionzip_dominant55_contextual10",
    "divprune:keep=64": "divprune_64",
    "cdpruner:keep=64": "cdpruner_64",
    "vispruner:keep=64": "vispruner_64_r50",
    "scope:keep=64": "scope_64",
}
INPUTS = {"features", "queries", "keys", "cdpruner_image_embeds", "cdpruner_text_embeds"}
TOME = {"tome_r64_tokens", "tome_r64_size"}
scenes = recorded("scene_*.safetensors")


def went_in(tensors, told, **more):
    """The visual tokens that the official code was given."""
    return prumerge.VisualTokens.from_class_sequence(
        *(tensors[name] for name in ("features", "queries", "keys")),
        heads=int(told["heads"]),
        grid=grid_of(told),
        **more,
    )


def scene(path):
    """The recorded tensors, and the visual tokens that went in."""
    tensors, told = read(path)
    relevance = ops.relevance(
        tensors["cdpruner_image_embeds"][0], tensors["cdpruner_text_embeds"], inverted=True
    )
    tokens = went_in(tensors, told, relevance=relevance)
    return {**tensors, "iqr_outliers": torch.tensor(int(told["iqr_outliers"]))}, tokens


@scenes
def test_everything_recorded_is_compared(path):
    assert set(scene(path)[0]) == {*INPUTS, *OFFICIAL.values(), *TOME, "iqr_outliers"}


@scenes
def test_as_many_outliers(path):
    tensors, tokens = scene(path)
    assert ops.outliers(tokens.attention(split_heads=False)).sum() == tensors["iqr_outliers"]


@pytest.mark.parametrize("spec", OFFICIAL)
@scenes
def test_a_method_returns_what_the_official_code_returned(path, spec):
    tensors, tokens = scene(path)
    official, reduction = tensors[OFFICIAL[spec]], prumerge.make(spec)(tokens)
    if official.dtype == torch.int64:
        assert reduction.weights is None
        same_places(reduction, official)
    else:
        same_rows(reduction.apply(tokens), official[0])


@pytest.mark.parametrize("spec", ["tome:r=64", "tome:keep=512"])
@scenes
def test_a_step_of_tome_merges_what_the_official_code_merged(path, spec):
    tensors, tokens = scene(path)
    left = tokens.reduced(prumerge.make(spec)(tokens))
    same_rows(torch.cat([left.class_feature[None], left.features]), tensors["tome_r64_tokens"][0])
    assert torch.equal(left.sizes, tensors["tome_r64_size"][0, 1:, 0])


@scenes
def test_vispruner_in_double_precision_is_the_official_code_on_double_precision(path):
    _, tokens = scene(path)
    exact, _ = read(path.parent / "vispruner_float64" / path.name)
    same_places(
        prumerge.make("vispruner:keep=64,precision=double")(tokens), exact["vispruner_64_r50_float64"]
    )


@pytest.mark.parametrize("spec", [*OFFICIAL, "vispruner:keep=64,precision=double"])
def test_all_scenes_at_once_are_as_one_by_one(spec):
    pictures = [scene(path)[1] for path in sorted(FOLDER.glob("scene_*.safetensors"))]
    method = prumerge.make(spec)
    for together, tokens in zip(method.decide(pictures * 2), pictures * 2, strict=True):
        assert torch.equal(together.index, method(tokens).index)


# one picture of 12 x 12 patches


def product(tensors):
    """The official relevance of TRIM."""
    return -(tensors["trim_image_embeds"] @ tensors["trim_text_embeds"][0])


@pytest.mark.parametrize(
    ("spec", "key"),
    {
        "fastervlm:keep=16": "fastervlm_16",
        "fastervlm:keep=48": "fastervlm_48",
        "hired:keep=0.2": "hired_rate20",
        "holov:keep=24": "holov_24_crops16",
        "holov:keep=48": "holov_48_crops16",
        "vispruner:keep=32": "vispruner_32_r50",
        "vispruner:keep=32,precision=double": "vispruner_32_r50",
        "trim:sharpness=1": "trim_adaptive",
        "trim:keep=0.25": "trim_25",
    }.items(),
)
@recorded("second/image_*.safetensors")
def test_a_method_on_another_picture(path, spec, key):
    tensors, told = read(path)
    first = {name: tensors[name][0] for name in ("features", "queries", "keys")}
    tokens = went_in(first, told, relevance=product(tensors))
    reduction = prumerge.make(spec)(tokens)
    if key.startswith("trim"):
        same_rows(reduction.apply(tokens), tensors[key])
    else:
        same_places(reduction, tensors[key])


@recorded("second/tiles_*.safetensors")
def test_methods_on_tiles(path):
    tensors, told = read(path)
    tokens = went_in(tensors, told)
    first = (
        tensors["first_queries"].flatten(0, 1),
        tensors["first_keys"][:, 1:].flatten(0, 1),
        tensors["first_keys"][:, 0],
    )
    writer = (tokens.queries, tokens.keys, tokens.class_key)
    tokens = replace(tokens, elsewhere=lambda layer: first if layer == "first" else writer)
    same_places(prumerge.make(f"hired:keep={told['hired_exact']}")(tokens), tensors["hired_exact"])
    same_places(prumerge.make("fastervlm:keep=60")(tokens), tensors["fastervlm_12_each"])
    kept = set(prumerge.make(f"hired:keep={told['hired_short']}")(tokens).index.tolist())
    rounded = set(tensors["hired_short"].tolist())
    assert rounded < kept  # keep is met where the official code's rounding loses some
    assert len(kept) - len(rounded) < tokens.grid[0]


@recorded("second/video_*.safetensors")
def test_methods_that_compare_frames(path):
    tensors, told = read(path)
    embeddings, grid = tensors["embeddings"].flatten(0, 1), tuple(grid_of(told))
    tokens = prumerge.VisualTokens(
        features=embeddings, grid=grid, keys=embeddings, queries=embeddings, heads=1
    )
    for rate in (25, 50, 75):
        same_places(prumerge.make(f"evs:keep={1 - rate / 100}")(tokens), tensors[f"evs_q{rate}"])
    for rate in (25, 50):
        vllm = tensors[f"vidcom2_vllm_q{100 - rate}"]
        same_places(prumerge.make(f"vidcom2:keep={len(vllm)},budgets=rounded")(tokens), vllm)
        divided = prumerge.make(f"vidcom2:keep={rate / 100}")(tokens).index
        official, size = tensors[f"vidcom2_r{rate}"], grid[1] * grid[2]
        for frame in range(grid[0]):
            own, theirs = (set(index[index // size == frame].tolist()) for index in (divided, official))
            assert own <= theirs or theirs <= own
            assert abs(len(own) - len(theirs)) <= 1


# between the layers of a language model

INSIDE = {
    "fastv:keep=288,layer=2": "fastv_k2_r50",
    "fastv:keep=144,layer=3": "fastv_k3_r75",
    "pyramiddrop:layers=1-2-3": "pyramiddrop_1-2-3",
    "sparsevlm:keep=192,layers=1-2-3": "sparsevlm_192",
    "sparsevlm:keep=128,layers=1-2-3": "sparsevlm_128",
    "sparsevlm:keep=96,layers=1-2-3": "sparsevlm_96",
    "sparsevlm:keep=64,layers=1-2-3": "sparsevlm_64",
}


@pytest.mark.parametrize(("spec", "key"), INSIDE.items())
@recorded("second/language_*.safetensors")
def test_a_method_between_layers(path, spec, key, monkeypatch):
    tensors, told = read(path)
    ignored = ("dtype", "torch_dtype", "transformers_version", "architectures")
    config = LlavaConfig(
        **{name: value for name, value in json.loads(told["config"]).items() if name not in ignored}
    )
    config._attn_implementation = "eager"
    model = LlavaForConditionalGeneration(config).eval()
    weights = {
        name.removeprefix("weight."): value.float() for name, value in tensors.items() if "weight." in name
    }
    model.load_state_dict(weights)
    ids = tensors["input_ids"].long()
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": tensors["pixel_values"].float(),
    }
    last, method, stages = len(tensors["plain.logits"]), prumerge.make(spec), []
    decide = type(method).__call__

    def noted(self, tokens):
        stages.append(decide(self, tokens))
        return stages[-1]

    monkeypatch.setattr(type(method), "__call__", noted)
    with torch.no_grad():
        same_rows(model(**inputs).logits[0, -last:], tensors["plain.logits"], 1e-3)
        with prumerge.attach(model, method):
            logits = model(**inputs).logits[0, -last:]
    for number, reduction in enumerate(stages):
        if f"{key}.stage{number}" in tensors:
            kept = tensors[f"{key}.stage{number}"]
            assert reduction.index[: len(kept)].sort().values.tolist() == kept.tolist()
    official = tensors[f"{key}.logits"]
    each = official if official.ndim == 3 else official[None]  # several where the official code draws lots
    assert min((logits - one).abs().max() for one in each) <= 1e-3 * max(1.0, float(official.abs().max()))
