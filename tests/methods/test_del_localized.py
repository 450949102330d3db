import pytest
import torch
from torch import nn

from unlearnkit.core.case import Case
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.recipe import FineTuneSchedule, Recipe
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.localize.localizer import Localizer
from unlearnkit.methods.del_localized import DelLocalized
from unlearnkit.methods.finetune import FineTune
from unlearnkit.oracles import oracle, train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case
from unlearnkit.train.teachers import untrained_teacher
from unlearnkit.unlearning.run_method import fresh_model, run_method

ASK = Rows(*range(11))
HALF = Localizer(budget=0.5, granularity="parameter")
STILL = FineTuneSchedule(share=0)


def chosen(model, case, how=HALF):
    return how.find(model, case, ASK).chosen


def reset_only(model, case, seed=0, **settings):
    how = DelLocalized(mask=HALF, run=STILL, **settings)
    return run_method(model, case, ASK, how, Runtime(seed=seed)).model


def check_values(model, case, got, want):
    """Check that scalars of the mask have wanted values, and the others those of the model."""
    mask = chosen(model, case)
    given = dict(model.named_parameters())
    for name, p in got.named_parameters():
        torch.testing.assert_close(p[mask[name]], want[name][mask[name]], rtol=1e-6, atol=1e-7)
        assert torch.equal(p[~mask[name]], given[name][~mask[name]])


def test_a_fresh_reset_has_the_values_of_the_runs_draw(toy):
    model, case = toy
    drawn = dict(
        untrained_teacher(model, Runtime(seed=3), "del_localized/reset").named_parameters()
    )
    check_values(model, case, reset_only(model, case, seed=3, reset="fresh"), drawn)


def test_the_draw_depends_on_the_seed_alone(toy):
    model, case = toy
    one, same, other = (reset_only(model, case, seed=s)[0].weight for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_other_resets_are_zero_initial_mixed_and_none(toy):
    model, case = toy
    given = dict(model.named_parameters())
    drawn = dict(untrained_teacher(model, Runtime(), "del_localized/reset").named_parameters())
    built = dict(fresh_model(case, Runtime()).named_parameters())
    wanted = {
        "zero": {n: torch.zeros_like(p) for n, p in given.items()},
        "initial": built,
        "interpolate": {n: 0.7 * p + 0.3 * drawn[n] for n, p in given.items()},
        "none": given,
    }
    for reset, want in wanted.items():
        check_values(model, case, reset_only(model, case, reset=reset, keep=0.7), want)


def test_a_reset_alone_loses_accuracy(toy):
    model, case = toy
    x, y = case.train.x, case.train.y
    fresh = reset_only(model, case, reset="fresh")
    before, after = (float((m(x).argmax(1) == y).double().mean()) for m in (model, fresh))
    assert after < before - 0.1


@pytest.mark.parametrize(
    "run",
    [
        FineTuneSchedule(share=0.2),
        FineTuneSchedule.exact(lr=0.05, momentum=0.9, weight_decay=5e-2, epochs=3, batch_size=16),
        FineTuneSchedule.exact(
            optimizer="adam", lr=0.05, weight_decay=5e-2, epochs=3, batch_size=16
        ),
    ],
)
@pytest.mark.parametrize("head", ["none", "auto", ("0",)])
def test_only_the_mask_and_the_head_move(toy, run, head):
    model, case = toy
    done = run_method(model, case, ASK, DelLocalized(mask=HALF, head=head, run=run)).model
    mask, layer = chosen(model, case), {"none": "?", "auto": "2."}.get(head, "0.")
    given = dict(model.named_parameters())
    for name, p in done.named_parameters():
        free = torch.ones_like(mask[name]) if name.startswith(layer) else mask[name]
        assert torch.equal(p != given[name], free), name


def test_no_reset_and_everything_free_is_fine_tuning(toy):
    model, case = toy
    run = FineTuneSchedule(share=0.2)
    how = DelLocalized(mask=Localizer(budget=1), reset="none", run=run)
    got, want = (run_method(model, case, ASK, m).model for m in (how, FineTune(run=run)))
    assert all(torch.equal(a, b) for a, b in zip(got.parameters(), want.parameters(), strict=True))


@pytest.mark.parametrize("norm", ["keep", "reset", "recalibrate"])
def test_statistics_are_kept_reset_or_those_of_the_retained_rows(layered, norm):
    model, case = layered
    how = DelLocalized(mask=HALF, run=STILL, norm=norm, batch_norm="keep")
    done = run_method(model, case, ASK, how).model
    with torch.no_grad():
        seen = done[0](case.train.x[11:])
    want = {
        "keep": (model[1].running_mean, model[1].running_var),
        "reset": (torch.zeros(16), torch.ones(16)),
        "recalibrate": (seen.mean(0), seen.var(0)),
    }[norm]
    # recalibration averages over batches: means agree up to their unequal sizes
    loose = {"rtol": 0.2, "atol": 0.2} if norm == "recalibrate" else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(done[1].running_mean, want[0], **loose)
    torch.testing.assert_close(done[1].running_var, want[1], **loose)
    assert done[1].momentum == model[1].momentum


def test_the_head_is_the_layer_called_last():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(8, 3)
            self.body = nn.Linear(6, 8)

        def forward(self, x):
            return self.head(torch.relu(self.body(x)))

    case = toy_case(Classification(3)).replace(fresh=Backwards)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Backwards()
    how = DelLocalized(
        mask=Localizer(budget=0.05, criterion="deepest", granularity="parameter"),
        run=FineTuneSchedule(share=0.1),
    )
    done = run_method(model, case, ASK, how).model
    assert bool((done.head.weight != model.head.weight).all())
    same = (done.body.weight == model.body.weight).double().mean()
    assert 0.8 < same < 1


def test_what_is_missing_is_named(toy):
    model, case = toy
    with pytest.raises(InputError, match="head 'fc' is no layer with parameters; there are: 0, 2"):
        run_method(model, case, ASK, DelLocalized(head=("fc",)))
    with pytest.raises(UnsupportedError, match="needs a model factory"):
        run_method(model, case.replace(fresh=None), ASK, DelLocalized(reset="initial"))

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(6, 3))

        def forward(self, x):
            return x @ self.w

    with pytest.raises(InputError, match="give head 'none'"):
        run_method(Bare(), case, ASK, DelLocalized())


