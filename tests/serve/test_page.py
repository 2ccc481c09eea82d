"""What the page at / is told is what the pipeline decides, and it asks nobody but its server."""

import re
from dataclasses import replace

import pytest
import torch
from PIL import Image
from serving import HTTP, KEY, ask_http, data_url, png, question, serving

import prumerge
from prumerge.cli.model import look
from prumerge.drawing import owners
from prumerge.pipeline.decide import decide
from prumerge.pipeline.options import DEFAULT
from prumerge.pipeline.reduce import Pipeline
from prumerge.serve.asked import Allowed
from prumerge.serve.encoder import LOOKED_AT
from prumerge.serve.look import PAGE, drawing, methods, samples
from prumerge.serve.refusal import Refusal
from prumerge.tiny import samples as shipped

WORDS = "which shape is blue?"


@pytest.fixture(scope="module")
def picture():
    return Image.open(shipped()[1].path).convert("RGB")


def body(image, reducer="prumerge", **more):
    return {"model": "tiny", "messages": [question(WORDS, png(image))], "reducer": reducer, **more}


def select(server, asked, **options):
    return HTTP.post(f"{server.url}/page/select", json=asked, **options)


def noise(seed):
    torch.manual_seed(seed)
    return Image.fromarray(torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8).numpy())


@pytest.mark.parametrize(
    ("reducer", "keep"),
    [("prumerge", None), ("prumerge", 12), ("pool", 36), ("cdpruner", 24), ("tome", None), ("none", None)],
)
def test_what_is_drawn_is_what_the_command_line_draws(server, tiny, picture, reducer, keep):
    found = select(server, body(picture, reducer, **({"keep": keep} if keep else {}))).json()
    method = prumerge.make(reducer if keep is None else f"{reducer}:keep={keep}")
    model, processor = tiny
    tokens, reduction = look(model, processor, picture, method, WORDS)
    assert found["reducer"] == str(method)
    assert found["grid"] == [24, 24]
    assert found["kept"] == reduction.index.tolist()
    assert found["owner"] == owners(tokens.picture_grid, reduction).tolist()
    assert (found["visual_tokens"], found["visual_tokens_kept"]) == (576, len(reduction))


def test_one_encoding_serves_every_budget_and_the_answer(server, monkeypatch):
    encodings, encode = [], Pipeline.encode

    def counted(self, prompt):
        encodings.append(str(self.method))
        return encode(self, prompt)

    monkeypatch.setattr(Pipeline, "encode", counted)
    shown = noise(0)
    found = [select(server, body(shown, "pool", keep=keep)).json() for keep in (4, 16, 36)]
    assert [one["remembered"] for one in found] == [False, True, True]
    assert [one["visual_tokens_kept"] for one in found] == [4, 16, 36]
    answer = ask_http(server, body(shown, "pool", keep=9, max_tokens=1)).json()
    assert answer["usage"]["prompt_tokens_details"]["visual_tokens_kept"] == 9
    assert encodings == ["pool:keep=4"]


