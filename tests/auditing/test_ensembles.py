"""Ensembles behind a strong audit: cost said before, nothing trained twice."""

import os
import signal
import time
from dataclasses import replace

import pytest
import torch

from tests.auditing.liars import NoOp
from tests.auditing.planted import SECTIONS, planted
from unlearnkit.auditing.strong import cost_plan
from unlearnkit.auditing.strong.cost_plan import plan, table_seconds
from unlearnkit.auditing.strong.margin_store import Membership
from unlearnkit.auditing.strong.mask_transfer import find_localizer
from unlearnkit.auditing.strong.results_table import strong_table
from unlearnkit.auditing.strong.train_ensembles import (
    FLOOR,
    check_models,
    collect_margins,
    look,
    subject_of,
)
from unlearnkit.cache import Cache
from unlearnkit.catalog import method
from unlearnkit.core.auto_method import Auto
from unlearnkit.core.case import Case
from unlearnkit.core.errors import DivergedError, InputError, UnsupportedError
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.request import Rows, Targets
from unlearnkit.core.runtime import Runtime
from unlearnkit.localize.localizer import Localizer
from unlearnkit.oracles import FIRST, oracle, train_original, train_originals
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case
from unlearnkit.train.ensemble import PLACES
from unlearnkit.unlearning.run_method import run_method

TOY = toy_case(Classification(3))
GO = Rows(range(9))


def subject(folder, how=None, **rt):
    return subject_of(TOY, GO, how or method("finetune"), Runtime(**rt), Cache(folder))


class Killer:
    """A reporter that kills its own process, as ``kill -9`` does, at the n-th thing it hears."""

    def __init__(self, after):
        self.left = after

    def progress(self, what, done, total):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def note(self, text):
        pass


class Counter(Killer):
    def __init__(self):
        super().__init__(0)


