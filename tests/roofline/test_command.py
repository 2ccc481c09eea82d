"""`prumerge roofline` as a user meets it."""

import json
import os
import resource
import subprocess
import sys

import pytest
from PIL import Image

from prumerge.roofline import calibrate as calibration
from prumerge.roofline import hardware
from prumerge.roofline.calibrate import calibrate


@pytest.fixture
def idle(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))


def start(*arguments):
    """In a fresh process: seconds of processor time, and whether torch was imported."""
    program = (
        f"import sys; sys.argv = ['prumerge', 'roofline', *{list(arguments)}]\n"
        "from prumerge.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'transformers', 'matplotlib', 'numpy'} & set(sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr == ""
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("arguments", [["--help"], ["--bits", "w16a16,w4a16", "--hardware", "v100,h100"]])
def test_help_and_a_full_table_come_at_once_and_without_torch(arguments):
    assert start(*arguments) < 0.5 or min(start(*arguments) for _ in range(3)) < 0.5


def test_the_table_and_the_words(run):
    code, out, err = run("roofline", "--visual", "576,40", "--hardware", "v100", "--bits", "w16a16,w4a16")
    assert (code, err) == (0, "")
    assert out.count("v100") == 4 + 4  # rows, and two sentences for each precision
    assert "below 94 fewer stop helping: at most a tenth of the prefill" in out


def test_json_holds_every_operation(run):
    _, out, _ = run("roofline", "--visual", "576,40", "--hardware", "h100", "--json")
    report = json.loads(out)
    many, few = report["estimates"]
    assert few["speedup"] == pytest.approx(many["first_token_ms"] / few["first_token_ms"])
    assert [stage["stage"] for stage in few["stages"]] == [
        "tower",
        "reduction",
        "connector",
        "prefill",
        "decode",
    ]
    prefill = few["stages"][3]
    assert sum(op["us"] * op["count"] for op in prefill["ops"]) / 1e3 == pytest.approx(few["prefill_ms"])
    assert {"intensity", "bound", "read", "written", "weights"} <= set(prefill["ops"][0])
    assert len(report["words"]) == 2


def test_the_default_sentence_names_a_machine_too_small(run):
    _, out, _ = run("roofline", "--model", "llava-1.5-13b", "--hardware", "4090", "--visual", "576")
    assert "4090, w16a16: 576 visual tokens need more than its 24 GB of memory" in out


def test_llm_viewers_convention_has_its_own_columns(run):
    arguments = [
        "--convention",
        "llm-viewer-2024-03",
        "--text",
        "130",
        "--visual",
        "570",
        "--bits",
        "w16a16,w4a4",
    ]
    _, out, _ = run("roofline", *arguments, "--json")
    full, quarter = json.loads(out)["estimates"]
    assert (full["prompt_tokens"], round(full["prefill_ms"], 1)) == (700, 88.6)
    assert (quarter["bits"], round(quarter["prefill_ms"], 1)) == ("w4a4", 151.6)
    code, table, _ = run("roofline", *arguments)
    assert code == 0
    assert "151.64" in table


MODEL, ONE = 8_177_645_518_848 + 366_033_858_560 + 24_159_191_040, 32 * 576 * 4096  # layers x tokens x width


@pytest.mark.parametrize(
    ("convention", "operations"),
    [
        ("flops", MODEL),
        ("macs", MODEL / 2),
        ("fastv", ONE * (4 * 4096 + 2 * 576 + 2 * 11008)),
        ("pyramiddrop", ONE * (4 * 4096 + 2 * 576 + 3 * 11008)),
    ],
)
def test_a_convention_counts_in_its_own_way_and_says_how(run, convention, operations):
    arguments = ["--visual", "576", "--hardware", "v100", "--convention", convention]
    _, out, _ = run("roofline", *arguments, "--json")
    assert json.loads(out)["estimates"][0]["tera"] == operations / 1e12
    _, table, _ = run("roofline", *arguments)
    assert f"{operations / 1e12:.3f}" in table
    assert (f"TMACs by {convention}" in table) == (convention != "flops")


def test_the_picture_is_drawn(run, tmp_path):
    code, _, _ = run(
        "roofline", "--hardware", "v100,h100", "--bits", "w16a16,w4a16", "-o", tmp_path / "roof.png"
    )
    assert code == 0
    with Image.open(tmp_path / "roof.png") as picture:
        assert picture.width > 1000
        colours = picture.convert("RGB").getcolors(1 << 20)
    machines = {(31, 119, 180), (255, 127, 14)}  # the first two of matplotlib's cycle
    assert {colour for count, colour in colours if count > 100} >= machines


def test_without_matplotlib_the_message_says_what_to_install(run, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, out, err = run("roofline", "-o", tmp_path / "roof.png")
    assert (code, out) == (2, "")
    assert "pip install 'prumerge[plot]'" in err


def test_calibration_measures_and_shows_where_the_figures_come_from(run, idle, monkeypatch):
    monkeypatch.setattr(calibration, "SPREAD", float("inf"))  # tests share their machine
    machine = calibrate(side=256, copied=1 << 22)
    assert machine.rates["fp32"] > 0
    assert machine.bandwidth > 0
    monkeypatch.setattr(calibration, "calibrate", lambda: machine)
    code, out, _ = run("roofline", "--calibrate", "--visual", "576")
    assert code == 0
    assert f"here: {machine.note}." in out
    assert "h100" not in out
    _, both, _ = run("roofline", "--calibrate", "--hardware", "h100", "--visual", "576")
    assert "h100, w16a16:" in both


def test_calibration_refuses_on_a_busy_machine(run, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (64.0, 1.0, 1.0))
    code, out, err = run("roofline", "--calibrate")
    assert (code, out) == (2, "")
    assert "this machine is busy (load 64.0 on" in err


def test_calibration_refuses_when_rounds_scatter(monkeypatch):
    clock = iter([0, 1, 0, 1, 0, 5, 0, 5, 0, 5, 0, 5, 0, 5])
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: float(next(clock)))
    with pytest.raises(ValueError, match=r"copies of memory scatter .* try again when it is quiet"):
        calibration.counted(calibration._seconds(lambda: None), "copies of memory")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--hardware", "h1000"], "there is no machine 'h1000' (did you mean 'h100'?); choose one of: v100"),
        (["--hardware", "v100,"], "there is no machine ''; choose one of: v100"),
        (["--bits", "w5a16"], "w5 in 'w5a16' is impossible; choose from: w2"),
        (["--bits", "w8a8", "--hardware", "v100"], "v100 has no int8 arithmetic, only fp16, fp32"),
        (["--visual=-5"], "'-5' is no number of visual tokens"),
        (["--visual", "600"], "600 visual tokens are more than the 576"),
        (["--text", "-1"], "text must be at least 0, not -1"),
        (["--batch", "0"], "batch must be at least 1"),
        (["--model", "llama-2"], "there is no model 'llama-2'; choose one of: llava-1.5-7b"),
        (["--model", "text.json"], "is no vision-language model"),
        (["--model", "list.json"], "is no model's config.json"),
        (["--model", "broken.json"], "is no JSON"),
        (["--convention", "thop"], "there is no convention 'thop'; choose one of: flops, macs"),
        (["--convention", "llm-viewer-2024-03", "--bits", "w4a16"], "has one width for weights"),
        (["--convention", "llm-viewer-2024-03", "--visual", "576x2+40"], "the same tokens in every layer"),
        (
            ["--convention", "llm-viewer-2024-03", "--hardware", "l4"],
            "has no machine 'l4'; choose from: v100",
        ),
        (["--tensor-parallel", "2", "--hardware", "laptop-cpu"], "laptop-cpu has no link"),
        (["-o", "roof.txt"], "must end in .png, .jpg or .svg"),
        (["-o", "."], "is a folder; name a file in it"),
        (["--hardware", ""], "there is no machine ''; choose one of: v100"),
        (["--hardware", "", "--calibrate"], "there is no machine ''; choose one of: v100"),
        (["--model", "llava-1.5-7"], "(did you mean 'llava-1.5-7b'?)"),
        (["--model", "a" * 5000], "cannot be read (File name too long); name another"),
        (["--bits", ""], "'' is no bit width"),
        (["--visual", ""], "'' is no number of visual tokens"),
        (
            ["--verify", "--model", "llava-1.5-13b"],
            "--model: without effect beside --verify; leave out the one",
        ),
        (["--verify", "-o", "roof.png", "--ops"], "--ops, --output: without effect beside --verify"),
        (
            ["--convention", "llm-viewer-2024-03", "-o", "roof.png", "--calibrate"],
            "--calibrate, --output: without effect beside --convention llm-viewer-2024-03",
        ),
        (
            ["--convention", "llm-viewer-2024-03", "--batch", "2"],
            "--batch: without effect beside --convention",
        ),
        (["--convention", "llm-viewer-2024-03", "--hardware", ""], "has no machine ''; choose from: v100"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    run, unchecked, monkeypatch, tmp_path, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.json").write_text('{"model_type": "llama", "hidden_size": 64}')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "broken.json").write_text("{")
    code, out, err = run("roofline", *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("option", ["--new-tokens", "--batch", "--tensor-parallel", "--tiles"])
@pytest.mark.parametrize("chosen", [["--verify"], ["--convention", "llm-viewer-2024-03"]])
def test_no_option_is_ignored_in_silence(run, chosen, option):
    code, out, err = run("roofline", *chosen, option, "1")
    assert (code, out) == (2, "")
    assert f"{option}: without effect beside {' '.join(chosen)}" in err


@pytest.mark.parametrize(("kind", "begins"), [("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_picture_is_drawn_as_vectors(run, tmp_path, kind, begins):
    code, out, _ = run("roofline", "--hardware", "v100", "-o", tmp_path / f"roof.{kind}")
    assert (code, f"The picture is {tmp_path / f'roof.{kind}'}." in out) == (0, True)
    assert (tmp_path / f"roof.{kind}").read_bytes().startswith(begins)


def test_every_machine_can_be_asked_for(run):
    code, out, _ = run("roofline", "--hardware", ",".join(hardware.names()), "--visual", "576")
    assert code == 0
    assert all(name in out for name in hardware.names())
