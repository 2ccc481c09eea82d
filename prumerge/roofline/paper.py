"""Table 2 of PruMerge (arXiv 2403.15388): published, reproduced, and as it is with 616 and 80 tokens."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from prumerge.roofline.configs import model
from prumerge.roofline.conventions import CARDS, llm_viewer
from prumerge.roofline.cost import Setting
from prumerge.roofline.estimate import Estimate, estimate, workload
from prumerge.roofline.hardware import machine
from prumerge.roofline.precision import parse

STATED = {"original": 616, "PruMerge": 80}
"""Tokens of the prompt as the paper's text has them: 576 and 40 visual tokens, and 40 of text."""
COMPUTED = {"original": 700, "PruMerge": 70}
"""Tokens with which the published figures come out."""
COLUMNS = ("TFLOPs", "prefill ms", "total memory GB", "activation GB")


@dataclass(frozen=True)
class Cells:
    """A row of the table, in the units of COLUMNS."""

    tera: float
    milliseconds: float
    memory: float
    activation: float


PUBLISHED = {
    ("llava-1.5-7b", 16, "original"): Cells(9.3, 88.6, 23.3, 4.60),
    ("llava-1.5-7b", 16, "PruMerge"): Cells(0.91, 15.3, 13.7, 0.28),
    ("llava-1.5-7b", 4, "original"): Cells(2.3, 151.6, 5.9, 1.20),
    ("llava-1.5-7b", 4, "PruMerge"): Cells(0.28, 14.9, 3.5, 0.07),
    ("llava-1.5-13b", 16, "original"): Cells(18.2, 170.5, 41.6, 7.30),
    ("llava-1.5-13b", 16, "PruMerge"): Cells(1.80, 29.5, 26.6, 0.44),
    ("llava-1.5-13b", 4, "original"): Cells(4.6, 294.9, 10.5, 1.80),
    ("llava-1.5-13b", 4, "PruMerge"): Cells(0.45, 29.0, 6.8, 0.11),
}


def reproduced(name: str, bits: int, row: str, tokens: dict[str, int] = COMPUTED) -> Cells:
    """The same row by LLM-Viewer's rules, on its V100."""
    answer = llm_viewer(model(name).language, tokens[row], CARDS["v100"], bits)
    return Cells(
        answer.operations / 1e12, answer.seconds * 1e3, answer.memory_access / 1e9, answer.activations / 1e9
    )


def honest(name: str, bits: int, row: str) -> Estimate:
    """616 or 80 tokens, the whole tower and the projector included, 4-bit weights with 16-bit arithmetic."""
    chosen = model(name)
    visual = (STATED[row] - 40,) * chosen.language.layers
    asked = workload(chosen, visual, 576, text=40, whole_tower=True)
    setting = Setting(parse("w16a16" if bits == 16 else "w4a16"))
    return estimate(chosen, asked, machine("v100"), setting)


def printed(value: float) -> str:
    """As the table prints: one decimal above 1 (any second one is padding), two below."""
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def reproducible(bits: int, column: int) -> bool:
    """All but the operations at 4 bits: the tool does not scale them by bits, so it never printed these."""
    return bits == 16 or column > 0


def agreement() -> list[tuple[tuple[str, int, str], str, float, float]]:
    """(row, column, published, reproduced) of every reproducible cell."""
    return [
        (row, COLUMNS[column], published, value)
        for row, cells in PUBLISHED.items()
        for column, (published, value) in enumerate(
            zip(astuple(cells), astuple(reproduced(*row)), strict=True)
        )
        if reproducible(row[1], column)
    ]
