"""An attached model in other people's hands: trainers that replace its methods, threads, exchanges."""

import copy
import threading
import warnings

import pytest
import torch
from builders import IMAGE, PICTURE, answer, llava, prompt

import prumerge

ROWS = [[5, PICTURE, 6, 7], [5, PICTURE, 6, PICTURE, 9, 11]]


def labelled(*rows, image=False):
    inputs = prompt(*rows)
    inputs["labels"] = inputs["input_ids"].clone()
    if not image:
        inputs["labels"][inputs["input_ids"] == IMAGE] = -100
    return inputs


# methods that others put in place


def test_what_another_library_puts_in_place_of_forward_stays_its_own(model):
    inputs = prompt(ROWS[0])
    untouched = model(**inputs).logits
    attached = prumerge.attach(model, "topk:keep=3")
    ours = model.forward
    theirs = model.forward = lambda **given: ours(**given)
    assert model(**inputs).logits.shape[1] < untouched.shape[1]
    attached.detach()
    assert vars(model)["forward"] is theirs
    assert torch.equal(model(**inputs).logits, untouched)  # what was ours passes calls on


def test_a_method_can_be_attached_again_after_that(model):
    attached = prumerge.attach(model, "topk:keep=3")
    model.forward = attached.forward
    attached.detach(quiet=True)
    del vars(model)["forward"]
    with prumerge.attach(model, "topk:keep=5") as again:
        model(**prompt(ROWS[0]))
    assert again.tokens == [(16, 5)]


def test_an_attachment_that_nobody_called_says_so(model):
    with pytest.warns(UserWarning, match="topk:keep=3 was attached, but neither forward nor generate was"):
        prumerge.attach(model, "topk:keep=3").detach()
    with pytest.raises(KeyError), warnings.catch_warnings():  # not on top of an error
        warnings.simplefilter("error")
        with prumerge.attach(model, "topk:keep=3"):
            raise KeyError
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with prumerge.attach(model, "topk:keep=3"):
            model(**prompt(ROWS[0]))


# methods exchanged between calls


def test_the_method_of_an_attachment_can_be_exchanged():
    model, inputs = llava(layers=4), prompt(*ROWS)
    specs = ["topk:keep=5", "fastv:keep=4", "none", "pool:keep=4+fastv:keep=2", "prumerge"]
    alone = {}
    for spec in specs:
        with prumerge.attach(model, spec):
            alone[spec] = answer(model, inputs)
    with prumerge.attach(model, "random") as attached:
        for spec in [*specs, *reversed(specs)]:
            attached.reducer = spec
            assert str(attached.reducer) == spec
            assert torch.equal(answer(model, inputs), alone[spec]), spec
    assert not any("forward" in vars(layer) for layer in model.model.language_model.layers)


def test_how_prompts_are_shortened_can_be_exchanged_too(model):
    inputs = prompt(ROWS[0])
    with prumerge.attach(model, "topk:keep=3", positions="original") as attached:
        kept = model(**inputs).logits
        attached.options = attached.options.but(positions="compact")
        assert not torch.equal(model(**inputs).logits, kept)


@pytest.mark.parametrize("spec", ["topk:keep=3", "fastv:keep=3,layer=1"])
@pytest.mark.parametrize("other", ["magic", "fastv:layer=99", "fastv+topk"])
def test_a_method_that_cannot_be_attached_leaves_the_one_there_is(spec, other):
    model, inputs = llava(layers=4), prompt(ROWS[0])
    with prumerge.attach(model, spec) as attached:
        before = answer(model, inputs)
        with pytest.raises(ValueError, match=r"there is no method|the language model has 4 layers|comes by"):
            attached.reducer = other
        assert str(attached.reducer) == spec
        assert torch.equal(answer(model, inputs), before)
    assert not any("forward" in vars(layer) for layer in model.model.language_model.layers)


# labels


def test_labels_are_handed_out_as_they_were_cut(model):
    inputs = labelled(*ROWS)
    with prumerge.attach(model, "topk:keep=3") as attached:
        output = model(**inputs)
        assert attached.labels.shape == output.logits.shape[:2]
        shifted = output.logits[:, :-1].flatten(0, 1)
        expected = torch.nn.functional.cross_entropy(shifted, attached.labels[:, 1:].flatten())
        torch.testing.assert_close(output.loss, expected)
        text_only = labelled([5, 6, 7])
        text_only.pop("pixel_values", None)
        model(**text_only)
        assert torch.equal(attached.labels, text_only["labels"])
        with torch.no_grad():
            model(**prompt(ROWS[0]))
        assert attached.labels is None


@pytest.mark.parametrize("spec", ["none", "topk:keep=3"])
def test_labels_on_placeholders_do_not_count_and_are_named_once(model, spec):
    with prumerge.attach(model, spec):
        expected = model(**labelled(*ROWS)).loss
        with pytest.warns(UserWarning, match="labels on image placeholders were set to -100") as said:
            loss = model(**labelled(*ROWS, image=True)).loss
    assert len(said) == 1
    torch.testing.assert_close(loss, expected)


def test_a_loss_that_is_made_outside_is_warned_of_once(model):
    model = copy.deepcopy(model).train()
    with prumerge.attach(model, "topk:keep=3"):
        with pytest.warns(UserWarning, match="label_smoothing_factor or compute_loss_func of a Trainer"):
            model(**prompt(ROWS[0]))
        model(**prompt(ROWS[0]))


def test_places_of_logits_are_counted_from_the_end(model):
    inputs = prompt(*ROWS)
    with torch.no_grad(), prumerge.attach(model, "topk:keep=3"):
        whole = model(**inputs).logits
        torch.testing.assert_close(model(**inputs, logits_to_keep=2).logits, whole[:, -2:])
        with pytest.raises(ValueError, match="logits_to_keep names places of the whole prompt"):
            model(**inputs, logits_to_keep=torch.tensor([3, 4]))


# threads


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("prumerge", {}),
        ("fastv:keep=4,layer=2", {}),
        ("pyramiddrop", {}),
        ("pool:keep=4", {"size_bias": True}),
    ],
)
def test_two_threads_get_the_answers_that_each_gets_alone(spec, options):
    model = llava(layers=4)
    prompts = [prompt([5, PICTURE, 6, 7]), prompt([8, 9, PICTURE, 10, 11, 12, 13, PICTURE, 14])]
    wrong = []

    def work(inputs, expected):
        for _ in range(4):
            if not torch.equal(answer(model, inputs), expected):
                wrong.append(len(expected))

    with prumerge.attach(model, spec, **options):
        expected = [answer(model, inputs) for inputs in prompts]
        threads = [threading.Thread(target=work, args=one) for one in zip(prompts, expected, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
    assert not wrong
