"""Let vLLM import torchvision beside a CPU build of torch, which the wheels of torchvision are not made for.

torchvision declares how two of its compiled operators behave, and fails at import where they could not be
loaded. In the environment of `make vllm-env` this file runs at the start of every Python process, by a .pth
file: when torchvision is imported, the operators are declared first. They cannot be called, and nobody does.
"""

import sys

OPERATORS = ("nms", "qnms")


class Declares:
    """Finds nothing: it declares the operators when it is asked for torchvision."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            for operator in OPERATORS:
                schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{operator}", schema)
        return None


sys.meta_path.insert(0, Declares())
