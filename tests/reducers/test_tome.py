"""ToMe inside the vision tower: what is merged, what it costs, and what a second method sees."""

import copy
import math
from dataclasses import replace
from typing import Any

import peft
import pytest
import torch
from builders import IMAGE, PICTURE, REGISTERS, answer, llava, pictures, prompt, row_of, visual_tokens
from steps import encoded
from torch.nn import functional as F

import prumerge
from prumerge.models import _vision as vision
from prumerge.reducers.tome import ToMe

ROWS = [[5, PICTURE, 6, 7], [5, PICTURE, 6, PICTURE, 9], [4, 8, 2]]


def select(model, inputs, spec):
    with torch.no_grad():
        return prumerge.select(model, inputs, spec)


def reduced(model, inputs, spec, **options):
    with torch.no_grad():
        return prumerge.reduce(model, inputs, spec, **options)


def step_by_hand(keys, r, class_token):
    """One bipartite soft matching, token by token: which tokens make up each that is left, in order."""
    unit = keys / keys.norm(dim=-1, keepdim=True)
    first, second = list(range(0, len(keys), 2)), list(range(1, len(keys), 2))
    edges = []
    for a in first:
        if class_token and a == 0:
            continue
        scores = [float(unit[a] @ unit[b]) for b in second]
        edges.append((max(scores), a, second[max(range(len(second)), key=scores.__getitem__)]))
    edges.sort(key=lambda edge: -edge[0])
    goes = {a: b for _, a, b in edges[:r]}
    rest = [a for _, a, _ in edges[r:]]
    rest = sorted([0, *rest]) if class_token else rest
    return [[a] for a in rest] + [[b, *(a for a in goes if goes[a] == b)] for b in second]


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("r", [0, 1, 7, 16])
def test_a_step_is_bipartite_soft_matching(class_token, r):
    keys = torch.randn(33, 8, generator=torch.Generator().manual_seed(r))
    row = ToMe().match(keys, r, class_token=class_token)
    groups = step_by_hand(keys, r, class_token)
    expected = {token: place for place, group in enumerate(groups) for token in group}
    assert row.tolist() == [expected[token] for token in range(33)]
    batch = torch.stack([keys, keys.flip(0)])
    assert torch.equal(ToMe().match(batch, r, class_token=class_token)[0], row)


def layers(tower):
    """Of each layer its norms, attention, MLP, attention's last matrix, and what is added by each half."""
    if tower.config.model_type.startswith("dinov2"):
        for one in tower.encoder.layer:
            adds = [
                lambda x, scale=scale: x * scale.lambda1 for scale in (one.layer_scale1, one.layer_scale2)
            ]
            yield one.norm1, one.attention, one.attention.o_proj, one.norm2, one.mlp, *adds
    else:
        for one in tower.encoder.layers:
            norms, attention = (one.layer_norm1, one.layer_norm2), one.self_attn
            yield norms[0], attention, attention.out_proj, norms[1], one.mlp, *[lambda x: x] * 2


