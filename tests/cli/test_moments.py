"""Input moments and projections on the command line: measured, shown, used, updated, refused."""

import json

import pytest
import torch
import yaml

import unlearnkit as uk
from unlearnkit.checkpoint import load_weights
from unlearnkit.linalg.input_moments import InputMoments
from unlearnkit.testing import toy_case

ASK = ["--forget", "class=1"]
FILE = "m.safetensors"
KEYED = """
import unlearnkit as uk
from unlearnkit.testing import toy_case

def make(shift=0.0):
    toy = toy_case(uk.Classification(3))
    return uk.Case(
        train=(toy.train.x + shift, toy.train.y), task=toy.task, keys=range(len(toy.train)),
        fresh=toy.fresh, recipe=toy.recipe,
    )

def other():
    return make(1.0)

def parts():
    toy = toy_case(uk.Classification(3))
    gone = toy.train.y == 1
    return uk.Case.from_parts(
        forget=(toy.train.x[gone], toy.train.y[gone]), task=toy.task, fresh=toy.fresh,
        recipe=toy.recipe,
    )
"""


@pytest.fixture
def keyed(tmp_path, monkeypatch):
    (tmp_path / "keyed_case.py").write_text(KEYED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "keyed_case", raising=False)
    import keyed_case

    return keyed_case


@pytest.fixture
def measured(run, small, tmp_path):
    said = run("moments", small, "--out", FILE, "-q")
    assert (said.code, said.err) == (0, "")
    return tmp_path / FILE


def weights(folder, name="model"):
    model = load_weights(toy_case(uk.Classification(3)).fresh(), folder / f"{name}.safetensors")
    return model.state_dict()


def record(folder):
    return json.loads((folder / "run.json").read_text())


def test_moments_are_those_of_the_trained_model_on_all_rows_and_are_shown(run, small, measured):
    case = toy_case(uk.Classification(3))
    model = uk.train_original(case).model
    found, want = InputMoments.load(measured), uk.InputMoments.of_case(model, case)
    assert (found.rows, found.model, found.data) == (want.rows, want.model, want.data)
    assert found.digest() == want.digest()
    said = run("show", FILE)
    assert said.code == 0
    assert want.model in "".join(said.out.split())
    assert f"{want.rows}" in said.out
    facts = run("show", FILE, "--json").data
    assert facts == run("moments", small, "--out", FILE, "--force", "--json", "-q").data
    assert facts["digest"] == want.digest()
    assert facts["layers"] == {n: list(t.shape) for n, t in want.products.items()}


def test_pgu_reads_them_and_the_run_leaves_those_of_the_rows_that_stay(
    run, small, measured, tmp_path
):
    said = run("unlearn", small, *ASK, "--method", "pgu", "--moments", FILE, "--name", "a", "-q")
    assert said.code == 0, said.err
    folder = tmp_path / "runs" / "a"
    case = toy_case(uk.Classification(3))
    model = uk.train_original(case).model
    kept = case.replace(input_moments=InputMoments.load(measured))
    done = uk.unlearn(model, kept, "class=1", "pgu")
    assert all(torch.equal(t, done.model.state_dict()[n]) for n, t in weights(folder).items())
    left = InputMoments.load(folder / "moments.safetensors")
    assert left.rows == int((case.train.y != 1).sum())
    assert left.digest() == done.input_moments_after_deletion().digest()
    assert record(folder)["digests"]["moments"] == left.digest()
    assert record(folder)["job"]["moments"] == FILE


def test_a_case_of_parts_is_served_by_moments_alone(run, keyed, measured):
    case = toy_case(uk.Classification(3))
    uk.save_weights(uk.train_original(case).model, "w.safetensors")
    words = ("unlearn", "keyed_case:parts", "--model", "w.safetensors", "-q", "--method")
    assert "needs input moments or retain" in run(*words, "pgu", "--name", "a").err
    assert run(*words, "pgu", "--moments", FILE, "--name", "a").code == 0
    ascent = (*words, "gradient_ascent", "--projection", "0.8:", "--name", "b")
    ascent = [w if w != "0.8:" else "energy:0.8:reaching" for w in ascent]
    told(run(*ascent), "projection: needs the retain set, or input moments kept after training")
    assert run(*ascent, "--moments", FILE).code == 0


