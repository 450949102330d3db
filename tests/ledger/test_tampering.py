"""Whatever is changed afterwards, in entries, certificates, models or reports, is found."""

import random
import shutil
import sqlite3

import pytest

pytest.importorskip("cryptography")

from unlearnkit.ledger.ledger_check import export


@pytest.fixture
def done(ledger):
    """A ledger with two published batches, one request in no row, and one that waits."""
    ledger.request("rows=a0003,a0004", id="one", reason="Art. 17(1)(b)")
    ledger.request("rows=zzz", id="nobody")
    ledger.run()
    ledger.request("group=owner-7", id="two")
    ledger.run()
    ledger.request("rows=a0044", id="three")
    db = sqlite3.connect(ledger.folder / "ledger.sqlite")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return ledger


def other(draw, value):
    """Return a value of the same type that differs."""
    if isinstance(value, int):
        return value + draw.choice([-1, 1, 7])
    at = draw.randrange(len(value))
    new = draw.choice([c for c in '0123456789abcdef{}": ,' if c != value[at]])
    return draw.choice([value[:at] + new + value[at + 1 :], value[:at] + value[at + 1 :]])


def change_entry(folder, draw):
    """Change a cell of a row, remove a row, swap two, or write one twice."""
    db = sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)
    db.executescript("DROP TRIGGER entry_stays; DROP TRIGGER entry_remains;")
    count = db.execute("SELECT count(*) FROM entry").fetchone()[0]
    number, how = draw.randint(1, count), draw.randrange(10)
    if how == 0:
        db.execute("DELETE FROM entry WHERE sequence = ?", (draw.randint(1, count - 1),))
    elif how == 1:
        a, b = draw.sample(range(1, count + 1), 2)
        body = "SELECT body FROM entry WHERE sequence = ?"
        first, second = (db.execute(body, (n,)).fetchone()[0] for n in (a, b))
        db.execute("UPDATE entry SET body = ? WHERE sequence = ?", (second, a))
        db.execute("UPDATE entry SET body = ? WHERE sequence = ?", (first, b))
    elif how == 2:
        db.execute("UPDATE request SET state = 'done' WHERE id = 'three'")
    else:
        column = draw.choice(["sequence", "time", "kind", "body", "previous", "digest"])
        number = count if column == "sequence" else number
        cell = f"SELECT {column} FROM entry WHERE sequence = ?"
        (value,) = db.execute(cell, (number,)).fetchone()
        try:
            db.execute(
                f"UPDATE entry SET {column} = ? WHERE sequence = ?", (other(draw, value), number)
            )
        except sqlite3.IntegrityError:  # the file itself refuses it
            db.execute("DELETE FROM entry WHERE sequence = 1")
    db.close()


def change_file(folder, draw):
    """Flip a bit of a certificate, a report or the model that is published."""
    names = ["certificate.json", "report.json", "model.safetensors"]
    path = draw.choice(
        [folder / "models" / b / n for b in ("batch-0001-1", "batch-0002-1") for n in names]
    )
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def fuzz(done, tmp_path, tries):
    draw = random.Random(0)
    missed = []
    for k in range(tries):
        copy = tmp_path / "copy"
        shutil.copytree(done.folder, copy)
        change = draw.choice([change_entry, change_file])
        change(copy, draw)
        found = type(done)(copy, done.case, done.cache).check()
        if not found:
            missed.append((k, change.__name__))
        shutil.rmtree(copy)
    return missed


@pytest.mark.slow
def test_forty_changes_are_found(done, tmp_path):
    assert done.check() == []
    assert fuzz(done, tmp_path, 40) == []


@pytest.mark.exhaustive
def test_a_thousand_changes_are_found(done, tmp_path):
    assert done.check() == []
    assert fuzz(done, tmp_path, 1000) == []


def cut(folder, last):
    """Remove all after an entry, and let states and folders fit: a whole, older ledger."""
    db = sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)
    db.executescript("DROP TRIGGER entry_stays; DROP TRIGGER entry_remains;")
    db.execute("DELETE FROM request WHERE entry > ?", (last,))
    db.execute("DELETE FROM entry WHERE sequence > ?", (last,))
    db.close()


def test_every_shorter_tail_is_found_by_an_exported_head(done, tmp_path):
    export(done.folder, tmp_path / "out")
    head = (tmp_path / "out" / "head.json").read_bytes()
    count = len(done.entries())
    found = {}
    for last in range(1, count):
        shutil.copytree(done.folder, tmp_path / "copy")
        cut(tmp_path / "copy", last)
        one = type(done)(tmp_path / "copy", done.case, done.cache)
        found[last] = [w for w in one.check(head) if "head:" in w]
        shutil.rmtree(tmp_path / "copy")
    assert done.check(head) == []
    assert found == {
        last: [f"head: the last {count - last} entries that it had seen are missing"]
        for last in range(1, count)
    }


def test_a_chain_that_was_computed_anew_does_not_fit_the_certificates(done):
    from unlearnkit.ledger.verify import check_ledger, entry_digest

    entries = [e.facts() for e in done.entries()]
    entries[1]["body"] = {**entries[1]["body"], "reason": "other"}
    for before, entry in zip([None, *entries], entries, strict=False):
        entry["previous"] = entry["previous"] if before is None else before["digest"]
        entry["digest"] = entry_digest(entry)
    paths = sorted((done.folder / "models").glob("*/certificate.json"))
    import hashlib

    held = {hashlib.sha256(p.read_bytes()).hexdigest(): p.read_bytes() for p in paths}
    assert check_ledger(entries, held) == [
        f"certificate of batch batch-000{k}: another chain position than in the ledger"
        for k in (1, 2)
    ]
