"""Clips of one colour a frame, in any form that can hold them."""

import av
from PIL import Image

COLOURS = ["red", "lime", "blue", "yellow", "cyan", "magenta", "white", "black", "orange", "purple"]


def coloured(count=10, size=(40, 30)):
    return [Image.new("RGB", size, COLOURS[n]) for n in range(count)]


def animated(path, count=10, **options):
    first, *others = coloured(count)
    first.save(path, save_all=True, append_images=others, lossless=True, **options)
    return path


def filmed(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, width=frames[0].width, height=frames[0].height)
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return path
