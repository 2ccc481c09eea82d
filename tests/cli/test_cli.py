"""The command line as a user meets it."""

import json
import subprocess
import sys

import pytest
import torch
from noise import noise
from PIL import Image

import prumerge
from prumerge.catalogue import families
from prumerge.evaluate.log import read
from prumerge.tiny import samples
from prumerge.tiny.vocabulary import make_processor, unknown_words

SAMPLE = str(samples()[0].path)


LIGHT = ["--help", "-h", "--version", "methods", "methods prumerge", "families"]
LIGHT += ["answer --help", "serve --help", "export-lm --help"]


def test_help_and_tables_do_not_import_torch():
    """In one process: what one of them imports is still there after the others."""
    program = (
        "import sys\n"
        "from prumerge.cli import main\n"
        f"for arguments in {LIGHT}:\n"
        "    sys.argv = ['prumerge', *arguments.split()]\n"
        "    try: main()\n"
        "    except SystemExit as stop: assert not stop.code\n"
        "    heavy = {'torch', 'transformers', 'PIL', 'fastapi', 'httpx2', 'uvicorn'} & set(sys.modules)\n"
        "    assert not heavy, (arguments, heavy)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stderr == ""


def test_methods_lists_every_method(run):
    code, out, _ = run("methods", "--json")
    assert code == 0
    assert [one["name"] for one in json.loads(out)] == list(prumerge.names())


def test_families_lists_every_family(run):
    code, out, _ = run("families", "--json")
    assert code == 0
    assert [one["name"] for one in json.loads(out)] == list(families())
    assert all(name in run("families")[1] for name in families())


def test_answer_prints_the_answer_alone(run):
    code, out, _ = run("answer", SAMPLE, "is there a star?")
    assert code == 0
    assert out.strip() in {"yes", "no"}


def test_answer_as_json_counts_tokens_and_times_stages(run):
    code, out, _ = run("answer", SAMPLE, "is there a star?", "--reducer", "spatial", "--keep", "40", "--json")
    row = json.loads(out)
    assert code == 0
    assert (row["method"], row["visual_tokens"]) == ("spatial:keep=40", 40)
    assert min(row["encode_ms"], row["reduce_ms"], row["prefill_ms"], row["decode_ms"]) >= 0
    assert row["prefill_ms"] > 0


@pytest.fixture
def asked(monkeypatch):
    """The options of every question that the command line asked."""
    from prumerge.cli import model

    seen, real = [], model.ask

    def ask(*arguments, **named):
        seen.append(arguments[5])
        return real(*arguments, **named)

    monkeypatch.setattr(model, "ask", ask)
    return seen


def test_answer_attends_in_proportion_to_sizes(run, asked):
    arguments = ("answer", SAMPLE, "is there a star?", "--reducer", "pool", "--keep", "36")
    assert run(*arguments)[0] == run(*arguments, "--size-bias")[0] == 0
    assert [options.size_bias for options in asked] == [False, True]


@pytest.mark.parametrize("keep", ["25%", "0.25", "144"])
def test_keep_is_a_count_or_a_share(run, keep):
    arguments = ("answer", SAMPLE, "is there a star?", "--reducer", "spatial", "--keep", keep, "--json")
    assert json.loads(run(*arguments)[1])["visual_tokens"] == 144


def test_keep_auto_is_the_methods_own_choice(run):
    arguments = ("answer", SAMPLE, "is there a star?", "--json")
    own, auto = (json.loads(run(*arguments, *more)[1]) for more in ((), ("--keep", "auto")))
    assert own["visual_tokens"] == auto["visual_tokens"]


def test_several_methods_stand_side_by_side(run):
    reducers = "prumerge:keep=36,k=8,spatial:keep=36"
    _, out, _ = run("answer", SAMPLE, "is there a star?", "--reducer", reducers, "--json")
    rows = [(row["method"], row["visual_tokens"]) for row in json.loads(out)]
    assert rows == [("prumerge:keep=36,k=8", 37), ("spatial:keep=36", 36)]


def test_compare_puts_the_untouched_model_beside_the_reduced_one(run):
    _, out, _ = run("answer", SAMPLE, "is there a star?", "--compare", "--json")
    untouched, reduced = json.loads(out)
    assert (untouched["method"], untouched["visual_tokens"]) == ("untouched", 576)
    assert (reduced["method"], reduced["visual_tokens"] < 200) == ("prumerge", True)
    _, table, _ = run("answer", SAMPLE, "is there a star?", "--compare")
    assert "untouched" in table
    assert "prefill ms" in table
    _, table, _ = run("answer", SAMPLE, "is there a star?", "--compare", "--keep", "36")
    assert "37 (keep 36 + 1)" in table


def test_show_writes_the_picture_and_nothing_else(run, tmp_path):
    code, out, _ = run("show", SAMPLE, "-o", tmp_path / "kept.png", "--reducer", "prumerge:k=auto")
    assert code == 0
    assert "of 576 visual tokens left" in out
    assert [path.name for path in tmp_path.iterdir()] == ["kept.png"]
    with Image.open(tmp_path / "kept.png") as picture:
        assert picture.width > 1000


@pytest.mark.parametrize(
    ("reducer", "keep", "read"),
    [("fastv", "36", (576 + 576 + 36 + 36) / 4), ("tome:r=100+prumerge:k=8", "9", 10), ("tome", "64", 64)],
)
def test_methods_inside_tower_and_language_model_answer_too(run, reducer, keep, read):
    code, out, _ = run("answer", SAMPLE, "is there a star?", "--reducer", reducer, "--keep", keep, "--json")
    row = json.loads(out)
    assert (code, row["visual_tokens"]) == (0, read)
    assert row["answer"] in {"yes", "no"}


def test_show_draws_patches_that_the_vision_tower_merged(run, tmp_path):
    target = tmp_path / "kept.png"
    code, out, _ = run("show", SAMPLE, "-o", target, "--reducer", "tome:r=50", "--json")
    report = json.loads(out)
    assert (code, report["visual_tokens"], report["kept"]) == (0, 576, 576 - 5 * 50)
    assert report["index"] == sorted(set(report["index"]))
    assert max(report["index"]) < 576
    assert target.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("reducer", "kept"),
    [
        ("fastv:keep=36", 36),
        ("pyramiddrop:keep=36", 36),
        ("spatial:keep=144+fastv:keep=36", 36),
        ("sparsevlm", None),
    ],
)
def test_show_draws_what_the_last_layer_of_the_language_model_reads(run, tmp_path, reducer, kept):
    arguments = (
        "--reducer",
        reducer,
        "--question",
        "is there a heart?",
        "-o",
        tmp_path / "kept.png",
        "--json",
    )
    code, out, _ = run("show", SAMPLE, *arguments)
    report = json.loads(out)
    assert (code, report["visual_tokens"]) == (0, 576)
    assert report["kept"] == len(set(report["index"])) == (kept or report["kept"])
    assert 0 < report["kept"] < 576