def killed(folder, after, models):
    """Gather in a process of its own; return whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            collect_margins(subject(folder, NoOp(), reporter=Killer(after)), models)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_killed_ten_times_in_64_models_nothing_is_trained_twice_and_signals_are_the_same(tmp_path):
    models = 16  # of each of four kinds
    counter = Counter()
    whole = collect_margins(subject(tmp_path / "whole", NoOp(), reporter=counter), models)
    step = -counter.left // 9
    kept, kills = {}, 0
    for _ in range(10):
        kills += killed(tmp_path / "cut", step + kills, models)
        now = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cut").glob("??/*.json")}
        assert kept.items() <= now.items()
        kept = now
    cut = collect_margins(subject(tmp_path / "cut", NoOp()), models)
    assert kills == 10
    assert {p.name for p in (tmp_path / "cut").glob("??/*.json")} >= kept.keys()
    for folder in (tmp_path / "whole" / "signals").iterdir():
        for path in folder.glob("[!.]*"):
            other = tmp_path / "cut" / "signals" / folder.name / path.name
            assert other.read_bytes() == path.read_bytes()
    assert torch.equal(cut.margins, whole.margins)


def test_the_signals_are_those_of_the_models_one_by_one(tmp_path):
    whole = subject(tmp_path)
    found = collect_margins(whole, 4)
    cache = Cache(tmp_path)
    parts = TOY.partition(GO)
    original = train_original(TOY, seed=2, cache=cache).model
    models = {
        "original": original,
        "unlearned": run_method(original, TOY, GO, "finetune", Runtime(seed=2)).model,
        "oracle": oracle(TOY, GO, seeds=[FIRST + 2], cache=cache).models[0],
        "floor": oracle(TOY, GO, seeds=[FLOOR + 2], cache=cache).models[0],
    }
    for who, model in models.items():
        views = {Split.FORGET: parts.forget}
        one = Evidence({"unlearned": model}, views, TOY.task, Runtime())
        assert torch.equal(
            found.of(who, "forget")[2], one.margins(ModelRole.UNLEARNED, Split.FORGET)
        )
        errors = one.errors(ModelRole.UNLEARNED, Split.FORGET).float()
        assert torch.equal(found.of(who, "forget", "errors")[2], errors)


def test_a_mask_is_found_anew_on_each_original(tmp_path):
    how = Localizer(budget=0.3, granularity="parameter")
    cache = Cache(tmp_path)
    free, held = (
        subject_of(TOY, GO, method("finetune"), Runtime(), cache, mask) for mask in (None, how)
    )
    assert free.name != held.name
    found = collect_margins(held, 4).of("unlearned", "forget")
    originals = [r.model for r in train_originals(TOY, seeds=4, cache=cache)]
    done = [
        run_method(m, TOY, GO, "finetune", Runtime(seed=i), mask=how)
        for i, m in enumerate(originals)
    ]
    assert torch.equal(found, look(held, [d.model for d in done])[0][:, : found.shape[1]])
    assert len({d.mask.digest() for d in done}) == 4


def test_a_mask_that_no_localizer_finds_on_this_original_is_refused(tmp_path):
    original = train_original(TOY, cache=Cache(tmp_path)).model
    done = run_method(original, TOY, GO, "finetune", mask=Localizer(granularity="parameter"))
    assert find_localizer(done, Runtime()) == Localizer(granularity="parameter")
    turned = replace(done.mask, chosen={n: ~m for n, m in done.mask.chosen.items()})
    for mask in (turned, replace(done.mask, found_by=None)):
        with pytest.raises(UnsupportedError, match="was not found by a localizer on this original"):
            find_localizer(replace(done, mask=mask), Runtime())


def test_residuals_of_real_targets_are_kept_beside_errors(tmp_path):
    case = toy_case(Regression(2))
    how = method("finetune")
    found = collect_margins(subject_of(case, GO, how, Runtime(), Cache(tmp_path)), 4)
    assert found.residuals.shape == (*found.margins.shape, 2)
    torch.testing.assert_close(
        found.residuals.abs().mean(2).float(), found.errors, rtol=1e-5, atol=1e-6
    )
    original = train_original(case, seed=1, cache=Cache(tmp_path)).model
    view = case.partition(GO).forget
    with torch.no_grad():
        want = original(view.data.x[view.rows]).double() - view.y.double()
    torch.testing.assert_close(found.of("original", "forget", "residuals")[1], want)
    assert found.first(2).residuals.shape[0] == 10


def test_every_cell_says_what_the_model_had_to_do_with_the_row(tmp_path):
    found = collect_margins(subject(tmp_path), 4)
    want = {
        "original": (Membership.IN, Membership.IN, Membership.OUT),
        "unlearned": (Membership.UNLEARNED, Membership.RETAINED, Membership.OUT),
        "oracle": (Membership.OUT, Membership.IN, Membership.OUT),
        "floor": (Membership.OUT, Membership.IN, Membership.OUT),
    }
    for who, codes in want.items():
        for section, code in zip(("forget", "retain", "held_out"), codes, strict=True):
            assert bool((found.of(who, section, "codes") == int(code)).all())


def test_no_example_stands_in_two_sections_that_are_compared(tmp_path):
    columns = collect_margins(subject(tmp_path), 4).columns
    assert not set(columns["forget"].tolist()) & set(columns["retain"].tolist())
    assert not set(columns["held_out"].tolist()) & set(columns["population"].tolist())
    assert len(columns["held_out"]) <= len(columns["forget"])
    assert set(columns["forget"].tolist()) == set(range(9))


def test_the_cost_is_said_before_and_shrinks_with_what_is_kept(tmp_path):
    first = plan(subject(tmp_path), 4, unlearn_seconds=0.5)
    assert (first.train, first.already_trained, first.unlearn) == (12, 0, 4)
    assert first.rows == TOY.recipe.epochs * (4 * 60 + 8 * 51)
    assert first.seconds > 4 * 0.5
    assert "12 to train (0 are kept), 4 to unlearn" in str(first)
    assert not list(Cache(tmp_path).entries())
    oracle(TOY, GO, seeds=3, cache=Cache(tmp_path))
    assert (plan(subject(tmp_path), 4).train, plan(subject(tmp_path), 4).already_trained) == (9, 3)
    collect_margins(subject(tmp_path), 4)
    last = plan(subject(tmp_path), 4)
    assert (last.train, last.unlearn, last.rows) == (0, 0, 0)
    assert 0 < last.seconds < 2 + first.seconds  # the table
    assert "all of them are kept; about" in str(last)
    assert plan(subject(tmp_path), 6).train == 6


def test_models_that_are_gone_but_whose_signals_are_kept_are_not_trained_again(tmp_path):
    collect_margins(subject(tmp_path), 4)
    cache = Cache(tmp_path)
    for entry in list(cache.entries()):
        cache.remove(entry)
    assert plan(subject(tmp_path), 4).train == 0
    collect_margins(subject(tmp_path), 4)
    assert not list(cache.entries())


def test_more_models_are_added_to_those_that_are_there(tmp_path):
    few = collect_margins(subject(tmp_path), 4)
    many = collect_margins(subject(tmp_path), 6)
    for who in ("original", "unlearned", "oracle", "floor"):
        assert torch.equal(many.of(who, "forget")[:4], few.of(who, "forget"))
    again = collect_margins(subject(tmp_path), 4)
    assert torch.equal(again.of("floor", "test"), few.of("floor", "test"))


def test_other_settings_have_other_signals_and_the_same_trained_models(tmp_path):
    collect_margins(subject(tmp_path), 4)
    other = subject(tmp_path, method("finetune", run={"lr": 0.5}))
    assert (plan(other, 4).train, plan(other, 4).unlearn) == (0, 4)


def test_a_method_that_fails_on_an_original_is_told_with_its_seed(tmp_path):
    wild = method("finetune", run={"lr": 1e20})
    with pytest.raises(DivergedError, match="unlearning original 0 failed"):
        collect_margins(subject(tmp_path, wild), 4)


@pytest.mark.parametrize("models", [3, FIRST + 1])
def test_a_number_of_models_that_cannot_be_is_refused(models):
    with pytest.raises(InputError, match=f"models: must be 4 to 1000, got {models}"):
        check_models(models)


def test_rows_that_fill_a_range_of_targets_are_compared_as_the_range(tmp_path):
    case = toy_case(Regression())
    low = Targets(at_most=float(case.train.y.sort(0).values[9]))
    rows = Rows(case.partition(low).forget.rows)
    named, filled = (
        subject_of(case, request, method("finetune"), Runtime(), Cache(tmp_path)).views
        for request in (low, rows)
    )
    assert {k: v.key() for k, v in named.items()} == {k: v.key() for k, v in filled.items()}


@pytest.mark.parametrize("lacks", ["recipe", "fresh"])
def test_a_case_that_cannot_be_trained_is_refused(tmp_path, lacks):
    with pytest.raises(UnsupportedError, match="N models are trained from scratch"):
        subject_of(TOY.replace(**{lacks: None}), GO, NoOp(), Runtime(), Cache(tmp_path))


def test_parts_and_auto_are_refused(tmp_path):
    x, y = TOY.train.x, TOY.train.y
    parts = Case.from_parts(
        forget=(x[:3], y[:3]), retain=(x[3:], y[3:]), task=TOY.task, recipe=TOY.recipe
    )
    with pytest.raises(UnsupportedError, match="may not be all that the model was trained on"):
        subject_of(parts, None, NoOp(), Runtime(), Cache(tmp_path))
    with pytest.raises(UnsupportedError, match="audit the method it chose"):
        subject_of(TOY, GO, Auto(), Runtime(), Cache(tmp_path))


def test_never_seen_rows_that_are_forget_rows_are_refused(tmp_path):
    x, y = TOY.train.x, TOY.train.y
    leaky = Case(
        train=(x, y), test=(x[5:30], y[5:30]), task=TOY.task, fresh=TOY.fresh, recipe=TOY.recipe
    )
    with pytest.raises(InputError, match="rows are forget rows as well; leave"):
        subject_of(leaky, GO, NoOp(), Runtime(), Cache(tmp_path))


def test_a_changed_method_of_the_users_own_has_other_signals(tmp_path):
    other = type("NoOp", (NoOp,), {})
    names = {subject(tmp_path, how).name for how in (NoOp(), other())}
    assert len(names) == 2


def test_originals_of_many_seeds_are_those_of_one_seed(tmp_path):
    many = train_originals(TOY, seeds=3, cache=Cache(tmp_path))
    assert [m.cached for m in many] == [False] * 3
    for seed, one in enumerate(many):
        kept = train_original(TOY, seed=seed, cache=Cache(tmp_path))
        alone = train_original(TOY, seed=seed, cache=Cache(tmp_path / "alone"))
        assert kept.cached
        for a, b, c in zip(
            one.model.parameters(), kept.model.parameters(), alone.model.parameters(), strict=True
        ):
            assert torch.equal(a, b)
            torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="original: seeds must be different"):
        train_originals(TOY, seeds=[1, 1])


def test_both_sets_of_oracles_stand_at_the_same_places_of_a_stack():
    assert (FLOOR - FIRST) % PLACES == 0


@pytest.mark.exhaustive  # a busy machine is slow in one part of it and not in the other
@pytest.mark.parametrize(("models", "rows"), [(16, 500), (16, 4000)])
def test_the_time_of_the_table_is_known_within_a_factor_of_two(models, rows):
    signals = planted(models=models, sections=dict.fromkeys(SECTIONS, rows))
    ratios = []
    for _ in range(3):  # the machine may be busy with something else in one of them
        said, start = table_seconds(models, rows), time.perf_counter()
        strong_table(signals, Runtime())
        ratios.append((time.perf_counter() - start) / said)
    assert 0.5 < sorted(ratios)[1] < 2


def test_the_time_of_the_table_grows_with_rows_models_and_the_machine(monkeypatch):
    monkeypatch.setattr(cost_plan, "_slice_seconds", lambda: 0.01)
    few, twice, more = (
        table_seconds(16, 20_000),
        table_seconds(16, 40_000),
        table_seconds(32, 20_000),
    )
    assert few < twice < 2 * few
    assert few < more < 3 * few
    monkeypatch.setattr(cost_plan, "_slice_seconds", lambda: 0.02)
    assert table_seconds(16, 20_000) == pytest.approx(2 * few)
