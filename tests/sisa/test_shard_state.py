"""State on disk: killed at any moment without loss, and refused by any other model or rows."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from safetensors.torch import load_file
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.tree import DecisionTreeClassifier

import unlearnkit as uk
from tests.sisa.problems import ROWS, case, clouds, estimator, name, same, sharded, without
from unlearnkit.core.errors import DivergedError, InputError, UnsupportedError
from unlearnkit.sisa import ShardedClassifier, shard_checkpoints, sharded_estimator

TREE = DecisionTreeClassifier()


def record(folder):
    return json.loads((folder / "sisa.json").read_text())


def named(folder):
    content = record(folder)
    files = {f["name"] for shard in content["stages"] for f in shard if f}
    return files | {content["plan"]["name"], "sisa.json", "sisa.lock"}


def present(folder):
    return {p.name for p in folder.iterdir()}


def test_a_restarted_model_goes_on_without_the_rows_that_were_removed(tmp_path):
    done = sharded(case(), tmp_path).fit()
    done.unlearn(name(4, 50))
    again = sharded(case(without(4, 50)), tmp_path).load()
    assert same(done.network(), again.network())
    again.unlearn(name(9))
    want = sharded(case(without(4, 9, 50))).fit()
    assert same(again.network(), want.network())
    assert present(tmp_path) <= named(tmp_path)
    with_them = sharded(case(), tmp_path).load()
    assert same(with_them.network(), want.network())
    with pytest.raises(InputError, match="removed already"):
        with_them.unlearn(name(4))


@pytest.mark.parametrize(
    ("base", "slices"), [(TREE, 1), (GradientBoostingClassifier(n_estimators=6), 3)]
)
def test_a_restarted_estimator_goes_on_from_its_checkpoints(base, slices, tmp_path):
    pytest.importorskip("skops")
    x, y = clouds()
    done = estimator(base, tmp_path, slices=slices).fit(x, y)
    done.unlearn([7])
    again = estimator(base, tmp_path, slices=slices).load(x, y)
    assert np.array_equal(again.predict_proba(x), done.predict_proba(x))
    again.unlearn([8, 30])
    rest = without(7, 8, 30)
    want = estimator(base, slices=slices).fit(x[rest], y[rest], keys=rest.tolist())
    assert np.array_equal(again.predict_proba(x), want.predict_proba(x))


def test_the_state_holds_no_row_no_key_and_no_model_that_saw_a_removed_row(tmp_path):
    done = sharded(case(), tmp_path).fit()
    files = present(tmp_path)
    removal = done.unlearn(name(11))
    stale = files - present(tmp_path)
    assert len(stale) == removal.stages
    content = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert b"row-" not in content
    x, _ = clouds()
    assert all(row.tobytes() not in content for row in x.astype("float32"))
    assert done.unlearn(name(12)).rows == 1
    weights = load_file(tmp_path / next(f for f in present(tmp_path) if f.startswith("shard-0")))
    assert weights["0.weight"].shape == (8, 4)


def test_a_state_of_another_model_is_refused(tmp_path):
    sharded(case(), tmp_path).fit()
    for other, said in (
        (sharded(case(), tmp_path, shards=2), "another model: shards is 3 there and 2 here"),
        (sharded(case(), tmp_path, slices=1), "another model: slices is 2 there and 1 here"),
        (sharded(case(epochs=5), tmp_path), "another model: training is"),
        (sharded(case(), tmp_path, rt=uk.Runtime(seed=6)), "another model: untrained weights"),
    ):
        with pytest.raises(InputError, match=said):
            other.load()
        with pytest.raises(InputError, match="another model"):
            other.fit()


def test_an_estimator_of_other_settings_is_refused(tmp_path):
    pytest.importorskip("skops")
    estimator(TREE, tmp_path).fit(*clouds())
    with pytest.raises(InputError, match="another model: settings is"):
        estimator(DecisionTreeClassifier(max_depth=2), tmp_path).load(*clouds())
    with pytest.raises(InputError, match="another model: estimator is"):
        estimator(GradientBoostingClassifier(), tmp_path).load(*clouds())


def test_other_rows_are_refused(tmp_path):
    sharded(case(), tmp_path).fit()
    with pytest.raises(InputError, match="1 of its rows are missing and 0 are unknown"):
        sharded(case(without(3)), tmp_path).load()
    with pytest.raises(InputError, match="60 of its rows are missing and 60 are unknown"):
        sharded(case(keys=False), tmp_path).load()
    changed = case()
    changed.train.x[17, 2] += 1e-3
    with pytest.raises(InputError, match=r"a row of shard \d, slice \d is not as it was"):
        sharded(changed, tmp_path).load()
    relabelled = case()
    relabelled.train.y[17] = 0 if relabelled.train.y[17] else 1
    with pytest.raises(InputError, match="is not as it was"):
        sharded(relabelled, tmp_path).load()


def test_contents_of_removed_rows_do_not_matter(tmp_path):
    done = sharded(case(), tmp_path).fit()
    done.unlearn(name(17))
    erased = case()
    erased.train.x[17] = 0.0
    assert same(sharded(erased, tmp_path).load().network(), done.network())


def test_a_fit_does_not_take_the_place_of_a_model_that_rows_were_removed_from(tmp_path):
    done = sharded(case(), tmp_path).fit()
    again = sharded(case(), tmp_path).fit()
    assert same(done.network(), again.network())
    again.unlearn(name(2))
    with pytest.raises(InputError, match=r"1 rows were removed from the model in .* call load"):
        sharded(case(), tmp_path).fit()
    with pytest.raises(InputError, match=r"another process has changed the state .* call load"):
        done.unlearn(name(5))


def test_shards_of_another_kind_are_refused_by_fit(tmp_path):
    sharded(case(), tmp_path).fit()
    with pytest.raises(InputError, match="has other shards; fit into another folder"):
        sharded(case(), tmp_path).fit(expected_deletions=np.arange(1, ROWS + 1))


def test_shards_by_expected_deletions_are_loaded_as_they_are(tmp_path):
    likely = np.where(np.arange(ROWS) < 6, 1.0, 0.01)
    done = sharded(case(), tmp_path).fit(expected_deletions=likely)
    done.unlearn(name(1))
    assert same(sharded(case(without(1)), tmp_path).load().network(), done.network())


def test_a_folder_at_work_is_refused(tmp_path):
    done = sharded(case(), tmp_path).fit()
    with (
        FileLock(tmp_path / "sisa.lock"),
        pytest.raises(InputError, match="another process is at work"),
    ):
        done.unlearn(name(1))
    assert done.unlearn(name(1)).rows == 1


def test_a_damaged_state_is_refused(tmp_path):
    sharded(case(), tmp_path).fit()
    file = next(tmp_path.glob("shard-0000-*.bin"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for path in tmp_path.glob("shard-0000-*.bin"):
        path.write_bytes(b"x")
    with pytest.raises(InputError, match="is not what was kept"):
        sharded(case(), tmp_path).load().network()
    (tmp_path / "sisa.json").write_text('{"format": 99, "model": {}}')
    with pytest.raises(InputError, match="is no state of shards"):
        sharded(case(), tmp_path).load()
    (tmp_path / "sisa.json").write_text("no")
    with pytest.raises(InputError, match="is no state of shards"):
        sharded(case(), tmp_path).load()
    with pytest.raises(InputError, match="cannot read"):
        sharded(case(), tmp_path / "absent").load()


def test_a_state_of_another_version_is_refused(tmp_path):
    sharded(case(), tmp_path).fit()
    content = record(tmp_path) | {"format": 99}
    (tmp_path / "sisa.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="a state of format 99, this version reads 1; fit again"):
        sharded(case(), tmp_path).load()


def test_without_skops_a_folder_is_refused_and_memory_works(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "skops", None)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'unlearnkit\[sisa\]'"):
        estimator(TREE, tmp_path).fit(*clouds())
    assert estimator(TREE).fit(*clouds()).unlearn([1]).rows == 1


def test_checkpoints_of_other_packages_are_refused(tmp_path):
    io = pytest.importorskip("skops.io")
    learner = ShardedClassifier(TREE)._learner(*clouds())
    content = io.dumps({"estimator": FileLock(tmp_path / "x")._context.__class__})
    with pytest.raises(InputError, match="which is not trusted"):
        learner.restore(content)
    assert sharded_estimator.GROWS


def test_an_error_while_shards_are_trained_keeps_the_removal(tmp_path, monkeypatch):
    done = sharded(case(), tmp_path).fit()
    train = type(done._training.learner).train

    def fails(self, start, shard, stage, rows):
        if stage == 1:
            raise DivergedError("not finite")
        return train(self, start, shard, stage, rows)

    first = int(np.flatnonzero(done._training.state.plan.slice_number == 0)[0])
    with monkeypatch.context() as m:
        m.setattr(type(done._training.learner), "train", fails)
        with pytest.raises(DivergedError):
            done.unlearn(name(first))
        with pytest.raises(InputError, match=r"1 shards are not trained to the end.*call resume"):
            done.network()
    want = sharded(case(without(first))).fit().network()
    assert same(done.resume().network(), want)
    assert same(sharded(case(), tmp_path).load().network(), want)


def test_a_full_disk_changes_nothing(tmp_path, monkeypatch):
    done = sharded(case(), tmp_path).fit()
    before = done.network()

    def full(path, text):
        raise InputError("cannot write")

    with monkeypatch.context() as m:
        m.setattr(shard_checkpoints, "write_text", full)
        with pytest.raises(InputError, match="cannot write"):
            done.unlearn(name(1))
    assert same(done.network(), before)
    assert done.unlearn(name(1)).rows == 1


CHILD = """
import sys
import torch
from tests.sisa.problems import case, name, sharded
torch.set_num_threads(1)
folder, rows = sys.argv[1], [int(r) for r in sys.argv[2:]]
from pathlib import Path
state = Path(folder) / "sisa.json"
model = sharded(case(epochs=12), folder, slices=3)
model = model.load() if state.exists() and '"removed": []' not in state.read_text() else model.fit()
print("fitted", flush=True)
for row in rows:
    model.unlearn(name(row))
    print("removed", row, flush=True)
