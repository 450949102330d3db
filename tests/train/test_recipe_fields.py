"""What a recipe can say: schedules, clipping, losses, samplers, augmentations."""

import json

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, SequentialLR, StepLR
from torch.utils.data import Dataset

from unlearnkit.cache import Cache
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.digest import digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import FineTuneSchedule, Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import original_key, train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression
from unlearnkit.train.ensemble import EnsembleMember, StackProbe, fit_each, fit_together
from unlearnkit.train.loop import fit
from unlearnkit.train.training_task import draw_balanced
from unlearnkit.unlearning.run_method import run_method

RNG = torch.Generator().manual_seed(0)
X = torch.randn(46, 6, generator=RNG, dtype=torch.float64)
Y = torch.cat([torch.zeros(30), torch.ones(10), torch.full((6,), 2)]).long()


def net():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def jitter(x, rng):
    return x + 0.1 * torch.randn(x.shape, generator=rng, dtype=x.dtype)


def first_half(y, rng):
    return torch.randint(0, len(y) // 2, (len(y),), generator=rng)


def case(recipe, **more):
    return Case(
        **{"train": (X, Y), "task": Classification(3), "fresh": net, "recipe": recipe, **more}
    )


FIELDS = {
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
    "step": {"schedule": "step", "step_epochs": 2, "step_factor": 0.3},
    "linear": {"schedule": "linear"},
    "warm-up": {"schedule": "cosine", "warmup_epochs": 1.5},
    "clip": {"clip_norm": 0.05},
    "smoothing": {"label_smoothing": 0.2},
    "weights": {"class_weights": (0.5, 1.0, 4.0)},
    "both": {"class_weights": (0.5, 1.0, 4.0), "label_smoothing": 0.2, "clip_norm": 0.5},
    "balanced": {"sampler": "balanced"},
    "own sampler": {"sampler": first_half},
    "own augmentation": {"augment": jitter},
}


def members(recipe, data, count=3):
    out = []
    for seed in range(count):
        torch.manual_seed(seed)
        out.append(EnsembleMember(net(), View.all(data), Runtime(seed=seed), f"member {seed}"))
    return out


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_models_trained_together_are_those_trained_alone(fields):
    recipe = Recipe(**{"lr": 0.1, "epochs": 5, "batch_size": 10, **fields})
    subject = case(recipe)
    alone, together = members(recipe, subject.train), members(recipe, subject.train)
    assert StackProbe.of(together, subject.task, recipe) is not None
    fit_each(alone, subject.task, recipe)
    assert len(next(fit_together(together, subject.task, recipe))) == 3
    plain = members(recipe, subject.train)
    fit_each(plain, subject.task, Recipe(lr=0.1, epochs=5, batch_size=10))
    for a, b, other in zip(alone, together, plain, strict=True):
        torch.testing.assert_close(a.model[0].weight, b.model[0].weight, rtol=1e-9, atol=1e-12)
        assert not torch.allclose(a.model[0].weight, other.model[0].weight, rtol=1e-4)


def by_hand(recipe, schedule, *, loss=None, clip=None, epochs=6):
    """Return weights of a loop as people write it, on the rows in the recipe's order."""
    rt, model = Runtime(), start()
    loss = loss or nn.CrossEntropyLoss()
    opt = recipe.build(list(model.parameters()))
    steps = schedule(opt)
    for epoch in range(epochs):
        for rows in View.all(case(recipe).train).shuffled_rows(rt, f"s/{epoch}").split(10):
            opt.zero_grad()
            loss(model(X[rows]), Y[rows]).backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            opt.step()
            steps.step()
    return model


def start():
    torch.manual_seed(0)
    return net()


def constant(opt):
    return StepLR(opt, 10**6)


TORCH = {
    "StepLR": (
        {"schedule": "step", "step_epochs": 2, "step_factor": 0.3},
        {"schedule": lambda opt: StepLR(opt, 2 * 5, 0.3)},
    ),
    "warm-up, then cosine": (
        {"schedule": "cosine", "warmup_epochs": 2},
        {
            "schedule": lambda opt: SequentialLR(
                opt,
                [
                    torch.optim.lr_scheduler.LambdaLR(opt, lambda s: (s + 1) / 10),
                    CosineAnnealingLR(opt, 20),
                ],
                [10],
            )
        },
    ),
    "linear": (
        {"schedule": "linear"},
        {"schedule": lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda s: 1 - s / 30)},
    ),
    "AdamW": ({"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1}, {"schedule": constant}),
    "clipping": ({"clip_norm": 0.05}, {"schedule": constant, "clip": 0.05}),
    "label smoothing": (
        {"label_smoothing": 0.2},
        {"schedule": constant, "loss": nn.CrossEntropyLoss(label_smoothing=0.2)},
    ),
    "class weights": (
        {"class_weights": (0.5, 1.0, 4.0)},
        {"schedule": constant, "loss": nn.CrossEntropyLoss(torch.tensor([0.5, 1, 4.0]).double())},
    ),
    "both": (
        {"class_weights": (0.5, 1.0, 4.0), "label_smoothing": 0.2},
        {
            "schedule": constant,
            "loss": nn.CrossEntropyLoss(torch.tensor([0.5, 1, 4.0]).double(), label_smoothing=0.2),
        },
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_a_recipe_trains_what_torch_trains(name):
    fields, theirs = TORCH[name]
    recipe = Recipe(**{"lr": 0.1, "epochs": 6, "batch_size": 10, **fields})
    model = start()
    subject = case(recipe)
    fit(model, View.all(subject.train), subject.task, recipe, Runtime(), stream="s")
    other = by_hand(recipe, **theirs)
    for mine, want in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-9, atol=1e-12)


def test_balanced_draws_give_each_class_the_same_share():
    y = torch.cat([torch.zeros(9000), torch.ones(900), torch.full((100,), 2)]).long()
    share = torch.bincount(y[draw_balanced(y, torch.Generator().manual_seed(0))]) / len(y)
    # One draw has variance 2/9: the standard error of a share of 10,000 draws is 0.0047.
    torch.testing.assert_close(share, torch.full((3,), 1 / 3), rtol=0, atol=4 * 0.0047)


@pytest.mark.parametrize("name", [n for n in FIELDS if n != "adamw"])
def test_each_field_is_part_of_the_address(name):
    plain, other = Recipe(lr=0.1), Recipe(**{"lr": 0.1, **FIELDS[name]})
    keys = [digest(original_key(case(r), 0, Runtime())) for r in (plain, other, other)]
    assert keys[0] != keys[1]
    assert keys[1] == keys[2]


def test_functions_that_differ_in_code_or_closure_differ_in_address():
    def shifted(by):
        return lambda x, rng: x + by

    keys = {digest(original_key(case(Recipe(augment=shifted(k))), 0, Runtime())) for k in (1, 2)}
    assert len(keys) == 2


def test_what_was_kept_before_these_fields_keeps_its_address():
    assert set(Recipe().model_dump()) == {
        *("optimizer", "lr", "momentum", "weight_decay"),
        *("schedule", "epochs", "batch_size", "augment"),
    }
    assert Recipe.model_validate_json(Recipe(clip_norm=2.0).model_dump_json()).clip_norm == 2.0


def test_a_recipe_with_a_function_is_written_by_name_and_content():
    told = json.loads(Recipe(augment=jitter).model_dump_json())["augment"]
    assert told["function"] == "jitter"
    assert len(told["content"]) == 64


@pytest.mark.parametrize("field", ["augment", "sampler"])
def test_a_function_that_cannot_be_read_is_refused_for_the_cache(field, tmp_path):
    state = torch.Generator()
    recipe = Recipe(**{field: lambda x, rng: (state, x)[1]})
    with pytest.raises(InputError, match=rf"what {field} trains cannot be cached.*train_model"):
        train_original(case(recipe), cache=Cache(tmp_path))


class Pairs(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], int(Y[i])


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_a_data_set_trains_what_tensors_train(fields):
    recipe = Recipe(**{"lr": 0.1, "epochs": 2, "batch_size": 10, **fields})
    models = []
    for train in ((X, Y), Pairs()):
        subject = case(recipe, train=train)
        models.append(start())
        fit(models[-1], View.all(subject.train), subject.task, recipe, Runtime(), stream="s")
    torch.testing.assert_close(models[0][0].weight, models[1][0].weight, rtol=1e-9, atol=1e-12)


def test_runs_of_methods_start_without_a_warm_up():
    own = Recipe(warmup_epochs=3, epochs=20, clip_norm=1.0)
    assert FineTuneSchedule().resolve(own).warmup_epochs == 0
    assert FineTuneSchedule().resolve(own).clip_norm == 1.0


@pytest.mark.parametrize("method", ["finetune", "retrain", "neggrad_plus"])
def test_methods_run_on_a_case_with_every_field(method):
    fields = {
        **FIELDS["warm-up"],
        **FIELDS["both"],
        **FIELDS["balanced"],
        **FIELDS["own augmentation"],
    }
    subject = case(Recipe(**{"lr": 0.05, "epochs": 4, "batch_size": 10, **fields}))
    done = run_method(start(), subject, {"kind": "rows", "rows": [0, 1]}, method)
    assert not torch.equal(done.model[0].weight, done.original[0].weight)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"mixup": 0.2}, "'mixup'.*Case\\(train_model=fn\\)"),
        ({"optimizer": "lion"}, "optimizer: .*'lion'.*Case\\(train_model=fn\\)"),
        ({"schedule": "one_cycle"}, "schedule: .*Case\\(train_model=fn\\)"),
        ({"clip_norm": 0}, "clip_norm: .*greater than 0"),
        ({"label_smoothing": 1.0}, "label_smoothing: .*less than 1"),
    ],
)
def test_what_a_recipe_cannot_say_is_answered_with_train_model(fields, told):
    with pytest.raises(InputError, match=told):
        Recipe(**fields)


def real(recipe):
    return Case(
        train=(X, X[:, :1]),
        task=Regression(1),
        recipe=recipe,
        fresh=lambda: nn.Linear(6, 1).double(),
    )


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        (lambda: case(Recipe(class_weights=(1.0, 2.0))), r"one finite number.*\(3\), got 2"),
        (lambda: case(Recipe(class_weights=(1.0, 2.0, -1.0))), "from 0 up"),
        (lambda: real(Recipe(label_smoothing=0.1)), "for a classification, not regression"),
        (lambda: real(Recipe(sampler="balanced")), "needs one class a row"),
        (lambda: case(Recipe(sampler=lambda y, rng: y[:2])), "must return 46 positions"),
        (lambda: case(Recipe(sampler=lambda y, rng: y - 1)), "must return 46 positions"),
    ],
)
def test_what_does_not_fit_the_task_is_refused(subject, told, tmp_path):
    with pytest.raises(InputError, match=told):
        train_original(subject(), cache=Cache(tmp_path))
