"""A step of training is a step on what `reduce` makes of its rows."""

import copy

import pytest
import torch
from families import FAMILIES, rows_of
from processors import PROCESSORS
from training import arguments, asked, rows, small_lora, talk

import prumerge
from prumerge.attachment.attach import attach
from prumerge.errors import PrumergeError
from prumerge.train.adapter import prepare
from prumerge.train.batches import Batches
from prumerge.train.budgets import Budgets
from prumerge.train.teacher import teach
from prumerge.train.trainer import ReducedTrainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # PaliGemma's processor
]
SPEC = "prumerge:keep=5"
DATA = [
    asked("w5 w6", "w7 w8", 0),
    talk("w9", "w8 w7 w5"),
    asked("w9 w5 w6", "w8", 1),
    asked("w7", "w9 w9", 2),
    asked("w8", "w5 w7", 3),
    asked("w6 w6", "w9", 4),
]


def trainer(model, processor, data=DATA, reducer=SPEC, budgets=None, **more):
    own = {
        name: more.pop(name) for name in ("distil", "projector", "projector_rate", "held_out") if name in more
    }
    given = Budgets.read(budgets)
    examples = data if not isinstance(data[0], dict) else rows(*data)
    return ReducedTrainer(model, arguments(**more), examples, Batches(processor), reducer, given, **own)


