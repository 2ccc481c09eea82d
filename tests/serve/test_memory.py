"""What a server holds does not grow with what it was asked."""

import asyncio
import gc
import json
import os
import platform
import re
import subprocess
import sys
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from noise import noise
from serving import png, question

from prumerge.errors import PrumergeError
from prumerge.pipeline.decide import Decision
from prumerge.serve.asked import Asked
from prumerge.serve.build import Settings, build
from prumerge.serve.generating import Row
from prumerge.serve.pictures import Picture
from prumerge.tokens import VisualTokens

OF_A_QUESTION = {Picture, Asked, Row, Decision, VisualTokens}
REDUCERS = ("prumerge", "none", "pool:keep=4", "linformer:keep=4")


def of_a_question():
    """What there is in this process of what a question makes."""
    return [one for one in gc.get_objects() if type(one) in OF_A_QUESTION]


@pytest.fixture
def asked_at_once(untrained):
    """What is left of thirteen questions that came at once: nine are answered, `linformer` begins behind the
    only layer, and one picture is none."""
    model, processor = untrained
    settings = Settings(name="tiny", reducers=["pool", "linformer"], seconds=0.05)
    front = build(model, processor, settings)
    files = [png(noise((80, 60 + number))) for number in range(12)]
    bodies = [
        {
            "model": "tiny",
            "messages": [question("w5 w7", file)],
            "max_tokens": 3,
            "reducer": REDUCERS[number % 4],
        }
        for number, file in enumerate([*files, b"none"])
    ]

    async def one(body):
        with ExitStack() as held:
            chat = front.read(json.dumps(body).encode())
            await front.engine.whole(await front.asked(chat, held))

    before = of_a_question()  # of other tests; held, so that no new one gets the address of an old one
    known = {id(one) for one in before}

    async def work():
        await front.start()
        found = await asyncio.gather(*map(one, bodies), return_exceptions=True)
        refused = sum(isinstance(said, PrumergeError) for said in found)
        del found
        await asyncio.sleep(0.01)  # the loop itself holds what it runs just now
        gc.collect()
        left = [type(one).__name__ for one in of_a_question() if id(one) not in known]
        await front.stop()
        return SimpleNamespace(cache=front.encoder.cache, refused=refused, left=left)

    return asyncio.run(work())


def held(row):
    """The tensors of what is remembered."""
    return [tensor for step in row.steps for one in step for tensor in (one.embeddings, *one.left.tensors())]


def test_what_is_remembered_takes_the_bytes_that_its_bound_counts(asked_at_once):
    cache = asked_at_once.cache
    rows = list(cache._held.values())
    assert len(rows) == 12
    assert any(one.left.owners is not None for row in rows for step in row.steps for one in step)
    for row in rows:
        assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in held(row))
    assert cache.nbytes == sum(tensor.nbytes for row in rows for tensor in held(row))


def test_of_questions_that_were_answered_nothing_is_left(asked_at_once):
    assert (asked_at_once.refused, asked_at_once.left) == (4, [])


AFTER_A_LARGE_BLOCK = """
import ctypes, threading
from prumerge.serve.memory import settle
settle()
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.free(libc.malloc(24 * 2**20))
thread = threading.Thread(target=lambda: [libc.malloc(2**16), libc.malloc(16 * 2**20)])
thread.start()
thread.join()
libc.malloc_stats()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is another one")
@pytest.mark.parametrize(
    ("environment", "arenas", "in_a_heap"),
    [
        ({}, 1, False),
        ({"MALLOC_ARENA_MAX": "8"}, 2, False),
        ({"MALLOC_MMAP_THRESHOLD_": str(2**25)}, 1, True),
    ],
)
def test_a_large_block_goes_back_to_the_system_unless_the_operator_says_otherwise(
    environment, arenas, in_a_heap
):
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    said = subprocess.run(
        [sys.executable, "-c", AFTER_A_LARGE_BLOCK],
        env=variables | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    sizes = [int(size) for size in re.findall(r"Arena \d+:\nsystem bytes += +(\d+)", said)]
    assert (len(sizes), max(sizes) > 2**24) == (arenas, in_a_heap)
