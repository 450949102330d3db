"""Settings are searched apart from what a study judges by, once, and the same each time."""

import json
import multiprocessing
import sys
from typing import Annotated, ClassVar

import pytest
import torch
import yaml
from pydantic import Field, model_validator
from scipy import stats

from tests.studies.conftest import small, words
from tests.studies.test_run import log_every_put, put
from tests.studies.toys import HERE, search
from unlearnkit import catalog
from unlearnkit.cache import Cache
from unlearnkit.cli import main
from unlearnkit.core.errors import DivergedError, InputError
from unlearnkit.core.method import METHODS, Info, Method, Need
from unlearnkit.core.search_space import SearchRange
from unlearnkit.store import Store
from unlearnkit.studies.execution.run_study import run
from unlearnkit.studies.planning.expand import expand
from unlearnkit.studies.planning.objective import METRICS, score
from unlearnkit.studies.planning.overlap import check_no_overlap, max_chance_overlap
from unlearnkit.studies.planning.problem import StudyProblems
from unlearnkit.studies.planning.tuned_settings import load_tuned_settings
from unlearnkit.studies.spec import load
from unlearnkit.studies.table.load_results import read
from unlearnkit.studies.tuning.effect import tuning_effect
from unlearnkit.studies.tuning.search import tune

pytest.importorskip("optuna")


def wanted(folder, **changes):
    block = {"requests": ["class=0"], "seeds": [7], "trials": 3, "budget": 0.5}
    return {"oracles": 2, "tune": block | {"folder": str(folder)} | changes}


def tuned(folder, methods=("finetune", "ssd"), seeds=2, **changes):
    return small(methods=list(methods), seeds=seeds, **wanted(folder, **changes))


# ------------------------------------------------------------------ what is asked


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trails": 3}, r"no key of tune in a study 'trails'. Did you mean 'trials'\?"),
        ({"trials": 1}, r"tune.trials: input should be greater than or equal to 2, got 1"),
        ({"budget": 0}, r"tune.budget: "),
        ({"seeds": [900, 1]}, r"tune: seed 1 is the study's too"),
        ({"seeds": [1000]}, r"seeds: from 0 to 999"),
        ({"requests": {"digits": ["class=0"]}}, r"no case of the study 'digits'"),
        ({"requests": []}, r"requests: give a list of some"),
    ],
)
def test_a_mistake_in_a_tune_block_is_named(tmp_path, changes, told):
    with pytest.raises(InputError, match=told):
        small(**wanted(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"oracles": 1}, "judged by two oracles or more"),
        ({"tier": "fast"}, "judged by two oracles or more"),
        ({"tune": {"trials": 3}}, "tune: requests: name forget sets other than the study's"),
        ({"design": "REUSE", "seeds": [3]}, "tune: seed 0 is the study's too"),
    ],
)
def test_a_study_that_cannot_tune_says_why(tmp_path, changes, told):
    given = wanted(tmp_path, seeds=[0])
    with pytest.raises(InputError, match=told):
        small(**{**given, "seeds": [2], **changes})


def _rows(label, *, count=None, others=0):
    subject = StudyProblems().get(f"{HERE}:toy", f"class={label}", "cpu", "fp32")
    mine = subject.parts.forget.rows.tolist()[:count]
    rest = subject.parts.retain.rows.tolist()[:others]
    return "rows=" + ",".join(map(str, mine + rest))


@pytest.mark.parametrize(
    "asked",
    ["class=1", "class=0,1", _rows(1), _rows(1, count=12), _rows(1, others=15)],
    ids=["same words", "one class of two", "same rows", "a part", "more rows"],
)
def test_forget_rows_that_the_study_judges_by_are_refused(tmp_path, store, cache, asked):
    study = tuned(tmp_path, requests=["class=0", asked])
    with pytest.raises(InputError, match=r"forget rows in common with 'class=1'"):
        tune(study, store, cache)
    with pytest.raises(InputError, match=r"forget rows in common with 'class=1'"):
        expand(study)
    assert store.runs() == []


def test_a_few_rows_of_a_large_set_are_refused_though_chance_could_give_them(tmp_path):
    total, large = 60, len(_rows(1).split(","))
    assert max_chance_overlap(3, large, total) > 3
    with pytest.raises(InputError, match=r"has 3 of its 3 forget rows in common"):
        check_no_overlap(
            tuned(tmp_path, requests=[_rows(1, count=3)]), f"{HERE}:toy", StudyProblems()
        )


def test_other_classes_and_chance_overlaps_are_fine_and_counted(tmp_path):
    study = tuned(tmp_path, requests=["class=0", "rows=0:20"])
    both = len(set(range(20)) & set(map(int, _rows(1)[5:].split(","))))
    assert check_no_overlap(study, f"{HERE}:toy", StudyProblems()) == {
        "rows=0:20 and class=1": both
    }


