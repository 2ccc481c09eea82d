"""TinyGPT-V: BLIP-2's tower and Q-Former, two linear layers and Phi-2; the 32 tokens are what is reduced."""

from prumerge.models._family import Family
from prumerge.models.blip_2 import INPUTS, deliver, encode, project

FAMILY = Family(
    takes="pictures",
    attention="mean over the Q-Former's queries",
    reduced="behind the Q-Former",
    inputs=INPUTS,
    encoder=encode,
    project=project,
    deliver=deliver,
    hands_embeddings=True,
)
