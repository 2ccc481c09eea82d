"""Pictures and a clip that rows of training data are about."""

import gc
import shutil

import pytest
from clips import animated, coloured


@pytest.fixture(scope="module", autouse=True)
def _what_stays():
    """What other tests left is not looked through after each training, which collects garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    for name, picture in zip(("red", "lime"), coloured(2), strict=True):
        picture.save(folder / f"{name}.png")
    animated(folder / "clip.gif")
    (folder / "clip").mkdir()
    for number, frame in enumerate(coloured()):
        frame.save(folder / "clip" / f"{number}.png")
    return folder


@pytest.fixture
def folder(tmp_path, pictures):
    """A red and a lime picture, and a clip of ten colours as GIF and as a folder of frames."""
    return shutil.copytree(pictures, tmp_path, dirs_exist_ok=True)
