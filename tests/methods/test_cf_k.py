"""CF-k: between nothing and fine-tuning, with earlier layers held in every bit."""

import copy

import pytest
import torch
from torch import nn

from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.request import Rows
from unlearnkit.methods.cf_k import CFk
from unlearnkit.methods.finetune import FineTune
from unlearnkit.unlearning.run_method import run_method

GO = Rows(0, 7, 9)
RUN = FineTuneSchedule(lr=0.7, share=0.3)


def moved(done, model):
    """Return the names of parameters and buffers whose bits changed."""
    was = model.state_dict()
    return {n for n, t in done.model.state_dict().items() if not torch.equal(t, was[n])}


def of_layers(model, *names):
    return {n for n in model.state_dict() if n.rpartition(".")[0] in names}


def test_all_layers_are_fine_tuning_bit_for_bit(layered):
    model, case = layered
    want = run_method(model, case, GO, FineTune(run=RUN)).model.state_dict()
    got = run_method(model, case, GO, CFk(layers=2, run=RUN)).model.state_dict()
    assert all(torch.equal(got[n], want[n]) for n in want)


@pytest.mark.parametrize("run", [{"lr": 0.0}, {"share": 0.0}], ids=str)
def test_a_rate_of_zero_changes_nothing(layered, run):
    model, case = layered
    assert moved(run_method(model, case, GO, CFk.build(layers=2, run=run)), model) == set()


@pytest.mark.parametrize("batch_norm", ["recalibrate", "keep"])
@pytest.mark.parametrize("training", [True, False])
def test_earlier_layers_keep_their_bits_statistics_included(layered, batch_norm, training):
    model, case = layered
    given = copy.deepcopy(model).train(training)
    done = run_method(given, case, GO, CFk(run=RUN, batch_norm=batch_norm))
    assert moved(done, model) == of_layers(model, "4.0")
    assert {m.training for m in done.model.modules()} == {training}
    assert all(p.requires_grad for p in done.model.parameters())


def test_normalisation_goes_with_the_layer_before_it(normed_digits):
    model, case = normed_digits
    run = FineTuneSchedule.exact(lr=0.01, epochs=1, batch_size=256)
    done = run_method(model, case, GO, CFk(layers=3, run=run))
    assert moved(done, model) == of_layers(model, "6", "7", "9", "10", "14")


def test_it_is_fine_tuning_of_a_model_whose_earlier_layers_the_owner_froze(layered):
    model, case = layered
    frozen = copy.deepcopy(model).train()
    frozen[0].requires_grad_(False)
    frozen[1].requires_grad_(False).eval()
    want = run_method(frozen, case, GO, FineTune(run=RUN))
    got = run_method(model, case, GO, CFk(run=RUN))
    assert moved(want, model) == of_layers(model, "4.0")
    assert all(map(torch.equal, got.model.parameters(), want.model.parameters()))
    assert got.cost.work == want.cost.work > 0


def test_by_default_a_run_costs_under_a_fifth_of_retraining(layered):
    model, case = layered
    case = case.replace(recipe=case.recipe.model_copy(update={"epochs": 60}))
    full = 3 * 60 * len(case.partition(GO).retain)
    assert 0.14 * full < run_method(model, case, GO, CFk()).cost.work <= 0.2 * full


def test_a_number_of_layers_out_of_range_is_refused(layered):
    model, case = layered
    with pytest.raises(InputError, match=r"cf_k: layers: .*greater than or equal to 1, got 0"):
        CFk.build(layers=0)
    with pytest.raises(InputError, match=r"cf_k: layers: got 3, and the model has 2"):
        run_method(model, case, GO, CFk(layers=3))


def test_a_model_of_one_layer_is_fine_tuned(clouds):
    model, case = clouds()
    assert isinstance(model, nn.Linear)
    want = run_method(model, case, GO, FineTune(run=RUN)).model
    got = run_method(model, case, GO, CFk(run=RUN)).model
    assert torch.equal(got.weight, want.weight)
