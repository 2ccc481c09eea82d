"""Train the embedded model from nothing: `python -m prumerge.tiny.train --out RUN --export WEIGHTS`.

    vision          tower on subsets of 128 patches
    vision-full     tower on all patches
    cache           features of the frozen tower, once
    language        projector and language model on evenly strewn visual tokens, until they find things
    language-few    the same on few, gathered and merged tokens
    language-full   the same and mostly all visual tokens

`--whole` leaves out the subsets: the language stages are shown all tokens of every scene, and the result is a
reader that never saw fewer. `--tower WEIGHTS` begins with a finished tower and leaves out the vision stages.

The run can be killed at any time and continues from its last checkpoint when started again. Two processes of
one thread each learn faster on two cores than one process of two threads, and several GPUs work the same way:
`torchrun --nproc-per-node 2 -m prumerge.tiny.train --out RUN`.
"""

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import LlavaForConditionalGeneration

from prumerge.tiny.architecture import PRESETS, make_model, vision_tower
from prumerge.tiny.clips import FRAMES
from prumerge.tiny.learn_language import (
    PicturesToCache,
    QuestionBatches,
    exact_match,
    language_loss,
    merged_at_random,
)
from prumerge.tiny.learn_vision import (
    VisionBatches,
    VisionHeads,
    class_attention,
    encode,
    outliers,
    vision_loss,
)
from prumerge.tiny.scenes import GRID, HELD_OUT, TRAIN
from prumerge.tiny.vocabulary import make_processor

CACHED = (
    TRAIN.start + 6_000_000
)  # scenes of the language stages; those of the vision stages start at TRAIN.start
CHECKED_VISION = HELD_OUT.start + 900_000  # scenes of the checks during training
CHECKED_LANGUAGE = HELD_OUT.start + 910_000
CHECKPOINT_SECONDS = 60
# attribute, existence, counting, spatial, multiple choice, reading
MIX = (2.0, 2.0, 2.0, 2.0, 3.0, 1.5)
FEW_MIX = (1.5, 3.0, 2.5, 2.5, 2.0, 1.0)
SLOW_MIX = (1.0, 1.5, 4.0, 3.0, 1.5, 0.7)
MAY_CHANGE = ["out", "export", "threads", "workers", "stop_after", "device", "minutes"]  # when resuming


@dataclass(frozen=True)
class Stage:
    name: str
    steps: int
    batch: int
    tokens: int  # visual tokens per picture
    rate: tuple[float, float]  # learning rate at the start and at the end, as a share of the highest
    share: float  # of the minutes, if those are limited
    check_every: int
    often: tuple[float, ...] = ()  # how often each family of questions is asked
    few: bool = False  # whether subsets are as small, gathered and merged as methods make them


