"""Draw docs/images/page.png, the page of `prumerge serve` with a question asked: `python docs/draw_page.py`.

It needs a Chromium with its driver, as tests/serve/test_browser.py does.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from browsing import Shown, browsing  # noqa: E402
from serving import serving  # noqa: E402

import prumerge  # noqa: E402
from prumerge.tiny import samples  # noqa: E402

TARGET = Path(__file__).parent / "images" / "page.png"
SAMPLE, QUESTION = 4, 1


def main() -> None:
    """A sample, the default method, one of its questions, both answers."""
    with serving(*prumerge.load("tiny")) as server, browsing() as driver:
        page = Shown(driver, server.url)
        page.open()
        page.all("#samples button")[SAMPLE].click()
        page.until(lambda: len(page.all("#questions button")) == len(samples()[SAMPLE].questions))
        chip = page.all("#questions button")[QUESTION]
        for _ in range(2):  # the first answer warms up
            page.until(lambda: page.kept)
            chip.click()
            page.until(lambda: page.states == ["done", "done"])
        picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    picture.quantize(256).save(TARGET, optimize=True)


if __name__ == "__main__":
    main()
