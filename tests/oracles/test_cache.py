import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from filelock import FileLock

from unlearnkit.cache import SIGNALS, Cache
from unlearnkit.core.errors import InputError
from unlearnkit.signals import SignalsFile

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


def test_two_processes_make_a_thing_once(tmp_path):
    program = textwrap.dedent(
        """
        import os, sys, time, torch
        from pathlib import Path
        from unlearnkit.cache import SIGNALS, Cache

        def make():
            with open(sys.argv[2], "a") as f:
                f.write("made\\n")
            time.sleep(0.5)
            return {"w": torch.ones(2)}, {}

        barrier = Path(sys.argv[3])
        barrier.mkdir(exist_ok=True)
        (barrier / str(os.getpid())).touch()
        while len(list(barrier.iterdir())) < 2:  # both start to ask at once
            time.sleep(0.005)
        Cache(Path(sys.argv[1])).get({"a": 1}, make)
        """
    )
    words = [sys.executable, "-c", program, str(tmp_path / "cache"), str(tmp_path / "log")]
    words += [str(tmp_path / "barrier")]
    both = [subprocess.Popen(words) for _ in range(2)]
    assert [p.wait() for p in both] == [0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


def test_what_a_killed_process_left_is_listed_and_removed(tmp_path):
    cache = Cache(tmp_path)
    cache.get(KEY, made())
    (path,) = tmp_path.glob("??/*.safetensors")
    orphan = path.with_name("dead.safetensors")
    orphan.write_bytes(b"12345")
    half = path.parent / ".part-x"
    half.mkdir()
    (half / path.name).write_bytes(b"123")
    left = [e for e in cache.everything() if e.key != KEY]
    assert {(e.path, e.size) for e in left} == {(orphan, 5), (half, 3)}
    with FileLock(path.with_suffix(".lock")):
        assert [cache.remove(e) for e in left] == [False, True]
    assert [cache.remove(e) for e in left] == [True, True]
    assert [e.key for e in cache.everything()] == [KEY]


def test_signals_that_are_read_count_as_used(tmp_path):
    file = SignalsFile(tmp_path / SIGNALS, {}, {"forget": torch.arange(3)})
    for path in (file.folder, *file.folder.iterdir()):
        os.utime(path, (0, 0))
    assert [e.used for e in Cache(tmp_path).everything()] == [0.0]
    file.read()
    assert [e.used > 0 for e in Cache(tmp_path).everything()] == [True]
