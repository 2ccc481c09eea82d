"""From folders, animations and video files to frames."""

import json
import struct
import sys
from itertools import pairwise

import numpy as np
import pytest
from clips import COLOURS, animated, coloured, filmed
from PIL import Image

import prumerge
from prumerge.errors import MissingPackage, PrumergeError
from prumerge.loading.clips import evenly
from prumerge.loading.media import open_media


def frames_in(media):
    assert isinstance(media, list)
    return len(media)


def seen(frames):
    return [frame.getpixel((20, 15)) for frame in frames]


EVERY = seen(coloured())


@pytest.mark.parametrize(("available", "wanted"), [(100, 8), (9, 8), (8, 8), (2, 8), (50, 1), (7, 3)])
def test_places_are_spread_from_first_to_last(available, wanted):
    places = evenly(available, wanted)
    assert len(places) == min(available, wanted)
    assert places[0] == 0
    assert wanted == 1 or places[-1] == available - 1
    steps = {later - place for place, later in pairwise(places)}
    assert not steps or max(steps) - min(steps) <= 1


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("frames", [0, -1, 2.5, True, "8", None])
def test_a_clip_has_a_whole_number_of_frames(tmp_path, frames):
    with pytest.raises(PrumergeError, match=f"a clip has at least one frame, not {frames}"):
        prumerge.open_clip(animated(tmp_path / "clip.gif"), frames)


# animations


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_frames_of_an_animation_come_evenly(tmp_path, suffix):
    path = animated(tmp_path / f"clip.{suffix}")
    assert seen(prumerge.open_clip(path, 10)) == EVERY
    assert seen(prumerge.open_clip(path, 4)) == [EVERY[n] for n in (0, 3, 6, 9)]
    assert seen(prumerge.open_clip(path, 1)) == EVERY[:1]


def test_a_shorter_clip_is_read_whole_and_a_still_picture_is_one_frame(tmp_path):
    coloured(1)[0].save(tmp_path / "still.png")
    assert seen(prumerge.open_clip(animated(tmp_path / "clip.gif", 3))) == EVERY[:3]
    assert seen(prumerge.open_clip(tmp_path / "still.png")) == EVERY[:1]


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_every_frame_of_a_turned_animation_stands_upright(tmp_path, suffix):
    tags = Image.Exif()
    tags[0x0112] = 6
    path = animated(tmp_path / f"clip.{suffix}", 3, exif=tags)
    frames = prumerge.open_clip(path)
    assert [frame.size for frame in frames] == [(30, 40)] * 3 == [prumerge.open_image(path).size] * 3


def test_the_poster_of_an_apng_is_no_frame(tmp_path):
    poster, path = Image.new("RGB", (40, 30), "pink"), tmp_path / "clip.png"
    poster.save(path, save_all=True, append_images=coloured(3), default_image=True)
    assert seen(prumerge.open_clip(path)) == EVERY[:3]
    assert seen(prumerge.open_clip(path, 2)) == [EVERY[0], EVERY[2]]


def test_what_a_photo_holds_beside_itself_is_no_frame(tmp_path):
    """Phones write a preview or a map of brightness behind the picture (MPO)."""
    photo, preview = Image.new("RGB", (80, 60), "red"), Image.new("RGB", (20, 15), "blue")
    photo.save(tmp_path / "photo.jpg", "MPO", save_all=True, append_images=[preview])
    assert [frame.size for frame in prumerge.open_clip(tmp_path / "photo.jpg")] == [(80, 60)]
    shown = open_media(tmp_path / "photo.jpg")
    assert isinstance(shown, Image.Image) and shown.size == (80, 60)


# folders


