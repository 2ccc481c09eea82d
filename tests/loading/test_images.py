"""From files to pictures: what is read, how it looks, and what is refused in one sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
from noise import noise
from PIL import Image, ImageCms

import prumerge
from prumerge.errors import PrumergeError
from prumerge.loading.images import as_rgb

RED = (200, 30, 30)
WHITE = (255, 255, 255)


def small(mode="RGB", size=(32, 32)):
    return noise(size).convert(mode)


def seen(picture, path, **options):
    """The middle of a picture that was saved and opened again."""
    picture.save(path, **options)
    opened = prumerge.open_image(path)
    return opened.getpixel((opened.width // 2, opened.height // 2))


# names


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere.png", "there is no picture at 'nowhere.png'"),
        ("", "there is no picture at ''"),
        ("a" * 300, r"there is no picture at 'a{60}\.\.\.a{60}'"),
        ("iVBORw0KGgo" * 400, "there is no picture at 'iVBORw0KGgo"),
        ("/".join(["ab"] * 2000), "there is no picture at 'ab/ab"),
        ("a\0b.png", "there is no picture at"),
        ("a\udcff.png", "there is no picture at"),
        ("https://somewhere.invalid/a.png", "is an address; download the file first"),
        ("file:///tmp/a.png", "is an address"),
        ("data:image/png;base64,iVBORw0KGgo", "is data written out as text"),
        ("/dev/null", "is no file"),
    ],
)
@pytest.mark.parametrize("reader", [prumerge.open_image, prumerge.open_clip])
def test_what_is_no_path_to_a_picture_is_refused(reader, name, sentence):
    wanted = sentence.replace("no picture", "no clip") if reader is prumerge.open_clip else sentence
    with pytest.raises(PrumergeError, match=wanted) as refused:
        reader(name)
    assert len(str(refused.value)) < 400


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("thing", [None, 3, b"a.png", Image.new("RGB", (20, 20)), np.zeros((20, 20, 3))])
@pytest.mark.parametrize("reader", [prumerge.open_image, prumerge.open_clip])
def test_only_paths_are_opened(reader, thing):
    with pytest.raises(PrumergeError, match="is opened by its path, not by"):
        reader(thing)


# what cannot be shown


def broken(kind, folder):
    path = folder / f"{kind}.png"
    if kind == "text":
        path.write_text("this is no picture")
    elif kind == "empty":
        path.touch()
    elif kind == "truncated":
        small(size=(200, 200)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "dot":
        Image.new("RGB", (1, 1)).save(path)
    elif kind == "huge":
        Image.new("1", (20_000, 20_000)).save(path)
    elif kind == "large":  # more than a picture may have, less than what Pillow refuses by itself
        Image.new("1", (10_500, 10_000)).save(path)
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("folder", "is a folder, not a picture"),
        ("empty", "is empty"),
        ("text", "is no picture or animation that Pillow can read"),
        ("truncated", "is damaged or cut short"),
        ("dot", "is 1 x 1 pixels; a picture needs at least 14 a side"),
        ("huge", "has more than 100 megapixels; scale it down"),
        ("large", "has more than 100 megapixels; scale it down"),
    ],
)
def test_a_file_that_cannot_be_shown_to_a_model_is_refused(tmp_path, kind, sentence):
    path = broken(kind, tmp_path)
    with pytest.raises(PrumergeError, match=sentence):
        prumerge.open_image(path)
    if kind != "folder":
        with pytest.raises(PrumergeError, match=sentence):
            prumerge.open_clip(path)


FORMATS = {
    **{suffix: "RGB" for suffix in ("png", "jpg", "gif", "webp", "bmp", "tif", "ico", "pcx", "ppm", "tga")},
    **{suffix: "RGB" for suffix in ("sgi", "dds", "jp2", "icns", "avif", "mpo", "qoi")},
    "msp": "1",
    "spider": "F",
    "xbm": "1",
    "blp": "P",
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_damaged_file_of_any_format_is_a_picture_or_one_sentence_that_names_it(tmp_path, suffix):
    stream, chance = io.BytesIO(), np.random.default_rng(0)
    kind = Image.registered_extensions().get(f".{suffix}", suffix.upper())
    small(FORMATS[suffix]).save(stream, kind)
    whole, path = stream.getvalue(), tmp_path / f"damaged.{suffix}"
    path.write_bytes(whole)
    assert prumerge.open_image(path) == prumerge.open_clip(path)[0]
    for attempt in range(40):
        raw = bytearray(whole)
        raw[chance.integers(4, min(len(raw), 400))] = chance.choice([0, 1, 127, 128, 255])
        path.write_bytes(raw if attempt % 2 else raw[: chance.integers(1, len(raw))])
        for reader in (prumerge.open_image, prumerge.open_clip):
            try:
                assert reader(path)
            except PrumergeError as refused:
                assert path.name in str(refused)


def test_a_file_with_layers_is_one_picture(tmp_path):
    """PSD, whose layers Pillow counts as frames from 1 on."""
    head = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, 20, 20, 8, 3)
    (tmp_path / "a.psd").write_bytes(head + struct.pack(">III", 0, 0, 0) + b"\0\0" + b"\x80" * 1200)
    assert prumerge.open_image(tmp_path / "a.psd").getpixel((3, 3)) == (128, 128, 128)
    assert len(prumerge.open_clip(tmp_path / "a.psd")) == 1


def dds(path):
    header = struct.pack("<4sIIIIIII44s", b"DDS ", 124, 0x1007, 40, 40, 0, 0, 0, b"")
    path.write_bytes(header + struct.pack("<II4sIIIII", 32, 4, b"ABCD", 0, 0, 0, 0, 0) + b"\0" * 2020)


def wmf(path):
    box = struct.pack("<IHhhhhHI", 0x9AC6CDD7, 0, 0, 0, 1000, 1000, 1440, 0)
    path.write_bytes(box + b"\0\0" + b"\x01\0\x09\0\0\x03" + b"\0" * 60)


@pytest.mark.parametrize(
    ("suffix", "write"),
    [("dds", dds), ("wmf", wmf), ("h5", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 200))],
)
def test_a_whole_file_of_a_kind_that_pillow_only_knows_is_not_called_damaged(tmp_path, suffix, write):
    path = tmp_path / f"whole.{suffix}"
    write(path)
    with pytest.raises(
        PrumergeError, match=r"is of a kind that Pillow cannot decode here .*; save it as PNG"
    ):
        prumerge.open_image(path)


# upright


def exif(*entries):
    """An EXIF block of (tag, type, count, value) entries as any camera may have written it."""
    directory, data, end = struct.pack("<H", len(entries)), b"", 8 + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in sorted(entries):
        if len(value) > 4:
            value, data = struct.pack("<I", end + len(data)), data + value
        directory += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0) + data


TURNED = (0x0112, 3, 1, struct.pack("<H", 6))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_turned_photo_stands_upright(tmp_path, suffix, orientation):
    """As Pillow's own function turns it."""
    from PIL import ImageOps

    picture = Image.new("RGB", (60, 30), "white")
    picture.paste("red", (0, 0, 20, 10))
    tags = picture.getexif()
    tags[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    picture.save(path, exif=tags, lossless=suffix == "webp")
    with Image.open(path) as stored:
        expected = ImageOps.exif_transpose(stored).convert("RGB")
    assert np.array_equal(np.asarray(prumerge.open_image(path)), np.asarray(expected))
    assert np.array_equal(np.asarray(prumerge.open_clip(path)[0]), np.asarray(expected))


@pytest.mark.parametrize(
    "entry",
    [
        (0x9204, 10, 1, struct.pack("<ii", -1, 0)),  # a signed rational -1/0
        (0x011A, 10, 1, struct.pack("<ii", -1, 0)),  # the same as a resolution
        (0x011A, 5, 1, struct.pack("<II", 0x80000000, 0)),
        (0x011A, 11, 1, struct.pack("<f", float("nan"))),
        (0x011A, 2, 4, b"abc\0"),  # a resolution in letters
        (0x0100, 2, 4, b"abc\0"),  # a width in letters
        (0x0116, 5, 1, struct.pack("<II", 1, 3)),
        (0x0128, 3, 2, struct.pack("<HH", 1, 2)),
        (0x8769, 4, 1, struct.pack("<I", 0xFFFFFF)),  # a pointer into nowhere
        (0x8769, 2, 4, b"abc\0"),
        (0x8825, 5, 1, struct.pack("<II", 1, 3)),
        (0x9999, 99, 1, b"abcd"),  # a type that is none
    ],
)
def test_metadata_that_cannot_be_written_again_is_no_obstacle(tmp_path, entry):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif(TURNED, entry))
    assert prumerge.open_image(tmp_path / "a.jpg").size == (20, 40)


