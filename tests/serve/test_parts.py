"""The parts of a server one by one: what waits, what is remembered, words that grow, pictures that come."""

import asyncio
import hashlib
import threading
from itertools import accumulate
from types import SimpleNamespace

import httpx2
import pytest
import torch
from families import FAMILIES
from hypothesis import given
from hypothesis import strategies as some
from noise import noise
from PIL import Image
from processors import PROCESSORS
from serving import data_url, png, running
from starlette.applications import Starlette
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from prumerge.errors import PrumergeError
from prumerge.loading.prompts import question_prompt
from prumerge.pipeline.options import Options
from prumerge.pipeline.reduce import Pipeline
from prumerge.serve import remote
from prumerge.serve.asked import Allowed
from prumerge.serve.cache import Cache
from prumerge.serve.envelope import Chat, Message
from prumerge.serve.host import Host
from prumerge.serve.limits import Budget, Limits
from prumerge.serve.pictures import file_of, from_data
from prumerge.serve.prompts import is_plain, written
from prumerge.serve.refusal import Refusal
from prumerge.serve.waiting import Waiting
from prumerge.serve.words import Words

# what waits


def taken(items, most=4, kind=lambda item: 0, seconds=0.0):
    """The batches in which items are taken that are there at once."""

    async def work():
        waiting = Waiting(most, seconds, kind)
        for item in items:
            waiting.put(item)
        return [await waiting.take() for _ in iter(lambda: len(waiting), 0)]

    return asyncio.run(work())


def test_what_waits_is_taken_together_in_order():
    assert taken([1, 2, 3, 4, 5, 6]) == [[1, 2, 3, 4], [5, 6]]


def test_a_batch_is_of_one_kind_and_nobody_is_overtaken_by_the_next_batch():
    assert taken([1, 2, 3, 5, 6, 8], kind=lambda item: item % 2) == [[1, 3, 5], [2, 6, 8]]


def test_what_is_taken_back_is_not_in_a_batch():
    async def work():
        waiting = Waiting(4, 0.01, lambda item: 0)
        one, other = object(), object()
        waiting.put(one)
        batch = asyncio.ensure_future(waiting.take())
        await asyncio.sleep(0)
        waiting.discard(one)
        await asyncio.sleep(0.03)
        assert not batch.done()
        waiting.put(other)
        return await batch == [other]

    assert asyncio.run(work())


def test_a_batch_waits_a_little_for_more():
    async def work():
        waiting = Waiting(4, 0.05, lambda item: 0)
        waiting.put(1)
        batch = asyncio.ensure_future(waiting.take())
        await asyncio.sleep(0.005)
        waiting.put(2)
        return await batch

    assert asyncio.run(work()) == [1, 2]


# what is remembered


def sized(size):
    return SimpleNamespace(nbytes=size)


def test_a_cache_forgets_what_was_not_asked_for_longest():
    cache = Cache(10)
    for key in "abc":
        cache.put(key, sized(3))
    cache.get("a")
    cache.put("d", sized(3))
    assert [cache.get(key) is not None for key in "abcd"] == [True, False, True, True]


def test_a_cache_does_not_empty_itself_for_what_is_too_large():
    cache = Cache(10)
    cache.put("a", sized(3))
    cache.put("b", sized(11))
    assert (len(cache), cache.nbytes, cache.get("b")) == (1, 3, None)


@given(some.lists(some.tuples(some.integers(0, 9), some.integers(1, 12))))
def test_a_cache_stays_within_its_bound(puts):
    cache = Cache(20)
    for key, size in puts:
        cache.put(key, sized(size))
    held = [cache.get(key) for key in range(10)]
    assert cache.nbytes == sum(one.nbytes for one in held if one) <= 20


def test_a_budget_is_given_back():
    budget = Budget(10, "pictures")
    with budget.take(7), pytest.raises(Refusal, match="as many pictures as it can"), budget.take(4):
        pass
    with budget.take(10):
        pass


# words as they grow


def told(pieces, stops=()):
    """What is sent of an answer whose tokens are these bytes, and its stop."""
    words = Words(lambda tokens: b"".join(pieces[token] for token in tokens).decode(errors="replace"), stops)
    sent = []
    for token in range(len(pieces)):
        sent.append(words.add(token))
        if words.stopped:
            return sent
    return [*sent, words.rest()]


@given(some.text(alphabet="ab é\N{GRINNING FACE}\n", max_size=20), some.integers(1, 3))
def test_what_is_sent_is_the_text_without_white_space_at_its_ends(text, size):
    raw = text.encode()
    pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
    assert "".join(told(pieces)) == text.strip()


@given(some.text(alphabet="ab ", max_size=20), some.lists(some.text(alphabet="ab", min_size=1, max_size=3)))
def test_what_is_sent_ends_before_the_first_stop_text(text, stops):
    came = ["", *accumulate(text.lstrip())]
    whole = next((text for text in came if any(stop in text for stop in stops)), None)
    expected = (
        came[-1] if whole is None else whole[: min(whole.index(stop) for stop in stops if stop in whole)]
    )
    assert "".join(told([letter.encode() for letter in text], stops)) == expected.rstrip()


def test_a_letter_is_sent_when_it_is_whole():
    assert told(["é".encode()[:1], "é".encode()[1:]]) == ["", "é", ""]


# pictures as they come


def test_a_picture_is_known_by_its_file():
    content = png(Image.new("RGB", (20, 30), "red"))
    picture = file_of(from_data(data_url(content), Limits())).picture()
    assert picture.image.getpixel((0, 0)) == (255, 0, 0)
    assert picture.digest == hashlib.sha256(content).digest()


