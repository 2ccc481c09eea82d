"""A server from its start to its end."""

from __future__ import annotations

import asyncio
import logging
import socket

import uvicorn

from prumerge.errors import PrumergeError
from prumerge.serve.app import log, make_app
from prumerge.serve.front import Front
from prumerge.serve.memory import settle

GRACE = 30
"""Seconds that requests which are held have to be answered when the server is told to end."""


def run(front: Front, host: str, port: int) -> None:
    """Serve until a signal comes; then what is held is answered. A second signal ends at once.

    Raises PrumergeError where the address cannot be listened on, or the engine cannot serve the model.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    log.setLevel(logging.INFO)
    settle()
    with listening_on(host, port) as listening:
        asyncio.run(_serve(front, listening, host))


async def _serve(front: Front, listening: socket.socket, host: str) -> None:
    await front.start()
    address = f"http://{host if ':' not in host else f'[{host}]'}:{listening.getsockname()[1]}"
    log.info("%s is served with %s at %s", front.name, front.allowed.default, address)
    config = uvicorn.Config(
        make_app(front),
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=30,
    )
    await uvicorn.Server(config).serve([listening])


def listening_on(host: str, port: int) -> socket.socket:
    """A socket that listens; raises PrumergeError where it cannot."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise PrumergeError(
            f"there is no listening on {host}:{port} ({getattr(error, 'strerror', None) or error}); take "
            "another --port or --host"
        ) from None
    # asyncio sets it only for sockets that name their protocol; without, each answer on a connection that is
    # kept waits 40 ms for the client's acknowledgement of its head. Connections inherit it.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
