"""SmolVLM: laid out as Idefics3; a video is its frames' pictures."""

from prumerge.models._delivery import as_they_are
from prumerge.models._family import Family
from prumerge.models.idefics3 import INPUTS, encode

FAMILY = Family(
    takes="pictures",
    attention="mean over the patches",
    reduced="behind the connector",
    inputs=INPUTS,
    since="5.21",
    encode=encode,
    project=as_they_are,
    projector=("connector",),
)