def folder_of(path, names, **others):
    path.mkdir()
    for picture, name in zip(coloured(len(names)), names, strict=True):
        picture.save(path / name)
    for name in others.get("beside", ()):
        (path / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    return path


@pytest.mark.parametrize(
    "names",
    [
        [f"frame-{number}.png" for number in range(1, 11)],
        ["F1.PNG", "f2.png", "F10.PNG"],
        ["1.png", "01.png", "001.png"][::-1],
        ["a1²3.png", "a1²4.png"],
        ["f\u0662.png", "f\u0661\u0660.png"],
        ["f1.avif", "f2.avif"],
        ["f1.png", "f2.avif", "f3.webp", "f4.jfif", "f5.gif", "f6.bmp", "f7.tif", "f8.ppm", "f9.tga"],
    ],
)
def test_pictures_of_a_folder_are_in_the_order_of_their_numbers(tmp_path, names):
    frames = seen(prumerge.open_clip(folder_of(tmp_path / "clip", names), 10))
    assert np.abs(np.subtract(frames, EVERY[: len(names)])).max() < 10  # what compression changes


def test_what_lies_beside_the_frames_is_left_out(tmp_path):
    beside = ["._f1.png", ".DS_Store", ".hidden.png", "Thumbs.db", "desktop.ini", "notes.txt", "data.h5"]
    path = folder_of(tmp_path / "clip", ["f1.png", "f2.png"], beside=beside)
    (path / "f3.png").mkdir()
    assert seen(prumerge.open_clip(path)) == EVERY[:2]


@pytest.mark.parametrize("name", ["f2.png", "f2.heic"])
def test_a_frame_that_cannot_be_read_is_refused_and_not_left_out(tmp_path, name):
    path = folder_of(tmp_path / "clip", ["f1.png", "f3.png"], beside=[name])
    with pytest.raises(PrumergeError, match=f"{name}' is no picture or animation that Pillow can read"):
        prumerge.open_clip(path)


def test_so_is_a_link_that_leads_nowhere(tmp_path):
    path = folder_of(tmp_path / "clip", ["f1.png"])
    (path / "f2.png").symlink_to("nowhere.png")
    with pytest.raises(PrumergeError, match=r"there is no picture at .*f2.png"):
        prumerge.open_clip(path)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder / "nowhere.gif", "there is no clip at"),
        (lambda folder: folder / "notes.gif", "is no picture or animation that Pillow can read"),
        (lambda folder: folder / "empty", "holds no pictures"),
        (lambda folder: folder / "nothing.gif", "is empty"),
        (lambda folder: folder / "cut.gif", "is damaged or cut short"),
    ],
)
def test_what_is_no_clip_is_refused(tmp_path, make, sentence):
    (tmp_path / "notes.gif").write_text("words")
    (tmp_path / "nothing.gif").touch()
    (tmp_path / "empty").mkdir()
    whole = animated(tmp_path / "whole.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PrumergeError, match=sentence):
        prumerge.open_clip(make(tmp_path))


# video files


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_video_file_gives_its_frames(tmp_path, suffix):
    """A container that counts its frames, and one that does not (Matroska)."""
    path = filmed(tmp_path / f"clip.{suffix}", coloured(size=(64, 48)))
    every = seen(prumerge.open_clip(path, 10))
    named = [Image.new("RGB", (1, 1), colour).getpixel((0, 0)) for colour in COLOURS]
    assert len(every) == 10
    assert np.abs(np.subtract(every, named)).max() < 20  # what compression changes
    assert seen(prumerge.open_clip(path, 4)) == [every[n] for n in (0, 3, 6, 9)]


def with_matrix(path, a, b, c, d):
    """The video's display matrix overwritten (in its track header)."""
    raw = bytearray(path.read_bytes())
    place = raw.find(b"tkhd") + 44
    assert struct.unpack(">9i", raw[place : place + 36])[0] == 1 << 16
    numbers = [number << 16 for number in (a, b, 0, c, d, 0, 0, 0)]
    raw[place : place + 36] = struct.pack(">9i", *numbers, 1 << 30)
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((1, 0, 0, 1), (0, 0)),
        ((0, 1, -1, 0), (1, 0)),  # a phone held upright: turned clockwise
        ((-1, 0, 0, -1), (1, 1)),
        ((0, -1, 1, 0), (0, 1)),
        ((-1, 0, 0, 1), (1, 0)),  # a mirrored one
        ((1, 0, 0, -1), (0, 1)),
        ((0, 1, 1, 0), (0, 0)),
        ((0, -1, -1, 0), (1, 1)),
    ],
)
def test_a_video_is_turned_and_mirrored_as_a_player_shows_it(tmp_path, matrix, corner):
    """`corner` is where the picture's upper left one goes, right and down."""
    picture = Image.new("RGB", (96, 64), "black")
    picture.paste("white", (0, 0, 32, 32))
    path = filmed(tmp_path / "clip.mp4", [picture] * 3)
    with_matrix(path, *matrix)
    frames = prumerge.open_clip(path)
    assert len(frames) == 3
    for frame in frames:
        assert frame.size == ((96, 64) if matrix[0] else (64, 96))
        red = frame.getchannel("R")
        bright = [
            (right, down)
            for right in (0, 1)
            for down in (0, 1)
            if red.getpixel((right * (frame.width - 17) + 8, down * (frame.height - 17) + 8)) > 128  # type: ignore[operator]
        ]
        assert bright == [corner]


