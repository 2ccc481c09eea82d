"""What `prumerge export-lm` writes is the language model, and reads a prompt as the whole model does."""

import json

import pytest
import torch
from families import FAMILIES
from PIL import Image
from processors import PROCESSORS
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import prumerge
from prumerge.errors import PrumergeError
from prumerge.loading.prompts import prepare, question_prompt
from prumerge.models import family_of
from prumerge.serve.export import chat_template, export_language_model, export_whole


def test_the_language_model_alone_says_the_same(run, tmp_path, tiny):
    model, processor = tiny
    code, out, _ = run("export-lm", "tiny", tmp_path / "lm", "--json")
    assert (code, "config.json" in json.loads(out)["files"]) == (0, True)
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "lm", dtype=torch.float32)
    ids = processor.tokenizer("USER: is there a heart? ASSISTANT:", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(alone(ids).logits, model(input_ids=ids).logits)
    assert alone.generation_config.eos_token_id == model.generation_config.eos_token_id


def test_its_chat_template_writes_what_the_tokenizer_would(run, tmp_path, tiny):
    run("export-lm", "tiny", tmp_path / "lm")
    processor = tiny[1]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "lm")
    content = [{"type": "text", "text": "is there a heart?"}]
    ids = tokenizer.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    expected = processor.tokenizer(question_prompt(processor, "is there a heart?", 0)).input_ids
    assert ids["input_ids"] == expected
    assert expected[0] == tokenizer.bos_token_id


def test_a_template_of_llava_is_written_where_there_is_none():
    name = next(name for name in PROCESSORS if not PROCESSORS[name]().chat_template)
    processor = PROCESSORS[name]()
    tokenizer = processor.tokenizer
    tokenizer.chat_template = chat_template(processor)
    turns = [("user", "a"), ("assistant", "b"), ("user", "c")]
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text.removeprefix(tokenizer.bos_token or "") == "USER: a ASSISTANT: bUSER: c ASSISTANT:"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", sorted(FAMILIES.keys() & PROCESSORS.keys()))
def test_a_family_is_exported_whole_or_refused(name, tmp_path):
    model, processor = FAMILIES[name].model(), PROCESSORS[name]()
    if family_of(model.config.model_type).positions is not None:
        with pytest.raises(PrumergeError):
            export_language_model(model, processor, tmp_path)
        return
    try:
        export_language_model(model, processor, tmp_path)
    except PrumergeError as error:
        assert "serve" in str(error) and not list(tmp_path.iterdir())
        return
    alone = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.no_grad():
        read = model.get_decoder()(inputs_embeds=model.get_input_embeddings()(ids)).last_hidden_state
        whole = model.get_output_embeddings()(read)
        torch.testing.assert_close(alone(ids).logits, whole.to(alone.dtype))


def test_the_whole_model_has_the_names_of_the_hub_and_still_loads(run, tmp_path, tiny):
    assert run("export-lm", "tiny", tmp_path / "whole", "--whole")[0] == 0
    names = load_file(tmp_path / "whole" / "model.safetensors")
    tower = [name for name in names if "vision_tower" in name]
    assert tower and all(name.startswith("vision_tower.vision_model.") for name in tower)
    again, _ = prumerge.load(tmp_path / "whole")
    for own, other in zip(tiny[0].state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(own, other.to(own))


def test_the_whole_model_begins_a_text_by_its_template_once(tmp_path, tiny):
    model, processor = tiny
    export_whole(model, processor, tmp_path)
    again = prumerge.load(tmp_path)[1]
    image, bos = Image.new("RGB", (40, 40)), processor.tokenizer.bos_token
    assert question_prompt(again, "what?") == bos + question_prompt(processor, "what?")
    ids, own = (prepare(one, image, "what?")["input_ids"] for one in (again, processor))
    assert torch.equal(ids, own)


def test_names_are_those_of_the_hub_in_shards_too(tmp_path, tiny):
    model, processor = tiny
    real = model.save_pretrained
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "save_pretrained", lambda folder: real(folder, max_shard_size="10MB"))
        export_whole(model, processor, tmp_path)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 1
    for name, file in index.items():
        assert name in load_file(tmp_path / file)
    assert any(name.startswith("vision_tower.vision_model.") for name in index)
    prumerge.load(tmp_path)


def test_a_folder_with_files_is_not_written_to(run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    code, _, error = run("export-lm", "tiny", tmp_path)
    assert (code, "holds files; name a new one" in error) == (2, True)
