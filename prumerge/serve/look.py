"""What the page at / is told: what there is to choose from, and what a method keeps of a picture."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from prumerge.catalogue import entry
from prumerge.drawing import owners
from prumerge.errors import PrumergeError
from prumerge.pipeline.decide import Decision
from prumerge.reducer import Reducer
from prumerge.serve.asked import Allowed, Asked
from prumerge.serve.encoder import Encoder
from prumerge.serve.refusal import Refusal
from prumerge.spec import make, with_keep

PAGE = Path(__file__).parent / "page"
"""What is served at /."""

HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; "
    "form-action 'none'; object-src 'none'; frame-ancestors ",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # a newer version has other files of the same names
}


# Said here, since what an operating system guesses of a script may be none, and would then not run.
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def page(folder: Path, frames: str = "") -> list[Route]:
    """A route for each file of a page, for index.html it is /; sites in `frames` may show it in theirs."""
    policy = HEADERS["content-security-policy"] + (frames or "'none'")
    headers = {**HEADERS, "content-security-policy": policy}

    def route(path: Path) -> Route:
        async def sent(_: Request) -> Response:
            return FileResponse(path, headers=headers, media_type=_KINDS[path.suffix])

        return Route("/" if path.name == "index.html" else f"/{path.name}", sent, methods=["GET"])

    return [route(path) for path in sorted(folder.iterdir()) if path.suffix in _KINDS]


def samples() -> list[dict[str, Any]]:
    """The sample pictures as data URLs, with what to ask about them."""
    from prumerge.tiny import samples as shipped

    return [
        {
            "name": one.path.name,
            "url": f"data:image/jpeg;base64,{base64.b64encode(one.path.read_bytes()).decode()}",
            "questions": [{"text": each.text, "answer": each.answer} for each in one.questions],
        }
        for one in shipped()
    ]


def methods(allowed: Allowed) -> list[dict[str, Any]]:
    """The methods that requests may name, that of requests which name none first."""
    default = make(allowed.default)
    others = [make(name) for name in sorted(allowed.names) if name != str(_unbudgeted(default))]
    return [_described(one) for one in (default, *others)]


def _described(method: Reducer) -> dict[str, Any]:
    free = _unbudgeted(method)
    parts = [entry(str(part).partition(":")[0]) for part in method.parts]
    last = method.parts[-1]
    return {
        "reducer": str(free),
        "summary": parts[-1].summary,
        "keep": last.keep if free != method else None,
        "budget": _takes_a_budget(free),
        "adaptive": last.adaptive,
        "reads": any("text" in part.needs for part in parts),
        "draws": method.placed.layers is None,
    }


def _takes_a_budget(method: Reducer) -> bool:
    if str(method) == "none":
        return False
    try:
        make(with_keep(str(method), 1))
    except PrumergeError:  # it is given already, or something in its place
        return False
    return True


def _unbudgeted(method: Reducer) -> Reducer:
    """The same with the budget that its last method has by itself, so that `keep` may be given beside it."""
    if len(method.parts) > 1:
        return make("+".join(str(part) for part in (*method.parts[:-1], _unbudgeted(method.parts[-1]))))
    if method.parts[0] is not method:  # over frames: its budget is inside
        return method
    return replace(method, keep=type(method).keep)


async def look(encoder: Encoder, asked: Asked) -> dict[str, Any]:
    """What the method of a question keeps of its one picture, and which patches each token stands for.

    Raises Refusal where that is not known before the question is answered, or is no picture in one piece.
    """
    if len(asked.pictures) != 1:
        raise Refusal("show one picture to look at what is kept of it", param="messages")
    if asked.pipeline.placed.layers is not None:
        raise Refusal(
            f"{asked.pipeline.method} works between layers of the language model, while it answers; "
            "ask to see what it says",
            param="reducer",
            code="not_drawable",
        )
    ((decision, took),) = await encoder.look(asked)
    drawn = await asyncio.to_thread(drawing, decision)
    return {
        "reducer": str(asked.pipeline.method),
        **drawn,
        "remembered": took.remembered,
        "encode_ms": round(took.encode, 2),
        "reduce_ms": round(took.reduce, 2),
    }


def drawing(decision: Decision) -> dict[str, Any]:
    """Rows and columns of the picture's patches; for each token the patch at which it stands, and for each
    patch the token that took most of it, or -1. Raises Refusal where they are none of one grid of patches."""
    tokens = decision.tokens
    frames, rows, columns = grid = tokens.picture_grid
    if frames != 1 or tokens.tiles or rows == 1 < columns:  # such as the queries of a Q-Former
        raise Refusal(
            "this model reads the picture in tiles, or not as patches, which is not drawn here; ask to see "
            "what it answers",
            code="not_drawable",
        )
    reduction = tokens.whole(decision.reduction)
    return {
        "grid": [rows, columns],
        "kept": reduction.index.tolist(),
        "owner": owners(grid, reduction).tolist(),
        "visual_tokens": tokens.patches,
        "visual_tokens_kept": len(reduction),
    }
