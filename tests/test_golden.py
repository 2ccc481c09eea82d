"""The official code's own outputs, where they have been recorded beside the repository."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import prumerge
from prumerge import ops

SCENES = sorted((Path(__file__).parents[2] / "shared" / "golden").glob("*.safetensors"))
pytestmark = pytest.mark.skipif(not SCENES, reason="no recorded outputs in ../shared/golden")

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


@pytest.mark.parametrize("spec", OFFICIAL)
@pytest.mark.parametrize("scene", SCENES, ids=lambda path: path.stem)
def test_a_method_returns_what_the_official_code_returned(scene, spec):
    with safe_open(scene, "pt") as recorded:
        tensors = {name: recorded.get_tensor(name) for name in recorded.keys()}  # noqa: SIM118
        heads, grid = recorded.metadata()["heads"], recorded.metadata()["grid"]
    tokens = prumerge.VisualTokens.from_class_sequence(
        tensors["features"],
        tensors["queries"],
        tensors["keys"],
        heads=int(heads),
        grid=[int(side) for side in grid.split("x")],
        relevance=ops.relevance(
            tensors["cdpruner_image_embeds"][0], tensors["cdpruner_text_embeds"], inverted=True
        ),
    )
    official, reduction = tensors[OFFICIAL[spec]], prumerge.make(spec)(tokens)
    if official.dtype == torch.int64:
        assert reduction.weights is None
        assert reduction.index.tolist() == official.tolist()
    else:
        torch.testing.assert_close(reduction.apply(tokens), official[0], atol=1e-4, rtol=1e-4)
