"""Influence step: the step of the algebra, its limits, and the guard."""

import pytest
import torch

import unlearnkit as uk
from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.attribution.influence import leave_out_step
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.ekfac import EkFac
from unlearnkit.methods.influence_step import InfluenceStep

GONE = uk.Rows(*range(6))


def difference(done, model):
    before = dict(model.named_parameters())
    return {n: (p - before[n]).detach() for n, p in done.model.named_parameters()}


def test_the_weights_move_by_the_step_of_the_algebra(toy):
    model, case = toy
    subject = AttributedModel.of_case(model, case, GONE)
    subject.check_trainable()
    factors = EkFac.measure(model, subject.train, case.task, Runtime())
    want = leave_out_step(subject, subject.forget, factors, 0.02, Runtime())
    how = InfluenceStep(damping=0.02, tolerance=float("inf"))
    got = difference(uk.unlearn(model, case, GONE, how), model)
    for name, step in want.items():
        torch.testing.assert_close(got[name], step.to(got[name]), rtol=1e-3, atol=1e-5)


def test_a_scale_of_zero_and_a_huge_damping_change_nothing(toy):
    model, case = toy
    for how in (InfluenceStep(scale=0.0), InfluenceStep(damping=1e12)):
        got = difference(uk.unlearn(model, case, GONE, how), model)
        assert max(float(d.abs().max()) for d in got.values()) < 1e-6


def test_a_step_that_damages_the_retain_set_is_halved_and_told(toy):
    model, case = toy
    whole = InfluenceStep(damping=1e-3, scale=8.0, tolerance=float("inf"))
    careful = whole.model_copy(update={"tolerance": 0.0})
    far = difference(uk.unlearn(model, case, GONE, whole), model)
    done = uk.unlearn(model, case, GONE, careful)
    near = difference(done, model)
    told = [n for n in done.notes if "influence_step" in n]
    assert told
    assert near["2.weight"].norm() <= 0.5 * far["2.weight"].norm() + 1e-12


@pytest.mark.parametrize("kind", ["batch_norm"])
def test_the_result_of_a_network_with_normalisation_is_finite(kind, layered):
    model, case = layered
    done = uk.unlearn(model, case, GONE, "influence_step")
    assert all(torch.isfinite(t).all() for t in done.model.state_dict().values())
