"""prumerge as a model of lmms-eval (https://github.com/EvolvingLMMs-Lab/lmms-eval): `--model prumerge`.

lmms-eval finds it by the entry point `lmms_eval.models`; nothing here imports lmms-eval before that.
"""

from __future__ import annotations

from typing import Any

NAME = "prumerge"


def models() -> list[Any]:
    """What lmms-eval is told of: one model, imported when it is asked for."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [ModelManifest(model_id=NAME, chat_class_path=f"{__name__}.chat.Chat")]
