"""The model that lmms-eval asks: batches, `until`, and a log from which a run that was killed goes on."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from tqdm import tqdm

from prumerge.errors import PrumergeError, unknown
from prumerge.evaluate.lines import Lines
from prumerge.evaluate.plan import fingerprint
from prumerge.lmms_eval.answering import Answer, Answerer
from prumerge.lmms_eval.requests import Asked, Generation, read_messages
from prumerge.loading.clips import FRAMES
from prumerge.loading.devices import chosen
from prumerge.loading.load import load
from prumerge.models import device_of
from prumerge.pipeline.options import Options
from prumerge.spec import make, with_keep

_ANSWER = [one.name for one in fields(Answer)]


@dataclass(frozen=True)
class Waiting:
    """A request that is to be answered."""

    place: int
    """Among the requests."""
    key: str
    """By which the log knows it."""
    asked: Asked
    generation: dict[str, Any]
    told: dict[str, Any]
    """What the log says of it beside the answer."""


def batches(waiting: Iterable[Waiting], size: int) -> Iterator[list[Waiting]]:
    """What can be answered together: with the same settings, and clips apart; each as soon as it is full."""
    groups: dict[str, list[Waiting]] = {}
    for one in waiting:
        kind = _digest([one.generation, one.asked.clip])
        group = groups.setdefault(kind, [])
        group.append(one)
        if len(group) == size:
            yield groups.pop(kind)
    yield from groups.values()


class Chat(lmms):
    """`--model prumerge --model_args model=...,reducer=...,keep=...,log=answers.jsonl`."""

    is_simple = False

    def __init__(
        self,
        model: str = "",
        reducer: str = "prumerge",
        keep: int | float | str | None = None,
        log: str = "",
        batch_size: int | str = 1,
        device: str = "auto",
        dtype: str = "auto",
        device_map: str | None = None,
        frames: int = FRAMES,
        positions: str = "auto",
        separators: str = "keep",
        size_bias: bool = False,
        pretrained: str = "",
        max_batch_size: Any = None,
        **others: Any,
    ) -> None:
        """`pretrained` is what other models of lmms-eval call `model`. `reducer` may stand in quotes, which
        keep its commas: `reducer='prumerge:keep=35,order=score'`; `keep` is its budget, as `prumerge answer`
        takes it. `log` is a file with a line for each answer; what it holds is not asked again. `frames` are
        taken of a clip.

        Raises PrumergeError for whatever is none of these.
        """
        super().__init__()
        if others:
            names = [name for name in Chat.__init__.__annotations__ if name not in ("others", "return")]
            raise PrumergeError(unknown("model argument", next(iter(others)), names))
        if bool(model) == bool(pretrained):
            raise PrumergeError("say which model to load: --model_args model=tiny, an id, or a folder")
        name, spec = str(model or pretrained), str(reducer).strip("'\"")
        spec = str(make(spec if keep is None else with_keep(spec, keep)))
        if not str(batch_size).isdecimal() or not int(batch_size):
            raise PrumergeError(f"--batch_size is a whole number of questions, not {batch_size}")
        options = Options(positions=positions, separators=separators, size_bias=bool(size_bias))  # type: ignore[arg-type]
        given: dict[str, Any] = {} if dtype == "auto" else {"dtype": _dtype(dtype)}
        if device_map is not None:
            loaded, processor = load(name, device_map=device_map, **given)
        else:
            where = chosen(device)
            loaded, processor = load(name, **given)
            loaded = loaded.to(where)
        # None of its attributes is a module: lmms-eval deletes those behind each run.
        self.answerer = Answerer(loaded, processor, spec, options)
        self.batch_size, self.frames, self.log = int(batch_size), int(frames), log
        self.settings = {
            "model": name,
            "weights": fingerprint(loaded),
            "dtype": str(loaded.dtype),
            "reducer": spec,
            "positions": positions,
            "separators": separators,
            "size_bias": bool(size_bias),
            "frames": self.frames,
        }

    @property
    def device(self) -> torch.device:
        """Where lmms-eval has processes meet."""
        return device_of(self.answerer.model)

    def loglikelihood(self, requests: Sequence[Any]) -> Any:
        raise PrumergeError("prumerge generates answers; take a task whose output_type is generate_until")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> Any:
        raise PrumergeError("prumerge answers once; take a task of one round")

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """An answer for each request, in their order. Nothing is swallowed: what fails ends the run."""
        started = time.time()
        lines = Lines(self._log_file()) if self.log else None
        done = {row["key"]: row for file in self._logs() for row in Lines(file).rows if "key" in row}
        answers: dict[int, Answer] = {}
        asked_anew = 0

        def left() -> Iterator[Waiting]:
            for one in self._read(requests):
                if one.key in done:
                    answers[one.place] = Answer(**{name: done[one.key][name] for name in _ANSWER})
                else:
                    yield one

        with tqdm(total=len(requests), desc="prumerge", disable=self.rank != 0) as bar:
            for batch in batches(left(), self.batch_size):
                generation = Generation.read(batch[0].generation)
                found = self.answerer.answer([one.asked for one in batch], generation)
                if lines is not None:
                    pairs = zip(batch, found, strict=True)
                    lines.append(*({"key": one.key, **one.told, **asdict(answer)} for one, answer in pairs))
                asked_anew += len(batch)
                answers |= {one.place: answer for one, answer in zip(batch, found, strict=True)}
                bar.update(len(answers) - bar.n)
            bar.update(len(answers) - bar.n)  # those that the log holds
        in_order = [answers[place] for place in range(len(requests))]
        _report(in_order, time.time() - started, len(requests) - asked_anew)
        return [
            GenerationResult(
                one.text, TokenCounts(input_tokens=one.input_tokens, output_tokens=one.output_tokens)
            )
            for one in in_order
        ]

    def _read(self, requests: Sequence[Any]) -> Iterator[Waiting]:
        """Requests with their pictures, one after the other."""
        times: Counter[str] = Counter()
        for place, request in enumerate(requests):
            _, doc_to_messages, generation, doc_id, task, split = request.args
            messages = doc_to_messages(self.task_dict[task][split][doc_id])
            asked = read_messages(self.answerer.processor, messages, self.frames)
            told = {"task": task, "split": split, "doc_id": doc_id, **self.settings}
            same = _digest([told, generation, asked.digest])
            times[same] += 1  # some are asked several times, to see how answers vary
            yield Waiting(place, _digest([same, times[same]]), asked, dict(generation), told)

    def clean(self) -> None:
        """Keep the model: one that is loaded serves many runs."""

    def _log_file(self) -> Path:
        """Where this process writes."""
        path = Path(self.log)
        return path.with_name(f"{path.stem}-{self.rank}{path.suffix}") if self.rank else path

    def _logs(self) -> list[Path]:
        """What any process wrote."""
        if not self.log:
            return []
        path = Path(self.log)
        named = re.compile(rf"{re.escape(path.stem)}(-\d+)?{re.escape(path.suffix)}")
        return sorted(one for one in path.parent.glob("*") if named.fullmatch(one.name) and one.is_file())


def _report(answers: Sequence[Answer], seconds: float, resumed: int) -> None:
    """What lmms-eval prints and keeps beside the scores."""
    if not answers:
        return
    tokens = sum(one.output_tokens for one in answers)
    log_metrics(
        total_elapsed_time=seconds,
        total_gen_tokens=tokens,
        avg_speed=tokens / max(seconds, 1e-9),
        additional_metrics={
            "num_requests": len(answers),
            "visual_tokens": fmean(one.visual_tokens for one in answers),
            "visual_tokens_in": fmean(one.visual_tokens_in for one in answers),
            "answers_cut": sum(one.cut for one in answers),
            "resumed": resumed,
        },
    )


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, default=str, sort_keys=True).encode()).hexdigest()[:24]


def _dtype(name: str) -> torch.dtype:
    known = ("float32", "float16", "bfloat16")
    if name not in known:
        raise PrumergeError(unknown("dtype", name, ("auto", *known)))
    found: torch.dtype = getattr(torch, name)
    return found
