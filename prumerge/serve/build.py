"""From what an operator says to a server."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prumerge.errors import PrumergeError
from prumerge.generate.guarded import Guard
from prumerge.pipeline.options import DEFAULT, Options
from prumerge.serve.asked import Allowed
from prumerge.serve.cascade import Cascade
from prumerge.serve.encoder import Encoder
from prumerge.serve.engine import Engine
from prumerge.serve.front import Front
from prumerge.serve.host import Host
from prumerge.serve.limits import MIB, Limits
from prumerge.serve.local import Local
from prumerge.serve.metrics import Metrics

log = logging.getLogger("prumerge.serve")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a model is served."""

    name: str
    """By which clients ask for it."""
    reducer: str = "prumerge"
    """Of requests that name none."""
    reducers: Sequence[str] = ()
    """Others that requests may name."""
    options: Options = DEFAULT
    guard: Guard | None = None
    """Under which pictures are asked about where a request names no method; its options are all requests'."""
    engine: str | None = None
    """The URL of a vLLM server; None: this process answers."""
    batch: int = 16
    """Pictures encoded together, and questions answered together."""
    seconds: float = 0.005
    """That each waits for others."""
    cache: int = 256 * MIB
    """Bytes of reduced pictures that are remembered."""
    limits: Limits = field(default_factory=Limits)
    key: str | None = field(default=None, repr=False)
    remote: bool = False
    page: bool = True
    frames: str = ""


def build(model: Any, processor: Any, settings: Settings) -> Front:
    """A server of a loaded model; raises PrumergeError for methods that there are none of, and for a guard
    that was found on other weights."""
    guard, options = settings.guard, settings.options
    if guard is not None:
        options = options.but(**guard.options)
    if settings.engine is not None and options.size_bias:
        if guard is not None:
            raise PrumergeError(
                "the guard was found with --size-bias, which vLLM has not; calibrate without, or serve "
                "without --engine"
            )
        log.warning("vLLM attends to every token alike: --size-bias is left out")
        options = options.but(size_bias=False)
    allowed = Allowed.of(settings.reducer, settings.reducers, options)
    host, metrics = Host(model, processor), Metrics()
    batch, seconds = settings.batch, settings.seconds
    encoder = Encoder(host, metrics, cache=settings.cache, batch=batch, seconds=seconds)
    engine: Engine
    if settings.engine is None:
        engine = Local(host, encoder, metrics, batch=batch, seconds=seconds)
    else:
        from prumerge.serve.vllm import Vllm

        engine = Vllm(host, encoder, metrics, allowed, settings.engine, settings.limits)
    if guard is not None:
        engine = Cascade(engine, encoder, metrics, allowed, guard)
    return Front(
        settings.name,
        host,
        encoder,
        engine,
        allowed,
        settings.limits,
        metrics,
        settings.key,
        settings.remote,
        settings.page,
        settings.frames,
    )
