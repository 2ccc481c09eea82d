"""Training in two processes: as torchrun starts them, on the CPU."""

import copy
import os
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from forked import forked
from torch import distributed
from training import arguments, asked, rows, small_lora, talk

from prumerge.train.batches import Batches
from prumerge.train.trainer import ReducedTrainer

# Pictures whose own choice differs in number, and rows of words alone in the second place.
DATA = [asked("w5 w6", "w7 w8", 0), talk("w9", "w8 w7 w5"), asked("w9 w5 w6", "w8", 1), talk("w5 w7", "w9")]
DATA += [asked("w8", "w5 w7", 3), asked("w7 w7", "w9", 4)]


def trainer(batch, **more):
    model, processor = small_lora()
    given = {
        "per_device_train_batch_size": batch,
        "train_sampling_strategy": "sequential",
        "max_steps": 3,
        "learning_rate": 2e-4,
        **more,
    }
    return ReducedTrainer(model, arguments(**given), rows(*DATA), Batches(processor), "prumerge")


def trained(one):
    """Losses, and what the trained parameters became."""
    one.train()
    losses = [entry["loss"] for entry in one.state.log_history if "loss" in entry]
    return losses, {name: w.detach().clone() for name, w in one.model.named_parameters() if w.requires_grad}


def step(one, data, sharded=False):
    """The loss of some rows, and the gradients of what is trained."""
    if sharded:
        from torch.distributed.fsdp import fully_shard

        inner = one.model.get_base_model().model
        mesh = distributed.init_device_mesh("cpu", (distributed.get_world_size(),))
        # As Accelerate wraps by default: the layers that the model says not to split, and the whole.
        for layer in (*inner.vision_tower.encoder.layers, *inner.language_model.layers, one.model):
            fully_shard(layer, mesh=mesh)
    batch = one.data_collator(rows(*data))
    one.model.train()
    loss = one.compute_loss(one.model, batch)
    loss.backward()
    one.detach()
    full = {n: w.grad for n, w in one.model.named_parameters() if w.grad is not None}
    return loss.detach(), {n: g.full_tensor() if sharded else g for n, g in full.items()}


def in_two(work, folder):
    """What `work`, a function of this file, gives in each of two processes."""
    for process in [forked(_process, rank, work, str(folder)) for rank in range(2)]:
        process.join()
        assert process.exitcode == 0
    return [torch.load(Path(folder) / f"rank{rank}") for rank in range(2)]


def _process(rank, work, folder):
    AcceleratorState._reset_state(reset_partial_state=True)  # of the process that this one is a copy of
    port = 20_000 + os.getppid() % 20_000
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.save(globals()[work](), f"{folder}/rank{rank}")
    if distributed.is_initialized():
        distributed.destroy_process_group()


def two_of_one():
    return trained(trainer(1, ddp_backend="gloo", ddp_find_unused_parameters=True))


def sharded():
    one = trainer(1, ddp_backend="gloo")
    return step(one, [DATA[[0, 4][distributed.get_rank()]]], sharded=True)


def whole():
    """The same where nothing is divided: each row's loss, and the gradients of their mean."""
    found = [step(copy.deepcopy(trainer(1)), [DATA[place]]) for place in (0, 4)]
    names = found[0][1]
    return [loss for loss, _ in found], {n: (found[0][1][n] + found[1][1][n]) / 2 for n in names}