@pytest.mark.parametrize("raw", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"])
def test_metadata_that_cannot_be_read_says_nothing(tmp_path, raw):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=raw)
    assert prumerge.open_image(tmp_path / "a.jpg").size == (40, 20)


# colours


MODES = (
    *("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"),
    *("LA", "PA", "RGBX", "RGBa", "La", "I;16", "I;16L", "I;16B"),
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("key", [None, 0])
def test_a_picture_of_any_mode_becomes_rgb(mode, key):
    picture = Image.new(mode, (20, 20))
    if key is not None:
        picture.info["transparency"] = key
    assert as_rgb(picture).mode == "RGB"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_a_file_of_any_mode_looks_as_it_did(tmp_path, mode):
    for colour in ("black", "white", "red")[: 2 if mode in ("1", "L", "LA") else 3]:
        expected = Image.new("RGB", (20, 20), colour)
        path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
        found = seen(expected.convert(mode), path)
        assert np.abs(np.subtract(found, expected.getpixel((3, 3)))).max() < 3


def test_a_file_in_cielab_has_its_colours(tmp_path):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    change = ImageCms.buildTransform(*profiles, "RGB", "LAB")
    found = seen(ImageCms.applyTransform(Image.new("RGB", (20, 20), RED), change), tmp_path / "a.tif")
    assert np.abs(np.subtract(found, RED)).max() < 12


@pytest.mark.parametrize(
    ("values", "brightest"),
    [
        (np.linspace(0, 1, 400, dtype=np.float32), 255),
        (np.linspace(0, 1.5, 400, dtype=np.float32), 255),
        (np.linspace(0, 255, 400, dtype=np.float32), 255),
        (np.linspace(0, 60_000, 400, dtype=np.float32), 233),
        (np.linspace(-3, 5, 400, dtype=np.float32), 255),
        (np.append(np.linspace(0, 1, 398), [np.nan, np.inf]).astype(np.float32), 255),
        (np.linspace(-32768, 32767, 400).astype(np.int32), 255),
        (np.linspace(0, 255, 400).astype(np.int32), 255),
        (np.linspace(0, 4095, 400).astype(np.int32), 255),
        (np.linspace(0, 2**31 - 1, 400).astype(np.int32), 255),
        (np.linspace(0, 65535, 400).astype(np.uint16), 255),
        (np.linspace(0, 255, 400).astype(np.uint16), 1),
        (np.linspace(0, 65535, 400).astype(">u2"), 255),
    ],
)
def test_grey_of_many_bits_keeps_its_shades(tmp_path, values, brightest):
    Image.fromarray(values.reshape(20, 20)).save(tmp_path / "grey.tif")
    shades = np.asarray(prumerge.open_image(tmp_path / "grey.tif"))[..., 0].ravel()
    assert shades.max() == brightest
    assert shades[0] == 0
    assert len(np.unique(shades)) > min(brightest, 100)


def test_sixteen_bits_of_grey_are_halved_evenly(tmp_path):
    assert seen(Image.new("I;16", (20, 20), 0x8000), tmp_path / "grey.png") == (128, 128, 128)
    (tmp_path / "dark.pgm").write_bytes(b"P5 20 20 65535\n" + struct.pack(">400H", *[200] * 400))
    assert prumerge.open_image(tmp_path / "dark.pgm").getpixel((3, 3)) == (1, 1, 1)


def test_twelve_bits_of_grey_are_white_at_their_end(tmp_path):
    """A TIFF whose pixels take a byte and a half each."""
    entries = [
        (256, 20),
        (257, 20),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 122),
        (277, 1),
        (278, 20),
        (279, 600),
    ]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + struct.pack("<I", 0)
    (tmp_path / "a.tif").write_bytes(head + b"\xff" * 600)
    assert len(head) == 122
    assert prumerge.open_image(tmp_path / "a.tif").getpixel((3, 3)) == WHITE


