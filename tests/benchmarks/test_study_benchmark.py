"""The store that the benchmark of studies fills is one that a study is shown from."""

from benchmarks.studies import WHO, fill, shown, study
from unlearnkit.store import Store
from unlearnkit.studies.planning.expand import expand


def test_a_filled_store_is_shown(tmp_path):
    small = study(32)
    runs, names = expand(small), ["accuracy_test", "accuracy_forget"]
    assert fill(tmp_path / "s.sqlite", runs, names) == len(runs) * len(names) * len(WHO)
    with Store(tmp_path / "s.sqlite") as store:
        text = shown(small, store)
    assert f"{len(runs)} of {len(runs)} runs done" in text
