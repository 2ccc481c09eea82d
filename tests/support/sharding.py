"""A LLaVA in training whose layers, those of the tower too, are sharded among two processes (FSDP2)."""

import copy
import warnings

import torch
from families import FAMILIES, rows_of
from torch import distributed

import prumerge

ROWS = rows_of(FAMILIES["Llava"])


def loss_of(model, row, spec):
    inputs = FAMILIES["Llava"].prompt(row)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == model.config.image_token_id, -100)
    with prumerge.attach(model, spec):
        return model(**inputs, labels=labels).loss


def gradients_where_whole(spec):
    """The loss of each row, and the gradients of their mean."""
    model = copy.deepcopy(FAMILIES["Llava"].model()).train()
    losses = torch.stack([loss_of(model, row, spec) for row in ROWS])
    losses.mean().backward()
    return losses.detach(), {n: w.grad for n, w in model.named_parameters() if w.grad is not None}


def gradients_where_sharded(specs, folder):
    """The same for each of several methods, each row in a process of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # FSDP's, and of Python about forks; no errors in other processes
        # By a fork: what is imported here is there at once.
        torch.multiprocessing.start_processes(_process, (specs, str(folder)), len(ROWS), start_method="fork")
    ranks = [torch.load(folder / f"rank{rank}") for rank in range(len(ROWS))]
    return {spec: (torch.stack([rank[spec][0] for rank in ranks]), ranks[0][spec][1]) for spec in specs}


def _process(rank, specs, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(ROWS)
    )
    mesh = distributed.init_device_mesh("cpu", (len(ROWS),))
    torch.save({spec: _of_one_row(ROWS[rank], spec, mesh) for spec in specs}, f"{folder}/rank{rank}")
    distributed.destroy_process_group()


def _of_one_row(row, spec, mesh):
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    model = copy.deepcopy(FAMILIES["Llava"].model()).train()
    for layer in (*model.model.vision_tower.encoder.layers, *model.model.language_model.layers, model):
        fully_shard(layer, mesh=mesh)
    assert all(isinstance(weight, DTensor) for weight in model.parameters())
    loss = loss_of(model, row, spec)
    loss.backward()
    return loss.detach(), {n: w.grad.full_tensor() for n, w in model.named_parameters() if w.grad is not None}
