"""The processor of a checkpoint, with or without torchvision.

Transformers scales pictures with Pillow where torchvision is missing, but has no such way for videos, so that
processors that take both cannot be made at all. Here their part for videos is left out then: clips are shown
as pictures (`prumerge.loading.clips`).
"""

from __future__ import annotations

from typing import Any

from transformers import AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available

from prumerge.errors import PrumergeError


class NoVideos:
    """What stands in a processor's place for videos."""

    model_input_names: tuple[str, ...] = ()
    _auto_class = None  # which Transformers asks before it saves a processor
    num_frames = fps = None  # which SmolVLM's processor asks for any chat

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> NoVideos:
        return cls()

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise PrumergeError(
            "videos need torchvision in Transformers' processors; pass the frames as pictures"
        )


def processor_of(name: str, config: Any, **options: Any) -> Any:
    """The processor of a checkpoint (folder or id) with this configuration; `options` are those of
    `from_pretrained`, and what it raises is raised."""
    kind = PROCESSOR_MAPPING.get(type(config), None)
    if kind and "video_processor" in kind.get_attributes() and not is_torchvision_available():
        return pictures_only(kind).from_pretrained(name, **options)
    return AutoProcessor.from_pretrained(name, **options)


def pictures_only(kind: Any) -> Any:
    """A class of processors without its part for videos."""

    class Pictures(kind):
        video_processor_class = "NoVideos"

        @staticmethod
        def get_possibly_dynamic_module(module_name: str) -> Any:
            """Transformers asks this for the class of each part, to make it and to check it."""
            if "Video" in module_name:
                return NoVideos
            return kind.get_possibly_dynamic_module(module_name)

        def to_dict(self) -> dict[str, Any]:
            """What is saved."""
            return {name: part for name, part in super().to_dict().items() if name != "video_processor"}

    Pictures.__name__ = Pictures.__qualname__ = kind.__name__
    return Pictures
