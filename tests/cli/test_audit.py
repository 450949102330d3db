import json
import re
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from unlearnkit.checkpoint import load_weights, save_weights
from unlearnkit.cli import demo
from unlearnkit.report.report import Report
from unlearnkit.store import Store
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case


@pytest.fixture
def done(run, small, tmp_path):
    assert run("unlearn", small, "--forget", "class=1", "--name", "a", "-q").code == 0
    return tmp_path / "runs" / "a"


def test_an_audit_prints_the_report_and_keeps_it_beside_the_run(run, done):
    said = run("audit", "--trust", "a", "--oracles", 2)
    assert said.code == 0, said.err
    report = Report.load(done / "report.json")
    assert report.verdict in said.out
    assert len(report.provenance.oracle_seeds) == 2


def test_the_terminal_shows_a_summary_and_the_rest_on_request(run, done):
    brief = run("audit", "--trust", "a", "--tier", "fast", "-q").out
    whole = run("audit", "--trust", "a", "--tier", "fast", "-q", "--full").out
    assert len(brief.splitlines()) <= 30
    assert "Measured" in brief
    assert "PROVENANCE" not in brief
    assert "PROVENANCE" in whole


def test_a_report_names_its_data_and_lists_removed_rows_on_request(run, done):
    digests = json.loads((done / "run.json").read_text())["digests"]
    first = run("audit", "--trust", "a", "--tier", "fast", "--json", "-q").data["provenance"]
    assert (first["training_data"], first["request"]) == (digests["train"], digests["forget"])
    assert first["removed_rows"] is None
    rows = run("audit", "--trust", "a", "--tier", "fast", "--json", "-q", "--list-rows").data
    assert len(rows["provenance"]["removed_rows"]) == rows["request_summary"]["forget"]
    assert rows["provenance"]["removed_rows"] == sorted(set(rows["provenance"]["removed_rows"]))


def test_a_fast_audit_needs_no_oracle(run, done):
    report = run("audit", "--trust", done, "--tier", "fast", "--json", "-q").data
    assert (report["tier"], report["provenance"]["oracle_seeds"]) == ("fast", [])


def test_an_audit_is_in_the_store_with_its_numbers(run, done):
    run("audit", "--trust", "a", "--oracles", 2, "-q")
    with Store(done.parent / "unlearnkit.sqlite") as store:
        kinds = {r.kind: r for r in store.runs()}
        who = {m.who for m in store.measurements(kinds["audit"].key)}
    assert set(kinds) == {"unlearn", "audit"}
    assert {"unlearned", "oracle 0", "oracle 1"} <= who


def test_a_strong_audit_says_its_cost_first_and_needs_no_training_the_second_time(run, done):
    said = run("audit", "--trust", "a", "--tier", "strong", "--ensemble-size", 4)
    assert said.code == 0, said.err
    assert re.search(r"strong audit of 4 models a kind: \d+ to train \(\d+ are kept\)", said.err)
    report = Report.load(done / "report.json")
    assert (report.tier, report.provenance.design) == ("strong", "FULL")
    assert report.strong.models == 4
    assert 0 < report.strong.trained_models < 12
    for line in ("Memory, single-record AUC", "Recipe check, retain set"):
        assert line in said.out
    again = run("audit", "--trust", "a", "--tier", "strong", "--ensemble-size", 4)
    assert "all of them are kept" in again.err
    with Store(done.parent / "unlearnkit.sqlite") as store:
        (key,) = (r.key for r in store.runs("audit"))
        metrics = {m.metric for m in store.measurements(key)}
    assert {"permutation_p", "accuracy_forget", "ensemble_accuracy_forget"} <= metrics


@pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install unlearnkit[ray]"
)
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("how", "sets"),
    [(("--oracles", 2), 2), (("--tier", "strong", "--ensemble-size", 4), 4)],  # one: recipe check
    ids=["reference", "strong"],
)
def test_models_that_an_audit_lacks_are_trained_on_ray(
    cluster, run, done, tmp_path, monkeypatch, how, sets
):
    import ray

    sent, remote = [], ray.remote
    monkeypatch.setattr(ray, "remote", lambda **needs: sent.append(needs) or remote(**needs))
    found = []
    for more in ((), ("--ray", "local")):
        monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path / f"cache{len(found)}"))
        assert sent == []
        said = run("audit", "--trust", "a", *how, *more)
        assert said.code == 0, said.err
        report = Report.load(done / "report.json")
        found.append((report.findings, [(r.metric, repr(r.estimate.value)) for r in report.rows]))
    assert len(sent) == sets
    assert found[0] == found[1]