"""


def start(folder, rows):
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), *map(str, rows)],
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"},
        stdout=subprocess.PIPE,
        text=True,
    )


def kill(child):
    child.send_signal(signal.SIGKILL)
    printed = child.stdout.read()
    child.wait()
    child.stdout.close()
    return [int(line.split()[1]) for line in printed.splitlines() if line.startswith("removed")]


def check(folder, told, rows):
    """Load what a kill left: every removal that was answered is there, and nothing is half done."""
    found = sharded(case(epochs=12), folder, slices=3).load()
    count = len(record(folder)["removed"])
    assert len(told) <= count <= len(told) + 1
    want = sharded(case(without(*rows[:count]), epochs=12), slices=3).fit()
    assert same(found.network(), want.network())
    assert present(folder) <= named(folder)
    return count


@pytest.mark.slow
def test_a_kill_at_a_random_moment_loses_nothing(tmp_path):
    rows = list(range(ROWS - 20))
    draw = random.Random(time.time_ns())
    child = start(tmp_path, rows)
    try:
        assert child.stdout.readline() == "fitted\n"
        time.sleep(draw.uniform(0, 0.6))
    finally:
        told = kill(child)
    check(tmp_path, told, rows)


@pytest.mark.exhaustive
@pytest.mark.parametrize("turn", range(25))
def test_many_kills_at_random_moments_lose_nothing(turn, tmp_path):
    """Kills during training and during removals, again and again on one state."""
    rows = list(range(ROWS - 20))
    draw, removed = random.Random(turn), 0
    for _ in range(3):
        child = start(tmp_path, rows[removed:])
        try:
            while not (tmp_path / "sisa.json").exists():
                assert child.poll() is None
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 4))
        finally:
            told = kill(child)
        before = removed
        removed = check(tmp_path, [*rows[:before], *told], rows)
    assert len(record(tmp_path)["removed"]) == removed
