"""Text that a terminal or a log can be given: one line, without what a terminal would obey."""

from __future__ import annotations

import unicodedata

# Joiners of letters and of emoji: they belong to how names are spelled, and move nothing.
_JOINERS = "\u200c\u200d"
# Control characters and escapes, marks that turn the direction of writing, half of a pair, ends of lines.
_OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")


def printable(text: object) -> str:
    r"""Returns text in which everything that a terminal would obey is shown as an escape: `\x1b`, `\n`, `\u202e`.

    Names of files, classes and layers come from other people. Bytes of a file name that are not UTF-8 are shown as
    they are: `\xff`.
    """
    text = str(text)
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def _shown(letter: str) -> str:
    if letter in _JOINERS or unicodedata.category(letter) not in _OBEYED:
        return letter
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