def test_only_the_pictures_looked_at_last_are_remembered(server):
    for seed in range(LOOKED_AT + 1):
        select(server, body(noise(seed)))
    assert [select(server, body(noise(seed))).json()["remembered"] for seed in (LOOKED_AT, 0)] == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("change", "status", "match"),
    [
        ({"reducer": "fastv"}, 400, "works between layers of the language model"),
        ({"reducer": "topk"}, 400, "'topk' is not served here"),
        ({"reducer": "pool", "keep": 9999}, 400, "ask for at most 576"),
        ({"messages": [{"role": "user", "content": WORDS}]}, 400, "show one picture"),
        ({"messages": [question(WORDS, png(noise(0)), png(noise(1)))]}, 400, "show one picture"),
        ({"messages": [question(WORDS, png(noise(0))[:80])]}, 400, "the picture"),
        ({"model": "other"}, 404, "there is no model of this name"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence_in_openais_form(server, change, status, match):
    found = select(server, {**body(noise(0)), **change})
    assert found.status_code == status
    assert match in found.json()["error"]["message"]
    assert server.front.held == 0


@pytest.mark.parametrize(("grid", "tiles"), [((1, 2, 4), ((2, 2), (2, 2))), ((1, 1, 8), ()), ((2, 2, 2), ())])
def test_what_is_no_grid_of_patches_is_not_drawn(grid, tiles):
    features, queries, keys = torch.randn(3, 9, 8)
    tokens = prumerge.VisualTokens.from_class_sequence(features, queries, keys, heads=2, grid=grid)
    (decision,) = decide(prumerge.make("spatial:keep=2"), [tokens])
    with pytest.raises(Refusal, match="which is not drawn here"):
        drawing(replace(decision, tokens=replace(tokens, tiles=tiles)))


@pytest.mark.parametrize(
    ("default", "reducer", "keep"),
    [
        ("prumerge", "prumerge", None),
        ("prumerge:keep=36", "prumerge", 36),
        ("prumerge:keep=36,k=8", "prumerge:k=8", 36),
        ("tome:r=40+prumerge:keep=0.25", "tome:r=40+prumerge", 0.25),
        ("topk@merged", "topk@merged", None),
    ],
)
def test_the_servers_own_method_comes_first_and_takes_other_budgets(default, reducer, keep):
    allowed = Allowed.of(default, ["pool"], DEFAULT)
    first, *others = methods(allowed)
    assert (first["reducer"], first["keep"], first["budget"]) == (reducer, keep, True)
    assert {"none", "pool"} <= {one["reducer"] for one in others}
    assert all(one["reducer"] != reducer for one in others)


@pytest.mark.parametrize("default", ["none", "pool:grid=6x6", "topk:keep=9@merged"])
def test_a_method_whose_budget_is_no_question_has_no_slider(default):
    assert not methods(Allowed.of(default, [], DEFAULT))[0]["budget"]


def test_methods_say_what_they_need(server):
    found = HTTP.get(f"{server.url}/page/methods").json()
    by_name = {one["reducer"]: one for one in found["methods"]}
    assert found["model"] == "tiny"
    assert [name for name, one in by_name.items() if one["reads"]] == ["cdpruner"]
    assert [name for name, one in by_name.items() if not one["draws"]] == ["fastv"]
    assert [name for name, one in by_name.items() if not one["budget"]] == ["none"]


def test_every_sample_comes_with_its_questions(server):
    found = HTTP.get(f"{server.url}/page/samples").json()
    assert found == samples()
    assert [one["url"] for one in found] == [data_url(one.path.read_bytes(), "jpeg") for one in shipped()]
    assert found[0]["questions"][0] == {"text": "which shape is blue?", "answer": "heart"}


def test_usage_says_how_long_each_stage_took(server):
    asked = body(noise(99), "pool", keep=36, max_tokens=1)
    new, known = (ask_http(server, asked).json()["usage"]["prompt_tokens_details"] for _ in range(2))
    assert new["encode_ms"] > 0 and new["reduce_ms"] > 0
    assert (known["encode_ms"], known["reduce_ms"]) == (0, 0)


def test_the_page_asks_nobody_but_its_server(server):
    for path in PAGE.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|<script>|\son\w+=|style=", text), path.name
        response = HTTP.get(f"{server.url}/{path.name.replace('index.html', '')}")
        assert response.text == path.read_text()
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"


def test_only_sites_that_the_operator_names_may_frame_it(tiny, server):
    policy = "content-security-policy"
    assert "frame-ancestors 'none'" in HTTP.get(server.url).headers[policy]
    with serving(*tiny, frames="https://huggingface.co") as framed:
        assert HTTP.get(framed.url).headers[policy].endswith("frame-ancestors https://huggingface.co")


def test_a_key_opens_what_the_page_asks_for_and_the_page_itself_needs_none(tiny):
    with serving(*tiny, key=KEY) as server:
        assert HTTP.get(server.url).status_code == 200
        known = {"authorization": f"Bearer {KEY}"}
        for path in ("methods", "samples"):
            url = f"{server.url}/page/{path}"
            assert (HTTP.get(url).status_code, HTTP.get(url, headers=known).status_code) == (401, 200)
        assert select(server, body(noise(0))).status_code == 401
        assert select(server, body(noise(0)), headers=known).status_code == 200


def test_an_operator_may_leave_the_page_out(tiny):
    with serving(*tiny, page=False) as server:
        found = [HTTP.get(f"{server.url}{path}") for path in ("/", "/page/methods", "/page/samples")]
        assert [one.status_code for one in found] == [404, 404, 404]
        assert select(server, body(noise(0))).status_code == 404