@pytest.mark.parametrize(("a", "b", "n"), [(146, 143, 1437), (5, 5, 1437), (20, 20, 60)])
def test_chance_is_that_of_the_hypergeometric_distribution(a, b, n):
    draw = stats.hypergeom(n, a, b)
    assert max_chance_overlap(a, b, n) == pytest.approx(draw.mean() + 3 * draw.std(), rel=1e-12)


# ------------------------------------------------------------------ the objective

ORACLES = (0.04, 0.06)


def values(**changes):
    """A model that equals the oracles but for what is changed."""
    base = {
        "js_forget": (0.05, 0.65),
        "accuracy_forget": (0.80, 1.0),
        "margin_auc": (0.50, 0.9),
        "accuracy_retain": (0.99, 1.0),
        "accuracy_test": (0.95, 0.95),
    }
    found = {("cost_ratio", "unlearned"): 0.1}
    for metric, (same, original) in base.items():
        found[metric, "unlearned"] = changes.get(metric, same)
        found[metric, "original"] = original
        spread = ORACLES if metric == "js_forget" else (same - 0.01, same + 0.01)
        found |= {(metric, f"oracle {k}"): v for k, v in enumerate(spread)}
    return found


def test_an_oracle_scores_0_and_what_never_forgot_has_all_the_distance_left():
    assert score(values()).value == pytest.approx(0)
    assert score(values(js_forget=0.65)).left == pytest.approx(1)
    assert score(values(js_forget=0.01)).left == 0


@pytest.mark.parametrize("metric", ["accuracy_forget", "margin_auc"])
def test_forgetting_too_much_costs_as_much_as_forgetting_too_little(metric):
    middle = values()[metric, "unlearned"]
    far, near = (score(values(**{metric: middle + d})).value for d in (-0.15, 0.15))
    assert far == pytest.approx(near)
    assert far > 0.1


def test_a_point_of_retained_accuracy_counts_a_twentieth_of_the_distance():
    lost = score(values(accuracy_retain=0.98)).value
    assert lost == pytest.approx(score(values(js_forget=0.05 + 0.6 / 20)).value)


def test_with_little_to_forget_the_oracles_own_distance_is_the_unit():
    few = values(js_forget=0.10) | {("js_forget", "original"): 0.051}
    assert score(few).left == pytest.approx(1)


def test_errors_are_shares_of_the_oracles_error():
    found = {("cost_ratio", "unlearned"): 0.1}
    for metric in ("divergence_forget", "error_forget", "error_retain", "error_test"):
        found |= {(metric, "unlearned"): 3.0, (metric, "original"): 4.0}
        found |= {(metric, "oracle 0"): 2.0, (metric, "oracle 1"): 2.0}
    got = score(found)
    assert (got.forget, got.retain, got.test, got.membership) == (0.5, 0.5, 0.5, 0.0)


@pytest.mark.parametrize("value", [None, float("inf"), float("nan")])
def test_an_undefined_number_makes_no_score(value):
    with pytest.raises(InputError, match="tune: "):
        score(values(accuracy_retain=value))


# ------------------------------------------------------------------ the search


def test_every_method_has_the_same_trials_the_first_with_its_own_settings(tmp_path, store, cache):
    study = tuned(tmp_path, trials=4, budget=10)
    found = tune(study, store, cache)
    assert [(x.method, len(x.trials), x.failed_trials) for x in found] == [
        ("finetune", 4, 0),
        ("ssd", 4, 0),
    ]
    for x in found:
        own = METHODS[x.method]().model_dump(mode="json")
        by_key = {(r.method, json.dumps(r.settings, sort_keys=True)): r for r in store.runs()}
        first = by_key[x.method, json.dumps(own, sort_keys=True)]
        numbers = {(m.metric, m.who): m.value for m in store.measurements(first.key)}
        assert score(numbers) == x.default.score
        assert x.best.score.value == min(t.score.value for t in x.trials)
        assert load_tuned_settings(x.path).build() == x.recipe.build()
    assert {r.seed for r in store.runs()} == {7}
    assert {r.request for r in store.runs()} == {"class=0"}
    assert len(store.runs()) == 8


def test_what_costs_more_than_the_budget_is_never_found(tmp_path, store, cache):
    slow = {"cases": [f"{HERE}:slow_toy"], "methods": ["finetune"]}
    study = small(**slow, **wanted(tmp_path, trials=6, budget=0.15))
    (x,) = tune(study, store, cache)
    assert x.default.score.cost > 0.15
    assert x.best.score.cost <= 0.15
    cheap = [t.score.value for t in x.trials if t.score.cost <= 0.15]
    assert x.best.score.value == min(cheap)


