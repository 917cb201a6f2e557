"""Text from a file or a name, made harmless for a line of a terminal, a page and a tag."""

from __future__ import annotations

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


def _is_harmful(letter: str) -> bool:
    """Whether it is a control character, a mark of direction, a half of a pair, or invisible."""
    if letter in _INVISIBLE or unicodedata.category(letter) in _CATEGORIES:
        return True
    return "\u202a" <= letter <= "\u202e" or "\u2066" <= letter <= "\u2069" or "\U000e0000" <= letter <= "\U000e007f"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
