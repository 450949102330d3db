"""A method that builds a new model may hand back another architecture; all that follows copes."""

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.core.errors import DivergedError, InputError
from unlearnkit.core.method import Info, Method, Need
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case
from unlearnkit.train.loop import fit


def net(width):
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


TOY = toy_case(Classification(3))
WIDE = TOY.replace(fresh=lambda: net(16))
NARROW = TOY.replace(fresh=lambda: net(7))
NEEDS = frozenset({Need.RETAIN, Need.LABELS, Need.FRESH})


class Rebuild(Method):
    """Trains what the case builds."""

    id = "rebuild"
    info = Info(
        title="x", cite="x", needs=NEEDS, tasks=frozenset({"classification"}), rebuilds=True
    )

    def apply(self, p, rt):
        student = p.fresh()
        fit(student, p.retain, p.task, p.recipe, rt, stream="rebuild")
        return student


class Stray(Rebuild):
    """Returns what the case does not build."""

    def apply(self, p, rt):
        return net(5)


@pytest.fixture(scope="module")
def original():
    return uk.train_original(WIDE).model


@pytest.fixture(scope="module")
def done(original):
    return uk.unlearn(original.half().eval(), NARROW, uk.Classes(0), Rebuild())


def test_the_result_has_the_types_of_its_factory_and_the_mode_of_the_input(done):
    assert done.model[0].weight.shape == (7, 6)
    assert done.model[0].weight.dtype == torch.float32
    assert done.original[0].weight.dtype == torch.float16
    assert not done.model.training


def test_an_audit_says_that_it_is_another_architecture(done):
    report = uk.audit(done, oracle=uk.oracle(NARROW, uk.Classes(0), seeds=2))
    row = next(r for r in report.rows if r.metric == "edit_size")
    assert row.estimate.value is None
    assert "another architecture" in row.estimate.note


def test_oracles_must_be_of_the_results_architecture(done):
    with pytest.raises(InputError, match="does not fit"):
        uk.audit(done, oracle=uk.oracle(WIDE, uk.Classes(0), seeds=2))


def test_what_the_case_does_not_build_is_refused(original):
    with pytest.raises(DivergedError, match="another architecture"):
        uk.unlearn(original, NARROW, uk.Classes(0), Stray())


def test_a_method_that_does_not_rebuild_keeps_to_the_given_architecture(original):
    with pytest.raises(InputError, match="fresh: builds another architecture"):
        uk.unlearn(original, NARROW, uk.Classes(0), "retrain")