def test_with_nothing_within_the_budget_the_methods_own_settings_stay(tmp_path, store, cache):
    (x,) = tune(tuned(tmp_path, ["finetune"], trials=2, budget=0.001), store, cache)
    assert x.best is x.default


def test_the_same_search_finds_the_same_and_repeats_nothing(tmp_path, store, cache):
    log_every_put(store.path)
    first = tune(tuned(tmp_path / "a"), store, cache)
    assert tune(tuned(tmp_path / "a"), store, cache) == first
    assert len(put(store.path)) == len(set(put(store.path))) == 6
    with Store(tmp_path / "other.sqlite") as other:
        again = tune(tuned(tmp_path / "b"), other, cache)
    assert [x.trials for x in again] == [x.trials for x in first]
    assert [x.path.read_text() for x in again] == [x.path.read_text() for x in first]
    other_seed = tune(tuned(tmp_path / "c", seed=1), store, cache)
    assert [x.trials for x in other_seed] != [x.trials for x in first]


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_killed_again_and_again_a_search_ends_as_an_uninterrupted_one(tmp_path, store, cache):
    want = tune(tuned(tmp_path / "a", trials=4), store, cache)
    path = tmp_path / "killed.sqlite"
    log_every_put(path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.studies.warm"])
    given = words(methods=["finetune", "ssd"], **wanted(tmp_path / "b", trials=4))
    killed, ended = 0, False
    for patience in (*(0.05 * step for step in range(1, 9)), None):
        process = context.Process(target=search, args=(given, path, tmp_path / "other"))
        process.start()
        process.join(patience)
        if process.is_alive():
            process.kill()
            killed += 1
        process.join()
        if ended := process.exitcode == 0:
            break
    assert ended
    assert killed >= 2
    assert len(put(path)) == len(set(put(path))) == 8
    with Store(path) as other:
        again = tune(tuned(tmp_path / "b", trials=4), other, Cache(tmp_path / "other"))
    assert [x.trials for x in again] == [x.trials for x in want]


class Fragile(Method):
    """Fails in two ways on half of its space."""

    id: ClassVar[str] = "fragile"
    info: ClassVar[Info] = Info(
        title="x",
        cite="x",
        needs=frozenset({Need.RETAIN}),
        tasks=frozenset({"classification"}),
    )

    where: Annotated[float, SearchRange(0, 1)] = Field(0.1, ge=0, le=1)
    """A place."""

    @model_validator(mode="after")
    def _strange(self):
        if self.where > 0.8:
            raise ValueError("too far")
        return self

    def apply(self, p, rt):
        if self.where > 0.5:
            raise DivergedError("fragile: lost")
        with torch.no_grad():
            for w in p.model.parameters():
                w.mul_(1 - self.where)
        return p.model


@pytest.fixture
def fragile(monkeypatch):
    monkeypatch.setitem(METHODS, "fragile", Fragile)
    catalog.methods.cache_clear()
    yield
    monkeypatch.delitem(METHODS, "fragile")
    catalog.methods.cache_clear()


@pytest.mark.usefixtures("fragile")
def test_failed_trials_are_trials_with_an_error(tmp_path, store, cache):
    (x,) = tune(tuned(tmp_path, ["fragile"], trials=12), store, cache)
    errors = {t.values["where"]: t.error for t in x.trials}
    assert len(x.trials) == 12
    assert any(e.startswith("fragile: lost") for w, e in errors.items() if 0.5 < w <= 0.8)
    assert any("too far" in e for w, e in errors.items() if w > 0.8)
    assert all((t.score is None) == (t.values["where"] > 0.5) for t in x.trials)
    assert x.failed_trials == x.recipe.found.failed == sum(w > 0.5 for w in errors)
    assert x.best.values["where"] <= 0.5


# ------------------------------------------------------------------ what is found


@pytest.fixture
def searched(tmp_path, store, cache):
    study = tuned(tmp_path, ["finetune"], seeds=3, trials=6)
    (x,) = tune(study, store, cache)
    assert x.best is not x.default
    return study, x


def test_the_study_runs_each_method_with_its_own_and_with_the_found_settings(searched):
    study, x = searched
    runs = expand(study)
    assert [r.label for r in runs] == ["finetune", "finetune tuned"] * 3
    assert {r.seed for r in runs} == {0, 1, 2}
    assert runs[1].settings == x.recipe.job.settings
    assert runs[1].settings != runs[0].settings


def test_what_tuning_did_is_told_on_the_untouched_forget_set(searched, store, cache):
    study, _ = searched
    assert [h.word for h in tuning_effect(study, store)] == ["not run"]
    run(study, store, cache)
    (found,) = tuning_effect(study, store)
    each = {}
    for r in read(expand(study), store, METRICS):
        each.setdefault(r.spec.label, []).append(score(r.values).value)
    apart = [b - a for a, b in zip(each["finetune"], each["finetune tuned"], strict=True)]
    interval = stats.ttest_1samp(apart, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.default.value == pytest.approx(sum(each["finetune"]) / 3)
    assert found.tuned.value == pytest.approx(sum(each["finetune tuned"]) / 3)
    word = "helped" if interval.high < 0 else "harmed" if interval.low > 0 else None
    assert found.word == (word or "no difference shown")


def test_where_nothing_better_is_found_the_default_runs_alone(tmp_path, store, cache):
    study = tuned(tmp_path, ["finetune"], trials=2, budget=0.001)
    tune(study, store, cache)
    assert [r.label for r in expand(study)] == ["finetune"] * 2
    assert [h.word for h in tuning_effect(study, store)] == ["default kept"]


def test_a_study_that_was_not_searched_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match=r"nothing is tuned for finetune on .* run unlearnkit"):
        expand(tuned(tmp_path))


def test_a_recipe_of_another_search_is_not_believed(searched, tmp_path):
    with pytest.raises(InputError, match=r"comes from another search"):
        expand(tuned(tmp_path, ["finetune"], seeds=3, trials=7))


def test_methods_with_settings_of_their_own_are_not_searched(tmp_path, store, cache):
    paper = {"finetune": {"preset": "paper"}}
    study = tuned(tmp_path, [paper, "ssd"])
    assert [x.method for x in tune(study, store, cache)] == ["ssd"]
    with pytest.raises(InputError, match=r"no method of .* at its own settings alone"):
        tune(tuned(tmp_path, [paper, "retrain"]), store, cache)


def test_another_study_names_tuned_settings_as_seen_from_its_file(searched, tmp_path):
    _, x = searched
    given = words(methods=[{"finetune": {"tuned": x.path.name}}, "ssd"])
    (tmp_path / "next.yaml").write_text(yaml.safe_dump(given))
    runs = expand(load(tmp_path / "next.yaml"))
    assert runs[0].label == f"finetune tuned {x.path.stem}"
    assert runs[0].settings == x.recipe.job.settings
    wrong = words(methods=[{"ssd": {"tuned": str(x.path)}}])
    with pytest.raises(InputError, match=r"ssd: tuned: .* is of finetune; keep one"):
        expand(small(**wrong))


# ------------------------------------------------------------------ the commands


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "study.yaml"
    given = words(methods=["finetune"], **wanted("found", trials=3))
    file.write_text(yaml.safe_dump(given))

    def call(*said):
        store = ["--store", str(tmp_path / "s.sqlite")] if said[0] == "study" else []
        place = [str(file)] if said[0] == "study" else []
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["unlearnkit", *said[:2], *place, *said[2:], *store])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return call


