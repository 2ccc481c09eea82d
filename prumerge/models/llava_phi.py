"""LLaVA-Phi and TinyLLaVA with Phi: LLaVA whose language model's head has a bias."""

from prumerge.models._family import Family
from prumerge.models.llava import INPUTS, encode, project

FAMILY = Family(
    takes="pictures",
    attention="class token, or with SigLIP the mean over patches",
    reduced="before the projector",
    inputs=INPUTS,
    encoder=encode,
    project=project,
    merges=True,
)
