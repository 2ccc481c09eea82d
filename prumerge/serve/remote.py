"""Pictures from the web: only where the operator allows it, and never from a private network."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import anyio
import httpx2

from prumerge.serve.limits import Limits
from prumerge.serve.refusal import Refusal

REDIRECTS, SECONDS = 3, 10


async def fetch(client: httpx2.AsyncClient, url: str, limits: Limits) -> bytes:
    """The file at an http(s) URL, within bounds of size, time and redirects.

    The name is looked up once, and the connection goes to the address that was checked. Raises Refusal.
    """
    try:
        with anyio.fail_after(SECONDS):
            for _ in range(REDIRECTS + 1):
                found = await _step(client, url, limits)
                if isinstance(found, bytes):
                    return found
                url = found
    except TimeoutError:
        raise _refused(f"it did not arrive within {SECONDS} s") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, UnicodeError) as error:
        raise _refused(type(error).__name__) from None
    raise _refused(f"it is redirected more than {REDIRECTS} times")


async def _step(client: httpx2.AsyncClient, url: str, limits: Limits) -> bytes | str:
    """The file, or where it is instead."""
    asked = httpx2.URL(url)
    if asked.scheme not in ("http", "https") or not asked.host or asked.userinfo:
        raise _refused("its URL is not a plain http(s) one")
    address = await public_address(asked.host, asked.port or (443 if asked.scheme == "https" else 80))
    request = client.build_request(
        "GET",
        asked.copy_with(host=address),
        headers={"Host": asked.netloc.decode(), "Accept": "image/*"},
        extensions={"sni_hostname": asked.host},
    )
    response = await client.send(request, stream=True, follow_redirects=False)
    try:
        if response.is_redirect:
            return str(asked.join(response.headers.get("location", "")))
        if response.status_code != 200:
            raise _refused(f"its server answers {response.status_code}")
        content = bytearray()
        async for chunk in response.aiter_bytes(65536):
            content += chunk
            if len(content) > limits.picture:
                raise _refused(f"its file has more than {limits.picture // 2**20} MiB")
        return bytes(content)
    finally:
        await response.aclose()


async def public_address(host: str, port: int) -> str:
    """An address of a host that all of the world reaches; Refusal if any of its addresses is another."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(one[4][0]) for one in found]
    for one in map(ipaddress.ip_address, addresses):
        inside = getattr(one, "ipv4_mapped", None) or getattr(one, "sixtofour", None) or one
        if not (one.is_global and inside.is_global) or one.is_multicast:
            raise _refused("its host is on a private network")
    return addresses[0]


def _refused(reason: str) -> Refusal:
    return Refusal(
        f"the picture on the web cannot be had: {reason}; send it as a data URL", code="invalid_image_url"
    )