def stages(options: argparse.Namespace) -> list[Stage]:
    patches, small = GRID * GRID, options.preset == "test"
    batch = 2 if small else options.batch
    half, quarter = max(batch // 2, 2), max(batch // 4, 2)
    every, few = options.check_every, not options.whole
    vision, vision_full = (0, 0) if options.tower else (options.vision_steps, options.vision_full_steps)
    return [
        Stage("vision", vision, batch, 128, (1, 0.3), 0.19, every),
        Stage("vision-full", vision_full, quarter, patches, (0.3, 0), 0.04, every),
        Stage("cache", -(-(options.scenes + FRAMES * options.clips) // 16), 16, patches, (0, 0), 1, every),
        Stage("language", options.language_steps, half, 256 if few else patches, (1, 0.5), 0.4, every, MIX),
        Stage(
            "language-few",
            options.language_few_steps,
            half,
            224 if few else patches,
            (0.5, 0.25),
            0.16,
            every,
            FEW_MIX,
            few=few,
        ),
        Stage(
            "language-full",
            options.language_full_steps,
            quarter,
            patches,
            (0.5, 0),
            0.21,
            every,
            SLOW_MIX,
            few=few,
        ),
    ]


class Run:
    """Everything that changes while training, and how it is kept on disk."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.folder = options, Path(options.out)
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processor = make_processor()
        torch.manual_seed(options.seed)
        self.model = make_model(PRESETS[options.preset]).to(options.device)
        self.heads = VisionHeads(PRESETS[options.preset].vision_width).to(options.device)
        self.tower = vision_tower(self.model)
        self.stage, self.step, self.elapsed = 0, 0, 0.0
        self.optimizers: list[torch.optim.Optimizer] = []
        self.seconds: dict[str, float] = {}
        self.started = self.saved = time.monotonic()

    @property
    def settings(self) -> dict[str, Any]:
        settings = {name: value for name, value in vars(self.options).items() if name not in MAY_CHANGE}
        return {**settings, "processes": self.world}

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            if self.options.start:
                start = torch.load(Path(self.options.start) / "checkpoint.pt", weights_only=True)
                self.model.load_state_dict(start["model"])
                self.heads.load_state_dict(start["heads"])
            if self.options.tower:
                finished = LlavaForConditionalGeneration.from_pretrained(self.options.tower).float()
                self.tower.load_state_dict(vision_tower(finished).state_dict())
            self.enter(0)
            return
        state = torch.load(path, map_location=self.options.device, weights_only=True)
        different = sorted(k for k, v in self.settings.items() if state["settings"].get(k) != v)
        if different:
            raise SystemExit(
                f"{path} was made with another {', '.join(different)}: "
                "give the settings it was started with, or another --out"
            )
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.enter(state["stage"])
        self.step, self.elapsed, self.seconds = state["step"], state["elapsed"], state["seconds"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def save(self) -> None:
        self.saved = time.monotonic()
        if self.rank:
            return
        state = {
            "settings": self.settings,
            "stage": self.stage,
            "step": self.step,
            "elapsed": self.elapsed,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        path = self.folder / "checkpoint.pt"
        torch.save(state, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)

    def enter(self, number: int) -> None:
        """Start a stage; the optimizers carry on if it trains what the one before did."""
        stage = stages(self.options)[number].name if number < len(stages(self.options)) else "done"
        if stage in ("vision", "language") or not self.optimizers:
            trained: list[nn.Module] = []
            if stage.startswith("vision"):
                trained = [self.tower, self.heads]
            elif stage.startswith("language"):
                trained = [self.model.model.multi_modal_projector, self.model.model.language_model]
            self.optimizers = make_optimizers(trained) if trained else []
        if stage == "cache":
            self.optimizers = []
        self.stage, self.step, self.elapsed = number, 0, 0.0

    def log(self, **values: Any) -> None:
        if self.rank:
            return
        line = json.dumps({"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), **values})
        with open(self.folder / "log.jsonl", "a") as file:
            file.write(line + "\n")
        print(line, flush=True)


def make_optimizers(trained: list[nn.Module]) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the rest."""
    named = [(name, p) for module in trained for name, p in module.named_parameters()]
    matrices = [p for name, p in named if p.ndim == 2 and ("layers." in name or name.startswith("linear_"))]
    inside = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in inside]
    return [
        torch.optim.Muon(matrices, lr=2.5e-3, adjust_lr_fn="match_rms_adamw", weight_decay=0.05),
        torch.optim.AdamW(rest, lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def train(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    if options.whole:
        options.clips = 0  # all tokens of eight frames are more than any method hands over
    run = Run(options)
    if run.world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if options.device == "cuda" else "gloo")
    run.resume()
    plan = stages(options)
    steps = 0
    while run.stage < len(plan):
        stage = plan[run.stage]
        work = cache_step if stage.name == "cache" else train_step
        began, before = time.monotonic(), run.elapsed
        for batch in batches(run, stage):
            if work is train_step and progress(run, stage) >= 1:
                break
            logged = work(run, stage, batch)
            run.step += 1
            run.elapsed = before + time.monotonic() - began
            steps += 1
            if run.step % 20 == 0:
                run.log(stage=stage.name, step=run.step, elapsed=round(run.elapsed), **numbers(logged))
            if run.step % stage.check_every == 0 and work is train_step:
                check(run, stage)
            if time.monotonic() - run.saved > CHECKPOINT_SECONDS:
                run.save()
            if options.stop_after and steps >= options.stop_after:
                run.save()
                return
        if work is train_step:
            check(run, stage)
        run.seconds[stage.name] = run.elapsed
        run.enter(run.stage + 1)
        run.save()
        if run.world > 1:
            dist.barrier()  # all features are there before anybody reads them
    export(run)
    if run.world > 1:
        dist.destroy_process_group()


def progress(run: Run, stage: Stage) -> float:
    """How much of the stage is done, by steps or by the first process's minutes, whichever is further."""
    minutes = run.options.minutes * stage.share if run.options.minutes else float("inf")
    done = torch.tensor(max(run.step / max(stage.steps, 1), run.elapsed / 60 / minutes))
    if run.world > 1 and run.options.minutes:
        done = done.to(run.options.device)
        dist.broadcast(done, 0)
    return float(done)


def batches(run: Run, stage: Stage) -> Iterator[dict[str, Tensor]]:
    """The remaining batches of the stage, or this process's share of each."""
    options = run.options
    data: Dataset
    batch, count = -(-stage.batch // run.world), stage.steps * run.world
    if stage.name.startswith("vision"):
        first = TRAIN.start + (0 if stage.name == "vision" else 5_000_000)
        data = VisionBatches(first, batch, stage.tokens, count)
    elif stage.name == "cache":
        data = PicturesToCache(CACHED, options.scenes, options.clips, batch)
        count = len(data)
    else:
        data = QuestionBatches(
            run.processor.tokenizer, CACHED, options.scenes, batch, stage.tokens, options.questions,
            count, seed=1000 * options.seed + run.stage, often=stage.often, clips=options.clips,
            alike=run.world, few=stage.few, features=features_file(run) if stage.few else None,
        )  # fmt: skip
    loader = DataLoader(
        data, batch_size=None, sampler=range(run.step * run.world + run.rank, count, run.world),
        num_workers=options.workers, prefetch_factor=8 if options.workers else None,
    )  # fmt: skip
    for batch in loader:
        yield {name: values.to(options.device) for name, values in batch.items()}


def train_step(run: Run, stage: Stage, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """One update of the parameters."""
    done, warm = progress(run, stage), min(1, (run.step + 1) / 100)
    start, end = stage.rate
    warm = warm if start == 1 else 1
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group.setdefault("highest", group["lr"])
            group["lr"] = group["highest"] * run.options.rate * warm * (start + (end - start) * done)
    with torch.autocast(run.options.device, torch.bfloat16, enabled=run.options.bf16):
        if stage.name.startswith("vision"):
            loss, logged = vision_loss(run.tower, run.heads, batch)
        else:
            salt = run.options.seed, run.stage, run.step, run.rank
            kept = batch["positions"].shape[1] - batch["text"].shape[1] - batch["prefix"].shape[1]
            features = cached(run, batch)
            features = (
                merged_at_random(features, batch["places"], kept, salt) if stage.few else features[:, :kept]
            )
            loss, logged = language_loss(run.model, features, batch)
    loss.backward()
    parameters = [
        p for optimizer in run.optimizers for group in optimizer.param_groups for p in group["params"]
    ]
    if run.world > 1:
        average_gradients(parameters, run.world)
    nn.utils.clip_grad_norm_(parameters, 1.0)
    for optimizer in run.optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return logged


def average_gradients(parameters: list[nn.Parameter], world: int) -> None:
    """Over all processes, in one exchange."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    together /= world
    for p, mean in zip(parameters, together.split([p.numel() for p in parameters]), strict=True):
        p.grad = mean.view_as(p)


def features_file(run: Run, mode: Literal["r", "r+"] = "r") -> np.memmap:
    """The features of the cached scenes and of the clips' frames, on disk."""
    return np.memmap(run.folder / "features.f16", np.float16, mode, shape=features_shape(run))


def features_shape(run: Run) -> tuple[int, int, int]:
    pictures = run.options.scenes + FRAMES * run.options.clips
    return pictures, GRID * GRID, PRESETS[run.options.preset].vision_width


def cache_step(run: Run, stage: Stage, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    path = run.folder / "features.f16"
    with open(path, "ab") as whole:  # as large as it will be, whichever process comes first
        whole.truncate(2 * int(np.prod(features_shape(run))))
    file = features_file(run, "r+")
    with torch.no_grad():
        features, _ = encode(run.tower, batch["patches"], batch["index"])
    rows = file[(run.step * run.world + run.rank) * len(features) :][: len(features)]
    rows[:] = features[: len(rows)].float().cpu().numpy()
    file.flush()
    return {}


def cached(run: Run, batch: dict[str, Tensor]) -> Tensor:
    """The chosen visual tokens of the batch's pictures."""
    file = features_file(run)
    rows, index = batch["rows"].cpu().numpy(), batch["index"].cpu().numpy()
    return torch.from_numpy(file[rows, index]).float().to(run.options.device)


def check(run: Run, stage: Stage) -> None:
    """Measure on held-out scenes, log, and export once there is something that answers."""
    if run.rank:
        return
    if stage.name.startswith("vision"):
        run.log(
            stage=stage.name, step=run.step, elapsed=round(run.elapsed), held_out=check_vision(run, stage)
        )
    else:
        run.log(stage=stage.name, step=run.step, elapsed=round(run.elapsed), held_out=check_language(run))
        export(run)


def check_vision(run: Run, stage: Stage) -> dict[str, float]:
    totals: dict[str, list[float]] = defaultdict(list)
    with torch.no_grad():
        some = VisionBatches(CHECKED_VISION, 8, stage.tokens, run.options.check_scenes // 8)
        for place in range(len(some)):
            batch = {name: values.to(run.options.device) for name, values in some[place].items()}
            for name, value in vision_loss(run.tower, run.heads, batch)[1].items():
                totals[name].append(float(value))
        whole = VisionBatches(CHECKED_VISION, 8, GRID * GRID, 2)
        for place in range(len(whole)):
            batch = whole[place]
            attention = class_attention(
                run.tower, batch["patches"].to(run.options.device), batch["index"].to(run.options.device)
            )
            totals["attention_outliers"] += outliers(attention).tolist()
            objects = (batch["what"] > 0).to(attention.device)
            totals["attention_on_objects"].append(float((attention * objects).sum(-1).mean()))
    return {name: round(float(np.mean(values)), 4) for name, values in totals.items()}


def check_language(run: Run) -> dict[str, float]:
    """Exact match per family: all visual tokens of scenes, one in eight of clips."""
    found: dict[str, list[bool]] = defaultdict(list)
    count, size, device = run.options.check_scenes, FRAMES, run.options.device
    data = QuestionBatches(
        run.processor.tokenizer, CHECKED_LANGUAGE, count, size, GRID * GRID, run.options.questions, 1, seed=0
    )
    pictures = PicturesToCache(CHECKED_LANGUAGE, count, count // 4, size)
    for place in range(len(pictures)):
        with torch.no_grad():
            picture = {name: values.to(device) for name, values in pictures[place].items()}
            features, _ = encode(run.tower, picture["patches"], picture["index"])
        of_clips, random = place >= count // size, np.random.default_rng(place)
        rows = np.array([place - count // size]) if of_clips else np.arange(place * size, (place + 1) * size)
        batch = data.pack(rows, 0, random, of_clips=of_clips)
        batch = {name: values.to(device) for name, values in batch.items()}
        if of_clips:
            features = features.flatten(0, 1)[batch["places"][:, : GRID * GRID]]
        for family, right in exact_match(run.model, features.float(), batch):
            found[family].append(right)
    return {family: round(float(np.mean(right)), 4) for family, right in found.items()}


def numbers(values: dict[str, Tensor]) -> dict[str, float]:
    return {name: round(float(value.detach()), 4) for name, value in values.items()}


def export(run: Run) -> None:
    """Write the model and its processor; each file replaces its predecessor at once, the weights last."""
    if run.rank:
        return
    target = Path(run.options.export or run.folder / "weights")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run.folder) as name:
        fresh = make_model(PRESETS[run.options.preset])
        fresh.load_state_dict(run.model.state_dict())
        fresh.to(torch.bfloat16).save_pretrained(name)
        run.processor.save_pretrained(name)
        (Path(name) / "training-log.json").write_text(json.dumps(summary(run), indent=1) + "\n")
        for file in sorted(Path(name).iterdir(), key=lambda path: path.suffix == ".safetensors"):
            shutil.copyfile(file, target / (file.name + ".new"))
            os.replace(target / (file.name + ".new"), target / file.name)


def summary(run: Run) -> dict[str, Any]:
    """What a reader of the weights wants to know: how they were made, and the curves."""
    log = run.folder / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    plan = stages(run.options)
    return {
        "settings": {**run.settings, "minutes": run.options.minutes},
        "stage": plan[run.stage].name if run.stage < len(plan) else "done",
        "seconds": {name: round(seconds) for name, seconds in run.seconds.items()},
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": np.__version__,
        },
        "machine": {
            "device": run.options.device,
            "processor": platform.machine(),
            "threads": run.options.threads,
            "processes": run.world,
        },
        "held_out": [line for line in lines if "held_out" in line],
        "training": [line for line in lines if "held_out" not in line and line["step"] % 200 == 0],
    }


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "prumerge.tiny.train", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    add = parser.add_argument
    add("--out", required=True, help="folder of the run: checkpoint, log, cached features")
    add("--export", help="folder for the finished model (default: OUT/weights)")
    add("--preset", choices=PRESETS, default="full")
    add("--start", help="folder of another run, whose parameters this one begins with")
    add("--tower", help="folder of a finished model, whose vision tower this one keeps")
    add("--whole", action="store_true", help="show all visual tokens of every scene, and no clips")
    add("--rate", type=float, default=1.0, help="learning rates, as a share of the usual ones")
    add("--seed", type=int, default=0)
    add("--minutes", type=float, help="end the training stages after this time in all, cutting steps short")
    add("--vision-steps", type=int, default=1150)
    add("--vision-full-steps", type=int, default=160)
    add("--language-steps", type=int, default=1600)
    add("--language-few-steps", type=int, default=800)
    add("--language-full-steps", type=int, default=1100)
    add("--scenes", type=int, default=8000, help="scenes with cached features")
    add("--clips", type=int, default=400, help="clips with cached features")
    add("--questions", type=int, default=24, help="questions per scene and step, at most")
    add(
        "--batch", type=int, default=48, help="scenes per step of the first stage; later ones take 1/4 or 1/2"
    )
    add("--check-every", type=int, default=250, help="steps between measurements on held-out scenes")
    add("--check-scenes", type=int, default=64)
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--bf16", action="store_true", help="compute in bfloat16: faster on GPUs and on CPUs made for it")
    add("--threads", type=int, default=1)
    add("--workers", type=int, default=1, help="processes that draw scenes; 0: none")
    add("--stop-after", type=int, help="stop after this many steps, to be resumed")
    return parser


if __name__ == "__main__":
    train(parser().parse_args())
