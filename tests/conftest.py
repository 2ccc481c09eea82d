"""Runs before prumerge is imported: its annotations, tensor shapes included, are checked in every test.

It imports little itself: of several processes the one that hands out tests starts the others after it.
"""

import functools
import gc
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test downloads anything
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ["OMP_NUM_THREADS"] = "1"  # of torch, which is not imported yet

import annotations

annotations.install()

import jaxtyping  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("repeatable")


gc.disable()


def pytest_collection_finish():
    """What was imported stays: garbage collection, which each training asks for, need not look at it."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # what is left of tests is small: looked through less often
    gc.enable()


@pytest.fixture
def model():
    """A small LLaVA with random weights: 16 visual tokens a picture."""
    from builders import llava

    return llava()


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A folder with an untrained model like the embedded one, but fast."""
    import torch

    from prumerge.tiny.architecture import PRESETS, make_model
    from prumerge.tiny.vocabulary import make_processor

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    make_model(PRESETS["test"]).save_pretrained(folder)
    make_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def once():
    """Models by name, each loaded once."""
    from prumerge.loading.load import load

    return functools.cache(load)


@pytest.fixture(scope="session")
def commands():
    """The command line by its typer app, read once: a process that starts reads all of it."""
    import typer.main

    return functools.cache(typer.main.get_command)


@pytest.fixture
def run(monkeypatch, capsys, once, commands):
    """Run a command in this process: exit code, stdout, stderr. All but training share the embedded model."""
    from prumerge.cli import main

    def loaded(name, **options):
        asks = name == "tiny" and not options and sys.argv[1] != "train"
        return once(name) if asks else once.__wrapped__(name, **options)

    monkeypatch.setattr("prumerge.loading.load.load", loaded)
    monkeypatch.setattr("typer.main.get_command", commands)

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["prumerge", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        code = stopped.value.code or 0
        return (code, *capsys.readouterr())

    return command


@pytest.fixture
def unchecked():
    """Annotations are not checked: what users see who pass something wrong."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