def png(depth, colour, row, key):
    """A PNG of 16 x 16 pixels, each row the same, one colour of which is transparent."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 16, 16, depth, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + row) * 16))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"tRNS", key) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(("depth", "value"), [(1, 0), (1, 1), (2, 2), (4, 9), (8, 77), (16, 40_000)])
def test_the_colour_that_stands_for_transparency_becomes_white(tmp_path, depth, value):
    row = int("".join(format(value, f"0{depth}b") for _ in range(16)), 2).to_bytes(2 * depth, "big")
    (tmp_path / "key.png").write_bytes(png(depth, 0, row, struct.pack(">H", value)))
    assert prumerge.open_image(tmp_path / "key.png").getpixel((3, 3)) == WHITE


@pytest.mark.parametrize(("depth", "letter"), [(8, "B"), (16, "H")])
def test_so_does_a_colour_of_three_channels(tmp_path, depth, letter):
    colour = (200, 30, 5) if depth == 8 else (40_000, 300, 5)
    row = struct.pack(f">48{letter}", *colour * 16)
    (tmp_path / "key.png").write_bytes(png(depth, 2, row, struct.pack(">3H", *colour)))
    assert prumerge.open_image(tmp_path / "key.png").getpixel((3, 3)) == WHITE


def test_transparency_becomes_white(tmp_path):
    assert seen(Image.new("RGBA", (20, 20), (255, 0, 0, 0)), tmp_path / "clear.png") == WHITE


def test_of_an_animation_the_first_frame_is_seen(tmp_path):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    assert seen(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:]) == (255, 0, 0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("thing", [None, "a.png", np.zeros((20, 20, 3))])
def test_what_is_no_picture_has_no_colours(thing):
    with pytest.raises(PrumergeError, match=r"a picture of Pillow's is needed, not .*; prumerge.open_image"):
        as_rgb(thing)


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(PrumergeError, match="the picture has no pixels: it is 0 x 5"):
        as_rgb(Image.new("RGB", (0, 5)))


def test_a_file_that_pillow_has_not_read_yet_is_named_if_it_is_damaged(tmp_path):
    with (
        Image.open(broken("truncated", tmp_path)) as lazy,
        pytest.raises(PrumergeError, match=r"truncated.png"),
    ):
        as_rgb(lazy)
