"""How a command ends: what a user can mend is a sentence, a fault in code shows where it is."""

import os
import signal
import subprocess
import sys
import warnings

import pytest
import typer

import prumerge
from prumerge import cli
from prumerge.cli import COMMANDS, app
from prumerge.errors import MissingPackage, PrumergeError, short, unknown
from prumerge.reducers.spatial import Spatial
from prumerge.tiny import samples

SAMPLE = str(samples()[0].path)
PROGRAM = [sys.executable, "-m", "prumerge"]


def failing(monkeypatch, error):
    """The command `families` raises it."""
    from prumerge import catalogue

    def fails():
        raise error

    monkeypatch.setattr(catalogue, "all_families", fails)


@pytest.mark.parametrize("error", [PrumergeError("mend this"), MissingPackage("mend this")])
def test_what_a_user_can_mend_is_one_sentence(run, monkeypatch, error):
    failing(monkeypatch, error)
    assert run("families") == (2, "", "prumerge: mend this\n")


def test_a_sentence_stays_one_line(run, monkeypatch):
    failing(monkeypatch, PrumergeError("a picture at 'two\nlines'"))
    assert run("families")[2] == "prumerge: a picture at 'two lines'\n"


@pytest.mark.parametrize(
    "kind", [ValueError, TypeError, KeyError, OSError, RuntimeError, ModuleNotFoundError, AttributeError]
)
def test_a_fault_in_code_is_never_dressed_up_as_bad_input(monkeypatch, kind):
    failing(monkeypatch, kind("a fault"))
    monkeypatch.setattr(sys, "argv", ["prumerge", "families"])
    with pytest.raises(kind, match="a fault"):
        cli.main()


ASKED = ["prumerge", "answer", SAMPLE, "why?", "--reducer", "spatial", "--keep", "4"]


@pytest.mark.parametrize("kind", [ValueError, TypeError, KeyError])
def test_a_fault_in_a_method_is_not_dressed_up_either(monkeypatch, small, kind):
    def fails(self, tokens):
        raise kind("a fault")

    monkeypatch.setattr(Spatial, "__call__", fails)
    monkeypatch.setattr(sys, "argv", [*ASKED, "--model", str(small)])
    with pytest.raises(kind, match="a fault"):
        cli.main()


def test_a_fault_shows_its_traceback():
    program = (
        "import sys\nfrom prumerge import catalogue\n"
        "def fails(): raise ValueError('a fault')\n"
        "catalogue.all_families = fails\n"
        "sys.argv = ['prumerge', 'families']\n"
        "from prumerge.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ValueError: " in done.stderr


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), typer.Abort()])
def test_an_interrupted_command_is_silent(run, monkeypatch, interrupt):
    failing(monkeypatch, interrupt)
    assert run("families") == (130, "", "")


@pytest.mark.parametrize(
    "becomes", ["os.kill(os.getpid(), signal.SIGINT)", "try_(); raise ImportError('broken off')", "Dying()"]
)
@pytest.mark.parametrize("module", ["prumerge.cli", "torch"])
def test_control_c_during_start_up_is_silent(tmp_path, module, becomes):
    """`module` is being imported when the signal comes; others may turn it into an error of their own,
    or Python may ignore it where it cannot be raised."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, os, signal\n"
        "def try_():\n"
        "    try: os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt: pass\n"
        "class Dying:\n"
        "    def __del__(self): os.kill(os.getpid(), signal.SIGINT)\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: {becomes}\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    command = [*PROGRAM, "answer", SAMPLE, "is there a star?"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_who_has_read_enough_may_close_the_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*PROGRAM, "methods"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode != -signal.SIGPIPE


def test_the_module_runs_as_the_command_does():
    done = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"prumerge {prumerge.__version__}\n")


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",)])
def test_help_lists_every_command_in_whole_lines(run, arguments):
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert "..." not in out.partition("Commands:")[2]
    assert all(f"\n  {name.replace('_', '-')} " in out for name in COMMANDS)


def test_a_command_is_a_file_with_a_function_of_its_name():
    helpers = {"__init__", "model", "options", "output", "pictures", "reports"}
    files = {path.stem for path in cli.Path(cli.__file__).parent.glob("*.py")}
    assert files == {*COMMANDS, *helpers}
    registered = {command.callback.__name__ for command in app.registered_commands}
    assert registered == set(COMMANDS)


def test_what_the_package_warns_of_is_a_note_and_what_others_warn_of_is_left_alone(capsys, monkeypatch):
    monkeypatch.setattr(cli, "_show", lambda message, *_: print(f"plain {message}"))
    for file in (prumerge.__file__, __file__):
        cli._show_warning(UserWarning("a budget"), UserWarning, file, 1)
    assert tuple(capsys.readouterr()) == ("plain a budget\n", "prumerge: a budget\n")
    assert warnings.showwarning is not cli._show_warning


@pytest.mark.parametrize(
    ("incomplete", "words"),
    [
        ("prumerge answer --reducer prum", {"prumerge", "prumerge_plus"}),
        ("prumerge answer --reducer spatial,tome+vis", {"spatial,tome+visionzip", "spatial,tome+vispruner"}),
        ("prumerge methods fast", {"fastv", "fastervlm"}),
        ("prumerge roofline --hardware v100,l4", {"v100,l4", "v100,l40s"}),
        ("prumerge roofline --model qwen", None),
        ("prumerge show --sample 98000", {"9800013", "9800024", "9800029", "9800092"}),
        ("prumerge evaluate --benchmark e", {"existence", "easy_vqa"}),
    ],
)
def test_shells_complete_names(incomplete, words):
    environment = {"_PRUMERGE_COMPLETE": "complete_bash", "COMP_WORDS": incomplete, "COMP_CWORD": "3"}
    environment["COMP_CWORD"] = str(len(incomplete.split()) - 1)
    program = (
        "import sys; sys.argv = ['prumerge']\nfrom prumerge.cli import app\n"
        "try: app(prog_name='prumerge')\nfinally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.stderr == ""
    found = set(done.stdout.split())
    assert found == words if words else len(found) > 1


# what is said


def test_the_nearest_name_comes_first():
    assert unknown("fruit", "appel", ["apple", "pear"]) == (
        "there is no fruit 'appel' (did you mean 'apple'?); choose one of: apple, pear"
    )
    assert unknown("fruit", "x", ["apple", "pear"], instead="grow one") == (
        "there is no fruit 'x'; choose one of: apple, pear, or grow one"
    )


def test_what_is_long_is_cut_in_the_middle():
    assert short("abc") == "abc"
    assert short("a" * 50 + "b" * 50, 13) == "aaaaa...bbbbb"
    assert len(unknown("fruit", "x" * 5000, ["apple"])) < 200
