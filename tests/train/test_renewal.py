"""Starting between a model and an untrained one."""

import pytest
import torch

from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.request import Classes
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.relabel_restart import RelabelRestart
from unlearnkit.methods.shrink_perturb import ShrinkPerturb
from unlearnkit.oracles import train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case
from unlearnkit.unlearning.run_method import fresh_model, run_method

STILL = {"run": {"share": 0.0}}
"""No step is taken: what comes out is the start."""


@pytest.fixture(scope="module")
def toy():
    case = toy_case(Classification(3))
    return train_original(case).model, case


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_start_is_the_weighted_mean_of_both_models(toy, share):
    model, case = toy
    rt = Runtime(seed=4)
    done = run_method(model, case, Classes(1), ShrinkPerturb.build(renew=share, **STILL), rt)
    untrained = dict(fresh_model(case, rt).named_parameters())
    for name, w in done.model.named_parameters():
        old = dict(model.named_parameters())[name]
        want = (1 - share) * old + share * untrained[name]
        torch.testing.assert_close(w, want, rtol=0, atol=1e-6)


def test_frozen_parameters_stay_as_they_are(toy):
    _, case = toy
    model = train_original(case).model
    model[0].requires_grad_(False)
    done = run_method(model, case, Classes(1), ShrinkPerturb.build(renew=0.5, **STILL))
    assert torch.equal(done.model[0].weight, model[0].weight)
    assert not torch.equal(done.model[2].weight, model[2].weight)


def test_without_a_model_factory_it_is_refused_and_without_renewal_none_is_needed(toy):
    model, case = toy
    bare = case.replace(fresh=None)
    with pytest.raises(UnsupportedError, match=r"renew: .* the case gives no model factory"):
        run_method(model, bare, Classes(1), RelabelRestart.build(renew=0.1))
    run_method(model, bare, Classes(1), RelabelRestart.build(renew=0.0))
