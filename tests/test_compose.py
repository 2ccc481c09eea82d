"""Methods one after the other, and the positions of what they leave."""

from dataclasses import replace

import pytest
import torch
from builders import IMAGE, PICTURE, answer, llava, prompt, row_of, visual_tokens

import prumerge

ROWS = [[5, PICTURE, 6, 7], [5, PICTURE, 6, PICTURE, 9], [4, 8, 2]]
CHAINS = [
    "prumerge+topk:keep=9",
    "topk:keep=40+pool:keep=9",
    "pool:keep=50+prumerge:keep=7",
    "spatial:keep=30+none",
    # the class token kept first, last, twice
    "visionzip:keep=20+topk:keep=5",
    "visionzip:keep=20+prumerge:keep=4",
    "visionzip:keep=20+cdpruner:keep=6",
    "topk:keep=30+visionzip:keep=9",
    "pool:keep=30+visionzip:keep=9",
    "visionzip:keep=30+visionzip:keep=9",
]


def logits_of(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def reduced(model, inputs, spec, **options):
    with torch.no_grad():
        return prumerge.reduce(model, inputs, spec, **options)


# specs


@pytest.mark.parametrize(
    "spec",
    [*CHAINS, "tome:r=16+prumerge:k=8+fastv:keep=16,layer=3", "tome+sparsevlm", "prumerge+prumerge+prumerge"],
)
def test_a_chain_is_what_it_prints(spec):
    chain = prumerge.make(spec)
    assert str(chain) == spec
    assert prumerge.make(str(chain)) == chain
    assert [str(part) for part in chain.parts] == spec.split("+")
    assert prumerge.make(chain) is chain


def test_blanks_around_a_plus_do_not_matter():
    assert prumerge.make("topk:keep=9 + pool:keep=3") == prumerge.make("topk:keep=9+pool:keep=3")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("prumerge+", "there is no method ''"),
        ("+prumerge", "there is no method ''"),
        ("prumerge+magic", "there is no method 'magic'"),
        ("prumerge+topk:kep=5", "topk has no option 'kep'"),
        ("prumerge:keep=0+topk", "prumerge:keep=0: keep must be at least 1"),
        ("fastv+prumerge", r"fastv\+prumerge: .* write prumerge\+fastv"),
        ("fastv+prumerge+tome:r=4", r"write tome:r=4\+prumerge\+fastv"),
        ("prumerge+tome", r"the vision tower first .* write tome\+prumerge"),
        ("fastv+pyramiddrop", "only one method of a chain can work in the language model"),
        ("tome+tome", "only one method of a chain can work in the vision tower"),
    ],
)
def test_what_makes_no_chain(spec, message):
    with pytest.raises(ValueError, match=message):
        prumerge.make(spec)


def test_the_parts_of_a_chain_by_place():
    def parts(spec):
        placed = prumerge.make(spec).placed
        return [None if part is None else str(part) for part in (placed.tower, placed.before, placed.layers)]

    assert parts("tome+prumerge+topk:keep=9+fastv") == ["tome", "prumerge+topk:keep=9", "fastv"]
    assert parts("tome+fastv") == ["tome", None, "fastv"]
    assert parts("topk") == [None, "topk", None]


# matrices


@pytest.mark.parametrize("spec", CHAINS)
def test_a_chain_is_one_method_on_what_the_other_left(spec):
    tokens = visual_tokens((1, 7, 9))
    first, second = map(prumerge.make, spec.split("+"))
    between = tokens.reduced(first(tokens))
    expected = second(between)
    whole = prumerge.make(spec)(tokens)
    torch.testing.assert_close(whole.apply(tokens), expected.apply(between), atol=1e-5, rtol=1e-5)
    assert whole.index.tolist() == first(tokens).index[expected.index].tolist()
    assert (whole.weights is None) == (first(tokens).weights is None and expected.weights is None)


def test_a_second_method_sees_keys_and_sizes_of_the_same_matrix():
    tokens = visual_tokens((1, 6, 6))
    reduction = prumerge.make("pool:keep=9")(tokens)
    left = tokens.reduced(reduction)
    torch.testing.assert_close(left.keys, reduction.weights @ tokens.keys)
    assert left.sizes.tolist() == [4.0] * 9
    assert left.grid == (1, 1, 9)
    assert torch.equal(left.queries, tokens.queries)  # of the class token
    again = left.reduced(prumerge.make("pool:keep=2")(left))
    assert sorted(again.sizes.tolist()) == [16.0, 20.0]
    assert again.reduced(prumerge.make("sequential:keep=1")(again)).sizes.tolist() == again.sizes[:1].tolist()
    pruned = tokens.reduced(prumerge.make("topk:keep=5")(tokens))
    assert pruned.sizes is None


