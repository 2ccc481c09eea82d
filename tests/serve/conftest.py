"""Servers of the embedded model, and of a small untrained one that answers at once."""

import io
import logging

import pytest
from serving import Engine, running, serving

import prumerge
from prumerge.serve.export import export_language_model


@pytest.fixture
def logged():
    """What is logged meanwhile, as a stream; of the server all that it would tell."""
    stream, own, everything = io.StringIO(), logging.getLogger("prumerge.serve"), logging.getLogger()
    handler, level = logging.StreamHandler(stream), own.level
    everything.addHandler(handler)
    own.setLevel("INFO")
    yield stream
    own.setLevel(level)
    everything.removeHandler(handler)


@pytest.fixture(scope="package")
def tiny():
    """The embedded model."""
    return prumerge.load("tiny")


@pytest.fixture(scope="package")
def server(tiny):
    """A server of the embedded model, with its own engine."""
    with serving(*tiny, reducers=["pool", "cdpruner", "fastv", "tome"]) as found:
        yield found


@pytest.fixture(scope="module")
def untrained(small):
    return prumerge.load(small)


@pytest.fixture(scope="module")
def exported(untrained, tmp_path_factory):
    """The language model of the untrained one."""
    folder = tmp_path_factory.mktemp("language_model")
    export_language_model(untrained[0], untrained[1], folder)
    return folder


@pytest.fixture(scope="module")
def running_engine(exported):
    found = Engine(exported)
    with running(found.app) as url:
        found.url = url
        yield found


@pytest.fixture
def engine(running_engine):
    """An engine that answers as vLLM does, at `engine.url`; nothing was asked of it yet."""
    running_engine.forget()
    return running_engine
