"""Rows and owners named by the user's own ids: one key, one record, for ever."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import unlearnkit as uk
from unlearnkit.core.errors import InputError
from unlearnkit.core.keys import read_keys
from unlearnkit.core.request import parse_request

N = 20
X = torch.randn(N, 2, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 4
IDS = [f"a{i:02d}" for i in range(N)]
OWNERS = [f"cust-{i // 5}" for i in range(N)]


def case(**more):
    return uk.Case(train=(X, Y), task="classification", **({"keys": IDS} | more))


def forgotten(request, of=None):
    return (of or case()).partition(parse_request(request)).forget.rows.tolist()


@pytest.mark.parametrize(
    "request_",
    [
        uk.Rows("a03", "a17"),
        uk.Rows(["a17", "a03"]),
        uk.Rows(np.array(["a03", "a17"])),
        "rows=a03,a17",
        " row = a17 , a03",
        {"rows": ["a03", "a17"]},
        {"kind": "rows", "rows": "a03,a17"},
    ],
    ids=repr,
)
def test_rows_by_key_in_all_words(request_):
    assert forgotten(request_) == [3, 17]


@pytest.mark.parametrize("ids", [IDS, np.array(IDS), tuple(IDS)], ids=["list", "array", "tuple"])
def test_keys_come_in_any_container(ids):
    assert forgotten("rows=a03", case(keys=ids)) == [3]


@pytest.mark.parametrize(
    ("ids", "request_"),
    [
        (range(100, 120), "rows=103"),
        (range(100, 120), "rows=0103"),
        (torch.arange(100, 120), uk.Rows(103)),
        ([f"{i:05d}" for i in range(N)], "rows=00003"),
        ([str(i) for i in range(N)], "rows=3"),
        ([str(i) for i in range(N)], uk.Rows(3)),
    ],
)
def test_numbers_and_their_texts_are_one_key(ids, request_):
    assert forgotten(request_, case(keys=ids)) == [3]


def test_text_with_leading_zeros_is_another_key_than_without():
    zeros = [f"{i:05d}" for i in range(N)]
    with pytest.raises(InputError, match="1 of 1 are no key of the case"):
        forgotten("rows=3", case(keys=zeros))


@pytest.mark.parametrize("request_", ["group=cust-2", uk.Groups("cust-2"), {"subject": "cust-2"}])
def test_owners_may_be_text(request_):
    assert forgotten(request_, case(group=OWNERS)) == [10, 11, 12, 13, 14]


def test_owners_of_parts_may_be_text_and_are_one_numbering():
    pair = (["b", "c", "b"], ["a", "c", *["d"] * (N - 5)])
    parts = uk.Case.from_parts(
        forget=(X[:3], Y[:3]), retain=(X[3:], Y[3:]), group=pair, task="classification"
    )
    go, stay = parts.parts
    assert parts.keys.owners == ("a", "b", "c", "d")
    assert go.data.group.tolist() == [1, 2, 1]
    assert stay.data.group.tolist()[:3] == [0, 2, 3]


def test_columns_of_a_table_are_keys_and_owners_and_no_inputs():
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"x": X[:, 0].numpy(), "y": Y.numpy(), "id": IDS, "who": OWNERS})
    made = uk.Case(train=table, target="y", keys="id", group="who", task="classification")
    assert made.train.x.shape == (N, 1)
    assert forgotten("rows=a03", made) == [3]
    assert forgotten("group=cust-3", made) == [15, 16, 17, 18, 19]
    hub = pytest.importorskip("datasets").Dataset.from_pandas(table)
    same = uk.Case(train=hub, target="y", keys="id", group="who", task="classification")
    assert (same.keys, same.train.key()) == (made.keys, made.train.key()) or torch.is_tensor(
        same.train.x
    )
    assert forgotten("group=cust-3", same) == [15, 16, 17, 18, 19]


@given(st.lists(st.sets(st.sampled_from(IDS), min_size=1, max_size=4), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_a_key_means_the_same_record_whatever_went_before(deletions):
    now, left = case(), dict(zip(IDS, X, strict=True))
    for wanted in deletions:
        keys = wanted & set(left)
        if not keys or len(keys) == len(left):
            continue
        go = now.partition(uk.Rows(sorted(keys))).forget
        assert torch.equal(now.train.x[go.rows], torch.stack([left[k] for k in sorted(keys)]))
        now = now.after_deletion(uk.Rows(sorted(keys)))
        left = {k: x for k, x in left.items() if k not in keys}
        assert torch.equal(now.train.x, torch.stack(list(left.values())))
        assert now.keys.rows == tuple(left)


@pytest.mark.parametrize(
    ("deletions", "request_", "told"),
    [
        (["rows=a03"], "rows=a03", "rows: 1 of 1 are already deleted: 'a03'; name only what is"),
        (["rows=a03", "class=1"], "rows=a03,a04", "rows: 1 of 2 are already deleted: 'a03';"),
        (["class=1"], "rows=a01,a05,a09,a13", "4 of 4 are already deleted: 'a01', 'a05', 'a09', …"),
        (["group=cust-2"], "group=cust-2", "group: 1 of 1 are already deleted: 'cust-2'"),
        (["group=cust-2"], "rows=a10", "rows: 1 of 1 are already deleted: 'a10'"),
        (
            ["rows=a10"],
            "group=cust-9,cust-2",
            "1 of 2 are no owner of the case: 'cust-9'; it has 4",
        ),
    ],
)
def test_what_is_already_deleted_is_said(deletions, request_, told):
    now = case(group=OWNERS)
    for request in deletions:
        now = now.after_deletion(request)
    with pytest.raises(InputError) as error:
        forgotten(request_, now)
    assert told in str(error.value)


def test_owners_that_are_numbers_are_remembered_too():
    left = case(group=torch.arange(N) // 5).after_deletion("group=2")
    with pytest.raises(InputError, match="group: 1 of 1 are already deleted: 2"):
        forgotten(uk.Groups(2), left)


def test_positions_after_a_deletion_are_refused_and_other_requests_are_not():
    left = case(keys=None).after_deletion("rows=0,3")
    for request in ("rows=0", uk.Rows(5), "rows=a03"):
        with pytest.raises(InputError, match=r"positions changed when 2 rows were .*keys=range\(N"):
            forgotten(request, left)
    assert forgotten("class=1", left) == [0, 3, 7, 11, 15]
    numbered = case(keys=range(N)).after_deletion("rows=0,3")
    assert forgotten("rows=5", numbered) == [3]


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (
            ["a", "b", "a", *range(17)],
            "strings and integers are mixed, 'a' in row 0 and 0 in row 3",
        ),
        (["a", "b"] * 10, "2 stand for several rows: 'a', 'b'; give each row its own"),
        ([None, *IDS[1:]], "1 of 20 are missing, in rows 0; give each row one"),
        ([*IDS[1:], float("nan")], "1 of 20 are missing, in rows 19; give each row one"),
        ([0.5] * N, "must be strings or integers, got float in row 0; give str(...) of each"),
        ([True, *IDS[1:]], "must be strings or integers, got bool in row 0"),
        ([b"a", *IDS[1:]], "must be strings or integers, got bytes in row 0"),
        (IDS[:19], "got 19 for 20 rows; give one a row"),
        (["x" * 201, *IDS[1:]], "1 of 20 are unusable, in rows 0; give 1 to 200 characters"),
        (["", *IDS[1:]], "1 of 20 are unusable, in rows 0"),
        (["\ud800", *IDS[1:]], "1 of 20 are unusable, in rows 0"),
        ("id", "keys: a column name, got 'id', needs a table"),
        (7, "give one string or integer a row, or the name of a table's column, got int"),
    ],
    ids=str,
)
def test_keys_that_are_none_are_refused(ids, told):
    with pytest.raises(InputError) as error:
        case(keys=ids)
    assert told in str(error.value)
    assert len(str(error.value)) < 300


def test_missing_values_of_pandas_are_named():
    pd = pytest.importorskip("pandas")
    with pytest.raises(InputError, match="keys: 2 of 3 are missing, in rows 0, 2"):
        read_keys([pd.NA, "a", pd.NaT], 3)


@pytest.mark.parametrize(
    "owners", [[None, *OWNERS[1:]], [1, *OWNERS[1:]]], ids=["missing", "mixed"]
)
def test_owners_that_are_missing_or_mixed_are_refused(owners):
    with pytest.raises(InputError, match=r"group: 1 of 20 are missing|integers are mixed"):
        case(group=owners)


def test_unknown_keys_are_counted_and_the_first_three_shown():
    words = ",".join(["a01", *[f"zz{i}" for i in range(5)]])
    with pytest.raises(InputError) as error:
        forgotten(f"rows={words}")
    assert "5 of 6 are no key of the case: 'zz0', 'zz1', 'zz2', …; it has 20" in str(error.value)


def test_keys_are_shown_without_what_moves_a_terminal():
    names = ["\x1b[2Jx\n\u202eevil", *IDS[1:]]
    with pytest.raises(InputError) as error:
        forgotten(uk.Rows(names[0], names[0]), case(keys=names))
    assert str(error.value).isprintable()


FILES = {
    "lines.txt": "a03\na17\n",
    "windows.txt": "\ufeffa03\r\n\r\na17\r\n",
    "plain.csv": "a03\na17\n",
    "header.csv": "user_id\na03\na17\n",
    "two.csv:id": 'name,id\n"Doe, J.",a03\nx,a17\n',
    "excel.csv:id": "\ufeffname;id\nx;a03\ny;a17\n",
    "bare.csv:1": "x,a03\ny,a17\n",
    "tabs.tsv:id": "id\tname\na03\tx\na17\ty\n",
    "list.json": '["a03", "a17"]',
    "named.json": '{"rows": ["a03", "a17"]}',
}


@pytest.mark.parametrize("name", FILES)
def test_rows_come_from_files_of_any_form(tmp_path, name):
    (tmp_path / name.partition(":")[0]).write_text(FILES[name], encoding="utf-8")
    assert forgotten(f"rows=@{tmp_path / name}") == [3, 17]


def test_owners_and_positions_come_from_files_too(tmp_path):
    (tmp_path / "who.csv").write_text("group\ncust-2\n")
    np.save(tmp_path / "rows.npy", np.array([3, 17]))
    np.save(tmp_path / "keys.npy", np.array(["a03", "a17"]))
    (tmp_path / "rows.json").write_text("[3, 17]")
    assert forgotten(f"group=@{tmp_path / 'who.csv'}", case(group=OWNERS)) == [10, 11, 12, 13, 14]
    assert forgotten(f"rows=@{tmp_path / 'rows.npy'}", case(keys=None)) == [3, 17]
    assert forgotten(f"rows=@{tmp_path / 'rows.json'}", case(keys=None)) == [3, 17]
    assert forgotten(f"rows=@{tmp_path / 'keys.npy'}") == [3, 17]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("two.csv", "name,id\nx,a03\n", "has 2 columns; name one: @two.csv:column"),
        ("two.csv:key", "name,id\nx,a03\n", "has no column 'key' in its first line"),
        ("two.csv:id", "name,id\nx,a03\ny,\nz\n", "2 of 3 rows of"),
        ("no.json", "[1, ", "is no JSON; name a file with a number or key a line"),
        ("mixed.json", '["a03", 3]', "must hold one list, all strings or all integers"),
        ("deep.json", '{"a": {"b": 1}}', "must hold one list"),
        ("no.npy", "x", "is no array of numbers or text"),
    ],
)
def test_a_file_that_names_no_keys_is_refused(tmp_path, name, content, told):
    (tmp_path / name.partition(":")[0]).write_text(content)
    with pytest.raises(InputError) as error:
        parse_request(f"rows=@{tmp_path / name}")
    assert told in str(error.value)


@pytest.mark.parametrize("array", [np.eye(2, dtype=int), np.array([0.5]), np.array([True])])
def test_an_array_of_other_things_is_refused(tmp_path, array):
    np.save(tmp_path / "rows.npy", array)
    with pytest.raises(InputError, match=r"one row of integers or text, such as mask\.nonzero"):
        parse_request(f"rows=@{tmp_path / 'rows.npy'}")


def test_an_array_of_objects_is_never_unpickled(tmp_path):
    np.save(tmp_path / "rows.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="is no array of numbers or text"):
        parse_request(f"rows=@{tmp_path / 'rows.npy'}")


def test_a_request_by_key_survives_json():
    request = uk.Rows("a03", "a17")
    assert uk.Rows.model_validate_json(request.model_dump_json()) == request
    assert parse_request(json.loads(request.model_dump_json())) == request


def test_keys_do_not_change_what_is_trained():
    assert case().train.key() == case(keys=None).train.key()
    plain, named = (
        c.partition(r).retain
        for c, r in zip((case(keys=None), case()), (uk.Rows(3), uk.Rows("a03")), strict=True)
    )
    assert plain.key() == named.key()


def test_another_training_set_under_the_same_keys_is_refused():
    with pytest.raises(InputError, match="keys: 20 name 10 training rows"):
        case().replace(train=case().train.pick(torch.arange(10)))


def test_positions_are_said_by_key():
    assert case().rows(torch.tensor([3, 17])) == uk.Rows("a03", "a17")
    assert case(keys=None).rows([3, 17]) == uk.Rows(3, 17)
