"""Train the embedded model on for hard scenes and motion: `python -m prumerge.tiny.train_hard --out RUN`.

    vision     the shipped tower on all patches of hard and ordinary scenes, as they are drawn
    cache      features of the frozen tower, kept on the device
    strewn     projector and language model on evenly strewn visual tokens
    few        the same on 16 to 224 tokens: strewn, gathered, alike or merged
    full       the same, and on all visual tokens in half of the steps

The recipe is that of `prumerge.tiny.train` but for three things: three of four scenes are hard, every third
step is about clips, and the tower also learns the coordinates of each object's middle as two numbers,
since a language model of four layers compares numbers far sooner than names of rows. As before, no token is
likelier to be shown for what it shows, and no method of this package takes part.

Everything follows `--minutes`, counted from when the first scenes are drawn. RUN holds two files:
`tiny_hard.tar`, the model as it was at the last export, and `log.jsonl`.
"""

import argparse
import json
import platform
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from prumerge.tiny import WEIGHTS
from prumerge.tiny.architecture import PRESETS, make_model, vision_tower
from prumerge.tiny.clips import FRAMES
from prumerge.tiny.learn_hard_pool import NAMES, PATCHES, STORED, Pool, Sizes, send
from prumerge.tiny.learn_hard_tokens import ordered, shown, strewn
from prumerge.tiny.learn_language import FEWEST, MOST, PREFIX, WHOLE, answer_logits
from prumerge.tiny.learn_vision import VisionHeads, encode, loss_of
from prumerge.tiny.scenes import GRID
from prumerge.tiny.train import make_optimizers
from prumerge.tiny.vocabulary import make_processor

VISION, LANGUAGE = 0.25, {"strewn": 0.25, "few": 0.25, "full": 0.5}  # shares of the minutes, of what is left
CLIPS_EVERY = 3  # one step in so many is about clips
WARM = 0.04  # share of a schedule in which learning rates rise
CHECK_SECONDS, LOG_EVERY = 60, 50
AT_FIRST = 384  # scenes that are there before training begins


@dataclass(frozen=True)
class Shown:
    """What one step shows: tokens of each picture, scenes or clips in the batch, questions of each."""

    count: int
    batch: int
    asked: int


