import json
import multiprocessing
import os
import subprocess
import time

import pytest
import torch
from filelock import FileLock

from unlearnkit.auditing.strong.margin_store import MarginStore
from unlearnkit.cache import Cache
from unlearnkit.core.cache_folder import SIGNALS
from unlearnkit.core.errors import InputError

fork = multiprocessing.get_context("fork")
KEY = {"rows": "abc", "seed": 3}


def made(value=1.0):
    return lambda: ({"w": torch.full((2,), value)}, {"seconds": 0.5})


def never():
    raise AssertionError("made twice")


def test_what_was_made_once_is_not_made_again(tmp_path):
    first = Cache(tmp_path).get(KEY, made())
    again = Cache(tmp_path).get(dict(reversed(KEY.items())), never)
    assert (first.hit, again.hit) == (False, True)
    assert torch.equal(first.tensors["w"], again.tensors["w"])
    assert again.facts == {"seconds": 0.5}


def test_another_key_is_another_thing(tmp_path):
    cache = Cache(tmp_path)
    cache.get(KEY, made(1.0))
    assert cache.get({**KEY, "seed": 4}, made(2.0)).tensors["w"][0] == 2.0


def test_an_entry_that_belongs_to_another_key_is_an_error_and_no_reuse(tmp_path):
    cache = Cache(tmp_path)
    cache.get(KEY, made())
    (side,) = tmp_path.glob("??/*.json")
    held = json.loads(side.read_text())
    held["key"]["seed"] = 99
    side.write_text(json.dumps(held))
    with pytest.raises(InputError, match="does not match its name; delete it"):
        cache.get(KEY, never)


def test_a_truncated_file_is_told(tmp_path):
    cache = Cache(tmp_path)
    cache.get(KEY, made())
    (path,) = tmp_path.glob("??/*.safetensors")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="is damaged"):
        cache.get(KEY, never)


def test_a_maker_that_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(ZeroDivisionError):
        Cache(tmp_path).get(KEY, lambda: 1 / 0)
    assert not list(tmp_path.glob("??/*.safetensors"))
    assert Cache(tmp_path).get(KEY, made()).hit is False


def test_a_half_written_entry_is_not_believed(tmp_path):
    cache = Cache(tmp_path)
    cache.get(KEY, made(1.0))
    (side,) = tmp_path.glob("??/*.json")
    side.unlink()
    assert cache.get(KEY, made(7.0)).tensors["w"][0] == 7.0


def test_a_place_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="set UNLEARNKIT_CACHE"):
        Cache(tmp_path / "file" / "below").get(KEY, made())


def test_what_is_kept_can_be_listed_and_removed(tmp_path):
    cache = Cache(tmp_path)
    cache.get(KEY, made())
    (entry,) = cache.entries()
    assert entry.size > 0
    cache.remove(entry)
    assert not list(cache.entries())


def ask(folder, log, barrier):
    """Ask for one thing, as soon as two processes are here."""

    def make():
        with log.open("a") as f:
            f.write("made\n")
        time.sleep(0.5)
        return {"w": torch.ones(2)}, {}

    barrier.wait(60)
    Cache(folder).get({"a": 1}, make)