def test_a_projection_is_the_python_call_and_is_on_record(run, small, tmp_path):
    words = ("--method", "scrub", "--projection", "energy:0.8:reaching")
    said = run("unlearn", small, *ASK, *words, "--name", "a", "-q")
    assert said.code == 0, said.err
    made = record(tmp_path / "runs" / "a")
    how = uk.RetainedSubspace(threshold=0.8, count="reaching")
    assert made["job"]["projection"] == how.model_dump(mode="json")
    assert any(n.startswith("projection energy 0.8 reaching: ") for n in made["notes"])
    case = toy_case(uk.Classification(3))
    model = uk.train_original(case).model
    want = uk.unlearn(model, case, "class=1", "scrub", projection=how).model.state_dict()
    found = weights(tmp_path / "runs" / "a")
    assert all(torch.equal(t, want[n]) for n, t in found.items())
    plain = record_of_plain(run, small, tmp_path)
    assert plain["key"] != made["key"]
    assert not {"projection", "moments"} & set(plain["job"])
    again = run("unlearn", "--trust", "--config", "runs/a/run.json", "--name", "c", "-q", "--json")
    assert again.data["digests"]["unlearned"] == made["digests"]["unlearned"]


def record_of_plain(run, small, tmp_path):
    assert run("unlearn", small, *ASK, "--method", "scrub", "--name", "plain", "-q").code == 0
    return record(tmp_path / "runs" / "plain")


@pytest.mark.parametrize("held", [0.8, "energy:0.8", {"threshold": 0.8, "rule": "energy"}])
def test_yaml_says_the_same_as_the_option(run, small, tmp_path, held):
    job = {"case": small, "forget": "class=1", "projection": held}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    made = run("unlearn", "--config", "job.yaml", "--json", "-q").data
    assert made["job"]["projection"]["threshold"] == 0.8


def test_an_audit_of_a_projected_run_projects_its_placebo(run, small, monkeypatch):
    from unlearnkit.unlearning.run_method import run_method

    words = ("--method", "scrub", "--projection", "energy:0.8:reaching")
    assert run("unlearn", small, *ASK, *words, "--name", "a", "-q").code == 0
    seen = []

    def spy(*given, **more):
        seen.append(more["projection"])
        return run_method(*given, **more)

    monkeypatch.setattr("unlearnkit.auditing.strong.placebo.run_method", spy)
    said = run("audit", "--trust", "a", "--oracles", "3", "-q")
    assert said.code == 0, said.err
    assert seen == [uk.RetainedSubspace(threshold=0.8, count="reaching")] * 3


def test_a_further_request_takes_the_moments_that_the_run_has_left(run, keyed, tmp_path):
    assert run("moments", "keyed_case:make", "--out", FILE, "-q").code == 0
    words = ("--method", "pgu", "-p", "stop=never", "-p", "epochs=2", "--moments", FILE)
    first = ("unlearn", "keyed_case:make", "--forget", "rows=1,2", *words, "--name", "a", "-q")
    assert run(*first).code == 0
    then = ("unlearn", "a", "--then", "--case", "keyed_case:make", "-q", "--forget")
    said = run(*then, "rows=5", "--name", "b")
    assert said.code == 0, said.err
    left = InputMoments.load(tmp_path / "runs" / "b" / "moments.safetensors")
    case = keyed.make()
    assert left.rows == len(case.train) - 3
    made = record(tmp_path / "runs" / "b")
    assert made["job"]["moments"].endswith("a/moments.safetensors")
    assert left.model == made["digests"]["unlearned"]
    dense = case.train.pick([i for i in range(len(case.train)) if i not in {1, 2, 5}]).x.double()
    first_weight = next(iter(left.products.values()))[0]
    torch.testing.assert_close(first_weight, dense.mT @ dense, rtol=1e-5, atol=1e-4)
    other = run(*then, "rows=5", "--method", "finetune", "--name", "c")
    assert other.code == 0, other.err
    assert "moments" not in record(tmp_path / "runs" / "c")["job"]
    path = tmp_path / "runs" / "a" / "moments.safetensors"
    kept = InputMoments.load(path)
    scaled = {n: 2 * t for n, t in kept.products.items()}
    InputMoments(scaled, kept.rows, kept.model, kept.data).save(path)
    told(run(*then, "rows=5", "--name", "d"), "moments.safetensors' was changed after the run")