def test_a_search_a_study_and_its_answer_from_the_command_line(command, tmp_path):
    code, out, err = command("study", "tune")
    assert (code, out.splitlines()[0].split()) == (
        0,
        ["case", "method", "trials", "failed", "default", "tuned", "file"],
    )
    assert "next: unlearnkit study run" in err
    (recipe,) = (tmp_path / "found").iterdir()
    assert recipe.name == "toy-tests_studies_toys_toy-finetune.yaml"
    assert command("study", "run")[0] == 0
    _, out, _ = command("study", "show")
    assert "Did tuning help?" in out
    code, out, _ = command("study", "tune", "--json")
    (facts,) = json.loads(out)["tuned"]
    assert facts["found"]["reached"]["default"] == round(facts["trials"][0]["objective"], 6)
    asked = ["--forget", "class=1", "--config", str(recipe), "--out", "done", "--json"]
    code, out, _ = command("unlearn", f"{HERE}:toy", *asked)
    assert (code, json.loads(out)["job"]["settings"]) == (0, facts["job"]["settings"])


def test_without_optuna_one_line_says_what_to_install(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, out, err = command("study", "tune")
    assert (code, out) == (1, "")
    assert err.splitlines() == ["unlearnkit: tune: needs Optuna; pip install 'unlearnkit[tune]'"]


def test_a_study_without_a_tune_block_is_told_what_to_add(store, cache):
    with pytest.raises(InputError, match=r"nothing to tune; add a tune block"):
        tune(small(), store, cache)
    with pytest.raises(InputError, match=r"it has no tune block"):
        tuning_effect(small(), store)