def test_a_kept_class_token_is_a_token_of_the_next_method():
    tokens = visual_tokens((1, 6, 6))
    zipped = prumerge.make("visionzip:keep=9")(tokens)
    left = tokens.reduced(zipped)
    assert torch.equal(left.features[0], tokens.class_feature)
    torch.testing.assert_close(left.keys[0], tokens.class_key)
    torch.testing.assert_close(left.keys[1:], zipped.weights[1:, :36] @ tokens.keys)
    assert left.sizes[0] == 1
    assert left.sizes.sum() == 37
    assert float(left.relevance[0]) == 0  # no patch, so nothing that matches the text
    sized = replace(tokens, sizes=torch.full((36,), 2.0)).reduced(zipped)
    assert sized.sizes.tolist() == [1, *(2 * left.sizes[1:]).tolist()]


def test_a_video_in_a_chain_has_the_mean_of_its_class_tokens():
    tokens = visual_tokens((4, 3, 5), class_tokens=4)
    for spec in ("visionzip:keep=24+topk:keep=6", "topk:keep=30+visionzip:keep=9", "pool:keep=20+prumerge"):
        first, second = map(prumerge.make, spec.split("+"))
        between = tokens.reduced(first(tokens))
        torch.testing.assert_close(between.class_feature, tokens.class_feature.mean(0))
        whole = prumerge.make(spec)(tokens)
        torch.testing.assert_close(whole.apply(tokens), second(between).apply(between))
    twice = prumerge.make("visionzip:keep=24+visionzip:keep=9")(tokens)
    torch.testing.assert_close(twice.apply(tokens)[0], tokens.class_feature.mean(0))
    assert twice.weights.shape == (9, 64)


def test_layers_asked_for_later_go_through_the_matrix_too():
    tokens, other = visual_tokens((1, 6, 6)), visual_tokens((1, 6, 6), seed=1)
    tokens = replace(tokens, elsewhere=lambda layer: (other.queries, other.keys, other.class_key))
    reduction = prumerge.make("pool:keep=9")(tokens)
    left = tokens.reduced(reduction)
    torch.testing.assert_close(left.scored_by("writer").keys, reduction.weights @ other.keys)
    assert torch.equal(left.scored_by("writer").queries, other.queries)
    assert not torch.equal(left.attention(), left.scored_by("writer").attention())
    assert visual_tokens((1, 6, 6)).reduced(reduction).scored_by("writer").elsewhere is None


def test_words_and_projector_stay_with_what_is_left():
    tokens = visual_tokens((1, 6, 6))
    words = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    asked = replace(tokens, relevance=None, text=lambda: words, embed=lambda features: 2 * features)
    left = asked.reduced(prumerge.make("pool:keep=9")(asked))
    assert torch.equal(left.embeddings(), 2 * left.features)
    expected = prumerge.ops.relevance(left.embeddings(), words, inverted=False)
    assert torch.equal(prumerge.make("trim").relevance(left, instead=""), expected)


def test_queries_of_patches_go_through_the_matrix_too():
    (tokens, _), *_ = prumerge.select(llava("siglip"), prompt(*ROWS), "none")
    reduction = prumerge.make("pool:keep=4")(tokens)
    left = tokens.reduced(reduction)
    torch.testing.assert_close(left.queries, reduction.weights @ tokens.queries)
    assert len(left.attention()) == 4


def test_three_in_a_row_are_two_and_one():
    tokens = visual_tokens((1, 7, 9))
    chain = prumerge.make("topk:keep=50+pool:keep=20+prumerge:keep=4")(tokens)
    middle = prumerge.make("topk:keep=50+pool:keep=20")(tokens)
    last = prumerge.make("prumerge:keep=4")(tokens.reduced(middle))
    torch.testing.assert_close(chain.apply(tokens), last.apply(tokens.reduced(middle)))
    assert chain.weights.shape == (5, 63)


@pytest.mark.parametrize(
    "spec", ["topk:keep=9+pool:keep=3", "prumerge+topk:keep=2", "tome:r=2+visionzip:keep=6+cdpruner:keep=3"]
)
def test_a_chain_through_every_door(model, spec):
    inputs = prompt(*ROWS)
    shorter = reduced(model, inputs, spec)
    expected = answer(model, shorter)
    with prumerge.attach(model, spec):
        assert torch.equal(answer(model, inputs), expected)
    for row in range(len(ROWS)):
        assert torch.equal(expected[row : row + 1], answer(model, reduced(model, row_of(inputs, row), spec)))


# positions


def positions_by_hand(inputs, row, places):
    """Position ids of a row whose pictures are left with tokens at `places`."""
    ids, kept, pictures = inputs["input_ids"][row], [], iter(places)
    real = [int(token) for token in ids[inputs["attention_mask"][row].bool()]]
    at = 0
    while at < len(real):
        if real[at] == IMAGE:
            kept += [at + place for place in next(pictures)]
            at += 16
        else:
            kept.append(at)
            at += 1
    return kept


