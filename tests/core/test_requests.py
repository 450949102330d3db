"""What must be forgotten means the same in Python, as text and in YAML."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import unlearnkit as uk
from unlearnkit.core.errors import InputError, UnlearnkitError, UnsupportedError
from unlearnkit.core.request import parse_request

N = 20
DATA = (torch.randn(N, 2, generator=torch.Generator().manual_seed(0)), torch.arange(N) % 4)
CASE = uk.Case(train=DATA, group=torch.arange(N) // 5 + 10, task="classification")


def forgotten(request, case=CASE):
    return case.partition(parse_request(request)).forget.rows.tolist()


@pytest.mark.parametrize(
    "request_",
    [
        uk.Rows(0, 1, 2, 12),
        uk.Rows([0, 1, 2, 12]),
        uk.Rows(rows=(0, 1, 2, 12)),
        uk.Rows(np.array([0, 1, 2, 12])),
        uk.Rows(torch.tensor([0, 1, 2, 12])),
        uk.Rows(*np.array([0, 1, 2, 12])),
        uk.Rows({0, 1, 2, 12}),
        "rows=0:3,12",
        "row=0,1,2,12",
        " rows = 0:3 , 12",
        {"rows": [0, 1, 2, 12]},
        {"rows": "0:3,12"},
        {"kind": "rows", "rows": [0, 1, 2, 12]},
        {"row": np.array([0, 1, 2, 12])},
    ],
    ids=repr,
)
def test_rows_in_all_words(request_):
    assert parse_request(request_) == uk.Rows(0, 1, 2, 12)
    assert forgotten(request_) == [0, 1, 2, 12]


@pytest.mark.parametrize(
    "request_",
    [
        uk.Classes(3),
        uk.Classes([3]),
        uk.Classes(np.int64(3)),
        uk.Classes(torch.tensor(3)),
        "class=3",
        "classes=3",
        {"class": 3},
        {"classes": [3]},
        {"kind": "classes", "classes": [3]},
        {"kind": "class", "class": 3},
    ],
    ids=repr,
)
def test_classes_in_all_words(request_):
    assert parse_request(request_) == uk.Classes(3)
    assert forgotten(request_) == [3, 7, 11, 15, 19]


@pytest.mark.parametrize(
    "request_",
    [
        uk.Groups(11),
        uk.Groups(range(11, 12)),
        "group=11",
        "groups=11",
        "subject=11",
        {"group": 11},
        {"kind": "groups", "groups": [11]},
    ],
    ids=repr,
)
def test_groups_in_all_words(request_):
    assert parse_request(request_) == uk.Groups(11)
    assert forgotten(request_) == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("text", ["0\n1\n12\n", "0 1 12", "0:2,12", "0,\n1,\n12,"])
def test_rows_from_a_file_with_a_space_and_a_letter_in_its_name(tmp_path, text):
    file = tmp_path / "zu löschen.txt"
    file.write_text(text, encoding="utf-8")
    assert forgotten(f"rows=@{file}") == [0, 1, 12]


@given(st.sets(st.integers(0, N - 1), min_size=1, max_size=N - 1))
@settings(max_examples=50, deadline=None)
def test_every_selection_splits_the_rows_in_two(rows):
    split = CASE.partition(uk.Rows(rows))
    go, stay = set(split.forget.rows.tolist()), set(split.retain.rows.tolist())
    assert go == rows
    assert go | stay == set(range(N))
    assert not go & stay


@given(st.lists(st.integers(0, 10**6), max_size=30))
@settings(max_examples=50, deadline=None)
def test_a_request_survives_json(values):
    request = uk.Rows(values)
    assert uk.Rows.model_validate_json(request.model_dump_json()) == request
    assert parse_request(request.model_dump()) == request


def test_a_class_request_says_which_classes_are_gone():
    assert CASE.partition(uk.Classes(1, 3)).removed_classes == (1, 3)
    assert CASE.partition(uk.Rows(1)).removed_classes == ()


REAL = uk.Case(train=(DATA[0], DATA[0][:, 0]), task="regression")


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (uk.Rows(), "forget: the request names no row (0 of 20); name some and keep some"),
        ("rows=", "forget: the request names no row (0 of 20)"),
        ("rows=5:5", "forget: the request names no row (0 of 20)"),
        (uk.Rows(range(N)), "forget: the request names all rows (20 of 20)"),
        ("class=0:4", "forget: the request names all rows (20 of 20)"),
        (uk.Classes(4), "class: no row of class 4; there are: 0, 1, 2, 3"),
        (uk.Groups(10, 99), "group: no row of group 99; there are: 10, 11, 12, 13"),
        (uk.Rows(20), "rows: 20 is out of range; the training set has rows 0 to 19"),
        ("rows=-1", "rows: -1 is out of range; the training set has rows 0 to 19"),
        (uk.Rows(3, 5, 3), "rows: 3 is named twice; name each once"),
        ("class=3,3", "class: 3 is named twice"),
        ("clas=3", "no request 'clas'. Did you mean 'class'?"),
        ({"client": [3]}, "no request 'client'"),
        ({"kind": "clas", "classes": [3]}, "no request 'clas'. Did you mean 'class'?"),
        ({"kind": "rows", "classes": [3]}, "kind is 'rows' but the values are 'classes'"),
        ({"rows": [1], "classes": [1]}, "one of them, got rows, classes"),
        ({}, "one of them, got none"),
        (7, "expected a request, a text such as class=3 or a mapping, got int"),
        ("3", "feature=age or labels=@file.csv, got '3'"),
        (
            "rows=a",
            "rows: 1 of 1 are no position (a whole number or a range; write 3 or 0:100); or name",
        ),
        ("rows=0:10:2", "rows: 1 of 1 are no position"),
        ("rows=1.5", "rows: 1 of 1 are no position"),
        ("rows=0:99999999999", "at most 1,000,000 numbers in words, got 99,999,999,999 or more;"),
        ("rows=0:600000,0:600000", "at most 1,000,000 numbers in words, got 1,200,000 or more;"),
        ("rows=@/dev/zero", "forget: cannot read '/dev/zero': it is a pipe or a device;"),
        ("class=a", "forget: 'a' is not a number or a range, in 'class=a'; write 3 or 0:100"),
        ("rows=0:99999999999999999999999", "is not a number or a range"),
        ("rows=@no such file", "forget: cannot read 'no such file': No such file or directory;"),
        ({"rows": [1.5]}, "should be a valid integer, got 1.5; name whole numbers or keys"),
        ({"rows": [None]}, "input should be a valid integer, got None"),
    ],
    ids=repr,
)
def test_a_wrong_request_is_told_in_a_line(request_, told):
    with pytest.raises(InputError) as error:
        uk.unlearn(torch.nn.Linear(2, 4), CASE, request_, "finetune")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: uk.Classes("12"), "classes.0: input should be a valid integer, got '12'"),
        (lambda: uk.Rows(12, "a"), "request: strings and integers are mixed; name all by strings"),
        (lambda: uk.Rows("a" * 201), "request: a key has 1 to 200 characters; give the ids alone"),
        (lambda: uk.Groups(""), "request: a key has 1 to 200 characters"),
        (lambda: uk.Rows(0.5), "input should be a valid integer, got 0.5"),
        (lambda: uk.Rows(torch.tensor([True, False])), "such as numpy.flatnonzero(mask)"),
        (lambda: uk.Rows(1, rows=[2]), "name the values once"),
        (lambda: uk.Rows(1, clients=[2]), "no setting of Rows 'clients'. There are: kind, rows"),
    ],
    ids=["text", "mixed", "long", "empty", "fraction", "mask", "both", "unknown"],
)
def test_a_request_that_cannot_be_made_is_told_in_a_line(make, told):
    with pytest.raises(InputError) as error:
        make()
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("case", "request_", "told"),
    [
        (REAL, "class=1", "needs one integer target a row, got torch.float32 (20, 1); name rows"),
        (REAL, "group=1", "needs data with owners; give group= with the data, or name rows"),
    ],
    ids=["class of real targets", "group without owners"],
)
def test_a_request_that_the_data_cannot_answer_says_what_can(case, request_, told):
    with pytest.raises(UnsupportedError) as error:
        uk.unlearn(torch.nn.Linear(2, 1), case, request_, "finetune")
    assert told in str(error.value)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(
        InputError, match="is not a text file; name a file with a number or key a line"
    ):
        parse_request(f"rows=@{file}")


def test_a_whole_set_needs_a_request_and_parts_take_none():
    parts = uk.Case.from_parts(forget=DATA, task="classification")
    with pytest.raises(InputError, match="request: name what must be forgotten"):
        CASE.partition(None)
    with pytest.raises(InputError, match="made from parts; pass None"):
        parts.partition(uk.Rows(0))
    with pytest.raises(UnlearnkitError, match="after_deletion: the case has no whole training set"):
        parts.after_deletion(uk.Rows(0))
