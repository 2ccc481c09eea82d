"""Options that several commands share, and what is made of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prumerge.errors import PrumergeError, unknown

if TYPE_CHECKING:
    from prumerge.pipeline.options import Options, Relevance
    from prumerge.reducer import Reducer

    Context = typer.Context
else:
    Context = typer.Context.__mro__[1]  # what typer hands over: its own, or in older versions click's


def _methods(incomplete: str) -> list[str]:
    """Names of methods that complete the last one of a list or a chain."""
    from prumerge.catalogue import names

    before = incomplete[: max(incomplete.rfind(","), incomplete.rfind("+")) + 1]
    return [before + name for name in names()]


def _samples(incomplete: str) -> list[str]:
    return [path.stem for path in _sample_pictures()]


MediaArgument = Annotated[
    str | None,
    typer.Argument(
        help="A picture, an animation, a video file or a folder of frames; left out with --sample.",
        show_default=False,
    ),
]
SampleOption = Annotated[
    str | None,
    typer.Option(
        help="In place of MEDIA a sample picture, by its number or name; see `prumerge samples`.",
        autocompletion=_samples,
    ),
]
FramesOption = Annotated[int | None, typer.Option(min=1, help="Frames taken of a clip, evenly. [default: 8]")]
ModelOption = Annotated[
    str,
    typer.Option(
        help="tiny (embedded, no download), a Hugging Face id, or a folder.",
        autocompletion=lambda: ["tiny"],
    ),
]
ReducerOption = Annotated[
    str,
    typer.Option(
        help="A method with its options, such as prumerge:k=auto; see `prumerge methods`.",
        autocompletion=_methods,
    ),
]
ReducersOption = Annotated[
    str, typer.Option(help="Methods with their options, separated by commas.", autocompletion=_methods)
]
KeepOption = Annotated[
    str | None,
    typer.Option(
        help="Visual tokens to keep: a count, a share such as 25%, or auto, the method's own choice."
    ),
]
PositionsOption = Annotated[
    str,
    typer.Option(
        help="Position ids of what is left: compact, original or median; auto: compact, original with sizes.",
        autocompletion=lambda: ["auto", "compact", "original", "median"],
    ),
]
SeparatorsOption = Annotated[
    str,
    typer.Option(
        help="Newlines and class tokens between tokens: keep, drop or remake.",
        autocompletion=lambda: ["keep", "drop", "remake"],
    ),
]
SizeBiasOption = Annotated[
    bool, typer.Option("--size-bias", help="Attend to merged tokens in proportion to their patches.")
]
RelevanceOption = Annotated[
    str | None,
    typer.Option(
        "--relevance-model",
        help="A CLIP checkpoint whose two towers say how well patches match the question.",
    ),
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")]
DeviceOption = Annotated[
    str,
    typer.Option(
        help="cpu, cuda, ...; auto takes a GPU if there is one.",
        autocompletion=lambda: ["auto", "cpu", "cuda"],
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JudgeOption = Annotated[
    str | None,
    typer.Option(
        help="A server of OpenAI's protocol whose model judges open answers, such as "
        "http://localhost:8000/v1; its key is read from PRUMERGE_JUDGE_KEY."
    ),
]
JudgeModelOption = Annotated[
    str | None, typer.Option(help="Which of its models is the judge. [default: the only one]")
]
JudgeSeedOption = Annotated[int, typer.Option(help="The judge's seed.")]
ChartOption = Annotated[str, typer.Option(help="How the chart is written: png, pdf or svg.")]


def methods_of(reducers: str, keep: str | None) -> list[Reducer]:
    """The methods of --reducer, each with the budget of --keep."""
    from prumerge.spec import make, split_specs, with_keep

    return [make(spec if keep is None else with_keep(spec, keep)) for spec in split_specs(reducers)]


def method_of(reducer: str, keep: str | None) -> Reducer:
    """The one method of --reducer."""
    found = methods_of(reducer, keep)
    if len(found) > 1:
        raise PrumergeError(f"one method at a time, not {', '.join(map(str, found))}; a chain is written a+b")
    return found[0]


def reads_text(method: Reducer) -> bool:
    """Whether what a method keeps depends on the question."""
    return any("text" in part.needs or part.place == "language model" for part in method.parts)


def check_question(method: Reducer, question: str | None) -> None:
    """Raise PrumergeError where a picture of what is kept needs a question, or has no use for one."""
    if question is None and reads_text(method):
        raise PrumergeError(f"what {method} keeps depends on the question; ask one by --question")
    if question is not None and not reads_text(method):
        raise PrumergeError(f"{method} does not read the question; leave --question out")


def options_of(
    positions: str = "auto",
    separators: str = "keep",
    size_bias: bool = False,
) -> Options:
    """--positions, --separators and --size-bias as one value."""
    from prumerge.pipeline.options import Options

    return Options(positions=positions, separators=separators, size_bias=size_bias)  # type: ignore[arg-type]


class ClipRelevance:
    """The relevance of --relevance-model to a question, or to one for each picture; it is loaded once."""

    def __init__(self, name: str, methods: Collection[Reducer], device: Any) -> None:
        """Raises PrumergeError if no method reads it, or if the checkpoint holds no CLIP model."""
        if not any(
            "text" in part.needs and "before" in part.place for each in methods for part in each.parts
        ):
            raise PrumergeError(
                f"{', '.join(map(str, methods))}: no method that asks --relevance-model; "
                "leave it out, or take cdpruner or trim"
            )
        from transformers import AutoConfig, AutoTokenizer, CLIPModel

        try:
            kind = AutoConfig.from_pretrained(name).model_type
            if kind != "clip":
                raise PrumergeError(
                    f"{name!r} holds a model of type {kind!r}; --relevance-model takes CLIP's"
                )
            self.clip = CLIPModel.from_pretrained(name).eval().to(device)
            self.tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, KeyError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise PrumergeError(
                f"there is no CLIP model to load at {name!r}: it must be a folder or a Hugging Face id that "
                f"can be reached ({first})"
            ) from None

    def __call__(self, question: str | Sequence[str]) -> Relevance:
        from prumerge.relevance import clip_relevance

        return clip_relevance(self.clip, self.tokenizer, question)


def subject(
    media: str | None, question: str | None, video: str | None, sample: str | None
) -> tuple[Path, str]:
    """What to look at and what to ask. With --video or --sample the one argument is the question."""
    if video is not None and sample is not None:
        raise PrumergeError("ask about a clip or about a sample: give --video or --sample, not both")
    path, option = (sample_picture(sample), "--sample") if sample else (video, "--video")
    if path is not None:
        if question is not None:
            raise PrumergeError(f"with {option} leave MEDIA out: the one argument is the question")
        media, question = str(path), media
    if media is None:
        raise PrumergeError("Missing argument 'MEDIA': a picture or a clip, or give --sample 1")
    if question is None:
        raise PrumergeError("Missing argument 'QUESTION': what to ask about it")
    return Path(media), question


def seen(media: str | None, sample: str | None) -> Path:
    """What to look at where nothing is asked."""
    if (media is None) == (sample is None):
        raise PrumergeError("Missing argument 'MEDIA': a picture or a clip, or in its place --sample 1")
    return sample_picture(sample) if sample is not None else Path(str(media))


def sample_picture(name: str) -> Path:
    """A sample picture by its number (1 is the first) or its name."""
    pictures = _sample_pictures()
    if name.isdecimal() and 0 < int(name) <= len(pictures):
        return pictures[int(name) - 1]
    by_name = {path.stem: path for path in pictures}
    if (stem := Path(name).stem) not in by_name:
        numbers = f"a number from 1 to {len(pictures)}"
        raise PrumergeError(unknown("sample", name, list(by_name), instead=numbers))
    return by_name[stem]


def _sample_pictures() -> list[Path]:
    from prumerge.tiny import SAMPLES

    return sorted(SAMPLES.glob("*.jpg"))


def given(context: Context) -> set[str]:
    """The options that stand on the command line, as the help writes them."""
    return {
        next(name for name in option.opts if name.startswith("--"))
        for option in context.command.params
        if option.name is not None
        and option.param_type_name == "option"
        and getattr(context.get_parameter_source(option.name), "name", "") == "COMMANDLINE"
    }


def only(context: Context, allowed: Collection[str], chosen: str) -> None:
    """Raise PrumergeError for options that have no effect beside the one that was chosen."""
    idle = sorted(given(context) - {*allowed, chosen.split()[0], "--json"})
    if idle:
        raise PrumergeError(
            f"{', '.join(idle)}: without effect beside {chosen}; leave out the one or the other"
        )