def test_a_run_that_goes_on_reads_the_weights_once(run, keyed, monkeypatch):
    from unlearnkit import checkpoint

    assert run("unlearn", "keyed_case:make", *ASK, "--name", "a", "-q").code == 0
    seen = []

    def spy(model, path, **more):
        seen.append(path.name)
        return checkpoint.load_weights(model, path, **more)

    for place in ("run_checks", "runs"):
        monkeypatch.setattr(f"unlearnkit.cli.{place}.load_weights", spy)
    then = ("unlearn", "a", "--then", "--case", "keyed_case:make", "-q", "--forget", "rows=0")
    assert run(*then).code == 0
    assert sorted(seen) == ["model.safetensors", "original.safetensors"]


def told(said, why):
    assert (said.code, said.out) == (1, "")
    assert why in said.err
    assert said.err.startswith("unlearnkit: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--projection", "1.5"], "projection: threshold: input should be less than or equal"),
        (["--projection", "rank:0.9"], "projection: rule: input should be 'energy' or 'singular'"),
        (["--projection", "0.9", "--method", "ssd"], "ssd takes no gradient steps"),
        (["--projection", "0.9", "--method", "retrain"], "which a projection cannot hold"),
        (["--projection", "0.9", "--method", "auto"], "auto: chooses among methods without a pro"),
        (["--projection", "0.9", "--mask", "grad:0.3"], "give one of the two"),
        (["--moments", "none.safetensors", "--method", "pgu"], "cannot read 'none.safetensors'"),
        (["--moments", "text.safetensors", "--method", "pgu"], "'text.safetensors' holds none"),
        (["--moments", "none.safetensors"], "moments: finetune reads none; use pgu"),
    ],
)
def test_a_wrong_projection_or_file_is_one_line_and_nothing_is_written(
    run, small, tmp_path, words, why
):
    (tmp_path / "text.safetensors").write_text("mine")
    told(run("unlearn", small, *ASK, *words), why)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("case", "words", "why"),
    [
        ("make", ("--seed", 1, "-q"), "measured with other weights than this model's"),
        ("other", (), "other rows than the case's 60 training rows"),
    ],
)
def test_moments_of_another_model_or_of_other_rows_are_refused(run, keyed, case, words, why):
    toy = keyed.make()
    uk.save_weights(uk.train_original(toy).model, "w.safetensors")
    given = ("--model", "w.safetensors", "-q")
    assert run("moments", "keyed_case:make", *given, "--out", FILE).code == 0
    ask = ("unlearn", f"keyed_case:{case}", "--forget", "rows=0", "--method", "pgu")
    told(run(*ask, "--moments", FILE, *(words or given)), why)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--out", "m.pt"], "moments: ends in .safetensors, got 'm.pt'"),
        (["--out", "there.safetensors"], "moments: 'there.safetensors' is there"),
        (["--out", FILE, "--model", "none.safetensors"], "none.safetensors"),
    ],
)
def test_moments_refuses_in_one_line(run, small, tmp_path, words, why):
    (tmp_path / "there.safetensors").write_text("mine")
    told(run("moments", small, *words, "-q"), why)
    assert (tmp_path / "there.safetensors").read_text() == "mine"


def test_moments_of_parts_are_refused(run, keyed):
    uk.save_weights(keyed.parts().fresh(), "w.safetensors")
    said = run("moments", "keyed_case:parts", "--model", "w.safetensors", "--out", FILE, "-q")
    told(said, "input moments: the case has no training set; build it with train=")