def test_the_length_of_base64_is_looked_at_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr("base64.b64decode", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(Refusal, match="more than 1 MiB"):
        from_data("data:image/png;base64," + "A" * 2_000_000, Limits(picture=2**20))


# pictures from the web


@pytest.fixture(scope="module")
def web():
    """A web server with a picture, behind redirects, and one that never ends."""
    content = png(Image.new("RGB", (20, 30), "red"))

    async def endless():
        while True:
            yield bytes(65536)
            await asyncio.sleep(0)

    from starlette.responses import StreamingResponse

    routes = [
        Route("/picture", lambda _: Response(content)),
        Route("/once", lambda _: RedirectResponse("/picture")),
        Route("/forever", lambda _: RedirectResponse("/forever")),
        Route("/inside", lambda _: RedirectResponse("http://10.0.0.1/")),
        Route("/endless", lambda _: StreamingResponse(endless())),
    ]
    with running(Starlette(routes=routes)) as url:
        yield SimpleNamespace(url=url, content=content)


def fetched(url, limits=None):
    async def work():
        async with httpx2.AsyncClient(trust_env=False) as client:
            return await remote.fetch(client, url, limits or Limits())

    return asyncio.run(work())


@pytest.fixture
def open_network(monkeypatch):
    """127.0.0.1 stands for the world."""
    real = remote.public_address

    async def address(host, port):
        return host if host == "127.0.0.1" else await real(host, port)

    monkeypatch.setattr(remote, "public_address", address)


@pytest.mark.parametrize("path", ["/picture", "/once"])
def test_a_picture_on_the_web_is_fetched(web, open_network, path):
    assert fetched(web.url + path) == web.content


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("/forever", "redirected more than 3 times"),
        ("/inside", "private network"),
        ("/endless", "more than 1 MiB"),
        ("/nothing", "answers 404"),
    ],
)
def test_what_goes_wrong_on_the_web_is_said(web, open_network, path, match):
    with pytest.raises(Refusal, match=match):
        fetched(web.url + path, Limits(picture=2**20))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "10.0.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "[::1]",
        "[fe80::1]", "[::ffff:127.0.0.1]", "[fd00::1]", "[2002:7f00:1::]", "224.0.0.1", "100.64.0.1",
    ],
)  # fmt: skip
def test_nothing_is_fetched_from_a_private_network(host):
    with pytest.raises(Refusal, match="private network"):
        fetched(f"http://{host}/picture")


@pytest.mark.parametrize("url", ["http://", "http://a:b@example.com/", "https://exa mple/", "http://[::1"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(Refusal, match="cannot be had"):
        fetched(url)


def test_a_picture_on_the_web_is_not_waited_for_long(web, open_network, monkeypatch):
    monkeypatch.setattr(remote, "SECONDS", 0.05)
    with pytest.raises(Refusal, match=r"did not arrive within 0.05 s"):
        fetched(web.url + "/endless", Limits(picture=2**40))


# methods that clients may ask for


def allowed(reducer=None, keep=None, default="prumerge:keep=16", names=("pool",)):
    messages = [Message(role="user", content="x")]
    chat = Chat(model="m", messages=messages, reducer=reducer, keep=keep)
    return str(Allowed.of(default, names, Options()).pipeline(chat).method)


def test_a_request_gets_the_method_that_it_asks_for():
    assert allowed() == "prumerge:keep=16"
    assert allowed("pool:keep=4") == "pool:keep=4"
    assert allowed("prumerge", 36) == "prumerge:keep=36"
    assert allowed("prumerge@merged+pool:keep=4") == "prumerge@merged+pool:keep=4"
    assert allowed("none") == "none"


@pytest.mark.parametrize(
    "spec", ["topk", "prumerge+topk", "topk@each", "", " ", "+", "prumerge:keep=", "a" * 200]
)
def test_a_method_that_is_not_served_is_refused(spec):
    with pytest.raises(Refusal):
        allowed(spec)


def test_a_method_that_there_is_none_of_cannot_be_allowed():
    with pytest.raises(PrumergeError, match="there is no method 'magic'"):
        allowed(names=("magic",))


def test_the_thread_of_a_model_is_one(tiny):
    host = Host(*tiny)

    async def work():
        return await asyncio.gather(*(host.run(threading.get_ident) for _ in range(4)))

    assert len({*asyncio.run(work()), threading.get_ident()}) == 2
    host.close()


# prompts that the tokenizer writes alone


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", sorted(FAMILIES.keys() & PROCESSORS.keys()))
def test_a_prompt_is_written_without_its_pictures_only_where_that_is_the_same(name):
    model, processor = FAMILIES[name].model(), PROCESSORS[name]()
    host = Host(model, processor)
    image = noise((60, 80))
    with torch.no_grad():
        prompt = host.prompt([[image]], [host.nothing()])
        count = Pipeline("none").encode(prompt)[0].placeholders
        plain = is_plain(processor, prompt, [host.nothing()], [[count]])
    assert plain or name not in ("Llava", "VipLlava")
    if plain:
        several = 2 if host.apart else 1
        texts = [question_prompt(processor, words, n) for words, n in (("w5", several), ("w7 w9", 1))]
        expected = host.prompt([[image] * several, [image]], texts).inputs
        found = written(processor, texts, [[count] * several, [count]])
        assert all(torch.equal(found[key], expected[key]) for key in ("input_ids", "attention_mask"))
    host.close()
