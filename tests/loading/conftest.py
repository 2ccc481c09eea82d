"""A checkpoint on disk, as the hub would hand it over."""

import shutil

import pytest
from builders import llava, processor


@pytest.fixture(scope="session")
def whole_checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "checkpoint"
    llava().save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(tmp_path, whole_checkpoint):
    """A copy that may be broken."""
    return shutil.copytree(whole_checkpoint, tmp_path / "checkpoint")