def parts_of_two_classes(seed):
    """Return three clouds a class, and a request for one of two clouds of classes 0 and 1."""
    g = torch.Generator().manual_seed(seed)
    centre = 3 * torch.randn(12, 8, generator=g)
    cloud = torch.arange(360) % 12

    def draw():
        return centre[cloud] + torch.randn(360, 8, generator=g), cloud % 4

    def fresh():
        return nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 4))

    case = Case(
        train=draw(),
        test=draw(),
        task=Classification(4),
        fresh=fresh,
        recipe=Recipe(lr=0.05, momentum=0.9, epochs=30, batch_size=32, schedule="cosine"),
    )
    return case, Rows(torch.isin(cloud, torch.tensor([0, 1])).nonzero()[:, 0])


def test_part_of_two_classes_is_forgotten_better_than_with_a_random_mask():
    gaps = {"original": 0.0, "weighted_grad": 0.0, "random": 0.0}
    kept = []
    for seed in range(3):
        case, ask = parts_of_two_classes(seed)
        rows = case.partition(ask)
        model = train_original(case, rt=Runtime(seed=seed)).model
        truth = oracle(case, ask, seeds=2).models

        def accuracy(net, view, case=case):
            hit = net(case.train.x[view.rows]).argmax(1) == case.train.y[view.rows]
            return float(hit.double().mean())

        goal = sum(accuracy(m, rows.forget) for m in truth) / len(truth)
        gaps["original"] += abs(accuracy(model, rows.forget) - goal)
        for criterion in ("weighted_grad", "random"):
            how = DelLocalized(
                mask=Localizer(criterion=criterion), run=FineTuneSchedule(lr=4.0, share=0.15)
            )
            done = run_method(model, case, ask, how, Runtime(seed=seed)).model
            gaps[criterion] += abs(accuracy(done, rows.forget) - goal)
            if criterion == "weighted_grad":
                kept.append(accuracy(done, rows.retain) - accuracy(truth[0], rows.retain))
    assert gaps["weighted_grad"] < gaps["original"], gaps
    assert gaps["weighted_grad"] <= gaps["random"], gaps
    assert min(kept) > -0.01