@pytest.mark.parametrize(
    ("positions", "given", "padding"),  # any two values meet
    [
        ("original", False, "left"),
        ("original", True, "right"),
        ("median", False, "right"),
        ("median", True, "left"),
    ],
)
@pytest.mark.parametrize(
    "spec",
    [
        "prumerge:keep=4",
        "pool:keep=4",
        "topk:keep=3,order=score",
        "tome:r=4+topk:keep=5",
        "visionzip:keep=6",
        "tome:r=4+visionzip:keep=5",
    ],
)
def test_positions_are_those_of_the_places_that_tokens_stand_for(model, spec, positions, given, padding):
    inputs = prompt(*ROWS, padding=padding)
    if given:
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp_min(0)
    shorter = reduced(model, inputs, spec, positions=positions)
    whole = [tokens.whole(one) for tokens, one in prumerge.select(model, inputs, spec)]
    places = [
        sorted(
            place
            if positions == "original" or one.weights is None or not weights.any()  # a class token
            else sorted(weights.nonzero()[:, 0].tolist())[(int((weights != 0).sum()) - 1) // 2]
            for place, weights in zip(one.index.tolist(), one.matrix(16)[:, :16], strict=True)
        )
        for one in whole
    ]
    for row, pictures in enumerate((places[:1], places[1:], [])):
        real = shorter["attention_mask"][row].bool()
        expected = positions_by_hand(inputs, row, pictures)
        assert shorter["position_ids"][row, real].tolist() == expected
    logits = logits_of(model, shorter)
    for row in range(len(ROWS)):
        alone = reduced(model, row_of(inputs, row), spec, positions=positions)
        real = shorter["attention_mask"][row].bool()
        torch.testing.assert_close(logits[row, real], logits_of(model, alone)[0], atol=1e-5, rtol=1e-4)


def test_features_are_read_in_the_order_of_their_positions(model):
    inputs = prompt(*ROWS[:1])
    spec = "topk:keep=5,order=score"
    ((tokens, reduction),) = prumerge.select(model, inputs, spec)
    shorter = reduced(model, inputs, spec, positions="original")
    with torch.no_grad():
        expected = model.model.multi_modal_projector(tokens.features[reduction.index.sort().values])
    torch.testing.assert_close(shorter["mm_encoder_outputs"]["image"].pooler_output[0], expected)


@pytest.mark.parametrize("positions", ["original", "median"])
def test_with_everything_kept_nothing_changes(model, positions):
    inputs = prompt(*ROWS)
    assert torch.equal(
        logits_of(model, reduced(model, inputs, "none", positions=positions)), logits_of(model, inputs)
    )


@pytest.mark.parametrize("positions", ["original", "median"])
def test_attached_turns_go_on_from_positions_with_gaps(model, positions):
    inputs, spec = prompt(*ROWS), "pool:keep=3"
    shorter = reduced(model, inputs, spec, positions=positions)
    expected = answer(model, shorter)
    assert not torch.equal(
        logits_of(model, shorter)[:, -1], logits_of(model, reduced(model, inputs, spec))[:, -1]
    )
    options = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True}
    with prumerge.attach(model, spec, positions=positions):
        first = model.generate(**inputs, **options)
        said = first.sequences[:, inputs["input_ids"].shape[1] :]
        assert torch.equal(said, expected)
        new = torch.tensor([[20, 21], [22, 23], [24, 25]])
        ids = torch.cat([first.sequences, new], dim=1)
        added = torch.ones(3, ids.shape[1] - inputs["input_ids"].shape[1], dtype=torch.long)
        turn = {"input_ids": ids, "attention_mask": torch.cat([inputs["attention_mask"], added], dim=1)}
        fresh = model.generate(**turn, pixel_values=inputs["pixel_values"], **options)
        again = model.generate(**turn, past_key_values=first.past_key_values, **options)
    assert torch.equal(again.sequences, fresh.sequences)


@pytest.mark.parametrize("explicit", [False, True])
def test_decoding_by_hand_goes_on_from_positions_with_gaps(model, explicit):
    inputs = prompt([5, PICTURE, 6, 7, 8, 9], [4, PICTURE, 3])
    with prumerge.attach(model, "pool:keep=3", positions="original"), torch.no_grad():
        expected = answer(model, inputs, tokens=4)
        mask, cache, tokens, step = inputs["attention_mask"], None, [], dict(inputs)
        for _ in range(4):
            if explicit:
                positions = (mask.cumsum(1) - 1).clamp_min(0)
                step["position_ids"] = positions[:, -step["input_ids"].shape[1] :]
            output = model(**step, past_key_values=cache, use_cache=True)
            ids, cache = output.logits[:, -1:].argmax(-1), output.past_key_values
            tokens.append(ids)
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
            step = {"input_ids": ids, "attention_mask": mask}
    assert torch.equal(torch.cat(tokens, dim=1), expected)


def test_positions_that_there_are_not(model, unchecked):
    with pytest.raises(ValueError, match="positions are auto, compact, original, median, not 'mean'"):
        reduced(model, prompt(*ROWS), "topk", positions="mean")
    with pytest.raises(ValueError, match="positions are auto, compact, original, median, not 'mean'"):
        prumerge.attach(model, "topk", positions="mean")
    assert "_prumerge" not in vars(model)
