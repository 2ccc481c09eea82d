"""What the model for hard scenes learns from: drawn once, by processes of their own, into memory they share.

A row is a scene or a clip with its pixels, what its patches show, and its questions as tokens. Three quarters
of the scenes are hard, one quarter is as the embedded model knows them. The first rows are held out.
"""

import mmap
import os
import re
import traceback
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from prumerge.tiny import clips, hard, scenes
from prumerge.tiny.hard_questions import FAMILIES, NUMBERS, hard_questions
from prumerge.tiny.learn_vision import LABELS, centres, cut, labels
from prumerge.tiny.questions import Question, questions
from prumerge.tiny.scenes import GRID, PATCH, Scene, scene
from prumerge.tiny.vocabulary import words

PATCHES, PIXELS = GRID * GRID, 3 * PATCH * PATCH
STORED, LONGEST = 48, 32  # questions of a row, and tokens of a question with its answer
NAMES = [*FAMILIES, "spatial", "ordinary", *clips.FAMILIES]  # families, ordinary ones but for spatial as one
ORDINARY_EVERY = 4  # one scene in so many
EASY = 12  # questions of a hard scene, of those stored, that only say where one or two things are
OFTEN = {"counting": 1.5, "relation": 3.0, "grid": 2.0, "reading": 2.0, "spatial": 1.5, "clip attribute": 0.5}
MANY = 4.0  # how often three and more are the answer, beside fewer, which far more names have
TOGETHER = 128  # rows that go to the device at once, at most


@dataclass(frozen=True)
class Sizes:
    """How many rows there are; those held out come first in each."""

    scenes: int
    clips: int
    held_out_scenes: int
    held_out_clips: int

    @property
    def rows(self) -> int:
        return self.scenes + self.clips

    @property
    def pictures(self) -> int:
        """Scenes, then the frames of the clips."""
        return self.scenes + clips.FRAMES * self.clips


