"""Text from elsewhere, made safe for a terminal, a page or a spreadsheet."""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"
"""Stands for a character that would move the cursor, colour the terminal or reverse the text."""

LONGEST_ERROR = 300
"""Most characters of an error on the command line."""

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SPREADSHEET = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")


def plain(text: str) -> str:
    """Return text as one line, without what would move the cursor or colour the terminal."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Replace what is not printable; line ends stay, tabs become spaces."""
    if text.isprintable():
        return text
    kept = (c if c == "\n" or c.isprintable() else REPLACEMENT for c in text.replace("\t", " "))
    return "".join(kept)


def without_controls(text: str) -> str:
    """Replace control characters, such as those that begin the escapes of a terminal."""
    return _CONTROLS.sub(REPLACEMENT, text)


def one_line(text: str, most: int = LONGEST_ERROR) -> str:
    """Return text as one printable line of at most ``most`` characters.

    The middle of a long one is left out; the end stays, because it says what to do.
    """
    gap = " [...] "
    if len(text) > 4 * most:  # never take apart megabytes for a line
        text = text[: 2 * most] + text[-2 * most :]
        line = plain(text)
        head = min(most * 2 // 3, len(line))
        return line[:head] + gap + line[-(most - len(gap) - head) :]
    line = plain(text)
    if len(line) <= most:
        return line
    head = most * 2 // 3
    return line[:head] + gap + line[-(most - len(gap) - head) :]


def spreadsheet_cell(value: object) -> object:
    """Return a value that no spreadsheet takes for a formula.

    A text that starts like one gets an apostrophe before it; texts that are numbers stay.
    """
    if not isinstance(value, str):
        return value
    text = without_controls(value)
    if not _SPREADSHEET.match(value):
        return text
    try:
        float(value)
    except ValueError:
        return f"'{text}"
    return text
