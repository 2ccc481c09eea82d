"""Where a checkpoint's files come from: folders, the hub's cache, and the hub, which is asked once."""

import json
import shutil
from typing import Any

import pytest
import torch
from huggingface_hub.errors import GatedRepoError
from safetensors.torch import load_file, save_file

import prumerge
from prumerge.errors import PrumergeError
from prumerge.loading import sources


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", [None, 3, b"tiny", ["tiny"]])
def test_a_model_has_a_name(name):
    with pytest.raises(PrumergeError, match="a model is loaded by its name or folder, not by"):
        prumerge.load(name)


@pytest.mark.parametrize("name", ["", "a b", "x/y/z", "../nowhere", "~/nowhere", "a" * 300, "some/nowhere"])
def test_a_name_that_is_nowhere_is_refused(name, tmp_path):
    for nowhere in (name, str(tmp_path / "nowhere")):
        with pytest.raises(PrumergeError, match="there is no model to load at '"):
            prumerge.load(nowhere)


def test_a_folder_without_configuration_is_no_model(tmp_path):
    with pytest.raises(PrumergeError, match=r"there is no model to load at .*the folder has no config.json"):
        prumerge.load(tmp_path)


def test_a_folder_in_a_folder_is_reached(checkpoint, tmp_path):
    shutil.move(checkpoint, tmp_path / "all" / "one")
    assert prumerge.load(tmp_path / "all", subfolder="one")[0].config.model_type == "llava"
    with pytest.raises(PrumergeError, match="there is no model to load"):
        prumerge.load(tmp_path / "all")


@pytest.fixture
def cache(checkpoint, tmp_path):
    """The hub's cache with two revisions of a model, and one of them in a subfolder as well."""
    repository = tmp_path / "hub" / "models--some--model"
    for commit, template in (("a" * 40, "OLD"), ("b" * 40, "NEW")):
        folder = shutil.copytree(checkpoint, repository / "snapshots" / commit)
        settings = json.loads((folder / "processor_config.json").read_text())
        (folder / "processor_config.json").write_text(json.dumps(settings | {"chat_template": template}))
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | {"said": template}))
        weights = load_file(folder / "model.safetensors")
        weights["language_model.lm_head.weight"][:] = float(template == "NEW")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copytree(folder, folder / "inside")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "refs" / "v2").write_text("b" * 40)
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("options", "said"),
    [({}, "OLD"), ({"revision": "v2"}, "NEW"), ({"revision": "v2", "subfolder": "inside"}, "NEW")],
)
def test_configuration_processor_and_weights_are_of_one_revision(cache, options, said):
    options = {"cache_dir": str(cache), "local_files_only": True, **options}
    model, processor = prumerge.load("some/model", **options)
    assert (model.config.said, processor.chat_template) == (said, said)
    assert (model.lm_head.weight == float(said == "NEW")).all()


@pytest.fixture
def online(monkeypatch):
    """What the hub is asked; it answers `False`, or what a test puts there."""

    def file_exists(name, file, **options):
        hub["asked"].append((name, file, options))
        if isinstance(hub["answer"], Exception):
            raise hub["answer"]
        return hub["answer"]

    hub: dict[str, Any] = {"asked": [], "answer": False}
    monkeypatch.setattr(sources, "is_offline_mode", lambda: False)
    monkeypatch.setattr(sources, "file_exists", file_exists)
    return hub


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (False, "the hub has no such model, or no such revision, or none that you may read"),
        (ConnectionError("[Errno -2] Name or service not known"), "cannot be reached: Name or service not"),
        (GatedRepoError.__new__(GatedRepoError), "is given out on request: ask for it on its page"),
    ],
)
def test_the_hub_is_asked_once(online, answer, sentence):
    online["answer"] = answer
    with pytest.raises(PrumergeError, match=sentence):
        prumerge.load("some/llavva", revision="v2", token="secret")
    assert online["asked"] == [("some/llavva", "config.json", {"revision": "v2", "token": "secret"})]


def test_the_hub_is_not_asked_for_what_is_here(online, cache):
    assert (
        sources.find("some/model", {"cache_dir": str(cache), "local_files_only": True}).name == "some/model"
    )
    with pytest.raises(PrumergeError):
        sources.find("some/other", {"cache_dir": str(cache), "local_files_only": True})
    with pytest.raises(PrumergeError):
        sources.find("no/id/at/all", {})
    assert not online["asked"]


def test_files_of_the_original_layout_are_fetched_from_the_same_place(monkeypatch, tmp_path):
    def snapshot_download(name, **options):
        asked.append((name, options))
        return str(tmp_path)

    asked = []
    monkeypatch.setattr(sources, "snapshot_download", snapshot_download)
    place = {"revision": "v2", "cache_dir": "there", "token": "secret", "subfolder": "inside"}
    assert sources.Source("some/llava", place, {}).folder("*.json") == tmp_path / "inside"
    del place["subfolder"]
    assert asked == [("some/llava", {"allow_patterns": ["inside/*.json"], **place})]


def test_options_about_files_do_not_reach_the_model():
    options = {"revision": "v2", "dtype": torch.float16}
    source = sources.find(prumerge.tiny.WEIGHTS, options)
    assert options == {"dtype": torch.float16}
    assert source.options == {"revision": "v2"}
    assert source.settings["model_type"] == "llava"
