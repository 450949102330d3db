"""Signals on the disk: what a crash leaves half-written is never believed."""

import json

import pytest
import torch

from unlearnkit.auditing.strong.margin_store import (
    MarginMatrix,
    MarginStore,
    Membership,
    ModelId,
    ModelRecord,
)
from unlearnkit.core.errors import InputError

KEY = {"case": "made", "settings": {"lr": 0.1}}
COLUMNS = {"forget": torch.tensor([3, 7]), "test": torch.tensor([0, 1, 2])}


def row(seed, who="oracle", **changes):
    rng = torch.Generator().manual_seed(seed)
    made = {
        "margins": torch.randn(5, generator=rng, dtype=torch.float64),
        "codes": torch.full((5,), int(Membership.OUT), dtype=torch.uint8),
        "errors": torch.rand(5, generator=rng),
    }
    return ModelRecord(ModelId(who, seed), **(made | changes))


def opened(tmp_path, key=KEY, columns=COLUMNS):
    return MarginStore(tmp_path, key, columns)


def test_rows_come_back_bit_for_bit_in_another_process_of_thought(tmp_path):
    rows = [row(2), row(1), row(1, "unlearned")]
    opened(tmp_path).append(rows[:2])
    opened(tmp_path).append(rows[2:])
    kept = opened(tmp_path).read()
    assert kept.members == tuple(r.member for r in rows)
    for name in ("margins", "codes", "errors"):
        assert torch.equal(getattr(kept, name), torch.stack([getattr(r, name) for r in rows]))


def test_sections_and_kinds_are_read_by_seed(tmp_path):
    file = opened(tmp_path)
    file.append([row(2), row(5, "floor"), row(1)])
    kept = file.read()
    want = torch.stack([row(1).margins, row(2).margins])
    assert torch.equal(kept.of("oracle", "test"), want[:, 2:])
    assert torch.equal(torch.cat(list(kept.chunks("oracle", "test", 2)), 1), want[:, 2:])
    assert (kept.count("oracle"), kept.count("nobody")) == (2, 0)
    assert kept.of("nobody", "forget").shape == (0, 2)
    assert [m.seed for m in kept.first(1).members] == [1, 5]


@pytest.mark.parametrize("torn", ["margins.f64", "errors.f32", "codes.u8", "models.jsonl"])
@pytest.mark.parametrize("tail", [b"\0" * 3, b'{"who": "ora', b"x" * 100], ids=len)
def test_what_stands_behind_the_last_whole_line_is_overwritten(tmp_path, torn, tail):
    file = opened(tmp_path)
    file.append([row(1)])
    with (file.folder / torn).open("ab") as f:
        f.write(tail)
    again = opened(tmp_path)
    assert again.members() == [ModelId("oracle", 1)]
    again.append([row(2)])
    kept = opened(tmp_path).read()
    assert torch.equal(kept.margins, torch.stack([row(1).margins, row(2).margins]))
    clean = opened(tmp_path / "clean")
    clean.append([row(1)])
    clean.append([row(2)])
    for name in ("margins.f64", "errors.f32", "codes.u8", "models.jsonl"):
        assert (file.folder / name).read_bytes() == (clean.folder / name).read_bytes()


def test_a_line_whose_row_is_not_on_the_disk_is_damage(tmp_path):
    file = opened(tmp_path)
    file.append([row(1)])
    with (file.folder / "margins.f64").open("r+b") as f:
        f.truncate(39)
    with pytest.raises(InputError, match="too short; delete"):
        opened(tmp_path).read()


def test_a_row_that_changed_on_the_disk_is_damage(tmp_path):
    file = opened(tmp_path)
    file.append([row(1), row(2)])
    path = file.folder / "margins.f64"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(InputError, match="margins of oracle 2 changed on the disk"):
        opened(tmp_path).members()


def test_a_whole_line_that_is_no_json_is_damage(tmp_path):
    file = opened(tmp_path)
    file.append([row(1)])
    (file.folder / "models.jsonl").write_bytes(b"{]\n")
    with pytest.raises(InputError, match="is damaged; delete"):
        opened(tmp_path).members()


def test_another_key_or_other_examples_are_other_signals(tmp_path):
    opened(tmp_path).append([row(1)])
    assert opened(tmp_path, {**KEY, "case": "other"}).members() == []
    other = {"forget": torch.tensor([3, 8]), "test": torch.tensor([0, 1, 2])}
    assert opened(tmp_path, columns=other).members() == []


def test_a_head_that_says_something_else_is_refused(tmp_path):
    file = opened(tmp_path)
    head = file.folder / "signals.json"
    held = json.loads(head.read_text())
    head.write_text(json.dumps({**held, "key": {}}))
    with pytest.raises(InputError, match="belongs to other models"):
        opened(tmp_path)
    head.write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        opened(tmp_path)


def test_margins_that_are_not_finite_are_refused_with_their_count(tmp_path):
    bad = torch.tensor([0.0, float("inf"), float("nan"), 1.0, 2.0], dtype=torch.float64)
    with pytest.raises(InputError, match="2 of 5 margins of oracle 1 are not finite"):
        opened(tmp_path).append([row(1, margins=bad)])
    assert opened(tmp_path).members() == []
    with pytest.raises(InputError, match="2 of 5 margins are not finite"):
        MarginMatrix(bad[None], bad[None], bad[None], (ModelId("oracle", 1),), COLUMNS)


def test_a_model_is_kept_once_and_rows_must_fit(tmp_path):
    file = opened(tmp_path)
    file.append([row(1)])
    with pytest.raises(InputError, match="oracle 1 is kept already"):
        opened(tmp_path).append([row(1)])
    with pytest.raises(InputError, match=r"errors of oracle 2 must be 5 numbers, got shape \(4,\)"):
        file.append([row(2, errors=torch.zeros(4))])


def test_equal_rows_are_found_whatever_they_are_called():
    rows = [row(1), row(2), row(3)]
    margins = torch.stack([rows[i].margins for i in (0, 1, 0, 2)])
    who = [ModelId("oracle", 1), ModelId("oracle", 2), ModelId("unlearned", 9), ModelId("floor", 4)]
    made = MarginMatrix(margins, margins, margins, tuple(who), COLUMNS)
    assert made.duplicates() == ((who[0], who[2]),)


def test_a_section_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="no section 'retain'; there are: forget, test"):
        opened(tmp_path).read().of("oracle", "retain")


@pytest.mark.parametrize(
    "line",
    [b"[]\n", b"null\n", b"{}\n", b'{"who": "oracle"}\n', None],
    ids=["[]", "null", "{}", "no digest", "another seed"],
)
def test_a_line_of_the_journal_that_was_not_written_here_is_told(tmp_path, line):
    file = opened(tmp_path)
    file.append([row(3)])
    journal = file.folder / "models.jsonl"
    edited = journal.read_bytes().replace(b'"seed": 3', b'"seed": 4')
    journal.write_bytes(edited if line is None else line)
    with pytest.raises(InputError, match="is damaged; delete"):
        opened(tmp_path).members()
