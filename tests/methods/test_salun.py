import pytest
import torch

from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.request import Rows
from unlearnkit.localize.localizer import Localizer
from unlearnkit.methods.relabel import Relabel
from unlearnkit.methods.salun import SalUn
from unlearnkit.unlearning.run_method import run_method

ASK = Rows(*range(11))
PLAIN = FineTuneSchedule.exact(lr=0.05, momentum=0.9, weight_decay=5e-2, epochs=3, batch_size=16)


@pytest.mark.parametrize("run", [FineTuneSchedule(share=0.2), PLAIN])
@pytest.mark.parametrize("targets", ["uniform", "runner_up"])
@pytest.mark.parametrize("passes", ["mixed", "in turn"])
def test_with_everything_free_it_is_relabelling(toy, run, targets, passes):
    model, case = toy
    how = {"targets": targets, "passes": passes, "run": run}
    everything = Localizer(budget=1, criterion="grad", granularity="parameter")
    got = run_method(model, case, ASK, SalUn(mask=everything, **how)).model
    want = run_method(model, case, ASK, Relabel(**how)).model
    assert all(torch.equal(a, b) for a, b in zip(got.parameters(), want.parameters(), strict=True))


def test_it_is_relabelling_under_the_mask_of_the_largest_gradients(toy):
    model, case = toy
    how = Localizer(budget=0.5, criterion="grad", granularity="parameter")
    mask = how.find(model, case, ASK)
    got = run_method(model, case, ASK, SalUn(mask=how)).model
    want = run_method(model, case, ASK, Relabel(), mask=mask).model
    for (name, a), b, c in zip(
        got.named_parameters(), want.parameters(), model.parameters(), strict=True
    ):
        assert torch.equal(a, b)
        assert torch.equal(a[~mask.chosen[name]], c[~mask.chosen[name]])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_half_of_the_scalars_keep_every_bit_under_weight_decay(toy, optimizer):
    model, case = toy
    run = FineTuneSchedule.exact(
        optimizer=optimizer, lr=0.02, momentum=0.9, weight_decay=0.05, epochs=4, batch_size=16
    )
    done = run_method(model, case, ASK, SalUn(run=run, early=1)).model
    pairs = zip(done.parameters(), model.parameters(), strict=True)
    changed = sum(int((a != b).sum()) for a, b in pairs)
    total = sum(p.numel() for p in model.parameters())
    assert 0.45 * total < changed <= total // 2
