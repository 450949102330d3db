"""Datamodel and oracle matching: fixed points, meters, and how near to retraining they come."""

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.inference import predict
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.datamodel_matching import DatamodelMatching
from unlearnkit.methods.oracle_matching import OracleMatching
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case

GONE = uk.Rows(*range(12))
FEW = {"models": 8, "whole": 2}
LONG = {"epochs": 60, "lr": 0.01, "retain_rows": 4.0}


@pytest.fixture(scope="module")
def small():
    """Return a case whose trainings differ little by seed, its model, and mean retrained logits."""
    case = toy_case(Classification(3)).replace(fresh=lambda: nn.Linear(6, 3))
    model = uk.train_original(case).model
    outs = {}
    for name, models in (
        ("original", [uk.train_original(case, seed=s).model for s in range(16)]),
        ("oracle", uk.oracle(case, GONE, seeds=16).models),
    ):
        view = View.all(case.train)
        outs[name] = torch.stack([centred_logits(m, view, case) for m in models]).mean(0)
    return case, model, outs["oracle"] - outs["original"]


def centred_logits(model, view, case):
    out = predict(model, view, case.task, Runtime())
    return out - out.mean(1, keepdim=True)


def moved(case, model, how):
    done = uk.unlearn(model, case, GONE, how)
    view = View.all(case.train)
    return centred_logits(done.model, view, case) - centred_logits(model, view, case), done


def test_a_multiplier_of_zero_changes_nothing(small):
    case, model, _ = small
    how = DatamodelMatching.build(multiplier=0.0, attribution=FEW)
    shift, done = moved(case, model, how)
    for name, w in done.model.state_dict().items():
        torch.testing.assert_close(w, model.state_dict()[name], rtol=0, atol=1e-5)
    assert shift.abs().max() < 1e-4


@pytest.mark.parametrize(
    ("how", "left"),
    [
        pytest.param(OracleMatching.build(models=16, matching=LONG), 0.4, id="oracle"),
        pytest.param(
            DatamodelMatching.build(attribution={"models": 256}, matching=LONG),
            0.6,
            id="datamodel",
        ),
        pytest.param(
            DatamodelMatching.build(attribution={"kind": "ekfac"}, matching=LONG), 0.95, id="ekfac"
        ),
    ],
)
def test_outputs_move_towards_those_of_retraining(small, how, left):
    """What is left of the mean shift; the truth itself has noise of its own."""
    case, model, truth = small
    shift, _ = moved(case, model, how)
    assert (truth - shift).norm() < left * truth.norm()


def test_the_precomputation_has_a_meter_of_its_own_and_serves_a_second_request(small):
    case, model, _ = small
    how = DatamodelMatching.build(attribution=FEW, matching={"epochs": 1})
    one, two = (uk.unlearn(model, case, r, how) for r in (GONE, uk.Rows(20, 21)))
    assert (
        one.cost.precomputation
        == two.cost.precomputation
        == 8 * (3 * 10 * 30 + 60) + 2 * (3 * 10 * 60 + 60)
    )
    assert 0 < two.cost.work < 1000
    assert any("retrainings a request over 1, 10 or 100" in n for n in two.notes)


def test_parts_in_memory_serve_as_one_training_set(small):
    case, model, _ = small
    x, y = case.train.x, case.train.y
    parts = uk.Case.from_parts(
        forget=(x[:12], y[:12]), retain=(x[12:], y[12:]), task=case.task, fresh=case.fresh,
        recipe=case.recipe,
    )  # fmt: skip
    how = DatamodelMatching.build(attribution=FEW, matching={"epochs": 1})
    whole = uk.unlearn(model, case, GONE, how).model
    split = uk.unlearn(model, parts, None, how).model
    for name, w in whole.state_dict().items():
        torch.testing.assert_close(w, split.state_dict()[name], rtol=1e-3, atol=1e-3)


def test_a_published_target_is_the_mean_output_of_retrained_models(small):
    case = small[0]
    how = OracleMatching.build(
        models=4,
        target="mean",
        matching={"epochs": 300, "lr": 0.05, "fall": 0.98, "retain_rows": 10.0},
    )
    originals = [uk.train_original(case, seed=s).model for s in (1, 2)]
    view, apart = View.all(case.train), []
    for pair in (originals, [uk.unlearn(m, case, GONE, how).model for m in originals]):
        one, two = (centred_logits(m, view, case) for m in pair)
        apart.append((one - two).norm())
    assert apart[1] < 0.02 * apart[0]


def test_a_training_of_the_users_own_is_used_for_the_models_of_subsets(small):
    case, _, _ = small
    seen = []

    def train(model, data, seed):
        seen.append((len(data[0]), seed))
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(5):
            opt.zero_grad()
            nn.functional.cross_entropy(model(data[0]), data[1]).backward()
            opt.step()
        return model

    own = case.replace(train_model=uk.Case(
        train=(case.train.x, case.train.y), task=case.task, fresh=case.fresh, train_model=train
    ).train_model, recipe=case.recipe, train=TensorData(case.train.x, case.train.y))  # fmt: skip
    model = uk.train_original(own).model
    seen.clear()
    uk.unlearn(model, own, GONE, DatamodelMatching.build(attribution=FEW, matching={"epochs": 1}))
    assert [n for n, _ in seen] == [60] * 2 + [30] * 8
    assert len({s for _, s in seen}) == 10
