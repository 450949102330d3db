"""Any method under a projection: what retained inputs span does not move."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.auditing.strong.train_ensembles import subject_of
from unlearnkit.cache import Cache
from unlearnkit.core.errors import InputError, UnknownNameError, UnsupportedError
from unlearnkit.core.method import Need
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.gradient_projection import RetainedSubspace
from unlearnkit.methods.retrain import Retrain
from unlearnkit.testing import toy_case
from unlearnkit.unlearning.run_method import run_method

ASK = uk.Classes(1)
HELD = RetainedSubspace(threshold=0.8, count="reaching")
TASKS = {
    "classification": uk.Classification(3),
    "regression": uk.Regression(),
    "causal_lm": uk.CausalLM(vocabulary=12),
}
KNOWN = {i: m for i, m in uk.catalog.methods().items() if "classification" in m.info.tasks}


def refused(method):
    """Return whether a method cannot keep to a projection, by what it is."""
    how = uk.method(method)
    own = any(isinstance(v, RetainedSubspace | uk.Localizer) for v in vars(how).values())
    return own or how.info.replaces or not how.info.gradient_steps


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    case = uk.with_checkpoints(toy_case(uk.Classification(3)), uk.MemoryCheckpoints())
    return uk.train_original(case, cache=Cache(tmp_path_factory.mktemp("cache"))).model, case


def leading(a, threshold):
    """Return the fewest right singular vectors that reach a share of the energy (d, k)."""
    _, s, vt = np.linalg.svd(a, full_matrices=False)
    share = np.cumsum(s**2) / np.sum(s**2)
    return vt[: int((share < threshold).sum()) + 1].T


def unlearned(toy, method, **how):
    model, case = toy
    return uk.unlearn(model, case, ASK, uk.method(method, **KNOWN[method].info.smoke), **how)


@pytest.mark.parametrize("method", [i for i in KNOWN if not refused(i)])
def test_a_method_moves_nothing_that_retained_inputs_see(toy, method):
    model, case = toy
    done = unlearned(toy, method, projection=HELD)
    retain = case.partition(ASK).retain
    x = case.train.x[retain.rows]
    linear = [m for m in model if isinstance(m, nn.Linear)]
    now = [m for m in done.model if isinstance(m, nn.Linear)]
    with torch.no_grad():
        inputs = [x, torch.relu(linear[0](x))]
    ways = []
    for a, before, after in zip(inputs, linear, now, strict=True):
        u = torch.from_numpy(leading(a.double().numpy(), HELD.threshold))
        way = (after.weight - before.weight).detach().double()
        assert 0 < u.shape[1] < u.shape[0]
        assert (way @ u).norm() <= 1e-5 * (before.weight.norm() + way.norm())
        assert torch.equal(after.bias, before.bias)
        ways.append(float(way.norm()))
    assert max(ways) > 1e-4
    assert done.projection == HELD
    assert any(note.startswith("projection energy 0.8 reaching: ") for note in done.notes)


def test_a_step_is_the_free_step_without_what_is_held(toy):
    model, case = toy
    run = {"recipe": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "epochs": 1,
                      "batch_size": 1000}}  # fmt: skip
    how = uk.method("finetune", run=run)
    free = uk.unlearn(model, case, ASK, how).model
    held = uk.unlearn(model, case, ASK, how, projection=HELD).model
    retain = case.partition(ASK).retain
    u = torch.from_numpy(leading(case.train.x[retain.rows].double().numpy(), 0.8)).float()
    step = (free[0].weight - model[0].weight).detach()
    torch.testing.assert_close(
        (held[0].weight - model[0].weight).detach(), step - step @ u @ u.T, rtol=1e-4, atol=1e-6
    )


def test_kept_moments_stand_in_for_retained_rows_and_are_of_this_model_and_these_rows(toy):
    model, case = toy
    moments = uk.InputMoments.of_case(model, case)
    kept = case.replace(input_moments=moments)
    how = uk.method("scrub", **KNOWN["scrub"].info.smoke)
    one, other = (uk.unlearn(model, c, ASK, how, projection=HELD).model for c in (case, kept))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    go = case.train.y == 1
    bare = uk.Case.from_parts(
        forget=(case.train.x[go], case.train.y[go]), task=case.task, recipe=case.recipe
    )
    ascent = uk.method("gradient_ascent", **KNOWN["gradient_ascent"].info.smoke)
    with pytest.raises(UnsupportedError, match="projection: needs the retain set, or input mom"):
        uk.unlearn(model, bare, None, ascent, projection=HELD)
    done = uk.unlearn(model, bare.replace(input_moments=moments), None, ascent, projection=HELD)
    assert done.input_moments_after_deletion().rows == int((~go).sum())
    stranger = case.fresh()
    with pytest.raises(InputError, match="measured with other weights"):
        uk.unlearn(stranger, kept, ASK, how, projection=HELD)
    fewer = kept.replace(train=kept.train.pick(torch.arange(len(kept.train) - 1)))
    for method, more in ((how, {"projection": HELD}), ("pgu", {})):
        with pytest.raises(InputError, match=r"of \d+ other rows than the case's \d+ training"):
            uk.unlearn(model, fewer, ASK, method, **more)


def test_validation_rows_stand_in_where_there_is_nothing_else(toy):
    model, case = toy
    go, unseen = case.train.y == 1, (case.test.x, case.test.y)
    bare = uk.Case.from_parts(
        forget=(case.train.x[go], case.train.y[go]), validation=unseen, task=case.task,
        recipe=case.recipe,
    )  # fmt: skip
    ascent = uk.method("gradient_ascent", **KNOWN["gradient_ascent"].info.smoke)
    done = uk.unlearn(model, bare, None, ascent, projection=HELD)
    held = case.test.x
    u = torch.from_numpy(leading(held.double().numpy(), HELD.threshold))
    way = (done.model[0].weight - model[0].weight).detach().double()
    assert way.norm() > 1e-4
    assert (way @ u).norm() <= 1e-5 * way.norm() + 1e-6
    stood = f"projection: {len(held)} validation rows stand in for the retain set"
    assert any(note.startswith(stood) for note in done.notes)
    assert done.input_moments_after_deletion() is None


def test_a_second_request_goes_on_from_the_updated_moments(toy):
    model, case = toy
    case = uk.Case(
        train=(case.train.x, case.train.y), keys=range(len(case.train)), task=case.task,
        fresh=case.fresh, recipe=case.recipe,
    )  # fmt: skip
    case = case.replace(input_moments=uk.InputMoments.of_case(model, case))
    how = uk.method("gradient_ascent", **KNOWN["gradient_ascent"].info.smoke)
    done = uk.unlearn(model, case, uk.Rows(1, 2), how, projection=HELD)
    after = done.case_after_deletion()
    again = uk.unlearn(done.model, after, uk.Rows(5), how, projection=HELD)
    assert again.case.input_moments.rows == len(case.train) - 2
    with pytest.raises(InputError, match="other rows"):
        case.input_moments.check_rows(after.partition(uk.Rows(5)).retain)


@pytest.mark.parametrize("method", [i for i in KNOWN if refused(i)])
def test_a_method_that_cannot_keep_to_a_projection_is_refused(toy, method):
    with pytest.raises(UnsupportedError, match=f"{method} (takes no|returns|has a|chooses)"):
        unlearned(toy, method, projection=HELD)


def test_auto_and_a_mask_take_no_projection(toy):
    model, case = toy
    with pytest.raises(UnsupportedError, match="auto: chooses among methods without a proj"):
        uk.unlearn(model, case, ASK, "auto", projection=HELD)
    with pytest.raises(InputError, match="a mask would cut; give one of the two"):
        unlearned(toy, "finetune", projection=HELD, mask=uk.Localizer())


def test_a_method_that_returns_another_model_unannounced_is_refused(toy, monkeypatch):
    monkeypatch.setattr(Retrain, "info", replace(Retrain.info, replaces=False))
    with pytest.raises(UnsupportedError, match="which a projection cannot hold"):
        unlearned(toy, "retrain", projection=HELD)


@pytest.mark.parametrize("method", list(uk.catalog.methods()))
def test_methods_say_whether_they_take_gradient_steps(method, tmp_path):
    class Counted:
        steps = 0

        def project(self):
            pass

        def restore(self):
            Counted.steps += 1

    cls = uk.catalog.methods()[method]
    name = "classification" if method in KNOWN else min(cls.info.tasks)
    case = toy_case(TASKS[name])
    if Need.CHECKPOINTS in cls.info.needs:
        case = uk.with_checkpoints(case, uk.MemoryCheckpoints())
    model = uk.train_original(case, cache=Cache(tmp_path)).model
    rt = replace(Runtime(), holds=(Counted(),))
    real = Runtime.fork
    request = ASK if method in KNOWN else uk.Rows(0, 1)

    def fork(self, seed, **more):
        return replace(real(self, seed, **more), holds=self.holds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runtime, "fork", fork)
        run_method(model, case, request, uk.method(method, **cls.info.smoke), rt)
    steps = Counted.steps - 1  # the driver restores once at the end
    assert (steps > 0) == (cls.info.gradient_steps and not cls.info.rebuilds)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"threshold": 1}, "holds every direction of every weight, so nothing can move"),
        ({"threshold": 0}, "holds no direction of any weight, so it would change nothing"),
        ({"threshold": 1e-6}, "holds no direction of any weight"),
        ({"layers": {"nowhere.*": 0.5}}, "fits no weight"),
    ],
)
def test_an_empty_and_a_whole_subspace_are_refused(toy, how, why):
    with pytest.raises(InputError, match=why):
        unlearned(toy, "finetune", projection=RetainedSubspace(**how))


def test_a_model_without_measured_weights_is_refused(toy):
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(6, 3))

        def forward(self, x):
            return x @ self.table

    _, case = toy
    with pytest.raises(InputError, match="has no weight whose inputs can be measured"):
        uk.unlearn(Table(), case, ASK, "finetune", projection=HELD)


def test_a_rank_deficient_subspace_holds_what_there_is():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=g) @ torch.randn(3, 12, generator=g)
    x = torch.cat([x, torch.randn(10, 12, generator=g)])
    y = torch.cat([torch.arange(40) % 3, torch.ones(10, dtype=torch.long)])
    case = uk.Case(train=(x, y), task=uk.Classification(3))
    model = nn.Linear(12, 3)
    how = RetainedSubspace(threshold=1 - 1e-6, count="reaching")
    ask = uk.Rows(*range(40, 50))
    ascent = uk.method("gradient_ascent", **KNOWN["gradient_ascent"].info.smoke)
    done = uk.unlearn(model, case, ask, ascent, projection=how)
    assert any("3 of 12 input directions are held" in n for n in done.notes)
    with torch.no_grad():
        torch.testing.assert_close(done.model(x[:40]), model(x[:40]), rtol=1e-4, atol=1e-4)
        assert (done.model(x[40:]) - model(x[40:])).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("0.95", {"threshold": 0.95}),
        ("singular:0.95", {"rule": "singular", "threshold": 0.95}),
        ("energy:0.8:reaching", {"threshold": 0.8, "count": "reaching"}),
        ({"threshold": 0.5, "layers": {"0.*": 0.9}}, {"threshold": 0.5, "layers": {"0.*": 0.9}}),
    ],
)
def test_words_are_read_and_said_again(words, fields):
    found = RetainedSubspace.read(words)
    assert found == RetainedSubspace(**fields)
    said = found.words.split()
    assert said[:2] == [found.rule, f"{found.threshold:g}"]
    assert ("reaching" in said) == (found.count == "reaching")
    assert ("0.*=0.9" in said) == bool(found.layers)


@pytest.mark.parametrize(
    ("words", "kind", "why"),
    [
        ("1.5", InputError, "projection: threshold: .* less than or equal to 1, got '1.5'"),
        ("most", InputError, "projection: threshold: "),
        ("rank:0.9", InputError, "projection: rule: "),
        ("energy:0.9:within:x", InputError, "expected rule:threshold:count"),
        ({"share": 0.9}, UnknownNameError, "field of a projection 'share'"),
    ],
)
def test_wrong_words_are_refused(words, kind, why):
    with pytest.raises(kind, match=why):
        RetainedSubspace.read(words)


def test_audits_project_on_every_model_by_moments_of_its_own(toy, monkeypatch):
    model, case = toy
    kept = case.replace(input_moments=uk.InputMoments.of_case(model, case))
    how = uk.method("scrub", **KNOWN["scrub"].info.smoke)
    done = uk.unlearn(model, kept, ASK, how, projection=HELD)
    seen = []

    def spy(model, case, request, how, rt, **more):
        seen.append((more["projection"], case.input_moments))
        return run_method(model, case, request, how, rt, **more)

    monkeypatch.setattr("unlearnkit.auditing.strong.placebo.run_method", spy)
    report = uk.audit(done, oracle=uk.oracle(case, ASK, seeds=3))
    assert seen == [(HELD, None)] * 3
    assert len(report.arms) == 2
    names = {
        subject_of(case, ASK, how, Runtime(), Cache(), projection=p).name
        for p in (None, HELD, RetainedSubspace())
    }
    assert len(names) == 3


def test_the_given_model_stays_as_it_was(toy):
    model, _ = toy
    before = copy.deepcopy(model.state_dict())
    unlearned(toy, "finetune", projection=HELD)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
