"""What holds of all baselines: limits that are fine-tuning, and forget sets that are hard."""

import pytest
import torch
from torch import nn

from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.request import Classes, Groups, Rows
from unlearnkit.methods.cf_k import CFk
from unlearnkit.methods.eu_k import EUk
from unlearnkit.methods.finetune import FineTune
from unlearnkit.methods.gradient_ascent import GradientAscent
from unlearnkit.methods.l1_sparse import L1Sparse
from unlearnkit.methods.neggrad_plus import NegGradPlus
from unlearnkit.methods.relabel import Relabel
from unlearnkit.methods.retrain import Retrain
from unlearnkit.methods.scrub import Scrub
from unlearnkit.methods.ssd import SSD
from unlearnkit.tasks.multilabel import MultiLabel
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case
from unlearnkit.unlearning.run_method import run_method

RUN = FineTuneSchedule(lr=0.7, share=0.3)
ALL = [Retrain, FineTune, GradientAscent, NegGradPlus, Relabel, L1Sparse, Scrub, SSD, CFk, EUk]

FINE_TUNING = {
    "neggrad_plus without balance": NegGradPlus(balance=0),
    "l1_sparse without penalty": L1Sparse(penalty=0, step="subgradient"),
    "l1_sparse at rest": L1Sparse(penalty=1, step="subgradient", rest=1),
    "l1_sparse proximal without penalty": L1Sparse(penalty=0, step="proximal"),
    "scrub without forget epochs and distillation": Scrub(
        retain_loss=1,
        retain_divergence=0,
        early=0,
    ),
    "neggrad_plus without early steps": NegGradPlus(balance=0.5, early=0),
    "relabel without early epochs": Relabel(early=0),
    "cf_k of all layers": CFk(layers=2),
}


@pytest.mark.parametrize("how", FINE_TUNING.values(), ids=FINE_TUNING.keys())
def test_the_limit_is_fine_tuning_bit_for_bit(layered, how):
    model, case = layered
    how = how.model_copy(update={"run": RUN})
    want = run_method(model, case, Rows(0, 7, 9), FineTune(run=RUN)).model.state_dict()
    got = run_method(model, case, Rows(0, 7, 9), how).model.state_dict()
    assert all(torch.equal(got[name], want[name]) for name in want)
    assert not torch.equal(got["0.weight"], model.state_dict()["0.weight"])


@pytest.mark.parametrize("kind", [NegGradPlus, Relabel, L1Sparse, Scrub], ids=lambda k: k.id)
@pytest.mark.parametrize("request_", [Rows(0, 7, 9), Classes(2)], ids=str)
def test_by_default_the_cost_is_what_was_asked(layered, kind, request_):
    model, case = layered
    case = case.replace(recipe=case.recipe.model_copy(update={"epochs": 60}))
    full = 3 * 60 * len(case.partition(request_).retain)
    cost = run_method(model, case, request_, kind()).cost.work
    assert 0.14 * full < cost <= 0.2 * full


@pytest.mark.parametrize("request_", [Rows(3), Rows(1, 2, 3), Classes(2), Groups(4)], ids=str)
@pytest.mark.parametrize("kind", ALL, ids=lambda k: k.id)
def test_small_requests_work_with_batch_normalisation_and_dropout(layered, kind, request_):
    model, case = layered
    done = run_method(model, case, request_, kind.build(**kind.info.smoke))
    pairs = zip(done.model.parameters(), model.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("task", [MultiLabel(3), Regression(2)], ids=lambda t: t.name)
@pytest.mark.parametrize("kind", ALL, ids=lambda k: k.id)
def test_other_tasks_than_classification_are_served(kind, task):
    case = toy_case(task)
    model = case.fresh()
    done = run_method(model, case, Rows(0, 1, 2, 3, 4), kind.build(**kind.info.smoke))
    pairs = zip(done.model.parameters(), model.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("kind", "preset"),
    [pytest.param(k, name, id=f"{k.id}-{name}") for k in ALL for name in k.info.presets],
)
def test_presets_run_and_survive_json(toy, kind, preset):
    model, case = toy
    how = kind.build(preset)
    assert kind.model_validate_json(how.model_dump_json()) == how
    done = run_method(model, case, Rows(0, 1, 2), how)
    assert done.cost.forward > 0


@pytest.mark.parametrize("kind", [k for k in ALL if k not in {Retrain, EUk}], ids=lambda k: k.id)
def test_tied_weights_stay_tied(toy, kind):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 6)
            self.b = nn.Linear(6, 6)
            self.b.weight = self.a.weight
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(torch.tanh(self.b(torch.tanh(self.a(x)))))

    _, case = toy
    torch.manual_seed(0)
    got = run_method(Tied(), case, Classes(1), kind.build(**kind.info.smoke)).model
    assert got.a.weight is got.b.weight
