"""Rows of training data as users write them."""

import io
import json

from clips import coloured
from PIL import Image

RED, LIME, BLUE = [frame.getpixel((0, 0)) for frame in coloured(3)]
IMAGE = {"type": "image"}


def text(words):
    return {"type": "text", "text": words}


def user(*content):
    return {"role": "user", "content": list(content)}


def assistant(words):
    return {"role": "assistant", "content": [text(words)]}


def written(folder, rows, name="data.json"):
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))
    return path


def asked(question, **more):
    return {"question": question, "answer": "yes", **more}


def said(*turns):
    return {"conversations": [{"from": role, "value": value} for role, value in turns]}


def messages(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def colours(row):
    return [picture.getpixel((0, 0)) for picture in row.open().pictures]


def stored(name):
    """A picture as data sets keep it: what its file holds."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), name).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def numbers(rows):
    return [int(row.messages[0]["content"][0]["text"]) for row in rows]


# one conversation: to be read alike in every form

WHAT, ANSWER, AGAIN, LAST = "what is there?", "a square", "which colour?", "red"
CONVERSATION = (user(IMAGE, text(WHAT)), assistant(ANSWER), user(text(AGAIN)), assistant(LAST))
TURNS = (("user", f"<image>\n{WHAT}"), ("assistant", f" {ANSWER} "), ("user", AGAIN), ("assistant", LAST))
PLAIN = (("user", WHAT), *TURNS[1:])
IN_PARTS = (("user", [IMAGE, text(WHAT)]), *((role, [text(words)]) for role, words in TURNS[1:]))
OWN = (("user", [{**IMAGE, "image": "red.png"}, text(WHAT)]), *TURNS[1:])
ARROW = (("user", [{**IMAGE, "text": None}, {**text(WHAT), "image": None}]), *TURNS[1:])