def test_two_processes_make_a_thing_once(tmp_path):
    given = (tmp_path / "cache", tmp_path / "log", fork.Barrier(2))
    both = [fork.Process(target=ask, args=given) for _ in range(2)]
    for p in both:
        p.start()
    for p in both:
        p.join(60)
    assert [p.exitcode for p in both] == [0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


def test_what_a_killed_process_left_is_listed_and_removed(tmp_path):
    cache = Cache(tmp_path)
    cache.get(KEY, made())
    (path,) = tmp_path.glob("??/*.safetensors")
    orphan = path.with_name(f"{path.stem[:-1]}0.safetensors")
    orphan.write_bytes(path.read_bytes())
    half = path.parent / ".part-x"
    half.mkdir()
    (half / path.name).write_bytes(b"123")
    left = [e for e in cache.everything() if e.key != KEY]
    assert {(e.path, e.size) for e in left} == {(orphan, path.stat().st_size), (half, 3)}
    with FileLock(path.with_suffix(".lock")):
        assert [cache.remove(e) for e in left] == [False, True]
    assert [cache.remove(e) for e in left] == [True, True]
    assert [e.key for e in cache.everything()] == [KEY]


def test_signals_that_are_read_count_as_used(tmp_path):
    file = MarginStore(tmp_path / SIGNALS, {}, {"forget": torch.arange(3)})
    for path in (file.folder, *file.folder.iterdir()):
        os.utime(path, (0, 0))
    assert [e.used for e in Cache(tmp_path).everything()] == [0.0]
    file.read()
    assert [e.used > 0 for e in Cache(tmp_path).everything()] == [True]


def damaged(tmp_path, change):
    """Keep two things, damage what is kept, and return the cache."""
    cache = Cache(tmp_path)
    for seed in (1, 2):
        cache.get({"seed": seed}, made(float(seed)))
    change(*sorted(tmp_path.glob("??/*.safetensors")))
    return cache


def flip(a, b):
    raw = bytearray(a.read_bytes())
    raw[-1] ^= 1
    a.write_bytes(bytes(raw))


def swap(a, b):
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


def sidecar(content):
    def change(a, b):
        for path in (a, b):
            path.with_suffix(".json").write_text(content)

    return change


def facts(a, b):
    side = a.with_suffix(".json")
    held = json.loads(side.read_text())
    side.write_text(json.dumps({**held, "facts": {"seconds": 9.0}}))


def no_facts(a, b):
    side = a.with_suffix(".json")
    held = json.loads(side.read_text())
    side.write_text(json.dumps({k: v for k, v in held.items() if k != "facts"}))


@pytest.mark.parametrize(
    "change",
    [flip, swap, facts, no_facts, *map(sidecar, ["[]", "null", "{}", "3", "{", ""])],
    ids=["bit", "swapped", "facts", "no facts", "[]", "null", "{}", "3", "{", "empty"],
)
def test_what_is_read_back_and_is_not_what_was_written_is_an_error(tmp_path, change):
    cache = damaged(tmp_path, change)

    def read():
        for seed in (1, 2):
            cache.get({"seed": seed}, never)

    with pytest.raises(InputError, match=r"is damaged.*delete it"):
        read()
    assert len(list(cache.entries())) == 2  # listed, so that it can be removed
    cache.facts({"seed": 1})  # no error either


def test_prune_leaves_every_file_that_the_library_did_not_write(tmp_path):
    cache = Cache(tmp_path)
    cache.get(KEY, made())
    address = "ab" + "0" * 62
    foreign = {
        "db/customers.csv": b"name\n",
        "db/a.json": b'{"key": {}, "facts": {}}',
        "db/a.safetensors": b"123",
        f"ab/{address}.json": b'{"key": {"kind": "original"}, "facts": {}}',
        f"ab/{address}.safetensors": b"123",
        "ab/.part-x/notes.txt": b"mine",
        "signals/readme/signals.json": b"{}",
        f"signals/{address}/signals.json": b"{}",
    }
    for name, content in foreign.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    ours = MarginStore(tmp_path / SIGNALS, {}, {"forget": torch.arange(3)})
    (ours.folder / "mine.txt").write_bytes(b"mine")
    kept = list(cache.everything())
    assert {e.name for e in kept} == {*(e.name for e in cache.entries()), ours.folder.name}
    assert all(cache.remove(e) for e in kept)
    assert {n: (tmp_path / n).read_bytes() for n in foreign} == foreign
    assert [p.name for p in ours.folder.iterdir()] == ["mine.txt"]
    assert not list(cache.everything())


@pytest.fixture
def disk(tmp_path):
    """A file system of 64 kB."""
    where = tmp_path / "disk"
    where.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(where)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("needs the right to mount a small file system")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def files(root):
    return {p for p in root.rglob("*") if p.is_file() and p.suffix != ".lock"}


def test_a_full_disk_keeps_nothing_and_is_told_in_one_line(disk):
    large = {"w": torch.zeros(64, 1024)}
    with pytest.raises(
        InputError, match=r"cannot write to .*[Nn]o space left.*UNLEARNKIT_CACHE"
    ) as e:
        Cache(disk).get(KEY, lambda: (large, {}))
    assert "\n" not in str(e.value)
    with pytest.raises(InputError, match="cannot write to"):
        Cache(disk).fill([KEY], lambda lacking: iter([(0, large, {})]))
    assert not files(disk)
    assert Cache(disk).get(KEY, made()).hit is False


def test_a_cache_that_cannot_be_written_serves_what_it_has_and_starts_no_work(disk):
    cache = Cache(disk)
    cache.get(KEY, made())
    signals = MarginStore(disk / SIGNALS, {}, {"forget": torch.arange(3)})
    before = files(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert cache.get(KEY, never).hit
    assert cache.fill([KEY], never) == []
    assert MarginStore(disk / SIGNALS, {}, {"forget": torch.arange(3)}).read().members == ()
    with pytest.raises(InputError, match=r"cannot use .*[Rr]ead-only.*UNLEARNKIT_CACHE"):
        cache.get({"other": 1}, never)
    with pytest.raises(InputError, match="cannot use"):
        cache.fill([KEY, {"other": 1}], never)
    assert files(disk) == before
    assert signals.members() == []


def test_an_error_of_the_maker_is_not_called_an_error_of_the_cache(tmp_path):
    def lost():
        raise FileNotFoundError("rows.csv")

    with pytest.raises(FileNotFoundError, match=r"rows\.csv"):
        Cache(tmp_path).get(KEY, lost)
