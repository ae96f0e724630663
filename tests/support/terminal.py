"""What a terminal shows, of what was written to it: as much of one as rich needs."""

from __future__ import annotations

import re

_PARTS = re.compile(r"\x1b\[(\?)?([0-9;]*)([A-Za-z])|(\r|\n)|([^\x1b\r\n]+)")


def lines_shown(written: str) -> list[str]:
    """Returns the lines that stand on a terminal in the end, without empty ones and spaces at the end.

    Args:
        written: Text, with moves of the cursor up and erasures of lines.
    """
    lines, row, column = [""], 0, 0
    for private, number, letter, control, text in _PARTS.findall(written):
        if text:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + text + line[column + len(text) :]
            column += len(text)
        elif control == "\r":
            column = 0
        elif control == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif letter == "A":
            row = max(row - int(number or 1), 0)
        elif letter == "K":
            assert number == "2", "the whole line"
            lines[row] = ""
        else:
            assert letter == "m" or private, "colours, and whether the cursor is seen"
    return [line.rstrip() for line in lines if line.strip()]