class Pool:
    """The rows in shared memory, and the pictures on the device as they come."""

    def __init__(self, sizes: Sizes, device: str):
        self.sizes, self.device = sizes, device
        self.ids = {word: place for place, word in enumerate(words(hard=True))}
        self.pixels = shared((sizes.pictures, PATCHES, PIXELS), np.uint8)
        self.what = shared((sizes.scenes, PATCHES), np.uint8)
        self.colours = shared((sizes.scenes, PATCHES), np.uint8)
        self.centres = shared((sizes.scenes, PATCHES), np.int16)
        self.labels = shared((sizes.scenes, len(LABELS)), np.uint8)
        self.tokens = shared((sizes.rows, STORED, LONGEST), np.int16)
        self.lengths = shared((sizes.rows, STORED), np.uint8)  # 0: no question
        self.prompts = shared((sizes.rows, STORED), np.uint8)  # tokens before the answer
        self.families = shared((sizes.rows, STORED), np.uint8)
        self.often = shared((sizes.rows, STORED), np.float32)
        self.drawn = shared((sizes.rows,), np.uint8)  # 1: done, 2: failed
        self.ready = 0
        self.processes: list[BaseProcess] = []
        self.on_device: dict[str, Tensor] = {}

    def start(self, workers: int) -> None:
        """Draw from here on; call it before the device is touched. Without workers all is drawn at once."""
        if not workers:
            self.draw_every(0, 1)
        context = get_context("fork")  # what is shared is inherited, whatever the size of /dev/shm
        for number in range(workers):
            process = context.Process(target=self.draw_every, args=(number, workers), daemon=True)
            process.start()
            self.processes.append(process)

    def draw_every(self, first: int, step: int) -> None:
        if step > 1:
            os.nice(5)
        for row in range(first, self.sizes.rows, step):
            try:
                self.draw_scene(row) if row < self.sizes.scenes else self.draw_clip(row)
                self.drawn[row] = 1
            except Exception:  # the others are worth training on
                traceback.print_exc()
                self.drawn[row] = 2

    def draw_scene(self, row: int) -> None:
        found, asked = scene_of(row, self.sizes.held_out_scenes)
        self.pixels[row] = cut(found)
        self.what[row], self.colours[row] = found.what.ravel(), found.colours.ravel()
        self.centres[row], self.labels[row] = centres(found), labels(found)
        self.write(row, asked)

    def draw_clip(self, row: int) -> None:
        number, held_out = row - self.sizes.scenes, self.sizes.held_out_clips
        seeds = scenes.HELD_OUT if number < held_out else scenes.TRAIN
        drawn = clips.clip(seeds.start + (910_000 if number < held_out else 3_000_000) + number)
        first = self.sizes.scenes + clips.FRAMES * number
        for place, frame in enumerate(drawn.frames):
            self.pixels[first + place] = cut(frame)
        self.write(row, clips.clip_questions(drawn, 0, STORED))

    def write(self, row: int, asked: list[Question]) -> None:
        for place, question in enumerate(asked[:STORED]):
            prompt = spelled(f"{question.text} ASSISTANT:", self.ids)
            tokens = [*prompt, *spelled(question.answer, self.ids), self.ids["</s>"]]
            self.tokens[row, place, : len(tokens)] = tokens
            self.lengths[row, place], self.prompts[row, place] = len(tokens), len(prompt)
            family = question.family if question.family in NAMES else "ordinary"
            self.families[row, place] = NAMES.index(family)
            self.often[row, place] = OFTEN.get(family, 1.0) * (
                MANY if question.answer in NUMBERS[3:] else 1.0
            )

    def fetch(self) -> bool:
        """Send rows that are drawn to the device, in their order; whether all are there."""
        if not self.on_device:
            self.on_device = {
                name: torch.empty(getattr(self, name).shape, dtype=kind, device=self.device)
                for name, kind in {
                    "pixels": torch.uint8, "what": torch.uint8, "colours": torch.uint8,
                    "centres": torch.int16, "labels": torch.uint8,
                }.items()
            }  # fmt: skip
        last = min(self.ready + TOGETHER, self.sizes.rows)
        waiting = np.flatnonzero(self.drawn[self.ready : last] == 0)
        last = self.ready + int(waiting[0]) if len(waiting) else last
        for name, tensor in self.on_device.items():
            places = [
                self.place(row) if name == "pixels" else min(row, self.sizes.scenes)
                for row in (self.ready, last)
            ]
            tensor[slice(*places)] = torch.from_numpy(getattr(self, name)[slice(*places)]).to(self.device)
        self.ready = last
        return last == self.sizes.rows

    def place(self, row: int) -> int:
        """The first picture of a row."""
        return row + max(0, row - self.sizes.scenes) * (clips.FRAMES - 1)

    def usable(self, of_clips: bool, held_out: bool = False) -> Int[np.ndarray, "rows"]:
        """Rows that are on the device, of scenes or of clips."""
        sizes = self.sizes
        first, aside = (sizes.scenes, sizes.held_out_clips) if of_clips else (0, sizes.held_out_scenes)
        last = min(self.ready, sizes.rows if of_clips else sizes.scenes)
        rows = np.arange(first, min(first + aside, last)) if held_out else np.arange(first + aside, last)
        return rows[self.drawn[rows] == 1]

    def vision_batch(self, rows: Int[np.ndarray, "batch"]) -> dict[str, Tensor]:
        """All patches of these scenes, as `vision_loss` takes them."""
        chosen = send(rows, torch.device(self.device))
        found = {name: tensor[chosen] for name, tensor in self.on_device.items()}
        return {
            "patches": found["pixels"],
            "index": torch.arange(PATCHES, device=self.device).expand(len(rows), -1),
            "what": found["what"].long(),
            "colours": found["colours"].long(),
            "centres": found["centres"].long(),
            "labels": found["labels"].float(),
        }

    def texts(
        self, rows: Int[np.ndarray, "batch"], count: int, random: np.random.Generator
    ) -> Int[np.ndarray, "5 batch length"]:
        """Up to `count` questions of each row, one after the other: token, place in its question, number of
        the question, the token after it where that is in an answer (else -100), family; -1 behind all."""
        lengths = self.lengths[rows]
        chance = np.where(lengths > 0, self.often[rows], 0)
        which = (random.exponential(size=lengths.shape) / (chance + 1e-9)).argsort(1)[:, :count]
        tokens, lengths = self.tokens[rows[:, None], which].astype(np.int64), lengths_of(lengths, which)
        prompts, place = lengths_of(self.prompts[rows], which), np.arange(LONGEST)
        there = place < lengths[..., None]
        after = np.roll(tokens, -1, 2)
        answering = (place >= prompts[..., None] - 1) & (place < lengths[..., None] - 1)
        parts = (
            tokens,
            np.broadcast_to(place, tokens.shape),
            np.broadcast_to(np.arange(1, count + 1)[:, None], tokens.shape),
            np.where(answering, after, -100),
            np.broadcast_to(lengths_of(self.families[rows], which)[..., None], tokens.shape),
        )
        flat = there.reshape(len(rows), -1)
        at = flat.cumsum(1) - 1
        found = np.full((5, len(rows), int(flat.sum(1).max())), -1)
        found[0] = found[1] = 0
        found[3] = -100
        row, column = flat.nonzero()
        for number, part in enumerate(parts):
            found[number, row, at[row, column]] = part.reshape(len(rows), -1)[row, column]
        return found


def send(values: np.ndarray, device: torch.device) -> Tensor:
    """To the device without waiting for what it has still to do."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def lengths_of(values: np.ndarray, which: Int[np.ndarray, "batch count"]) -> Int[np.ndarray, "batch count"]:
    return np.take_along_axis(values, which, 1).astype(np.int64)


def shared(shape: tuple[int, ...], kind: type) -> Shaped[np.ndarray, "..."]:
    """Zeros in memory that processes forked from this one write to; taken up only as it is written."""
    size = max(1, int(np.prod(shape)) * np.dtype(kind).itemsize)
    return np.frombuffer(mmap.mmap(-1, size), kind, int(np.prod(shape))).reshape(shape)


def scene_of(row: int, held_out: int) -> tuple[Scene, list[Question]]:
    """The scene of a row and its questions; held out are hard scenes alone."""
    if row < held_out:
        found = hard.hard_scene(hard.HELD_OUT.start + 900_000 + row)
        return found, hard_questions(found, 0, STORED)
    if row % ORDINARY_EVERY == 0:
        found = scene(scenes.TRAIN.start + 2_000_000 + row)
        return found, questions(found, 0, STORED)
    found = hard.hard_scene(hard.TRAIN.start + row)
    easy = questions(found, 0, EASY, families=("spatial",))
    return found, [*easy, *hard_questions(found, 0, STORED - len(easy))]


def spelled(text: str, ids: dict[str, int]) -> list[int]:
    """What the tokenizer makes of a text all of whose words it knows, a hundred times as fast."""
    return [ids[word] for word in re.findall(r"[a-z]+|[^\sa-z]", text.lower())]
