"""The command line as a user meets it."""

import json
import subprocess
import sys

import pytest
from PIL import Image

import prumerge
from prumerge.catalogue import families
from prumerge.tiny import samples

SAMPLE = str(samples()[0].path)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["methods"], ["methods", "prumerge"], ["families"], ["answer", "--help"]]
)
def test_help_and_tables_do_not_import_torch(arguments):
    program = (
        f"import sys; sys.argv = ['prumerge', *{arguments}]\n"
        "from prumerge.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'transformers', 'PIL'} & set(sys.modules)"
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


def test_answer_attends_in_proportion_to_sizes(run, monkeypatch):
    from prumerge import answering

    sizes, real = [], answering.column_sizes
    monkeypatch.setattr(answering, "column_sizes", lambda *given: sizes.append(real(*given)) or sizes[-1])
    arguments = ("answer", SAMPLE, "is there a star?", "--reducer", "pool", "--keep", "36", "--json")
    assert run(*arguments)[0] == 0
    assert sizes == []
    assert run(*arguments, "--size-bias")[0] == 0
    assert sizes[0].unique(return_counts=True)[1].tolist()[1] == 36  # of 16 patches each


def test_compare_puts_the_untouched_model_beside_the_reduced_one(run):
    _, out, _ = run("answer", SAMPLE, "is there a star?", "--compare", "--json")
    untouched, reduced = json.loads(out)
    assert (untouched["method"], untouched["visual_tokens"]) == ("untouched", 576)
    assert (reduced["method"], reduced["visual_tokens"] < 200) == ("prumerge", True)
    _, table, _ = run("answer", SAMPLE, "is there a star?", "--compare")
    assert "untouched" in table
    assert "prefill ms" in table


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


def test_plot_attention_writes_the_figure(run, tmp_path):
    code, out, _ = run("plot-attention", SAMPLE, "-o", tmp_path / "attention.png", "--json")
    report = json.loads(out)
    assert code == 0
    assert len(report["attention"]) == 576
    assert 0 < report["fence"] < max(report["attention"])
    assert (tmp_path / "attention.png").stat().st_size > 10_000


def test_a_picture_of_ones_own_goes_through_answer_and_show(run, tmp_path):
    Image.effect_noise((500, 211), 60).convert("RGB").save(tmp_path / "own.webp")
    assert run("answer", tmp_path / "own.webp", "what is this?")[0] == 0
    assert run("show", tmp_path / "own.webp", "-o", tmp_path / "kept.jpg")[0] == 0


def test_demo_answers_every_sample_question_and_draws_each_picture(run, tmp_path):
    code, out, _ = run("demo", "-o", tmp_path / "demo", "--json")
    rows = json.loads(out)
    assert code == 0
    assert len(rows) == sum(len(sample.questions) for sample in samples())
    assert len(list((tmp_path / "demo").glob("*.png"))) == len(samples())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["answer", "nowhere.png", "why?"], "there is no picture at 'nowhere.png'"),
        (["answer", __file__, "why?"], "is no picture"),
        (
            ["answer", SAMPLE, "why?", "--reducer", "prune"],
            "there is no method 'prune'; choose one of: ",
        ),
        (["show", SAMPLE, "--reducer", "fastv"], "fastv works inside the language model"),
        (["answer", SAMPLE, "why?", "--reducer", "fastv:layer=9"], "the language model has 4 layers"),
        (["answer", SAMPLE, "why?", "--reducer", "fastv+tome"], "write tome+fastv"),
        (["answer", SAMPLE, "why?", "--reducer", "prumerge:x=1"], "prumerge has no option 'x'; it has: keep"),
        (["answer", SAMPLE, "why?", "--keep", "0"], "keep must be at least 1"),
        (["answer", SAMPLE, "why?", "--keep", "-3"], "keep must be at least 1"),
        (["answer", SAMPLE, "why?", "--keep", "nan"], "keep"),
        (["answer", SAMPLE, "why?", "--keep", "1.5"], "keep is a whole number of visual tokens or a share"),
        (["answer", SAMPLE, "why?", "--keep", "577"], "keep is more than the 576 visual tokens"),
        (["answer", SAMPLE, "why?", "--model", "no/where"], "there is no model to load at 'no/where'"),
        (["answer", SAMPLE, "why?", "--device", "abacus"], "there is no device 'abacus'"),
        (["answer", SAMPLE, "why?", "--max-new-tokens", "0"], "Invalid value for '--max-new-tokens'"),
        (["show", SAMPLE, "-o", "no/folder/kept.png"], "the folder 'no/folder' does not exist"),
        (["show", SAMPLE, "-o", "kept.txt"], "must end in .png"),
        (["plot-attention", SAMPLE, "--heads", "two"], "heads must be 'joint' or 'split'"),
        (["plot-attention", SAMPLE, "--iqr", "-1"], "Invalid value for '--iqr'"),
        (["methods", "prune"], "there is no method 'prune'"),
        (["answer", SAMPLE], "Missing argument"),
        (["nothing"], "No such command"),
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
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_an_older_picture_as_it_was(run, tmp_path):
    (tmp_path / "kept.png").write_bytes(b"older")
    assert run("show", SAMPLE, "-o", tmp_path / "kept.png", "--keep", "9999")[0] == 2
    assert (tmp_path / "kept.png").read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 1
