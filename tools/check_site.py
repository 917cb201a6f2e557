"""Checks a built site: links lead somewhere, every public name has its page, search finds what is asked for.

python tools/check_site.py build/docs
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1])]

import api_pages  # noqa: E402

ASKED = {  # of the site's search: the page that must be among those that hold all words
    "dead units": "views/health",
    "Grad-CAM ViT": "how/vit",
    "W&B": "how/log",
    "AttributeError": "questions",
}


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where it leads, and what leads to it."""
        values = dict(attrs)
        self.anchors.update(value for name in ("id", "name") if (value := values.get(name)))
        self.links += [value for name in ("href", "src") if (value := values.get(name))]


def broken_links(site: Path) -> list[str]:
    """Links within the site that lead nowhere."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            address, anchor = urldefrag(link)
            if urlparse(link).scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(address).partition("?")[0]).resolve() if address else path
            known = pages.get(target)
            if not target.exists() or (anchor and known is not None and unquote(anchor) not in known.anchors):
                broken.append(f"{path.relative_to(site.resolve())}: {link}")
    return broken


def documented(site: Path) -> set[str]:
    """The names in the site's inventory."""
    content = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split(" ")[0] for line in zlib.decompress(content).decode().splitlines() if " py:" in line}


def found(site: Path, words: str) -> set[str]:
    """The pages that the site's search index gives for all of some words."""
    from sphinx.search.en import SearchEnglish

    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    language = SearchEnglish({})
    pages: set[str] | None = None
    for word in re.findall(r"\w+", words):
        stem = language.stem(word.lower())
        hits = index["terms"].get(stem, []), index["titleterms"].get(stem, [])
        numbers = {number for hit in hits for number in (hit if isinstance(hit, list) else [hit])}
        names = {index["docnames"][number] for number in numbers}
        pages = names if pages is None else pages & names
    return pages or set()


def faults(site: Path) -> list[str]:
    """What is wrong with a site, a line each."""
    missing = sorted(set(api_pages.public_names()) - documented(site))
    lost = [
        f"search for {words!r} does not find {page}" for words, page in ASKED.items() if page not in found(site, words)
    ]
    return [*broken_links(site), *(f"{name} has no page" for name in missing), *lost]


if __name__ == "__main__":
    lines = faults(Path(sys.argv[1]))
    print("\n".join(lines) or "links, names and search are whole")
    sys.exit(bool(lines))
