"""`prumerge answer`: one question about a picture or a clip."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prumerge.cli import options as shared
from prumerge.cli.output import note, print_json, print_table, status
from prumerge.errors import PrumergeError

if TYPE_CHECKING:
    from prumerge.generate.guarded import GuardedAnswer
    from prumerge.generate.lossless import Lossless


def answer(
    media: shared.MediaArgument = None,
    question: Annotated[str | None, typer.Argument(help="What to ask about it.", show_default=False)] = None,
    video: Annotated[str | None, typer.Option(help="In place of MEDIA a clip.")] = None,
    sample: shared.SampleOption = None,
    frames: shared.FramesOption = None,
    model: shared.ModelOption = "tiny",
    reducer: shared.ReducersOption = "prumerge",
    keep: shared.KeepOption = None,
    positions: shared.PositionsOption = "auto",
    separators: shared.SeparatorsOption = "keep",
    size_bias: shared.SizeBiasOption = False,
    relevance_model: shared.RelevanceOption = None,
    guard: Annotated[
        Path | None,
        typer.Option(help="Answer under this guard of `prumerge calibrate`, which holds its reducers."),
    ] = None,
    lossless: Annotated[
        bool,
        typer.Option(
            "--lossless", help="The untouched model's own answer: the reducer only drafts it, see the notes."
        ),
    ] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Ask the untouched model as well.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 64,
    device: shared.DeviceOption = "auto",
    as_json: shared.JsonOption = False,
) -> None:
    """Ask about a picture or a clip, with few visual tokens."""
    path, text = shared.subject(media, question, video, sample)
    if guard is not None and compare:
        raise PrumergeError("a guard compares by itself; leave --compare out")
    if lossless and (guard is not None or compare or size_bias):
        raise PrumergeError("--lossless gives the untouched model's answer; leave the other options out")
    with status("loading"):
        from prumerge.cli.model import ask, open_model, show_media, tokens_left
        from prumerge.generate.guarded import guarded
        from prumerge.generate.lossless import lossless as draft_and_verify
        from prumerge.loading.prompts import prepare
        from prumerge.models import device_of
        from prumerge.tiny.vocabulary import unknown_words

        methods = shared.methods_of(reducer, keep)
        options = shared.options_of(positions, separators, size_bias)
        shown = show_media(path, frames)
        loaded, processor = open_model(model, device)
        if relevance_model is not None:
            clip = shared.ClipRelevance(relevance_model, methods, loaded.device)
            options = replace(options, relevance=clip(text))
    if model == "tiny" and (words := unknown_words(processor, text)):
        note(
            f"the embedded model does not know {', '.join(map(repr, words))}: it learned about 220 words on "
            "drawn scenes, such as `prumerge samples` writes; ask another by --model"
        )
    if guard is not None:
        with status("answering"):
            found = guarded(loaded, processor, guard).answer(shown, text)
        _print_guarded(found, as_json)
        return
    if lossless:
        with status("answering"):
            inputs = prepare(processor, shown, text).to(device_of(loaded))
            drafted = draft_and_verify(
                loaded, inputs, methods[0], max_new_tokens=max_new_tokens, options=options
            )
        _print_lossless(processor.decode(drafted.tokens, skip_special_tokens=True).strip(), drafted, as_json)
        return
    asked = [None, *methods] if compare else list(methods)
    with status("answering"):
        if len(asked) > 1:  # the first call of each shape pays for memory and kernels
            for each in asked:
                ask(loaded, processor, shown, text, each, options, max_new_tokens=1)
        answers = [ask(loaded, processor, shown, text, each, options, max_new_tokens) for each in asked]
    if as_json:
        rows = [vars(one) for one in answers]
        print_json(rows if len(asked) > 1 else rows[0])
    elif len(asked) == 1:
        print(answers[0].answer)
    else:
        available = round(max(one.visual_tokens for one in answers))
        names = ("", "answer", "visual tokens", "encode ms", "reduce ms", "prefill ms", "decode ms")
        table = [
            [
                one.method,
                one.answer,
                tokens_left(one.visual_tokens, method, available),
                *(f"{time:.1f}" for time in (one.encode_ms, one.reduce_ms, one.prefill_ms, one.decode_ms)),
            ]
            for one, method in zip(answers, asked, strict=True)
        ]
        print_table(names, table)


def _print_guarded(found: GuardedAnswer, as_json: bool) -> None:
    """The answer, and on stderr which step gave it."""
    if as_json:
        print_json({**asdict(found), "method": found.method, "visual_tokens": found.visual_tokens})
        return
    print(found.answer)
    tried = ", ".join(
        f"{one.method} ({one.visual_tokens} visual tokens, probability {one.probability:.3f})"
        for one in found.tries
    )
    note(f"asked {tried}")


def _print_lossless(answer: str, found: Lossless, as_json: bool) -> None:
    """The answer, and on stderr what drafts were worth."""
    if as_json:
        told = {name: value for name, value in vars(found).items() if name != "tokens"}
        print_json({"answer": answer, "answer_tokens": len(found.tokens), **told})
        return
    print(answer)
    worth = "worth it where memory bounds decoding" if found.ratio < 1 else "not worth it for such an answer"
    note(
        f"{found.passes} passes over all tokens for {len(found.tokens)} of the answer; {found.accepted} of "
        f"{found.drafted} drafted tokens stood; {found.ratio:.2f} x the bytes of decoding one by one: {worth}"
    )
