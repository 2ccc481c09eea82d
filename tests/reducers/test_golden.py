"""The official code's own outputs, where they have been recorded beside the repository."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import prumerge
from prumerge import ops

SCENES = sorted((Path(__file__).parents[3] / "shared" / "golden").glob("*.safetensors"))
pytestmark = pytest.mark.skipif(not SCENES, reason="no recorded outputs beside the repository")

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


@pytest.fixture(params=SCENES, ids=lambda path: path.stem)
def scene(request):
    """The recorded tensors, and the visual tokens that went in."""
    with safe_open(request.param, "pt") as recorded:
        tensors = {name: recorded.get_tensor(name) for name in recorded.keys()}  # noqa: SIM118
        told = recorded.metadata()
    tokens = prumerge.VisualTokens.from_class_sequence(
        tensors["features"],
        tensors["queries"],
        tensors["keys"],
        heads=int(told.pop("heads")),
        grid=[int(side) for side in told.pop("grid").split("x")],
        relevance=ops.relevance(
            tensors["cdpruner_image_embeds"][0], tensors["cdpruner_text_embeds"], inverted=True
        ),
    )
    return {**tensors, **{name: torch.tensor(int(value)) for name, value in told.items()}}, tokens


def test_everything_recorded_is_compared(scene):
    assert set(scene[0]) == {*INPUTS, *OFFICIAL.values(), *TOME, "iqr_outliers"}


def test_as_many_outliers(scene):
    tensors, tokens = scene
    assert ops.outliers(tokens.attention(split_heads=False)).sum() == tensors["iqr_outliers"]


@pytest.mark.parametrize("spec", OFFICIAL)
def test_a_method_returns_what_the_official_code_returned(scene, spec):
    tensors, tokens = scene
    official, reduction = tensors[OFFICIAL[spec]], prumerge.make(spec)(tokens)
    if official.dtype == torch.int64:
        assert reduction.weights is None
        assert reduction.index.tolist() == official.tolist()
    else:
        torch.testing.assert_close(reduction.apply(tokens), official[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spec", ["tome:r=64", "tome:keep=512"])
def test_a_step_of_tome_merges_what_the_official_code_merged(scene, spec):
    tensors, tokens = scene
    left = tokens.reduced(prumerge.make(spec)(tokens))
    features = torch.cat([left.class_feature[None], left.features])
    torch.testing.assert_close(features, tensors["tome_r64_tokens"][0], atol=1e-4, rtol=1e-4)
    assert torch.equal(left.sizes, tensors["tome_r64_size"][0, 1:, 0])
