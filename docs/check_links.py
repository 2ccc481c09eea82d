"""Are all links of a built site good? `python docs/check_links.py build/site`.

Every page, picture, script and anchor that a page names must be in the folder, and no page may load anything
from elsewhere (a link that a reader may follow is not loaded).
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

LOADED = {"img", "script", "iframe", "source", "video"}


class Page(HTMLParser):
    """The anchors of a page, what it links to, and what a browser loads for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        self.anchors |= {told[name] for name in ("id", "name") if name in told}
        target = told.get("href" if tag in ("a", "link") else "src")
        if target is None:
            return
        loads = tag in LOADED or (tag == "link" and "stylesheet" in told.get("rel", ""))
        (self.loads if loads else self.links).append(target)


def problems(folder: Path) -> list[str]:
    """One sentence for each link that leads nowhere, and for each thing that is loaded from elsewhere."""
    pages = {path: Page(path.read_text()) for path in sorted(folder.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are absolute
            continue
        name = path.relative_to(folder)
        found += [f"{name} loads {link}" for link in page.loads if urlparse(link).netloc]
        for link in [*page.links, *page.loads]:
            address, anchor = urldefrag(link)
            if urlparse(address).scheme or urlparse(address).netloc:
                continue
            target = (path.parent / unquote(address)).resolve() if address else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{name} links to {link}, which is not there")
            elif anchor and target in pages and unquote(anchor) not in pages[target].anchors:
                found.append(f"{name} links to {link}, an anchor that is not there")
    return found


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    found = problems(folder)
    print("\n".join(found) or f"{len(list(folder.rglob('*.html')))} pages, all links good")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
