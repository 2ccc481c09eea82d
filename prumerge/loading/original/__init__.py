"""Checkpoints published in the layout of the original LLaVA code, or of TinyLLaVA Factory, as models of
Transformers: LLaVA, LLaVA-Phi, TinyLLaVA, MobileVLM, MoE-LLaVA and others.

Only names differ. The original layout keeps the projector and the tower inside the language model
(`model.mm_projector.0`, `model.vision_tower.vision_tower.vision_model`), TinyLLaVA Factory beside it
(`connector._connector.0`, `vision_tower._vision_tower.vision_model`). A tower that is only named is fetched.
"""

from prumerge.loading.original.folders import open_folder, read
from prumerge.loading.original.weights import from_weights, is_published

__all__ = ["from_weights", "is_published", "open_folder", "read"]
