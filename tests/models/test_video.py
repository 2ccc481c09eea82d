"""Clips as pictures in a row, and methods over frames."""

import json

import pytest
import torch
from builders import IMAGE, PICTURE, PLACES, answer, llava, prompt, visual_tokens
from clips import animated
from steps import encoded

import prumerge
from prumerge.tokens import VisualTokens

ROWS = [[5, PICTURE, PICTURE, PICTURE, 6], [7, PICTURE, PICTURE, PICTURE, 8, 9]]


def test_the_pictures_of_a_row_become_one_clip(model):
    inputs = prompt(*ROWS)
    alone, clips = encoded(model, inputs), encoded(model, inputs, clip=True)
    assert [tokens.grid for tokens in clips] == [(3, 4, 4)] * 2
    assert torch.equal(clips[1].features, torch.cat([tokens.features for tokens in alone[3:]]))
    whole = torch.cat([tokens.attention() for tokens in alone[3:]])
    torch.testing.assert_close(clips[1].attention(), whole)  # each frame has its own class token


@pytest.mark.parametrize("tower", ["clip", "siglip"])
def test_none_changes_nothing_of_a_clip(tower):
    model = llava(tower)
    expected = answer(model, prompt(*ROWS))
    with torch.no_grad():
        shorter = prumerge.reduce(model, prompt(*ROWS), "none", clip=True)
        assert torch.equal(model(**shorter).logits, model(**prompt(*ROWS)).logits)
        assert torch.equal(answer(model, prumerge.reduce(model, prompt(*ROWS), "none", clip=True)), expected)
    with prumerge.attach(model, "none", clip=True):
        assert torch.equal(answer(model, prompt(*ROWS)), expected)


def test_a_budget_is_for_the_clip_or_for_each_frame(model):
    def left(spec, **options):
        return [len(reduction) for _, reduction in prumerge.select(model, prompt(*ROWS), spec, **options)]

    assert left("topk:keep=4") == [4] * 6
    assert left("topk:keep=4", clip=True) == [4] * 2
    assert left("topk:keep=4@each", clip=True) == [12] * 2


def test_tokens_of_a_clip_are_read_in_their_frames_order(model):
    inputs = prompt(ROWS[0])
    ((tokens, reduction),) = prumerge.select(model, inputs, "topk:keep=5", clip=True)
    shorter = prumerge.reduce(model, inputs, "topk:keep=5", clip=True)
    assert shorter["input_ids"].tolist() == [[5, *[IMAGE] * 5, 6]]
    projected = model.model.multi_modal_projector(tokens.features[reduction.index.sort().values])
    torch.testing.assert_close(shorter["mm_encoder_outputs"]["image"].pooler_output[0], projected)


