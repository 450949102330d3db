"""Text from elsewhere in spreadsheets, on terminals and in pages."""

import csv
import json

import pytest

from unlearnkit.cli.console import Console, escape, print_json, print_page, print_table, print_text
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import write_rows
from unlearnkit.core.text import LONGEST_ERROR, one_line, spreadsheet_cell

ESCAPE = "\x1b[31mred\x9b0m\x07 \u202eback"


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "@SUM(A1)", "-2+3", " =1", "\t=1", "\r=1", "\uff1d1"]
)
def test_a_text_that_is_a_formula_is_text_in_a_spreadsheet(text):
    assert spreadsheet_cell(text).startswith("'")


@pytest.mark.parametrize("value", ["-0.5", "+1e3", "-inf", "class=3", "", None, 3, -2.5, "a-b"])
def test_numbers_and_other_words_stay_as_they_are(value):
    assert spreadsheet_cell(value) is value or spreadsheet_cell(value) == value


def test_a_file_of_rows_neutralises_formulas_and_control_characters(tmp_path):
    head = ["key", "request", "value", "note"]
    write_rows(tmp_path / "m.csv", head, [["=k", "-2+3|x", -0.5, "@bad\x1b[2J"]])
    with (tmp_path / "m.csv").open(newline="") as f:
        cells = [c for line in csv.reader(f) for c in line]
    assert "-0.5" in cells
    assert not [c for c in cells if c[:1] in "=+@-" and c and not _number(c)]
    assert not [c for c in cells if "\x1b" in c]
    write_rows(tmp_path / "h.csv", ["=head"], [["=cell"]])
    assert (tmp_path / "h.csv").read_text() == "'=head\n'=cell\n"


def test_parquet_holds_the_same_rows_as_csv(tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    write_rows(tmp_path / "m.parquet", ["key", "value"], [["k", 0.25]])
    assert pd.read_parquet(tmp_path / "m.parquet").to_numpy().tolist() == [["k", 0.25]]


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"ends in \.csv or \.parquet, got 'm\.xls'"):
        write_rows(tmp_path / "m.xls", ["key"], [["k"]])


def _number(text):
    try:
        return float(text) == float(text)
    except ValueError:
        return False


def test_no_escape_reaches_the_terminal(capsys):
    Console().say(ESCAPE)
    print_table(("a", ESCAPE), [(ESCAPE, "x"), ("y", ESCAPE)])
    print_json({ESCAPE: [ESCAPE]})
    print_page(f"# {ESCAPE}\n")
    print_text(f"{ESCAPE}\nmore")
    said = capsys.readouterr()
    for c in "\x1b\x9b\x07\u202e":
        assert c not in said.out + said.err
    assert "more" in said.out.splitlines()


def test_escaped_json_means_the_same():
    value = {ESCAPE: ["ä", "\U000e0001", "\n"]}
    text = escape(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value
    assert "ä" in text


def test_an_error_is_one_short_line_that_keeps_its_end():
    text = one_line(f"store: {ESCAPE}\n{'x' * 10**6}; choose another place")
    assert len(text) == LONGEST_ERROR
    assert text.isprintable()
    assert text.startswith("store: ")
    assert text.endswith("; choose another place")
    assert one_line("short\n line") == "short line"
    for n in range(280, 1300, 7):
        assert len(one_line("y" * n)) == min(n, LONGEST_ERROR)


def test_an_error_of_the_command_line_is_short_and_printable(monkeypatch, capsys):
    from unlearnkit.cli import main

    monkeypatch.setattr("sys.argv", ["unlearnkit", "show", f"{ESCAPE}{'z' * 5000}"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert len(said) <= LONGEST_ERROR + 1
    assert said.rstrip("\n").isprintable()


def test_pages_hold_no_control_characters():
    pytest.importorskip("jinja2")
    from unlearnkit.report.templating import without_controls

    assert "\x1b" not in without_controls(ESCAPE)
    assert "\u202e" in without_controls(ESCAPE)  # pages isolate directions themselves


def test_a_wrong_ending_is_told(tmp_path):
    with pytest.raises(InputError, match="export: ends in"):
        write_rows(tmp_path / "x.xls", ["a"], [])
