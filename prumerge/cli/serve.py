"""`prumerge serve`: an OpenAI-compatible server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from prumerge.cli import options as shared
from prumerge.cli.output import need, note, status
from prumerge.errors import PrumergeError


def serve(
    model: shared.ModelOption = "tiny",
    reducer: shared.ReducerOption = "prumerge",
    keep: shared.KeepOption = None,
    allow_reducers: Annotated[
        str, typer.Option(help="Methods that requests may name beside it and none, separated by commas.")
    ] = "",
    guard: Annotated[
        Path | None,
        typer.Option(help="Answer under this guard of `prumerge calibrate` where a request names no method."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="URL of a vLLM server, such as http://localhost:8100. [default: this process]"),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    name: Annotated[str | None, typer.Option(help="What clients call the model. [default: its own]")] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="PRUMERGE_API_KEY", help="What clients must know.", show_envvar=True)
    ] = None,
    allow_remote_images: Annotated[
        bool, typer.Option("--allow-remote-images", help="Fetch pictures from public http(s) addresses.")
    ] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="Serve no page at /.")] = False,
    frames: Annotated[
        str, typer.Option(help="Sites that may frame the page, such as https://huggingface.co, by commas.")
    ] = "",
    batch: Annotated[int, typer.Option(min=1, help="Pictures and questions that go together.")] = 16,
    wait_ms: Annotated[float, typer.Option(min=0, help="Milliseconds that each waits for others.")] = 5,
    cache_mb: Annotated[int, typer.Option(min=0, help="MiB of reduced pictures to remember.")] = 256,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 1024,
    max_requests: Annotated[int, typer.Option(min=1, help="Held at once; one more gets 429.")] = 256,
    max_pictures: Annotated[int, typer.Option(min=0, help="In a request.")] = 8,
    max_body_mb: Annotated[int, typer.Option(min=1, help="MiB of a request.")] = 32,
    max_megapixels: Annotated[float, typer.Option(min=0.01, help="Of a request's pictures.")] = 50,
    max_seconds: Annotated[float, typer.Option(min=1, help="Until an answer must be there.")] = 600,
    positions: shared.PositionsOption = "auto",
    separators: shared.SeparatorsOption = "keep",
    size_bias: shared.SizeBiasOption = False,
    device: shared.DeviceOption = "auto",
) -> None:
    """Serve a model with few visual tokens in OpenAI's form."""
    for package in ("fastapi", "uvicorn", "httpx2", "prometheus_client", "pydantic"):
        need(package, "serve")
    if api_key is not None and not api_key.strip():
        raise PrumergeError("the API key is empty; give one, or leave --api-key out")
    options = shared.options_of(positions, separators, size_bias)
    if guard is not None:
        need("scipy", "evaluate")
        if options.changed():
            raise PrumergeError(
                "a guard holds how prompts are shortened; leave --positions, --separators and --size-bias out"
            )
    method = str(shared.method_of(reducer, keep))
    with status("loading"):
        from prumerge.cli.model import open_model
        from prumerge.generate.guarded import Guard
        from prumerge.serve.build import Settings, build
        from prumerge.serve.limits import MIB, Limits
        from prumerge.serve.run import run

        limits = Limits(
            body=max_body_mb * MIB,
            pixels=int(max_megapixels * 1e6),
            held_pixels=max(Limits.held_pixels, int(max_megapixels * 1e6)),
            held_bytes=max(Limits.held_bytes, max_body_mb * MIB),
            pictures=max_pictures,
            tokens=max_tokens,
            requests=max_requests,
            seconds=max_seconds,
        )
        settings = Settings(
            name=name or (Path(model).name if Path(model).is_dir() else model),
            reducer=method,
            reducers=[one.strip() for one in allow_reducers.split(",") if one.strip()],
            options=options,
            guard=None if guard is None else Guard.read(guard),
            engine=engine,
            batch=batch,
            seconds=wait_ms / 1000,
            cache=cache_mb * MIB,
            limits=limits,
            key=api_key,
            remote=allow_remote_images,
            page=not no_page,
            frames=_origins(frames),
        )
        front = build(*open_model(model, device), settings)
    if host not in ("127.0.0.1", "localhost", "::1") and api_key is None:
        note("whoever reaches this address may ask; give an --api-key, or listen on 127.0.0.1")
    run(front, host, port)


def _origins(frames: str) -> str:
    """Sites as a Content-Security-Policy has them."""
    sites = [site.strip() for site in frames.split(",") if site.strip()]
    for site in sites:
        if not re.fullmatch(r"https?://[\w.*-]+(:\d+)?", site):
            raise PrumergeError(f"--frames takes sites such as https://huggingface.co, not {site!r}")
    return " ".join(sites)
