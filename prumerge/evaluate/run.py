"""Ask every question with every method, each picture encoded once; a run can be stopped and continued."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from statistics import fmean
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from prumerge.compose import Placed
from prumerge.errors import PrumergeError
from prumerge.evaluate.records import Log, Record, by_method
from prumerge.evaluate.scoring import score
from prumerge.generate.stopwatch import Stopwatch
from prumerge.layers.pruning import average_tokens, pruning
from prumerge.loading.load import question_prompt
from prumerge.models import unwrap
from prumerge.pipeline.splice import ask as with_words
from prumerge.pipeline.splice import encode, splice
from prumerge.reducer import Reducer
from prumerge.spec import make
from prumerge.tiny.benchmarks import BENCHMARKS, VIDEO, WHOLE, Item, asked
from prumerge.tiny.scenes import Scene
from prumerge.tokens import VisualTokens

PICTURES = 8  # encoded together, at least


@dataclass(frozen=True)
class Job:
    """A method at a budget."""

    label: str
    spec: str


@dataclass(frozen=True)
class Plan:
    """What is to be asked."""

    methods: tuple[str, ...]
    budgets: tuple[int, ...]
    adaptive: bool
    """Whether adaptive methods run with their own choice as well, and the others at the mean of each."""
    benchmarks: tuple[str, ...]
    questions: int
    """In each benchmark."""
    unseen: bool = False
    """Whether on a font and on coloured shapes that training never showed."""

    @classmethod
    def read(cls, methods: str, budgets: str, benchmarks: str, questions: int, unseen: bool = False) -> Plan:
        """From what a user writes, names separated by commas. Raises ValueError naming what there is."""
        names = list(dict.fromkeys(_parts(benchmarks)))
        names = [*BENCHMARKS, *({VIDEO} & set(names))] if "all" in names else names
        if unknown := [name for name in names if name not in (*BENCHMARKS, VIDEO)]:
            raise PrumergeError(
                f"there is no benchmark {unknown[0]!r}; choose from: all, {', '.join(BENCHMARKS)}, {VIDEO}"
            )
        kept = _parts(budgets)
        counts = [budget for budget in kept if budget != "auto"]
        if not all(count.isdecimal() and int(count) for count in counts):
            raise PrumergeError(
                f"budgets are whole numbers of visual tokens or auto, such as 36,144,auto, not {budgets!r}"
            )
        if questions % WHOLE or questions < WHOLE:
            fewer = max(WHOLE, questions // WHOLE * WHOLE)
            raise PrumergeError(
                f"questions come in groups of {WHOLE}, which keep pairs and rotations whole and answers "
                f"balanced: {fewer} or {fewer + WHOLE}, not {questions}"
            )
        specs = list(dict.fromkeys([*_specs(methods), "random"]))
        for spec in specs:
            method = make(spec).parts[-1]
            if method.keep != type(method).keep:
                raise PrumergeError(f"{spec}: budgets are the same for all methods, give them by --keep")
        specs = [spec for spec in specs if spec != "none"]
        fixed = dict.fromkeys(int(count) for count in counts)
        return cls(tuple(specs), tuple(fixed), "auto" in kept, tuple(names), questions, unseen)

    def settings(self, name: str, model: Any) -> dict[str, Any]:
        """What answers depend on; methods, budgets and benchmarks may be added to a run."""
        return {
            "model": name,
            "weights": fingerprint(model),
            "device": model.device.type,
            "questions": self.questions,
            "unseen": self.unseen,
        }

    def fixed(self, tokens: VisualTokens) -> list[Job]:
        """`none`, and every method at every budget; `tokens` is any picture or clip to count on, with words
        for methods that read them."""
        return [
            Job("none", "none"),
            *(at(spec, budget, tokens) for budget in self.budgets for spec in self.methods),
        ]

    def own_choice(self) -> list[Job]:
        """Adaptive methods without a budget."""
        return [Job(f"{spec}@auto", spec) for spec in self.methods if self.adaptive and _is_adaptive(spec)]


@torch.inference_mode()
def at(spec: str, budget: int, tokens: VisualTokens) -> Job:
    """A method that hands over exactly `budget` tokens of a picture or of each frame of a clip.

    One that hands over more than its `keep` (PruMerge's extra token) is given a smaller one. Inside the
    language model `keep` is what the paper calls so; the records say how many tokens its layers read. A
    method that compares frames gets the budget of all frames together, and chooses how to divide it.
    """
    frames = tokens.frames()
    seen, keep = (tokens, budget * len(frames)) if _compares_frames(make(spec)) else (frames[0], budget)
    method = make(_with_keep(spec, keep))
    handed = len((Placed.of(method).before or make("none"))(seen))
    surplus = handed - keep if method.parts[-1].place == Reducer.place else 0
    if surplus >= keep:
        raise PrumergeError(f"{spec} cannot hand over as few as {budget} visual tokens")
    return Job(f"{spec}@{budget}", _with_keep(spec, keep - surplus))


def fingerprint(model: Any) -> str:
    """Of the weights, by a few values of each: a model that was trained further is another one."""
    values = torch.cat([weight.detach().flatten()[:64].float().cpu() for weight in model.parameters()])
    return sha256(values.numpy().tobytes()).hexdigest()[:12]


def run(model: Any, processor: Any, plan: Plan, log: Log, track: Callable[[int, int], None]) -> None:
    """Answer all that is not in the log yet; `track` is told how many answers came and how many will.

    Adaptive methods go first; then the others are asked at the mean number of tokens that each of them kept.
    """
    shown, items = next(asked(1, plan.benchmarks))
    pixels = processor.image_processor([frame.image for frame in shown], return_tensors="pt")
    with torch.inference_mode():
        encoded = encode(model, pixels.to(model.device))
        words = _tokenised(model, processor, [(range(len(shown)), items[0])], encoded)
        tokens = VisualTokens.from_frames(with_words(model, words, encoded))
    each = plan.questions * len(plan.benchmarks)
    own, fixed = plan.own_choice(), plan.fixed(tokens)
    rivals = [spec for spec in plan.methods if not _is_adaptive(spec)]
    total = each * (len(fixed) + len(own) * (1 + len(rivals)))
    ask(model, processor, [*fixed, *own], plan, log, lambda done: track(done, total))
    groups = by_method(log.records)
    # Of one picture: a clip has several.
    means = {
        round(fmean(one.tokens_kept * encoded[0].patches / one.tokens_in for one in groups[job.label]))
        for job in own
    }
    matched = [at(spec, mean, tokens) for mean in sorted(means) for spec in rivals]
    matched = [job for job in matched if job not in fixed]
    total = each * (len(fixed) + len(own) + len(matched))
    ask(model, processor, matched, plan, log, lambda done: track(done, total))


@torch.inference_mode()
def ask(
    model: Any, processor: Any, jobs: Sequence[Job], plan: Plan, log: Log, advance: Callable[[int], None]
) -> None:
    """Every question of the plan to every method; what the log holds is not asked again."""
    done = {record.key for record in log.records}
    methods = [(job, make(job.spec)) for job in jobs]
    towers = dict.fromkeys(Placed.of(method).tower for _, method in methods)
    shown = iter(asked(plan.questions, plan.benchmarks, plan.unseen) if jobs else ())
    while batch := _next_pictures(shown):
        images, items = batch
        left = {
            job: [(places, item) for places, item in items if (job.label, item.id) not in done]
            for job in jobs
        }
        advance(sum(len(items) - len(rest) for rest in left.values()))
        if not any(left.values()):
            continue
        pixels = processor.image_processor(images, return_tensors="pt").to(model.device)
        for tower in towers:  # once for all methods that leave the tower alone, anew for each that does not
            watch = Stopwatch(model.device)
            encoded = encode(model, pixels, tower)
            encode_ms = watch.lap() / len(items)
            for job, method in methods:
                if left[job] and Placed.of(method).tower == tower:
                    for record in _answers(model, processor, job, method, encoded, left[job], encode_ms):
                        log.append(record)
                    advance(len(left[job]))


def _next_pictures(
    shown: Iterator[tuple[tuple[Scene, ...], list[Item]]],
) -> tuple[list[Image], list[tuple[range, Item]]] | None:
    """Some pictures, the frames of a clip together, and each question with the places of its pictures."""
    images: list[Image] = []
    items: list[tuple[range, Item]] = []
    while len(images) < PICTURES and (following := next(shown, None)):
        frames, about = following
        places = range(len(images), len(images) + len(frames))
        images += [frame.image for frame in frames]
        items += [(places, item) for item in about]
    return (images, items) if items else None


def _answers(
    model: Any,
    processor: Any,
    job: Job,
    method: Reducer,
    encoded: list[VisualTokens],
    items: list[tuple[range, Item]],
    encode_ms: float,
) -> Iterable[Record]:
    """One method's answers to questions about encoded pictures, in one batch."""
    inputs = _tokenised(model, processor, items, encoded)
    before = Placed.of(method).before or make("none")
    together = _compares_frames(before)
    seen = [[places] if together else [range(one, one + 1) for one in places] for places, _ in items]
    pictures = {
        places: VisualTokens.from_frames([encoded[place] for place in places])
        for each in seen
        for places in each
    }
    shown = [places for each in seen for places in each]
    watch = Stopwatch(model.device)
    if any("text" in part.needs for part in before.parts):  # it decides anew for each question
        anew = with_words(model, inputs, [pictures[places] for places in shown])
        chosen = [(tokens, before(tokens)) for tokens in anew]
    else:
        reductions = {places: before(tokens) for places, tokens in pictures.items()}
        chosen = [(pictures[places], reductions[places]) for places in shown]
    reduce_ms = watch.lap() / len(items)
    prompt = splice(model, inputs, chosen)
    encode_ms += watch.lap() / len(items)  # the projector
    with pruning(model, method) as inside:
        said = model.generate(**prompt, max_new_tokens=12, do_sample=False, streamer=watch)
    kept = iter(average_tokens(inside, [len(reduction) for _, reduction in chosen]))
    answers = processor.batch_decode(said[:, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    for (places, item), views, answer in zip(items, seen, map(str.strip, answers), strict=True):
        yield Record(
            benchmark=item.benchmark,
            id=item.id,
            picture=item.picture,
            method=job.label,
            spec=job.spec,
            question=item.question,
            gold=item.gold,
            prediction=answer,
            score=score(item.benchmark, answer, item.gold, item.options),
            split=item.split,
            group=item.group,
            options=item.options,
            tokens_in=sum(encoded[place].patches for place in places),
            tokens_kept=sum(islice(kept, len(views))),
            encode_ms=encode_ms,
            reduce_ms=reduce_ms,
            prefill_ms=watch.laps[1] / len(items),
            decode_ms=(watch.laps[-1] - watch.laps[1]) / len(items),
        )


def _tokenised(
    model: Any, processor: Any, items: Sequence[tuple[range, Item]], encoded: Sequence[VisualTokens]
) -> dict[str, Tensor]:
    """Questions as prompts with all placeholders of their pictures, without processing pixels again."""
    placeholder = processor.tokenizer.convert_ids_to_tokens(unwrap(model).config.image_token_id)
    texts = []
    for places, item in items:
        start, *rest = question_prompt(processor, item.question, len(places)).split(placeholder)
        pictures = zip(places, rest, strict=True)
        texts.append(
            start + "".join(placeholder * encoded[place].placeholders + part for place, part in pictures)
        )
    return dict(processor.tokenizer(texts, padding=True, return_tensors="pt").to(model.device))


def _specs(methods: str) -> list[str]:
    """`a,b:x=1,y=2,c` is a, b:x=1,y=2 and c: an option belongs to the method before it."""
    specs: list[str] = []
    for part in _parts(methods):
        if specs and "=" in part and ":" not in part:
            specs[-1] += f",{part}"
        else:
            specs.append(part)
    return specs


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _with_keep(spec: str, keep: int) -> str:
    """Of a chain, the last method gets it, before what says how it treats frames (`topk@merged`)."""
    before, plus, last = spec.rpartition("+")
    method, sign, frames = last.partition("@")
    return f"{before}{plus}{method}{',' if ':' in method else ':'}keep={keep}{sign}{frames}"


def _compares_frames(method: Reducer) -> bool:
    """Whether a clip is one video to it; to other methods its frames are pictures."""
    return any(part.video for part in method.parts)


def _is_adaptive(spec: str) -> bool:
    method = make(spec).parts[-1]
    return method.adaptive and method.keep is None
