"""Tables of the terminal."""

import pytest
from rich.cells import cell_len

from unlearnkit.report.terminal import table_lines

HEAD = ("name", "number", "words")
ROWS = [
    ("a_metric_with_a_very_long_name_in_many_parts", "0.224", "what it is, in so many words"),
    ("b", "0.29 (5 at once)", "short"),
]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_a_table_fits_its_width_and_loses_nothing(width):
    lines = table_lines(HEAD, ROWS, width=width)
    assert max(map(cell_len, lines)) <= width
    shown = "".join("".join(lines).split())
    for cell in (c for r in ROWS for part in r for c in part.replace("_", " ").split()):
        assert cell in shown


def test_columns_are_two_spaces_apart():
    lines = table_lines(("a", "b"), [("0.224", "0.29")], numbers=(0, 1))
    assert lines[-1] == "0.224  0.29"


def test_names_are_broken_after_underscores():
    lines = table_lines(HEAD, ROWS, width=50)
    assert any(line.split("  ")[0].rstrip().endswith("_") for line in lines)


def test_a_cell_cannot_colour_the_terminal_or_be_markup():
    (_, line) = table_lines(("a",), [("\x1b[31m[bold]x[/bold]",)], rule=False)
    assert line == "\ufffd[31m[bold]x[/bold]"


def test_words_beside_a_long_name_stay_whole():
    cell = "people and what they earn (folder in UNLEARNKIT_DATA, or the net)"
    lines = table_lines(("a", "b"), [("x", cell)], width=18, rule=False)
    shown = " ".join(line[1:].strip() for line in lines[1:])
    assert shown == cell.replace("UNLEARNKIT_DATA", "UNLEARNKIT_ DATA")