def test_a_header_that_claims_more_frames_than_there_are_is_not_believed(tmp_path):
    """The number of samples, wherever it stands, is that of a longer video."""
    path = filmed(tmp_path / "clip.mkv", coloured(4, (64, 48)))
    assert len(prumerge.open_clip(path, 3)) == 3  # Matroska claims none at all
    longer = filmed(tmp_path / "clip.avi", coloured(10, (64, 48)))
    raw = bytearray(longer.read_bytes())
    raw[48:52] = struct.pack("<I", 40)  # dwTotalFrames of the main header
    at = raw.find(b"strh") + 8 + 32
    raw[at : at + 4] = struct.pack("<I", 40)  # dwLength of the stream
    longer.write_bytes(raw)
    assert seen(prumerge.open_clip(longer, 2)) == [
        seen(prumerge.open_clip(longer, 10))[place] for place in (0, 9)
    ]


def test_a_video_file_is_asked_about(tmp_path, run):
    path = filmed(tmp_path / "clip.mp4", coloured(4, (64, 48)))
    code, out, err = run("answer", "--video", path, "--frames", "2", "what moves?", "--json")
    assert code == 0, err
    assert json.loads(out)["visual_tokens"] < 2 * 576


def test_a_video_of_a_few_pixels_is_refused(tmp_path):
    path = filmed(tmp_path / "clip.mp4", coloured(2, (32, 8)))
    with pytest.raises(PrumergeError, match="is 32 x 8 pixels; a picture needs at least 14 a side"):
        prumerge.open_clip(path)


def test_a_broken_video_file_is_refused(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"something")
    with pytest.raises(PrumergeError, match="is no video that can be read"):
        prumerge.open_clip(tmp_path / "clip.mp4")


def test_sound_alone_is_no_video(tmp_path):
    import av

    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(PrumergeError, match="holds no video"):
        prumerge.open_clip(path)


def test_video_files_say_what_they_need(tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").write_bytes(b"something")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackage, match=r"need PyAV; install it with: pip install 'prumerge\[video\]'"):
        prumerge.open_clip(tmp_path / "clip.mp4")


# pictures and clips


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_a_still_file_is_a_picture_and_an_animated_one_a_clip(tmp_path, suffix):
    still = animated(tmp_path / f"still.{suffix}", 1)
    assert seen([open_media(still)]) == EVERY[:1]
    clip = animated(tmp_path / f"clip.{suffix}", 5)
    assert seen(open_media(clip)) == EVERY[:5]
    assert seen(open_media(clip, frames=2)) == [EVERY[0], EVERY[4]]
    assert seen(open_media(clip, frames=1)) == EVERY[:1]


def test_folders_and_video_files_are_clips(tmp_path):
    assert frames_in(open_media(folder_of(tmp_path / "one", ["f1.png"]))) == 1
    assert frames_in(open_media(filmed(tmp_path / "clip.MP4", coloured(4, (64, 48))), frames=3)) == 3


@pytest.mark.parametrize("name", ["nowhere", "https://somewhere.invalid/a.gif", "notes.txt"])
def test_what_is_neither_is_refused(tmp_path, name):
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(PrumergeError, match=r"no picture or (clip|animation)|is an address"):
        open_media(name if ":" in name else tmp_path / name)
