"""SHA-256 of the first scenes, to notice when a pixel moves: `python -m prumerge.tiny.write_manifest`."""

import hashlib
import json
from pathlib import Path

from prumerge.tiny.scenes import HELD_OUT, TRAIN, Scene, scene

MANIFEST = Path(__file__).parent / "manifest.json"
COUNT = 24  # of each range


def digest(drawn: Scene) -> str:
    """Of the pixels, the objects and the labels."""
    content = (
        drawn.image.tobytes(),
        repr(drawn.objects).encode(),
        drawn.what.tobytes(),
        drawn.colours.tobytes(),
    )
    return hashlib.sha256(b"".join(content)).hexdigest()


def main() -> None:
    seeds = [*range(TRAIN.start, TRAIN.start + COUNT), *range(HELD_OUT.start, HELD_OUT.start + COUNT)]
    MANIFEST.write_text(json.dumps({seed: digest(scene(seed)) for seed in seeds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