def test_too_few_models_for_a_strong_audit_are_a_wrong_use(run, done):
    assert run("audit", "--trust", "a", "--tier", "strong", "--ensemble-size", 3).code == 2


@pytest.mark.parametrize("name", ["b", "../a/../b", "/nowhere/b"])
def test_a_run_that_is_not_there_is_told(run, done, name):
    said = run("audit", "--trust", name)
    assert said.code == 1
    assert "no folder" in said.err


def test_a_folder_without_a_record_is_told(run, tmp_path):
    (tmp_path / "x").mkdir()
    said = run("audit", "--trust", "x")
    assert said.code == 1
    assert "cannot read" in said.err


def test_weights_that_were_changed_after_the_run_are_refused(run, done):
    (done / "model.safetensors").write_bytes((done / "original.safetensors").read_bytes())
    said = run("audit", "--trust", "a", "--tier", "fast")
    assert said.code == 1
    assert "was changed after the run" in said.err


def test_a_damaged_record_is_told(run, done):
    record = json.loads((done / "run.json").read_text())
    del record["digests"]
    (done / "run.json").write_text(json.dumps(record))
    said = run("audit", "--trust", "a")
    assert said.code == 1
    assert "no record of a run that this unlearnkit reads: 1 fields are wrong" in said.err
    assert "the first is digests: Field required" in said.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "requests",
    [["class"], pytest.param(["class", "random_tenth"], marks=pytest.mark.exhaustive)],
    ids=" ".join,
)
def test_the_demo_shows_a_class_and_a_random_tenth(run, tmp_path, monkeypatch, requests):
    assert list(demo.SHOWN) == ["class", "random_tenth"]
    monkeypatch.setattr(demo, "SHOWN", {r: demo.SHOWN[r] for r in requests})
    said = run("demo", "--out", "my demo")
    assert said.code == 0, said.err
    for request in requests:
        report = Report.load(tmp_path / "my demo" / request / "report.json")
        assert report.verdict in said.out
        assert len(report.provenance.oracle_seeds) == 5
        assert (tmp_path / "my demo" / f"{request}_retrain" / "report.json").exists()
    assert "Open my demo/class/report." in said.out
    assert len(said.out.splitlines()) <= 40
    assert said.out.count("\nretrain ") == len(requests)


def retrained(folder, count):
    """Write weights as if they were retrained elsewhere; return their files."""
    files = []
    for k in range(count):
        model = load_weights(toy_case(Classification(3)).fresh(), folder / "original.safetensors")
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.01 * (k + 1))
        files.append(save_weights(model, folder / f"mine_{k}.safetensors"))
    return files


def test_weights_that_were_retrained_elsewhere_stand_in_for_oracles(run, done):
    files = retrained(done, 2)
    said = run("audit", "--trust", "a", "--oracle-weights", *files, "--json", "-q")
    assert said.code == 0, said.err
    found = said.data["provenance"]
    assert (found["oracle_seeds"], len(found["outside_oracles"])) == ([], 2)
    with Store(done.parent / "unlearnkit.sqlite") as store:
        kept = next(r for r in store.runs() if r.kind == "audit")
        assert store.facts(kept.key)["oracles"].startswith("from outside, weights ")
    one = run("audit", "--oracle-weights", files[0], "--trust", "--json", "-q", "--", "a")
    assert len(one.data["provenance"]["outside_oracles"]) == 1


def test_oracle_weights_that_do_not_fit_are_refused_in_one_line(run, done):
    first, _ = retrained(done, 2)
    original = done / "original.safetensors"
    wide = save_weights(nn.Linear(2, 2), done / "wide.safetensors")
    for files, told in (
        ([original], "is the original itself"),
        ([first, first], "same model, bit for bit"),
        ([wide], "another architecture"),
        ([done / "no.safetensors"], "cannot"),
    ):
        said = run("audit", "--trust", "a", "--oracle-weights", *files, "-q")
        assert said.code == 1
        assert told in said.err
        assert len(said.err.strip().splitlines()) == 1
    assert run("audit", "a", "--tier", "fast", "--oracle-weights", first).code == 2
