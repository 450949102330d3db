"""Models that were retrained, or unlearned, elsewhere."""

import copy
import math

import pytest
import torch
from torch import nn

from unlearnkit.auditing.audit import audit
from unlearnkit.cache import Cache
from unlearnkit.core.case import Case
from unlearnkit.core.errors import InputError, UnlearnkitError, UnsupportedError
from unlearnkit.core.request import Rows
from unlearnkit.oracles import Oracles, oracle, train_original
from unlearnkit.report.phrases import provenance_lines
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case
from unlearnkit.unlearning.run_method import run_method

TOY = toy_case(Classification(3))
GO = Rows(*range(6))
BARE = Case(train=(TOY.train.x, TOY.train.y), test=(TOY.test.x, TOY.test.y), task=TOY.task)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return an original, three retrained models and a model of another tool's, of no library."""
    cache = Cache(tmp_path_factory.mktemp("cache"))
    original = train_original(TOY, cache=cache).model
    retrained = oracle(TOY, GO, seeds=3, cache=cache).models
    other = copy.deepcopy(original)
    x, y = TOY.train.x[6:], TOY.train.y[6:]
    opt = torch.optim.SGD(other.parameters(), lr=0.05)
    for _ in range(5):
        opt.zero_grad()
        nn.functional.cross_entropy(other(x), y).backward()
        opt.step()
    return original, retrained, other


def seen(subject, made, **changes):
    original, retrained, other = made
    truth = Oracles.from_models(retrained, request=GO)
    given = {"original": original, "case": subject, "request": GO, "oracle": truth}
    return audit(other, **{**given, **changes})


def test_a_model_of_another_tool_is_audited_against_models_retrained_elsewhere(made):
    report = seen(BARE, made)
    assert report.tier == "reference"
    assert report.provenance.method == "outside"
    assert report.provenance.oracle_seeds == ()
    assert len(report.provenance.outside_oracles) == 3
    assert dict(provenance_lines(report))["Retrained models"].startswith("from outside, weights")
    assert any("3 retrained models come from outside" in w for w in report.warnings)
    assert any("unlearned outside unlearnkit" in w for w in report.warnings)
    assert any("come from outside" in t for t in report.limits)
    assert not any("follow the recipe" in t for t in report.limits)


def test_its_numbers_are_those_of_a_model_and_oracles_made_here(made, tmp_path):
    original, retrained, other = made
    done = run_method(original, TOY, GO, "ssd")
    inside = audit(done, oracle=oracle(TOY, GO, seeds=3, cache=Cache(tmp_path)))
    truth = Oracles.from_models(retrained, request=GO)
    outside = audit(done.model, original=original, case=TOY, request=GO, oracle=truth)
    for mine, theirs in zip(outside.rows, inside.rows, strict=True):
        assert mine.metric == theirs.metric
        assert mine.estimate.value == pytest.approx(theirs.estimate.value, nan_ok=True)
    assert outside.verdict == inside.verdict
    assert other is not done.model


def test_its_cost_is_not_known_and_not_zero(made):
    report = seen(BARE, made)
    assert report.cost.seconds is report.cost.forward is report.cost.ratio is None
    assert "The cost of retraining is not known" in str(report.full())


def test_a_model_of_another_tool_can_be_audited_fast(made):
    assert seen(BARE, made, oracle=None).tier == "fast"


def test_models_of_the_user_are_left_as_they_are(made):
    original, retrained, other = made
    before = [copy.deepcopy(m.state_dict()) for m in (original, *retrained, other)]
    modes = [m.training for m in (original, *retrained, other)]
    seen(BARE, made)
    for model, was in zip((original, *retrained, other), before, strict=True):
        assert all(torch.equal(t, was[n]) for n, t in model.state_dict().items())
    assert [m.training for m in (original, *retrained, other)] == modes