def test_text_between_frames_stays_between_them(model):
    inputs = prompt([5, PICTURE, 20, PICTURE, 21, PICTURE, 6])
    ((_, reduction),) = prumerge.select(model, inputs, "topk:keep=9", clip=True)
    each = torch.bincount(reduction.index // PLACES, minlength=3).tolist()
    shorter = prumerge.reduce(model, inputs, "topk:keep=9", clip=True)
    words = [5, *[IMAGE] * each[0], 20, *[IMAGE] * each[1], 21, *[IMAGE] * each[2], 6]
    assert shorter["input_ids"].tolist() == [words]


def test_frames_of_different_sizes_are_refused():
    frames = [visual_tokens((1, 3, 4)), visual_tokens((1, 4, 3))]
    with pytest.raises(ValueError, match="the frames of a clip must be of one size"):
        VisualTokens.from_frames(frames)


# methods over frames


def moving(frames=3, changed=(1, 5)):
    """Frames of 3 x 4 that are all alike but for two places, where each frame shows something else."""
    still = [visual_tokens((1, 3, 4), seed=1) for _ in range(frames)]
    clip = VisualTokens.from_frames(still)
    features = clip.features.clone().view(frames, 12, -1)
    chance = torch.Generator().manual_seed(2)
    for place in changed:
        features[1:, place] = torch.randn(frames - 1, features.shape[-1], generator=chance)
    from dataclasses import replace

    return replace(clip, features=features.flatten(0, 1))


def test_the_first_of_its_kind_absorbs_its_repeats():
    clip = moving()
    reduction = prumerge.make("none@merged")(clip)
    assert reduction.index.tolist() == [*range(12), 13, 17, 25, 29]
    owner = reduction.weights.argmax(0).view(3, 12)
    for place in set(range(12)) - {1, 5}:
        assert (owner[:, place] == place).all()
        torch.testing.assert_close(reduction.weights[place].sum(), torch.tensor(1.0))
        assert (reduction.weights[place] > 0).sum() == 3
    torch.testing.assert_close(reduction.apply(clip)[0], clip.features[0])


def test_over_frames_a_method_reads_what_it_reads():
    assert prumerge.make("trim:keep=4@each").needs == prumerge.make("trim").needs
    chain = prumerge.make("topk:keep=9+none@each")
    assert [str(part) for part in chain.parts] == ["topk:keep=9", "none@each"]


@pytest.mark.parametrize("positions", ["compact", "original", "median"])
def test_frames_of_a_clip_may_be_merged_inside_the_tower(positions):
    model, inputs = llava(), prompt([0, PICTURE, 5, PICTURE, 7])
    apart = encoded(model, inputs, "tome:r=3")
    (clip,) = encoded(model, inputs, "tome:r=3", clip=True)
    assert clip.picture_grid == (2, *apart[0].picture_grid[1:])
    assert clip.placeholders == 2 * apart[0].placeholders
    torch.testing.assert_close(clip.attention(), torch.cat([one.attention() for one in apart]))
    both = torch.cat([one.merged.reduction(len(one)).weights.sum(0) for one in apart])
    assert torch.equal(clip.merged.reduction(len(clip)).weights.sum(0), both)
    with torch.no_grad():
        together = prumerge.reduce(model, inputs, "tome:r=3", clip=True, positions=positions)
        one_by_one = prumerge.reduce(model, inputs, "tome:r=3", positions=positions)
    assert torch.equal(together["attention_mask"], one_by_one["attention_mask"])
    if positions != "compact":
        assert torch.equal(together["position_ids"], one_by_one["position_ids"])
    features = one_by_one["mm_encoder_outputs"]["image"].pooler_output
    found = together["mm_encoder_outputs"]["image"].pooler_output
    torch.testing.assert_close(torch.cat(list(found)), torch.cat(list(features)))


def test_a_threshold_says_what_repeats():
    clip = moving()
    assert len(prumerge.make("none@merged=-1")(clip)) == 12
    assert len(prumerge.make("none@merged=1")(moving(changed=range(12)))) == 36
    assert str(prumerge.make("none@merged=0.5")) == "none@merged=0.5"


@pytest.mark.parametrize(
    "name", [name for name in prumerge.names() if "frames" not in prumerge.make(name).needs]
)
@pytest.mark.parametrize("how", ["each", "merged"])
def test_every_method_goes_over_frames(name, how):
    method = prumerge.make(name)
    if method.place != prumerge.Reducer.place:
        with pytest.raises(ValueError, match=f"works in the {method.place}.*leave out what follows @"):
            prumerge.make(f"{name}@{how}")
        return
    clip = moving()
    reduction = prumerge.make(f"{name}@{how}")(clip)
    features = reduction.apply(clip)
    assert 1 <= len(reduction) == len(features) <= len(clip)
    assert features.isfinite().all()
    assert 0 <= int(reduction.index.min()) <= int(reduction.index.max()) < 36
    if how == "each":
        parts = [prumerge.make(name)(part) for part in clip.frames()]
        assert len(reduction) == sum(map(len, parts))
        expected = torch.cat([one.apply(part) for one, part in zip(parts, clip.frames(), strict=True)])
        torch.testing.assert_close(features, expected)


def test_what_is_merged_is_chosen_by_the_method_after_that():
    clip = moving()
    reduction = prumerge.make("topk:keep=14@merged")(clip)
    everything = prumerge.make("none@merged")(clip)
    assert len(reduction) == 14
    assert set(reduction.index.tolist()) < set(everything.index.tolist())
    row = {int(index): weights for index, weights in zip(everything.index, everything.weights, strict=True)}
    for index, weights in zip(reduction.index, reduction.weights, strict=True):
        torch.testing.assert_close(weights, row[int(index)])


@pytest.mark.parametrize("how", ["each", "merged"])
def test_of_one_picture_over_frames_changes_nothing(how):
    tokens = visual_tokens((1, 6, 6))
    plain, over = (prumerge.make(spec)(tokens) for spec in ("prumerge", f"prumerge@{how}"))
    assert torch.equal(plain.index, over.index)
    torch.testing.assert_close(plain.weights, over.weights)


@pytest.mark.parametrize("spec", ["none@often", "none@merged=much", "none@each=2", "none@"])
def test_what_follows_the_at_sign_is_checked(spec):
    with pytest.raises(ValueError, match=r"what follows @ is each, merged, or merged=0\.8"):
        prumerge.make(spec)


def test_a_threshold_beyond_a_cosine_is_refused():
    with pytest.raises(ValueError, match="a cosine lies between -1 and 1"):
        prumerge.make("none@merged=2")


# the command line


def test_a_clip_is_answered_with_all_tokens_and_with_few(run, small, tmp_path):
    path = animated(tmp_path / "clip.gif", 8)
    code, out, _ = run("answer", "--video", path, "what moves?", "--model", small, "--compare", "--json")
    untouched, reduced = json.loads(out)
    assert code == 0
    assert untouched["visual_tokens"] == 8 * 576
    assert reduced["visual_tokens"] < untouched["visual_tokens"] / 2
    _, out, _ = run(
        "answer",
        "--video",
        path,
        "what?",
        "--model",
        small,
        "--reducer",
        "topk@each",
        "--keep",
        "9",
        "--json",
    )
    assert json.loads(out)["visual_tokens"] == 72


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--video", "nowhere.gif", "what?"], " at 'nowhere.gif'"),
        (["a.png", "what?", "--video", "b.gif"], "with --video leave"),
        (["what?", "--video", "a.gif", "--frames", "0"], "Invalid value for '--frames'"),
    ],
)
def test_bad_clips_are_one_sentence(run, unchecked, arguments, sentence):
    code, out, err = run("answer", *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