class Run:
    """Model, data and clock."""

    def __init__(self, options: argparse.Namespace, pool: Pool):
        self.options, self.pool, self.began = options, pool, time.monotonic()
        self.folder, self.device = Path(options.out), torch.device(options.device)
        self.random = np.random.default_rng(options.seed)
        torch.manual_seed(options.seed)
        preset = PRESETS[options.preset]
        self.model = make_model(preset, hard=True)
        if options.preset == "full":
            begin_with(self.model, WEIGHTS)
        self.model.to(self.device)
        self.tower = vision_tower(self.model)
        self.heads = VisionHeads(preset.vision_width).to(self.device)
        self.middle = nn.Linear(preset.vision_width, 2).to(self.device)
        self.processor = make_processor(hard=True)
        self.prefix = torch.tensor(self.processor.tokenizer(PREFIX).input_ids, device=self.device)
        self.features = torch.empty(0)
        self.steps: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = {}
        self.lines: list[dict[str, Any]] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the first scenes were there."""
        return time.monotonic() - self.began

    def log(self, **values: Any) -> None:
        line = {"elapsed": round(self.elapsed, 1), **values}
        self.lines.append(line)
        with open(self.folder / "log.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16)


def begin_with(model: LlavaForConditionalGeneration, folder: Path) -> None:
    """Take the parameters of the shipped model; new words begin as any other word."""
    known = LlavaForConditionalGeneration.from_pretrained(folder).float().state_dict()
    with torch.no_grad():
        for name, own in model.state_dict().items():
            old = known[name]
            own[: len(old)].copy_(old)
            if len(own) > len(old) and name.endswith("embed_tokens.weight"):
                own[len(old) :].copy_(
                    old.mean(0) + old.std(0) * torch.randn(len(own) - len(old), old.shape[1])
                )


def train(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision("high")
    torch.backends.cuda.enable_cudnn_sdp(False)  # it would plan anew for every length
    Path(options.out).mkdir(parents=True, exist_ok=True)
    (Path(options.out) / "log.jsonl").unlink(missing_ok=True)
    started = time.monotonic()
    sizes = Sizes(options.scenes, options.clips, options.check_scenes, options.check_scenes // 4)
    pool = Pool(sizes, options.device)
    pool.start(options.workers)
    run = Run(options, pool)
    everything = pool.fetch()
    while pool.ready < min(AT_FIRST + sizes.held_out_scenes, sizes.scenes) and not everything:
        everything = pool.fetch()
        time.sleep(0.01)
    run.began = time.monotonic()
    run.log(stage="start", seconds=round(run.began - started, 1), ready=pool.ready)
    end = options.minutes * 60
    learn_vision(run, VISION * end)
    cache(run)
    learn_language(run, end)
    finish(run, "done")


def paced(run: Run, stage: str, last: float) -> Iterator[float]:
    """How much of a stage is done, step by step, until `last` seconds have gone by since the beginning."""
    first = run.elapsed
    noted, at = first, 0
    while run.elapsed < last:
        yield (run.elapsed - first) / max(last - first, 1e-9)
        run.steps[stage] += 1
        if run.steps[stage] % LOG_EVERY == 0:
            rate = (run.steps[stage] - at) / (run.elapsed - noted)
            noted, at = run.elapsed, run.steps[stage]
            run.log(stage=stage, step=run.steps[stage], steps_per_second=round(rate, 2), ready=run.pool.ready)
    run.seconds[stage] = round(run.elapsed - first, 1)
    run.log(stage=stage, steps=run.steps[stage], seconds=run.seconds[stage], memory_gib=memory(run))


def memory(run: Run) -> float:
    """The most that was taken on the device so far."""
    return round(torch.cuda.max_memory_allocated() / 2**30, 1) if run.device.type == "cuda" else 0.0


def update(run: Run, optimizers: list[torch.optim.Optimizer], loss: Tensor, done: float) -> None:
    """One step of the optimizers; rates rise, then fall in a line to nothing."""
    loss.backward()
    nn.utils.clip_grad_norm_([p for o in optimizers for g in o.param_groups for p in g["params"]], 1.0)
    rate = run.options.rate * min(1.0, done / WARM) * (1 - done)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("highest", group["lr"]) * rate
        optimizer.step()
        optimizer.zero_grad()


def learn_vision(run: Run, last: float) -> None:
    """The tower goes on learning what patches show, while scenes come in."""
    optimizers, everything = make_optimizers([run.tower, run.heads, run.middle]), False
    for done in paced(run, "vision", last):
        everything = everything or run.pool.fetch()
        rows = run.pool.usable(of_clips=False)
        loss, logged = vision_loss(run, run.random.choice(rows, run.options.batch))
        update(run, optimizers, loss, done)
        if run.steps["vision"] % LOG_EVERY == 0:
            run.log(stage="vision", **numbers(logged))
    held_out = run.pool.usable(of_clips=False, held_out=True)
    with torch.no_grad():
        logged = vision_loss(run, held_out[: run.options.batch])[1]
    run.log(stage="vision", held_out=numbers(logged))


def vision_loss(run: Run, rows: Int[np.ndarray, "batch"]) -> tuple[Tensor, dict[str, Tensor]]:
    """That of `learn_vision`, with more weight on where objects are, and their middles as two numbers."""
    batch = run.pool.vision_batch(rows)
    with run.autocast():
        features, state = encode(run.tower, batch["patches"], batch["index"])
        loss, logged = loss_of(run.heads, features, state, batch)
        said = run.middle(run.heads.norm(features)).float()
    seen, middle = batch["what"] > 0, batch["centres"]
    where = torch.stack([middle // GRID, middle % GRID], -1) / GRID
    away = F.smooth_l1_loss(said, where, reduction="none", beta=0.02).sum(-1)
    away = (away * torch.where(seen, 1.0, 0.2)).mean() / torch.where(seen, 1.0, 0.2).mean()
    return loss + 5 * away + 0.5 * logged["place"] + 0.5 * logged["middle"], {**logged, "away": away}


@torch.no_grad()
def cache(run: Run) -> None:
    """The features of all pictures, once all are drawn; then the pixels are let go."""
    first = run.elapsed
    while not run.pool.fetch():
        time.sleep(0.005)
    pixels = run.pool.on_device["pixels"]
    width = PRESETS[run.options.preset].vision_width
    run.features = torch.empty(len(pixels), PATCHES, width, dtype=torch.bfloat16, device=run.device)
    for one in range(0, len(pixels), 256):
        some = pixels[one : one + 256]
        with run.autocast():
            every = torch.arange(PATCHES, device=run.device).expand(len(some), -1)
            run.features[one : one + 256] = encode(run.tower, some, every)[0].to(torch.bfloat16)
    failed = int((run.pool.drawn == 2).sum())
    run.pool.on_device = {}
    run.log(stage="cache", seconds=round(run.elapsed - first, 1), memory_gib=memory(run), failed=failed)


def learn_language(run: Run, end: float) -> None:
    """Projector and language model; one schedule over three stages."""
    first = run.elapsed
    optimizers = make_optimizers([run.model.model.multi_modal_projector, run.model.model.language_model])
    rows = {of_clips: run.pool.usable(of_clips) for of_clips in (False, True)}
    last, checked = first, run.elapsed
    for stage, share in LANGUAGE.items():
        last += share * (end - first)
        for _ in paced(run, stage, last):
            of_clips = run.steps[stage] % CLIPS_EVERY == CLIPS_EVERY - 1
            what = sizes_at_random(stage, of_clips, run.options.batch, run.random)
            chosen = run.random.choice(rows[of_clips], what.batch)
            try:
                logits, labels, _ = answered(run, chosen, of_clips, what, few=stage != "strewn")
                loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=-100)
                update(run, optimizers, loss, (run.elapsed - first) / (end - first))
            except torch.OutOfMemoryError:  # somebody else may be on the device
                run.log(
                    stage=stage, of_clips=of_clips, count=what.count, batch=what.batch, out_of_memory=True
                )
                run.options.batch = max(1, run.options.batch * 3 // 4)
                torch.cuda.empty_cache()
                continue
            if run.steps[stage] % LOG_EVERY in (0, 2):
                run.log(stage=stage, of_clips=of_clips, count=what.count, **numbers({"loss": loss}))
            if run.elapsed - checked > CHECK_SECONDS:
                checked = run.elapsed
                finish(run, stage)


def sizes_at_random(stage: str, of_clips: bool, batch: int, random: np.random.Generator) -> Shown:
    """Tokens of a scene, or of each frame; the larger they are, the fewer are in the batch."""
    if stage == "strewn":
        return Shown(96, max(1, batch // 2), 6) if of_clips else Shown(256, batch, 24)
    if stage == "full" and random.random() < WHOLE:
        return Shown(PATCHES, max(1, batch // 8), 6) if of_clips else Shown(PATCHES, batch, 24)
    fewest, most = (8, 145) if of_clips else (FEWEST, MOST + 1)
    count = int(np.exp(random.uniform(np.log(fewest), np.log(most))))
    return Shown(count, max(1, batch // 2), 6) if of_clips else Shown(count, batch * 3 // 2, 24)


def answered(
    run: Run, rows: Int[np.ndarray, "batch"], of_clips: bool, what: Shown, few: bool
) -> tuple[
    Float[Tensor, "batch text vocabulary"], Int[Tensor, "batch text"], Int[np.ndarray, "5 batch text"]
]:
    """Logits behind each token of the questions, labels, and what `Pool.texts` says of the tokens."""
    frames, prefix, device = FRAMES if of_clips else 1, len(run.prefix), run.device
    seen = frames * what.count
    texts = run.pool.texts(rows, what.asked, run.random)
    missing = -(texts.shape[2] + prefix + seen) % 8  # sizes that attention kernels like
    texts = np.pad(texts, ((0, 0), (0, 0), (0, missing)), constant_values=-1)
    texts[0, :, texts.shape[2] - missing :], texts[3, :, texts.shape[2] - missing :] = 0, -100
    text, at, blocks, labels = send(texts[:4], device)
    first = np.array([run.pool.place(int(row)) for row in rows])
    features = run.features[send((first[:, None] + np.arange(frames)).ravel(), device)].float()
    if what.count < PATCHES:
        order = ordered(features) if few else strewn(len(features), device)
        features, places = shown(features, order, what.count, merging=few)
    else:
        places = torch.arange(PATCHES, device=device).expand(len(features), -1)
    places = places.view(len(rows), frames, -1) + PATCHES * torch.arange(frames, device=device)[:, None]
    spread = torch.rand(len(rows), 1, device=device) < 0.5  # positions as in the whole picture, or close
    visual = torch.where(spread, places.flatten(1), torch.arange(seen, device=device))
    start = prefix + torch.where(spread, frames * PATCHES, seen)
    before = torch.arange(prefix, device=device).expand(len(rows), -1)
    batch = {
        "prefix": run.prefix.expand(len(rows), -1),
        "text": text,
        "positions": torch.cat([before, prefix + visual, start + at.clamp(min=0)], 1),
        "blocks": torch.cat(
            [torch.zeros(len(rows), prefix + seen, dtype=torch.long, device=device), blocks], 1
        ),
    }
    with run.autocast():
        logits = answer_logits(run.model, features.view(len(rows), seen, -1), batch)
    return logits, labels, texts


@torch.no_grad()
def finish(run: Run, stage: str) -> None:
    """Measure on held-out rows, with all tokens and with a quarter of a clip's, and export."""
    found = {}
    for of_clips, count in ((False, PATCHES), (True, PATCHES // 4), (True, PATCHES)):
        rows, size = run.pool.usable(of_clips, held_out=True), 4 if of_clips else 32
        what, right = Shown(count, size, 6 if of_clips else STORED), defaultdict[str, list[bool]](list)
        for one in range(0, len(rows), size):
            logits, labels, texts = answered(run, rows[one : one + size], of_clips, what, few=False)
            wrong = ((logits.argmax(-1) != labels) & (labels != -100)).cpu().numpy()
            for row, places, families in zip(wrong, texts[2], texts[4], strict=True):
                for number in range(1, places.max() + 1):
                    here = places == number
                    right[NAMES[families[here][0]]].append(not row[here].any())
        means = {name: round(float(np.mean(each)), 4) for name, each in sorted(right.items())}
        means["mean"] = round(float(np.mean(list(means.values()))), 4)
        found[f"{'clips' if of_clips else 'scenes'}, {count} tokens of a picture"] = means
    steps = sum(run.steps[name] for name in LANGUAGE)
    run.log(stage=stage, steps=steps, held_out=found)
    export(run, stage)


def export(run: Run, stage: str) -> None:
    """The model and its processor in one file, which replaces its predecessor at once."""
    with tempfile.TemporaryDirectory() as name:
        fresh = make_model(PRESETS[run.options.preset], hard=True)
        fresh.load_state_dict({key: value.cpu() for key, value in run.model.state_dict().items()})
        fresh.to(torch.bfloat16).save_pretrained(name)
        run.processor.save_pretrained(name)
        Path(name, "training-log.json").write_text(json.dumps(summary(run, stage), indent=1) + "\n")
        with tarfile.open(run.folder / "tiny_hard.tar.new", "w") as archive:
            for file in sorted(Path(name).iterdir()):
                archive.add(file, file.name)
    (run.folder / "tiny_hard.tar.new").replace(run.folder / "tiny_hard.tar")


def summary(run: Run, stage: str) -> dict[str, Any]:
    """How the weights were made, and the curves."""
    device = torch.cuda.get_device_name() if run.device.type == "cuda" else platform.machine()
    return {
        "settings": {key: value for key, value in vars(run.options).items() if key != "out"},
        "stage": stage,
        "steps": dict(run.steps),
        "seconds": run.seconds,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": {one.__name__: one.__version__ for one in (torch, transformers, np)},
        "machine": {"device": device, "workers": run.options.workers},
        "log": run.lines,
    }


def numbers(values: dict[str, Tensor]) -> dict[str, float]:
    return {name: round(float(value.detach()), 4) for name, value in values.items()}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("prumerge.tiny.train_hard", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--out", required=True, help="folder for the model and the log")
    add("--minutes", type=float, default=6.6, help="from when the first scenes are drawn to the last step")
    add("--preset", choices=PRESETS, default="full", help="`test` begins from nothing")
    add("--scenes", type=int, default=40_000)
    add("--clips", type=int, default=2_500)
    add("--check-scenes", type=int, default=256, help="held-out scenes; of clips a quarter as many")
    add("--batch", type=int, default=64, help="scenes in a step")
    add("--rate", type=float, default=0.8, help="learning rates, as a share of the usual ones")
    add("--seed", type=int, default=0)
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--bf16", action="store_true", help="compute in bfloat16")
    add("--threads", type=int, default=1)
    add("--workers", type=int, default=1, help="processes that draw")
    return parser


if __name__ == "__main__":
    train(parser().parse_args())