def by_hand(model, pixels, counts):
    """One picture through the tower with the official order of things; features and groups of patches."""
    tower = copy.deepcopy(model.model.vision_tower)
    tower.set_attn_implementation("eager")
    kind = tower.config.model_type
    class_token, aside = kind != "siglip_vision_model", REGISTERS * (kind == "dinov2_with_registers")
    hidden = tower.embeddings(pixels)
    hidden = tower.pre_layrnorm(hidden) if kind == "clip_vision_model" else hidden
    groups = [[token] for token in range(hidden.shape[1])]
    for (norm, attention, mix, norm2, mlp, add, add2), r in zip(layers(tower), counts, strict=False):
        read, heads = norm(hidden), tower.config.num_attention_heads
        q, k, v = (
            project(read)[0].unflatten(-1, (heads, -1)).transpose(0, 1)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        size = torch.tensor([float(len(group)) for group in groups])
        weights = (q @ k.mT * q.shape[-1] ** -0.5 + size.log()).softmax(-1)
        hidden = hidden + add(mix((weights @ v).transpose(0, 1).flatten(1)))[None]
        others = [t for t in range(len(groups)) if not 1 <= t <= aside]
        made = [[others[t] for t in group] for group in step_by_hand(k.mean(0)[others], r, class_token)]
        made[1:1] = [[t] for t in range(1, 1 + aside)]
        hidden = torch.stack(
            [sum(hidden[0, t] * size[t] for t in group) / sum(size[t] for t in group) for group in made]
        )[None]
        groups = [sorted(patch for t in group for patch in groups[t]) for group in made]
        hidden = hidden + add2(mlp(norm2(hidden)))
    first = class_token + aside
    order = sorted(range(len(groups)), key=lambda place: groups[place][0])[first:]
    return hidden[0, order], [[patch - first for patch in groups[place]] for place in order]


@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2", "registers"])
@pytest.mark.parametrize(
    ("spec", "counts"), [("tome:r=3", [3, 3]), ("tome:r=5-1", [5, 1]), ("tome:keep=5", [6, 5])]
)
def test_the_tower_merges_as_the_paper_does(tower, spec, counts):
    model, pixels = llava(tower), pictures(3)
    with torch.no_grad():
        found = encoded(model, {"pixel_values": pixels}, spec)
        for tokens, one in zip(found, pixels, strict=True):
            features, groups = by_hand(model, one[None], counts)
            torch.testing.assert_close(tokens.features, features, atol=1e-4, rtol=1e-4)
            found = [(tokens.merged.source == row).nonzero()[:, 0].tolist() for row in range(len(tokens))]
            assert found == groups
            assert tokens.sizes.tolist() == [len(group) for group in groups]


# nothing merged, nothing changed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2"])
@pytest.mark.parametrize("spec", ["tome:r=0", "tome:keep=16"])
def test_without_merging_no_bit_changes(tower, dtype, spec):
    model, inputs = llava(tower, dtype=dtype), prompt(*ROWS)
    with torch.no_grad():
        plain = model(**inputs).logits
        assert torch.equal(model(**reduced(model, inputs, spec)).logits, plain)
    before, after = select(model, inputs, "prumerge"), select(model, inputs, f"{spec}+prumerge")
    for (tokens, one), (again, other) in zip(before, after, strict=True):
        assert torch.equal(tokens.keys, again.keys)
        assert torch.equal(one.index, other.index)
        assert torch.equal(one.weights, other.weights)


# what is left


@pytest.mark.parametrize("layer", [-2, -1, 2])
@pytest.mark.parametrize(
    "spec", ["tome:r=3", "tome:keep=7", "tome:r=6,proportional=off", "tome:r=2,inflect=-1"]
)
def test_every_patch_goes_into_one_token_in_spatial_order(spec, layer):
    model, inputs = llava(layer=layer), prompt(*ROWS)
    for tokens, reduction in select(model, inputs, spec):
        assert tokens.placeholders == 16
        assert tokens.grid == (1, 1, len(tokens))
        assert tokens.merged.grid == (1, 4, 4)
        whole = tokens.whole(reduction)
        assert whole.index.tolist() == sorted(set(whole.index.tolist()))
        assert len(whole) == len(tokens) == len(set(tokens.merged.source.tolist())) < 16
        torch.testing.assert_close(whole.weights.sum(1), torch.ones(len(tokens)))
        assert ((whole.weights > 0).sum(0) == 1).all()
        assert (tokens.sizes is None) == ("proportional=off" in spec)
        assert len(tokens.keys) == len(tokens)
        assert len(tokens.attention()) == len(tokens)


def test_a_ragged_batch_means_what_its_rows_mean():
    model, inputs = llava(), prompt(*ROWS)
    batch = reduced(model, inputs, "tome:r=3+prumerge_plus")
    said = answer(model, batch)
    for row in range(len(ROWS)):
        alone = reduced(model, row_of(inputs, row), "tome:r=3+prumerge_plus")
        assert torch.equal(said[row : row + 1], answer(model, alone))


@pytest.mark.parametrize(
    "second", ["prumerge:keep=3", "topk:keep=3", "spatial:keep=3", "pool:keep=3", "none"]
)
def test_a_second_method_works_on_what_is_left(second):
    model, inputs = llava(), prompt(*ROWS)
    for (tokens, reduction), (same, _) in zip(
        select(model, inputs, f"tome:r=4+{second}"), select(model, inputs, "tome:r=4"), strict=True
    ):
        assert torch.equal(tokens.features, same.features)
        torch.testing.assert_close(reduction.apply(tokens), prumerge.make(second)(same).apply(same))
        assert tokens.whole(reduction).weights.shape == (len(reduction), 16)
    shorter = reduced(model, inputs, f"tome:r=4+{second}")
    assert (shorter["input_ids"] == IMAGE).sum() == 3 * len(reduction)


def test_class_attention_weighs_merged_tokens_by_their_size():
    tokens = visual_tokens((1, 4, 4))
    merged = tokens.reduced(prumerge.make("tome:r=6")(tokens))
    query = merged.queries.view(2, 1, 4)
    keys = torch.cat([merged.class_key[None], merged.keys]).view(-1, 2, 4).permute(1, 2, 0)
    logits = query @ keys / 2 + torch.cat([torch.ones(1), merged.sizes]).log()
    torch.testing.assert_close(merged.attention(), logits.softmax(-1).mean((0, 1))[1:])
    assert merged.sizes.sum() == 16


def test_attention_of_frames_weighs_merged_tokens_too():
    tokens = visual_tokens((3, 4, 5), class_tokens=3)
    sized = replace(tokens, sizes=torch.arange(60) % 4 + 1.0)
    apart = torch.cat([frame.attention() for frame in sized.frames()])
    torch.testing.assert_close(sized.attention(), apart)
    assert not torch.allclose(sized.attention(), tokens.attention())
    assert [frame.sizes.tolist() for frame in sized.frames()] == [x.tolist() for x in sized.sizes.chunk(3)]


def test_other_layers_are_only_there_where_nothing_was_merged():
    inputs = prompt(*ROWS)
    ((merged, _), *_) = select(llava(), inputs, "tome:r=4+visionzip:keep=5")
    assert merged.elsewhere is None
    assert merged.scored_by("writer") is merged
    ((alone, _), *_) = select(llava(), inputs, "tome:r=0+visionzip:keep=5")
    ((plain, _), *_) = select(llava(), inputs, "visionzip:keep=5")
    assert torch.equal(alone.scored_by("writer").keys, plain.scored_by("writer").keys)
    assert torch.equal(alone.scored_by("first").keys, plain.scored_by("first").keys)
    assert not torch.equal(plain.keys, plain.scored_by("writer").keys)


@pytest.mark.parametrize("method", ["cdpruner:keep=4", "trim:keep=4"])
def test_words_reach_a_method_after_merging(method):
    inputs = prompt(*ROWS)
    other = {**inputs, "input_ids": inputs["input_ids"].where(inputs["input_ids"] != 6, 40)}
    words = llava().get_input_embeddings()(torch.tensor([5, 6, 7])).detach()
    (first, _), *rest = select(llava(), inputs, f"tome:r=4+{method}")
    # The pad and begin tokens of the row are no words.
    assert torch.equal(first.text(), words)
    assert len(rest) == 2
    (changed, _), *_ = select(llava(), other, f"tome:r=4+{method}")
    assert not torch.equal(changed.text(), words)


@pytest.mark.parametrize("spec", ["tome:r=4", "tome:keep=30"])
@pytest.mark.parametrize("class_tokens", [1, 3])
def test_frames_merge_apart(spec, class_tokens):
    tokens = visual_tokens((3, 4, 5), class_tokens=class_tokens)
    reduction = prumerge.make(spec)(tokens)
    one = prumerge.make(spec.replace("30", "10"))
    expected = torch.cat([one(frame).apply(frame) for frame in tokens.frames()])
    torch.testing.assert_close(reduction.apply(tokens), expected)


def test_attach_and_what_follows_inside_the_language_model():
    model, inputs = llava(layers=4), prompt(*ROWS)
    expected = answer(model, reduced(model, inputs, "tome:r=3"))
    with prumerge.attach(model, "tome:r=3") as attached:
        assert torch.equal(answer(model, inputs), expected)
        assert attached.tokens == [(16, 10)] * 3
    with prumerge.attach(model, "tome:r=3+pool:keep=8+fastv:keep=2") as attached:
        answer(model, inputs)
        assert attached.tokens == [(16, 8)] * 3
        assert attached.average_tokens == [5.0] * 3


def test_gradients_go_through_merging():
    model, inputs = llava(), prompt(ROWS[0])
    model(**prumerge.reduce(model, inputs, "tome:r=3"), labels=None).logits[0, -1].sum().backward()
    first = model.model.vision_tower.encoder.layers[0]
    assert first.mlp.fc1.weight.grad.abs().sum() > 0
    assert first.self_attn.v_proj.weight.grad.abs().sum() > 0


def test_keys_of_an_adapted_tower_are_those_of_the_adapter():
    model = llava()
    plain = [tokens.merged.source for tokens, _ in select(model, prompt(*ROWS), "tome:r=4")]
    torch.manual_seed(3)
    config = peft.LoraConfig(r=2, target_modules=r".*vision_tower.*k_proj", init_lora_weights=False)
    adapted: Any = peft.get_peft_model(model, config)
    attention = adapted.base_model.model.model.vision_tower.encoder.layers[0].self_attn
    read = torch.randn(2, 5, 32)
    with torch.no_grad():
        expected = attention.k_proj(read).unflatten(-1, (4, 8)).mean(-2)
        assert torch.equal(vision._mean_keys(attention, read), expected)
    found = [tokens.merged.source for tokens, _ in select(adapted, prompt(*ROWS), "tome:r=4")]
    assert any(not torch.equal(one, other) for one, other in zip(plain, found, strict=True))


# counts


@pytest.mark.parametrize(
    ("spec", "counts"),
    [
        ("tome:r=8", [8] * 23),
        ("tome:r=16-8-4", [16, 8, 4] + [0] * 20),
        ("tome:r=11,inflect=1", list(range(23))),
        ("tome:r=11,inflect=-1", list(range(22, -1, -1))),
        ("tome:r=400", [288, 144, 72, 36, 18, 9, 4, 2, 1, 1, 0] + [0] * 12),
        ("tome:keep=576", [0] * 23),
    ],
)
def test_a_schedule(spec, counts):
    method = prumerge.make(spec)
    assert isinstance(method, ToMe) and method.schedule(576, 23) == counts


@pytest.mark.parametrize("keep", [1, 2, 36, 64, 144, 400, 575, 0.5])
@pytest.mark.parametrize("blocks", [10, 11, 23])
def test_a_budget_is_spread_evenly_as_far_as_halving_allows(keep, blocks):
    counts = ToMe(keep=keep).schedule(576, blocks)
    left = 576
    for count in counts:
        assert 0 <= count <= left // 2
        left -= count
    assert left == (keep if keep >= 1 else 288)
    if keep == 64 and blocks == 23:
        assert set(counts) == {22, 23}


@pytest.mark.parametrize("keep", [1, 5, 8, 9, 16])
def test_by_itself_a_budget_takes_as_few_steps_as_possible(keep):
    tokens, method = visual_tokens((1, 4, 4)), prumerge.make(f"tome:keep={keep}")
    reduction = method(tokens)
    assert len(reduction) == keep
    if keep >= 8:
        again = prumerge.make(f"tome:r={16 - keep}")(tokens)
        assert torch.equal(again.weights, reduction.weights)
    assert math.isclose(float(reduction.weights.sum()), keep, rel_tol=1e-5)


# what cannot work is said plainly


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tome:keep=8,r=4", "give keep or r, not both"),
        ("tome:r=-1", "written as 8-16-24, not -1"),
        ("tome:r=many", "written as 8-16-24, not 'many'"),
        ("tome:r=8-x", "written as 8-16-24, not '8-x'"),
        ("tome:inflect=2", "inflect is a slope from -1 to 1"),
        ("tome:r=8-4,inflect=1", "for an r that is one number"),
    ],
)
def test_a_wrong_option(spec, message):
    with pytest.raises(ValueError, match=message):
        prumerge.make(spec)


def test_a_budget_that_so_few_blocks_cannot_meet():
    with pytest.raises(
        ValueError, match="each of the 2 blocks can halve the tokens at most, so 4 is the least"
    ):
        reduced(llava(), prompt(*ROWS), "tome:keep=3")


def test_features_of_several_layers():
    with pytest.raises(ValueError, match="give one vision_feature_layer"):
        reduced(llava(layer=(-2, -1)), prompt(*ROWS), "tome:r=2")


def test_flash_attention_takes_no_bias():
    model = llava()
    model.model.vision_tower.config._attn_implementation_internal = "flash_attention_2"
    tower, sizes = model.model.vision_tower, torch.ones(1, 3)
    with pytest.raises(ValueError, match="add proportional=off"):
        vision._bias(tower, sizes, F.relu(sizes).dtype)
