"""Many models trained together against the same models one after another."""

from collections.abc import Iterator

from torch import nn

from benchmarks.measure import Fact, against
from unlearnkit.cases.digits import digits
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.ensemble import EnsembleMember, fit_each, fit_together
from unlearnkit.unlearning.run_method import fresh_model


def run() -> Iterator[Fact]:
    """Yield the ratios for 128 perceptrons and for 64 small convolutional nets on digits."""
    yield compare("perceptrons 64-128-10", digits(), 128, epochs=3, goal=0.1)
    yield compare("convolutional nets", digits().replace(fresh=conv_bn), 64, epochs=1, goal=1 / 3)


def conv_bn() -> nn.Module:
    """Return two convolutions with batch normalisation, 8 and 16 filters, and a linear head."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def compare(what: str, case: Case, count: int, *, epochs: int, goal: float) -> Fact:
    """Return the time of ``count`` models together over the time of as many in turn."""
    assert case.recipe is not None
    assert case.train is not None
    recipe = case.recipe.model_copy(update={"epochs": epochs})
    view = View.all(case.train)

    def members() -> list[EnsembleMember]:
        rts = [Runtime(seed=seed) for seed in range(count)]
        made = [fresh_model(case, rt, "train/init") for rt in rts]
        return [
            EnsembleMember(m, view, rt, f"oracle {rt.seed}")
            for m, rt in zip(made, rts, strict=True)
        ]

    return against(
        f"{count} {what} together against one after another",
        lambda: list(fit_together(members(), case.task, recipe)),
        lambda: fit_each(members(), case.task, recipe),
        pairs=3,
        goal=goal,
        how=f"{len(view)} rows, batch {recipe.batch_size}, {epochs} epochs",
    )
