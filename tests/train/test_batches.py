"""What is trained of a row: its answers, what ends each of them, and nothing else."""

import pytest
import torch
from processors import PROCESSORS
from training import asked, drawn, rows, spelling, talk

from prumerge.errors import PrumergeError
from prumerge.loading.prompts import prepare
from prumerge.train.batches import BEGIN, IGNORED, Batches, trained_text

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # PaliGemma's

PICTURE = drawn()
ONE_ANSWER = ["PaliGemma"]  # whose prompt is seen both ways


def words(text):
    return text.split()


@pytest.mark.parametrize("name", PROCESSORS)
def test_labels_are_the_answer_and_its_end(name):
    batch = Batches(PROCESSORS[name]())(rows(asked("w5 w6", "w7 w8"), asked("w9", "w7")))
    first, second = trained_text(PROCESSORS[name](), batch["labels"])
    assert words(first) == ["w7", "w8", "w2"]  # w2 ends a sequence
    assert words(second) == ["w7", "w2"]


@pytest.mark.parametrize("name", [name for name in PROCESSORS if name not in ONE_ANSWER])
def test_of_a_conversation_every_answer_is_trained(name):
    row = talk("<image>w5", "w8", "w7 w8", "w9 w5", images=[PICTURE])
    batch = Batches(PROCESSORS[name]())(rows(row))
    assert words(trained_text(PROCESSORS[name](), batch["labels"])[0]) == ["w8", "w2", "w9", "w5", "w2"]


@pytest.mark.parametrize("name", ONE_ANSWER)
def test_a_prompt_that_is_seen_both_ways_holds_one_answer(name):
    row = talk("<image>w5", "w8", "w7 w8", "w9 w5", images=[PICTURE])
    with pytest.raises(PrumergeError, match=r"row 1.*one answer a row"):
        Batches(PROCESSORS[name]())(rows(row))


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_prompt_is_the_one_that_is_asked_in_use(name):
    processor = PROCESSORS[name]()
    batch = Batches(processor)(rows(asked("w5 w6", "w7")))
    prompt = prepare(processor, PICTURE, "w5 w6")
    length = prompt["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][:, :length], prompt["input_ids"])
    assert (batch["labels"][:, :length] == IGNORED).all()
    assert set(prompt) <= set(batch)
    assert torch.equal(batch["pixel_values"], prompt["pixel_values"])


def test_rows_of_words_alone_and_of_several_pictures_come_in_one_batch():
    processor = PROCESSORS["Llava"]()
    batch = Batches(processor)(
        rows(talk("w5", "w6"), talk("<image><image>w5", "w7 w8", images=[PICTURE, PICTURE]))
    )
    assert len(batch["pixel_values"]) == 2
    assert list(map(words, trained_text(processor, batch["labels"]))) == [["w6", "w2"], ["w7", "w8", "w2"]]
    assert batch["attention_mask"][0].tolist() == sorted(batch["attention_mask"][0].tolist(), reverse=True)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TURNS = (
    "{% for m in messages %}{{ 'USER: ' if m['role'] == 'user' else 'ASSISTANT: ' }}"
    "{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>\n{% else %}{{ p['text'] }} "
    "{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
GEMMA = (
    "<s>{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n"
    "{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] | trim }}"
    "{% endif %}"
    "{% endfor %}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
INST = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}<image>\n{% else %}{{ p['text'] }}{% endif %}{% endfor %} [/INST]"
    "{% else %} {{ m['content'][0]['text'] }}</s>{% endif %}{% endfor %}"
)
ENDS = {
    "an end of turn": (CHATML, "<|im_end|>"),
    "nothing at all": (TURNS, "</s>"),
    "an end of turn behind a template that strips": (GEMMA, "<end_of_turn>"),
    "an end of sequence": (INST, "</s>"),
}


def spelled(template):
    return spelling(template, "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>")


@pytest.mark.parametrize("template, end", ENDS.values(), ids=ENDS)
def test_what_a_template_writes_behind_an_answer_is_trained(template, end):
    processor = spelled(template)
    row = talk("<image>\nWhat is it?", "a dog", "Its colour?", "It is brown.", images=[PICTURE])
    batch = Batches(processor)(rows(row))
    assert trained_text(processor, batch["labels"])[0] == f"a dog{end}It is brown.{end}"
    assert BEGIN not in processor.decode(batch["input_ids"][0])


@pytest.mark.parametrize("template, end", ENDS.values(), ids=ENDS)
def test_marks_leave_the_text_as_the_template_writes_it(template, end):
    processor = spelled(template)
    row = rows(talk("<image>\nWhat?", "a dog", images=[PICTURE]))[0]
    batch, opened = Batches(processor)([row]), row.open()
    plain = processor.apply_chat_template(list(opened.messages))
    ids = processor(images=[PICTURE], text=plain, return_tensors="pt", add_special_tokens=False)["input_ids"]
    expected = processor.decode(ids[0])
    read = processor.decode(batch["input_ids"][0]).removeprefix("<s>")
    assert read.replace("</s>", "") == expected.removeprefix("<s>").replace("</s>", "")


def test_a_template_that_begins_the_sequence_begins_it_once():
    processor = spelled(GEMMA)
    batch = Batches(processor)(rows(talk("<image>What?", "a dog", images=[PICTURE])))
    assert processor.decode(batch["input_ids"][0]).count("<s>") == 1
    assert processor.decode(prepare(processor, PICTURE, "What?")["input_ids"][0]).count("<s>") == 1


def test_a_template_that_hides_answers_is_refused():
    with pytest.raises(PrumergeError, match=r"row 1: the model's chat template does not show each of its 1"):
        Batches(spelled("{{ messages[0]['content'][0]['type'] }}"))(
            rows(talk("<image>What?", "a dog", images=[PICTURE]))
        )


def test_a_text_with_a_mark_is_refused():
    with pytest.raises(PrumergeError, match="row 1 holds a letter of the private use area"):
        Batches(spelled(CHATML))(rows(talk("<image>What?", f"a {BEGIN}dog", images=[PICTURE])))


def test_the_question_former_does_not_read_the_answer():
    processor = PROCESSORS["InstructBlip"]()
    batch = Batches(processor)(rows(asked("w5 w6", "w7 w8")))
    read = processor.qformer_tokenizer.decode(batch["qformer_input_ids"][0])
    assert "w5" in read and "w7" not in read


def test_a_tokenizer_without_an_end_is_refused():
    processor = spelled(TURNS)
    processor.tokenizer.eos_token = None
    with pytest.raises(PrumergeError, match="has no token that ends an answer"):
        Batches(processor)(rows(talk("<image>What?", "a dog", images=[PICTURE])))