def test_a_frozen_model_can_be_audited(made):
    original, retrained, other = made
    still = copy.deepcopy(other).requires_grad_(False)
    assert seen(BARE, (original, retrained, still)).tier == "reference"


def moved(model, by=0.1):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(by)
    return other


def infinite(model):
    other = moved(model)
    with torch.no_grad():
        next(other.parameters())[0] = math.inf
    return other


def wide(_):
    return nn.Sequential(nn.Linear(6, 99), nn.Tanh(), nn.Linear(99, 3))


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (lambda m: [], "list of retrained torch modules, got none"),
        (lambda m: m, "list of retrained torch modules, got Sequential"),
        (lambda m: [m.state_dict()], "list of retrained torch modules, got OrderedDict"),
        (lambda m: [m, m], "0 and 1 are the same model, bit for bit"),
        (lambda m: [m, copy.deepcopy(m)], "0 and 1 are the same model, bit for bit"),
        (lambda m: [m, infinite(m)], "model 1: .*not finite"),
        (lambda m: [m, wide(m)], "model 1 is of another architecture than model 0"),
    ],
)
def test_a_wrong_list_of_models_is_refused(models, told, made):
    with pytest.raises(InputError, match=f"from_models: .*{told}") as e:
        Oracles.from_models(models(made[1][0]), request=GO)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (lambda o, r, u: [wide(o)], "oracle 0: from outside, is of another architecture"),
        (lambda o, r, u: [r[0], o], "oracle 1: from outside, is the original itself"),
        (lambda o, r, u: [r[0], u], "oracle 1: from outside, is the audited model itself"),
    ],
)
def test_models_that_cannot_be_retrained_ones_are_refused(models, told, made):
    with pytest.raises(InputError, match=told):
        seen(BARE, made, oracle=Oracles.from_models(models(*made), request=GO))


def test_oracles_of_another_request_are_refused(made):
    with pytest.raises(InputError, match="another request"):
        seen(BARE, made, oracle=Oracles.from_models(made[1], request=Rows(0)))


def test_shared_weights_are_told(made):
    original, retrained, _ = made
    partly = moved(retrained[0])
    partly[0].load_state_dict(original[0].state_dict())
    report = seen(BARE, made, oracle=Oracles.from_models([partly, retrained[1]], request=GO))
    assert any("1 of the retrained models from outside share weights" in w for w in report.warnings)


def test_a_copied_layer_is_refused_where_the_start_is_known(made):
    original, retrained, _ = made
    partly = moved(retrained[0])
    partly[0].load_state_dict(original[0].state_dict())
    with pytest.raises(InputError, match="contaminated"):
        seen(TOY, made, oracle=Oracles.from_models([partly], request=GO))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"case": None}, r"pass case=uk.Case\(...\), original=model_before"),
        ({"original": None}, "original: pass the model before unlearning"),
        ({"request": None}, "name what must be forgotten"),
        ({"original": wide}, "original: pass the model before unlearning.*got function"),
    ],
)
def test_a_model_without_its_circumstances_is_refused(changes, told, made):
    with pytest.raises(InputError, match=told):
        seen(BARE, made, **changes)


def test_one_object_twice_is_refused(made):
    with pytest.raises(InputError, match=r"one object; .*copy.deepcopy"):
        seen(BARE, made, original=made[2])


def test_circumstances_of_what_unlearn_returned_are_refused(made):
    done = run_method(made[0], TOY, GO, "ssd")
    with pytest.raises(InputError, match="known from what unlearn returned; leave them out"):
        audit(done, case=TOY)


def test_a_model_that_is_not_finite_is_refused(made):
    original, retrained, other = made
    with pytest.raises(UnlearnkitError, match="not finite"):
        seen(BARE, (original, retrained, infinite(other)))


def test_the_strong_tier_refuses_a_model_of_another_tool(made, tmp_path):
    with pytest.raises(UnsupportedError, match="another tool unlearned the model"):
        seen(TOY, made, tier="strong", models=4, cache=Cache(tmp_path))
