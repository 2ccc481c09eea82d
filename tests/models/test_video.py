"""Clips: their frames, their frames as pictures in a row, and methods over frames."""

import json
import sys
from itertools import pairwise

import av
import pytest
import torch
from builders import IMAGE, PICTURE, PLACES, answer, llava, prompt, visual_tokens
from PIL import Image
from steps import encoded

import prumerge
from prumerge.loading.clips import evenly
from prumerge.loading.prompts import prepare
from prumerge.tokens import VisualTokens

COLOURS = ["red", "lime", "blue", "yellow", "cyan", "magenta", "white", "black", "orange", "purple"]


def coloured(count=10, size=(40, 30)):
    return [Image.new("RGB", size, COLOURS[n]) for n in range(count)]


@pytest.fixture
def animation(tmp_path):
    """Ten frames of one colour each, in any format that can hold them."""

    def save(suffix, count=10):
        path, frames = tmp_path / f"clip.{suffix}", coloured(count)
        frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
        return path

    return save


@pytest.fixture
def folder(tmp_path):
    for number, frame in enumerate(coloured()):
        frame.save(tmp_path / f"frame-{number + 1}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def seen(frames):
    return [frame.getpixel((20, 15)) for frame in frames]


# reading


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_frames_of_an_animation_come_evenly(animation, suffix):
    every = seen(coloured())
    assert seen(prumerge.open_clip(animation(suffix), 10)) == every
    assert seen(prumerge.open_clip(animation(suffix), 4)) == [every[n] for n in (0, 3, 6, 9)]
    assert seen(prumerge.open_clip(animation(suffix), 1)) == every[:1]


def test_pictures_of_a_folder_are_in_the_order_of_their_numbers(folder):
    assert seen(prumerge.open_clip(folder, 10)) == seen(coloured())


def test_a_shorter_clip_is_read_whole_and_a_still_picture_is_one_frame(animation, folder):
    assert len(prumerge.open_clip(animation("gif", 3))) == 3
    assert len(prumerge.open_clip(folder / "frame-1.png")) == 1


@pytest.mark.parametrize(("available", "wanted"), [(100, 8), (9, 8), (8, 8), (2, 8), (50, 1), (7, 3)])
def test_places_are_spread_from_first_to_last(available, wanted):
    places = evenly(available, wanted)
    assert len(places) == min(available, wanted)
    assert places[0] == 0
    assert wanted == 1 or places[-1] == available - 1
    steps = {later - place for place, later in pairwise(places)}
    assert not steps or max(steps) - min(steps) <= 1


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder / "nowhere.gif", "there is no clip at"),
        (lambda folder: folder / "notes.gif", "is no animation that Pillow can read"),
        (lambda folder: folder / "empty", "holds no pictures"),
        (lambda folder: folder / "nothing.gif", "is empty"),
        (lambda folder: folder / "cut.gif", "is damaged or cut short"),
    ],
)
def test_what_is_no_clip_is_refused(tmp_path, animation, make, sentence):
    (tmp_path / "notes.gif").write_text("words")
    (tmp_path / "nothing.gif").touch()
    (tmp_path / "empty").mkdir()
    whole = animation("gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=sentence):
        prumerge.open_clip(make(tmp_path))


def test_no_frames_at_all_are_refused(animation):
    with pytest.raises(ValueError, match="a clip has at least one frame, not 0"):
        prumerge.open_clip(animation("gif"), 0)
    _, processor = prumerge.load("tiny")
    with pytest.raises(ValueError, match="the clip has no frames"):
        prepare(processor, [], "what moves?")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_video_file_gives_its_frames(tmp_path, suffix):
    """A container that counts its frames, and one that does not (Matroska)."""
    path = filmed(tmp_path / f"clip.{suffix}", coloured(size=(64, 48)))
    every = [frame.getpixel((20, 15)) for frame in prumerge.open_clip(path, 10)]
    named = [Image.new("RGB", (1, 1), colour).getpixel((0, 0)) for colour in COLOURS]
    assert len(every) == 10
    assert (torch.tensor(every) - torch.tensor(named)).abs().max() < 20  # what compression changes
    few = [frame.getpixel((20, 15)) for frame in prumerge.open_clip(path, 4)]
    assert few == [every[n] for n in (0, 3, 6, 9)]


def filmed(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, width=frames[0].width, height=frames[0].height)
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return path


def test_a_video_file_is_asked_about(tmp_path, run):
    path = filmed(tmp_path / "clip.mp4", coloured(4, (64, 48)))
    code, out, err = run("answer", "--video", path, "--frames", "2", "what moves?", "--json")
    assert code == 0, err
    assert json.loads(out)["visual_tokens"] < 2 * 576


def test_a_broken_video_file_is_refused(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"something")
    with pytest.raises(ValueError, match="is no video that can be read"):
        prumerge.open_clip(tmp_path / "clip.mp4")


def test_video_files_say_what_they_need(tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").write_bytes(b"something")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"need PyAV; install it with: pip install 'prumerge\[video\]'"
    ):
        prumerge.open_clip(tmp_path / "clip.mp4")


# frames as pictures in a row


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


def test_a_clip_is_answered_with_all_tokens_and_with_few(run, small, animation):
    path = animation("gif", 8)
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
        (["--video", "nowhere.gif", "what?"], "there is no clip at 'nowhere.gif'"),
        (["a.png", "what?", "--video", "b.gif"], "with --video leave the picture out"),
        (["what?", "--video", "a.gif", "--frames", "0"], "Invalid value for '--frames'"),
    ],
)
def test_bad_clips_are_one_sentence(run, unchecked, arguments, sentence):
    code, out, err = run("answer", *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
