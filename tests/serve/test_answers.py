"""What is served is what `prumerge answer` says, however many ask at once."""

import asyncio

import pytest
from families import FAMILIES
from noise import noise
from processors import PROCESSORS
from serving import answered, check_at_once, content, png, question, said_of

from prumerge.errors import PrumergeError
from prumerge.generate.answer import answer
from prumerge.tiny import samples

# How many pictures each question is about, and by which method.
ROWS = [
    (1, "prumerge"),
    (2, "prumerge"),
    (3, "prumerge"),
    (1, "pool:keep=36"),
    (1, "prumerge"),
    (1, "cdpruner:keep=24"),
    (1, "prumerge"),
    (1, "fastv:keep=64"),
]


def test_64_at_once_are_answered_as_the_command_line_answers(server, tiny):
    check_at_once(server.client, said_of(ROWS, *tiny), 64)


@pytest.fixture(scope="module")
def sample():
    """A picture's file and a question about it."""
    found = samples()[0]
    return found.path.read_bytes(), found.questions[0].text


def test_keep_is_the_budget_of_the_method(server, sample):
    messages = [question(sample[1], sample[0])]
    for keep, left in ((36, 37), ("25%", 145), (0.25, 145)):
        _, usage = content(server.client, messages, extra_body={"keep": keep})
        assert usage.prompt_tokens_details.visual_tokens_kept == left


def test_words_alone_and_earlier_turns_are_read(server, sample):
    alone, usage = content(server.client, [{"role": "user", "content": "is there a sign?"}])
    assert usage.prompt_tokens_details.visual_tokens == 0
    turns = [
        question(sample[1], sample[0]),
        {"role": "assistant", "content": "heart"},
        {"role": "user", "content": "is there a heart?"},
    ]
    longer, more = content(server.client, turns)
    assert more.prompt_tokens > usage.prompt_tokens
    assert alone and longer == "yes"


def test_an_answer_that_is_cut_short_says_so(server, sample):
    found = server.client.chat.completions.create(
        model="tiny", messages=[question(sample[1], sample[0])], max_completion_tokens=1
    )
    assert (found.choices[0].finish_reason, found.usage.completion_tokens) == ("length", 1)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_before_a_stop_text(server, sample, stream):
    whole, _ = content(server.client, [question(sample[1], sample[0])])
    cut, _ = content(server.client, [question(sample[1], sample[0])], stream=stream, stop=[whole[1:3]])
    assert cut == whole[:1]


def test_a_seed_makes_chance_repeatable(server, sample):
    def drawn(seed):
        return content(server.client, [question(sample[1], sample[0])], temperature=2, seed=seed)[0]

    assert [drawn(3), drawn(4), drawn(5)] == [drawn(3), drawn(4), drawn(5)]


def test_a_stream_says_what_was_counted_only_if_asked(server, sample):
    chunks = list(
        server.client.chat.completions.create(
            model="tiny", messages=[question(sample[1], sample[0])], max_tokens=4, stream=True
        )
    )
    assert all(chunk.usage is None and chunk.choices and chunk.model == "tiny" for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_the_model_is_listed(server):
    (model,) = server.client.models.list().data
    assert model.id == "tiny"
    assert server.client.models.retrieve("tiny").id == "tiny"


EVERY = sorted(FAMILIES.keys() & PROCESSORS.keys())
WORDS = "w5 w7"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", EVERY)
def test_every_family_is_served_as_the_command_line_answers(name):
    model, processor = FAMILIES[name].model(), PROCESSORS[name]()
    images = [noise(size) for size in ((80, 60), (60, 90))]
    asked = [(images[:1], "topk:keep=3"), (images, "topk:keep=3"), (images[1:], "none")]
    expected = []
    for shown, spec in asked:
        try:
            said = answer(model, processor, shown, WORDS, spec, clip=False, max_new_tokens=4)
            expected.append((said.answer, said.prompt_tokens, said.visual_tokens))
        except PrumergeError:  # a family of one picture
            expected.append(None)
    bodies = [
        {
            "model": "tiny",
            "messages": [question(WORDS, *map(png, shown))],
            "max_tokens": 4,
            **({"reducer": spec} if spec == "none" else {}),
        }
        for shown, spec in asked
    ]
    for found, wanted in zip(
        asyncio.run(answered(model, processor, bodies, reducer="topk:keep=3")), expected, strict=True
    ):
        if wanted is None:
            assert isinstance(found, PrumergeError)
            continue
        usage = found["usage"]
        text = found["choices"][0]["message"]["content"]
        assert wanted == (text, usage["prompt_tokens"], usage["prompt_tokens_details"]["visual_tokens_kept"])
