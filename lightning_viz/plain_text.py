"""Text from a file or a name, made harmless for a line of a terminal, a page and a tag."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_INVISIBLE = frozenset("\u00ad\u061c\u180e\u200b\u200e\u200f\u2060\ufeff")  # marks of direction, and of no width
_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, halves of pairs, separators of lines


def plain_text(text: object) -> str:
    r"""Text in one line, without what turns, hides or controls the text around it, which is written as in source code.

    Control characters (newlines, tabs, NUL, a terminal's escapes), marks of direction and halves of surrogate pairs,
    which stand for bytes of a file's name that are no UTF-8, are written as in source code.

    Args:
        text: or what is to be written as text, such as a path.

    >>> plain_text("cat\n\u202egnp.exe\x00"), plain_text("Füße 🐈")
    ('cat\\n\\u202egnp.exe\\x00', 'Füße 🐈')
    """
    written = str(text)
    if written.isascii() and written.isprintable():
        return written
    return "".join(_escaped(letter) if _is_harmful(letter) else letter for letter in written)


_BOLD = re.compile(r"\*\*(?=\S)(.*\S)\*\*(\s*)")
_MARKS = re.compile(r"([\\`*\[\]|]|(?<!\w)_|_(?!\w)|^\s*(?:[#>+-]|\d+\.(?= )))")


def harmless_markdown(description: str) -> str:
    r"""A picture's description, in which nothing but its own bold line and its paragraphs is Markdown.

    Names of layers and classes stand in it as they are: no link, image, heading, code or HTML comes of them.

    Args:
        description: of a page: a line in bold, further lines, paragraphs.

    >>> harmless_markdown("**Maps of conv_1**  \n![x](http://a.b/c), <b>bold</b>")
    '**Maps of conv_1**  \n!\\[x\\](http://a.b/c), &lt;b>bold&lt;/b>'
    """
    lines = []
    for line in description.split("\n"):
        bold = _BOLD.fullmatch(line)
        lines.append(f"**{_without_marks(bold[1])}**{bold[2]}" if bold else _without_marks(line))
    return "\n".join(lines)


def _without_marks(line: str) -> str:
    return _MARKS.sub(lambda mark: f"{mark[0][:-1]}\\{mark[0][-1]}", line).replace("<", "&lt;")


def _is_harmful(letter: str) -> bool:
    """Whether it is a control character, a mark of direction, a half of a pair, or invisible."""
    if letter in _INVISIBLE or unicodedata.category(letter) in _CATEGORIES:
        return True
    return "\u202a" <= letter <= "\u202e" or "\u2066" <= letter <= "\u2069" or "\U000e0000" <= letter <= "\U000e007f"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


_LONGEST_NAME, _KEPT_OF_NAME = 200, 60  # bytes; letters, of four bytes at most


def file_name(text: str, written: str) -> str:
    """A name for a file or folder: as written, but neither dots alone nor longer than file systems take.

    Args:
        text: that is to be told from other text, however long.
        written: the same in letters that a name may have.

    >>> file_name("..", ".."), len(file_name("a" * 300, "a" * 300))
    ('%2E%2E', 77)
    """
    if set(written) == {"."}:
        return written.replace(".", "%2E")
    digest = hashlib.sha256(plain_text(text).encode()).hexdigest()
    return written if len(written.encode()) <= _LONGEST_NAME else f"{written[:_KEPT_OF_NAME]}~{digest[:16]}"