def losses(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def changed(model, before):
    return {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}


def by_hand(model, processor, batches, rate=1e-2):
    """The same steps with `reduce` and AdamW: the loss is the mean over a step's answer tokens."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    found = []
    for step in batches:
        inputs = [Batches(processor)(rows(*data)) for data in step]
        total = sum((one["labels"][:, 1:] != -100).sum() for one in inputs)
        summed = 0.0
        model.train()
        for one in inputs:
            output = model(**prumerge.reduce(model, one, SPEC), use_cache=False)
            loss = output.loss * (one["labels"][:, 1:] != -100).sum() / total
            loss.backward()
            summed += loss.item()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        found.append(summed)
    return found


def test_losses_and_weights_are_those_of_a_loop_with_reduce():
    model, processor = small_lora()
    other = copy.deepcopy(model)
    own = losses(trainer(model, processor, train_sampling_strategy="sequential"))
    expected = by_hand(other, processor, [[DATA[:2]], [DATA[2:4]]])
    assert own == pytest.approx(expected, abs=2e-6)
    for name, weight in model.state_dict().items():
        assert torch.allclose(weight, other.state_dict()[name], atol=2e-5), name


def test_three_times_two_rows_are_one_batch_of_six():
    model, processor = small_lora()
    other = copy.deepcopy(model)
    sequential = {"train_sampling_strategy": "sequential", "max_steps": 2}
    apart = losses(trainer(model, processor, gradient_accumulation_steps=3, **sequential))
    together = losses(trainer(other, processor, per_device_train_batch_size=6, **sequential))
    assert apart == pytest.approx(together, abs=2e-6)
    for name, weight in model.state_dict().items():
        assert torch.allclose(weight, other.state_dict()[name], atol=2e-5), name


class Written:
    """Batches of a family that has no processor here: its own prompts, their last words trained."""

    def __init__(self, family):
        self.family = family

    def __call__(self, rows):
        batch = self.family.prompt(*rows_of(self.family))
        labels = batch["input_ids"].clone()
        labels[:, :-1] = -100
        return {**batch, "labels": labels}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_a_step_and_all_that_is_trained_gets_a_gradient(name):
    model, processor = small_lora(name)
    before = copy.deepcopy(model.state_dict())
    reducer = (
        "topk" if name in ("Blip2", "InstructBlip", "TinyGPTV", "MobileVLM", "MobileVLM1") else "prumerge"
    )
    data = [asked("w5 w6", "w7 w8", 0), asked("w9", "w8", 1)]
    one = trainer(model, processor, data, reducer, "3", max_steps=2)
    if processor is None:
        one.data_collator = Written(FAMILIES[name])
    assert all(loss > 0 for loss in losses(one))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    still = trained - changed(model, before)
    assert changed(model, before) <= trained
    assert not {part for part in still if "experts" not in part}, sorted(still)  # some nobody is sent to


@pytest.mark.parametrize("train", ["projector", "full"])
def test_the_projector_or_all_but_the_tower_is_trained_where_asked(train):
    model = copy.deepcopy(FAMILIES["Llava"].model())
    before = copy.deepcopy(model.state_dict())
    losses(trainer(prepare(model, train), PROCESSORS["Llava"](), projector=["model.multi_modal_projector"]))
    moved = changed(model, before)
    assert any("projector" in name for name in moved)
    assert not any("vision_tower" in name for name in moved)
    assert any("language_model" in name for name in moved) == (train == "full")


def test_the_projector_learns_at_a_rate_of_its_own():
    model, processor = small_lora()
    before = copy.deepcopy(model.state_dict())
    losses(trainer(model, processor, projector=["multi_modal_projector"], projector_rate=1e-4, max_steps=1))
    moved = {name: (model.state_dict()[name] - before[name]).abs().max() for name in changed(model, before)}
    assert max(by for name, by in moved.items() if "projector" in name) == pytest.approx(1e-4, rel=1e-2)
    assert max(by for name, by in moved.items() if "lora" in name) == pytest.approx(1e-2, rel=1e-2)


def test_afterwards_the_model_is_as_it_came():
    model, processor = small_lora()
    inner = model.get_base_model()
    losses(trainer(model, processor))
    assert "forward" not in vars(inner) and "generate" not in vars(inner)
    with attach(model, "none"):  # a method that was left behind would be in the way
        pass


def test_a_step_draws_its_budget_by_seed_and_number():
    model, processor = small_lora()
    one = trainer(model, processor, DATA, "topk", "2-9", max_steps=5)
    losses(one)
    seen = [entry["visual_tokens"] for entry in one.state.log_history if "loss" in entry]
    assert seen == [Budgets.read("2-9").at(3, step) for step in range(5)]
    assert len(set(seen)) > 1


def test_checkpointed_activations_give_the_same_losses():
    model, processor = small_lora()
    other = copy.deepcopy(model)
    kept = losses(trainer(model, processor, reducer="fastv:layer=1,keep=5"))
    again = trainer(
        other,
        processor,
        reducer="fastv:layer=1,keep=5",
        activation_checkpointing=True,
        activation_checkpointing_kwargs={"use_reentrant": False},
    )
    assert losses(again) == pytest.approx(kept, abs=1e-6)


# without labels


def lessons(model, processor, folder, data=DATA):
    questions = [question for row in rows(*data) for question in row.questions]
    model.get_base_model().generation_config.max_new_tokens = None
    return teach(model, Batches(processor), questions, folder, batch=1, max_new_tokens=3)


def test_nothing_cut_is_nothing_to_learn(tmp_path):
    model, processor = small_lora()
    with model.disable_adapter():
        taught = lessons(model, processor, tmp_path)
    one = trainer(
        model, processor, taught, "topk", "16", distil=1.0, per_device_train_batch_size=1, max_steps=6
    )
    assert losses(one) == [0.0] * 6


def test_what_is_cut_is_learned_back(tmp_path):
    model, processor = small_lora()
    taught = lessons(model, processor, tmp_path)
    one = trainer(
        model, processor, taught, "topk", "2", distil=1.0, max_steps=24, per_device_train_batch_size=6
    )
    found = losses(one)
    assert found[0] > 0
    assert found[-1] < 0.5 * found[0]
    assert all("kl" in entry for entry in one.state.log_history if "loss" in entry)


def test_the_teacher_is_what_it_was_after_training(tmp_path):
    model, processor = small_lora()
    batch = Batches(processor)(rows(*DATA[:1]))
    with torch.no_grad():
        before = model.get_base_model().eval()(**batch).logits
    taught = lessons(model, processor, tmp_path)
    losses(trainer(model, processor, taught, "topk", "2", distil=1.0))
    with torch.no_grad(), model.eval().disable_adapter():
        assert torch.equal(model(**batch).logits, before)
    with torch.no_grad():
        assert not torch.equal(model(**batch).logits, before)


def test_the_teacher_answers_once(tmp_path):
    model, processor = small_lora()
    first = lessons(model, processor, tmp_path)
    written = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    again = lessons(model, processor, tmp_path)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == written
    for one, other in zip(first, again, strict=True):
        assert one.row.messages == other.row.messages
        assert torch.equal(one.lesson.log_probabilities, other.lesson.log_probabilities)


def test_a_lesson_has_a_place_for_each_token_that_is_trained(tmp_path):
    model, processor = small_lora()
    for example in lessons(model, processor, tmp_path):
        labels = Batches(processor)([example.row])["labels"]
        assert len(example.lesson.ids) == (labels != -100).sum()


def test_labels_and_lessons_are_weighed(tmp_path):
    model, processor = small_lora()
    taught = teach(model, Batches(processor), rows(*DATA), tmp_path)
    found = {}
    for share in (0.0, 0.5, 1.0):
        one = trainer(copy.deepcopy(model), processor, taught, "topk", "3", distil=share, max_steps=1)
        found[share] = losses(one)[0]
    assert found[0.5] == pytest.approx((found[0.0] + found[1.0]) / 2, abs=1e-5)


# measured on the way


def test_held_out_rows_are_measured_at_typical_budgets_and_with_all_tokens():
    model, processor = small_lora()
    one = trainer(model, processor, reducer="topk", budgets="2-9", held_out=rows(*DATA[:2]))
    found = one.evaluate()
    assert set(found) == {"eval_2_loss", "eval_4_loss", "eval_9_loss", "eval_none_loss"}
    batch = Batches(processor)(rows(*DATA[:2]))
    with torch.no_grad():
        assert found["eval_none_loss"] == pytest.approx(model.eval()(**batch).loss.item(), abs=1e-6)
        reduced = prumerge.reduce(model, batch, "topk:keep=4")
        assert found["eval_4_loss"] == pytest.approx(model(**reduced).loss.item(), abs=1e-6)
    assert one.attached is None


def test_tokens_of_pictures_are_logged():
    model, processor = small_lora()
    one = trainer(model, processor, DATA[:1] + DATA[2:3], "topk", "4")
    losses(one)
    assert one.state.log_history[0]["visual_tokens"] == 4
    assert one.state.log_history[0]["tokens_per_second"] > 0


def test_of_words_alone_no_visual_tokens_are_logged():
    model, processor = small_lora()
    data = [DATA[0], talk("w5", "w6"), talk("w7", "w8 w9"), talk("w9", "w5")]
    one = trainer(model, processor, data, "topk", "4", train_sampling_strategy="sequential")
    losses(one)
    first, second = (entry for entry in one.state.log_history if "loss" in entry)
    assert first["visual_tokens"] == 4
    assert "visual_tokens" not in second


@pytest.mark.parametrize("train", ["lora", "projector", "full"])
def test_a_quantised_projector_is_refused_in_one_sentence(train):
    model = copy.deepcopy(FAMILIES["Llava"].model())
    part = model.model.multi_modal_projector.linear_1
    part.weight = torch.nn.Parameter(part.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(PrumergeError, match=r"model\.multi_modal_projector"):
        prepare(model, train, rank=2, alpha=4)