def test_what_show_draws_of_a_method_between_layers_follows_the_question(run, tmp_path):
    def index(question):
        arguments = (
            "--reducer",
            "fastv:keep=36",
            "--question",
            question,
            "-o",
            tmp_path / "kept.png",
            "--json",
        )
        return json.loads(run("show", SAMPLE, *arguments)[1])["index"]

    assert index("is there a heart?") != index("what does the sign say?")


def test_show_draws_the_frames_of_a_clip_below_each_other(run, tmp_path):
    frames = [Image.new("RGB", (60, 60), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:])
    code, out, _ = run("show", tmp_path / "clip.gif", "-o", tmp_path / "kept.png", "--frames", "2")
    assert (code, "of 1152 visual tokens left" in out) == (0, True)
    with Image.open(tmp_path / "kept.png") as picture:
        assert picture.height > 900


@pytest.mark.parametrize(("kind", "begins"), [("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_charts_are_written_as_vectors_too(run, tmp_path, kind, begins):
    target = tmp_path / f"attention.{kind}"
    assert run("plot-attention", "--sample", "1", "-o", target)[0] == 0
    assert target.read_bytes().startswith(begins)


def test_plot_attention_writes_the_figure(run, tmp_path):
    code, out, _ = run("plot-attention", SAMPLE, "-o", tmp_path / "attention.png", "--json")
    report = json.loads(out)
    assert code == 0
    assert len(report["attention"]) == 576
    assert 0 < report["fence"] < max(report["attention"])
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_ones_own_goes_through_answer_and_show(run, tmp_path):
    noise((500, 211)).save(tmp_path / "own.webp")
    assert run("answer", tmp_path / "own.webp", "what is this?")[0] == 0
    assert run("show", tmp_path / "own.webp", "-o", tmp_path / "kept.jpg")[0] == 0


def test_a_clip_is_asked_about_as_media_and_by_video(run, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (60, 60), (90 * number, 0, 0)).save(folder / f"{number}.png")
    arguments = ("is there a star?", "--frames", "2", "--reducer", "none", "--json")
    plain, alias = run("answer", folder, *arguments), run("answer", "--video", folder, *arguments)
    assert plain[0] == alias[0] == 0
    assert json.loads(plain[1])["visual_tokens"] == json.loads(alias[1])["visual_tokens"] == 2 * 576


def test_samples_are_listed_written_and_asked_about(run, tmp_path):
    code, out, _ = run("samples", tmp_path / "new" / "pictures", "--json")
    listed = json.loads(out)
    assert code == 0
    assert [one["picture"] for one in listed] == [
        str(tmp_path / "new" / "pictures" / sample.path.name) for sample in samples()
    ]
    for sample in samples():
        assert (tmp_path / "new" / "pictures" / sample.path.name).read_bytes() == sample.path.read_bytes()
    question = samples()[1].questions[0].text
    by_path = run("answer", samples()[1].path, question)
    assert run("answer", "--sample", "2", question) == by_path
    assert run("answer", "--sample", samples()[1].path.stem, question) == by_path
    assert question in run("samples")[1]


def test_the_embedded_model_says_which_words_it_does_not_know(run):
    code, out, err = run("answer", "--sample", "1", "What is on the Table, or in the Kitchen?")
    assert (code, out != "") == (0, True)
    assert err.startswith("prumerge: the embedded model does not know 'table', 'kitchen': ")
    known = [question.text for sample in samples() for question in sample.questions]
    assert run("answer", "--sample", "1", known[0])[2] == ""
    processor = make_processor()
    assert [unknown_words(processor, question) for question in known] == [[]] * len(known)


def test_demo_answers_every_sample_question_and_draws_each_picture(run, monkeypatch, tmp_path):
    shown = samples()[:2]
    monkeypatch.setattr("prumerge.tiny.samples", lambda: shown)
    code, out, _ = run("demo", "-o", tmp_path / "demo", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["question"] for row in rows] == [one.text for sample in shown for one in sample.questions]
    assert {path.stem for path in (tmp_path / "demo").iterdir()} == {sample.path.stem for sample in shown}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["answer", "nowhere.png", "what?"], "there is no picture or clip at 'nowhere.png'"),
        (["answer", __file__, "what?"], "is no picture"),
        (
            ["answer", SAMPLE, "what?", "--reducer", "prune"],
            "there is no method 'prune' (did you mean 'hiprune'?); choose one of: ",
        ),
        (
            ["show", SAMPLE, "--reducer", "fastv"],
            "what fastv keeps depends on the question; ask one by --question",
        ),
        (
            ["show", SAMPLE, "--reducer", "trim"],
            "what trim keeps depends on the question; ask one by --question",
        ),
        (["show", SAMPLE, "--question", "what?"], "prumerge does not read the question; leave"),
        (["show", SAMPLE, "--reducer", "prumerge,spatial"], "one method at a time, not prumerge, spatial"),
        (["show", "--sample", "1", SAMPLE], "Missing argument 'MEDIA'"),
        (["show"], "Missing argument 'MEDIA'"),
        (["show", SAMPLE, "-o", "."], "'.' is a folder; name a file in it, such as kept.png"),
        (["demo", "-o", __file__], "is a file, not a folder; name another place"),
        (["samples", __file__], "is a file, not a folder; name another place"),
        (["answer", "--sample", "9", "what?"], "there is no sample '9'; choose one of: 9800013, "),
        (["answer", "--sample", "980013", "what?"], "(did you mean '9800013'?)"),
        (["answer", "--sample", "1", "--video", SAMPLE, "what?"], "give --video or --sample, not both"),
        (["answer", "--sample", "1", SAMPLE, "what?"], "with --sample leave MEDIA out"),
        (["answer", "--video", SAMPLE, SAMPLE, "what?"], "with --video leave MEDIA out"),
        (
            ["answer", SAMPLE, "what?", "--frames", "4"],
            "is one picture, which has no frames; leave --frames out",
        ),
        (["answer", SAMPLE, "what?", "--positions", "odd"], "positions are auto, compact, original, median"),
        (["answer", SAMPLE, "what?", "--separators", "odd"], "separators are keep, drop, remake"),
        (
            ["answer", SAMPLE, "what?", "--relevance-model", "x"],
            "prumerge: no method that asks --relevance-model",
        ),
        (
            ["answer", SAMPLE, "what?", "--reducer", "trim", "--relevance-model", "no/where"],
            "there is no CLIP model to load at 'no/where'",
        ),
        (
            ["answer", SAMPLE, "what?", "--device", "meta"],
            "there is no device 'meta' to run on; take cpu",
        ),
        (
            ["answer", SAMPLE, "what?", "--reducer", "a" * 5000],
            "there is no method 'aaaaaaaaaaaaaaaaaaaaaaaaaaaa...a",
        ),
        (["plot-attention", SAMPLE, "-o", "a.gif"], "'a.gif' must end in .png, .jpg or .svg"),
        (["answer", SAMPLE, "what?", "--reducer", "fastv:layer=9"], "the language model has 4 layers"),
        (["answer", SAMPLE, "what?", "--reducer", "fastv+tome"], "write tome+fastv"),
        (["answer", SAMPLE, "what?", "--reducer", "prumerge:x=1"], "prumerge has no option 'x'; it has:"),
        (["answer", SAMPLE, "what?", "--keep", "0"], "keep must be at least 1"),
        (["answer", SAMPLE, "what?", "--keep", "-3"], "keep must be at least 1"),
        (["answer", SAMPLE, "what?", "--keep", "nan"], "keep"),
        (["answer", SAMPLE, "what?", "--keep", "1.5"], "keep is a whole number of visual tokens or a share"),
        (["answer", SAMPLE, "what?", "--keep", "577"], "keep is more than the 576 visual tokens"),
        (["answer", SAMPLE, "what?", "--model", "no/where"], "there is no model to load at 'no/where'"),
        (["answer", SAMPLE, "what?", "--device", "abacus"], "there is no device 'abacus'"),
        (["answer", SAMPLE, "what?", "--max-new-tokens", "0"], "Invalid value for '--max-new-tokens'"),
        (["show", SAMPLE, "-o", "no/folder/kept.png"], "the folder 'no/folder' does not exist"),
        (["show", SAMPLE, "-o", "kept.pdf"], "'kept.pdf' must end in .png, .jpg or .webp"),
        (["plot-attention", SAMPLE, "--heads", "two"], "heads must be 'joint' or 'split'"),
        (["plot-attention", SAMPLE, "--iqr", "-1"], "Invalid value for '--iqr'"),
        (["methods", "prune"], "there is no method 'prune'"),
        (["answer", SAMPLE], "Missing argument"),
        (["nothing"], "No such command 'nothing'; see prumerge --help"),
        (["shwo"], "No such command 'shwo'. Did you mean 'show'?; see prumerge --help"),
        (["show", "--modl", "tiny"], "see prumerge show --help"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    run, unchecked, monkeypatch, tmp_path, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert len(err) < 1000
    assert list(tmp_path.iterdir()) == []


def test_demo_draws_methods_that_read_the_question(run, monkeypatch, tmp_path):
    monkeypatch.setattr("prumerge.tiny.samples", lambda: samples()[:1])
    code, _, err = run("demo", "-o", tmp_path / "demo", "--reducer", "fastv", "--keep", "36")
    assert (code, err) == (0, "")
    assert len(list((tmp_path / "demo").glob("*.png"))) == 1


def test_a_failure_leaves_an_older_picture_as_it_was(run, tmp_path):
    (tmp_path / "kept.png").write_bytes(b"older")
    assert run("show", SAMPLE, "-o", tmp_path / "kept.png", "--keep", "9999")[0] == 2
    assert (tmp_path / "kept.png").read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.fixture(scope="session")
def clip(small, tmp_path_factory):
    """A folder with an untrained CLIP model whose vision tower is as wide as the small model's."""
    from transformers import CLIPConfig, CLIPModel

    from prumerge.tiny.vocabulary import make_tokenizer

    tower = json.loads((small / "config.json").read_text())["vision_config"]
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"vocab_size": 512, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1}
    torch.manual_seed(0)
    config = CLIPConfig(vision_config=tower, text_config={**text, "eos_token_id": 2}, projection_dim=16)
    folder = tmp_path_factory.mktemp("clip")
    CLIPModel(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("command", ["answer", "show"])
def test_relevance_comes_from_another_model_for_methods_that_ask(run, small, clip, tmp_path, command):
    question = "is there a star?"
    asks = [question] if command == "answer" else ["--question", question, "-o", tmp_path / "kept.png"]
    arguments = (command, SAMPLE, *asks, "--model", small, "--reducer", "cdpruner", "--keep", "36", "--json")
    own, other = (run(*arguments, *more) for more in ((), ("--relevance-model", clip)))
    assert (other[0], "prumerge:" in other[2]) == (0, False)
    if command == "show":
        assert json.loads(own[1])["index"] != json.loads(other[1])["index"]


def test_evaluate_asks_the_other_model_about_each_question(run, small, clip, tmp_path):
    arguments = [
        "--model",
        small,
        "--reducer",
        "cdpruner",
        "--keep",
        "36",
        "--questions",
        "24",
        "--benchmark",
        "choice",
    ]
    assert run("evaluate", *arguments, "--relevance-model", clip, "-o", tmp_path / "run")[0] == 0
    settings, records = read(tmp_path / "run" / "answers.jsonl")
    assert settings["relevance"] == str(clip)
    assert {record.method for record in records} == {"none", "cdpruner@36", "random@36"}
