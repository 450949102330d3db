"""Evidence made of chosen or random outputs, without training anything."""

import pytest
import torch

from unlearnkit.core.evidence import Evidence, Split
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.multilabel import MultiLabel
from unlearnkit.tasks.regression import Regression

SIZES = {
    Split.FORGET: 12,
    Split.RETAIN: 25,
    Split.HELD_OUT: 14,
    Split.TEST: 20,
    Split.TEST_FORGET: 6,
    Split.CORRECTED: 12,
    Split.SHUFFLED: 12,
    Split.CANDIDATES: 10,
    Split.AFFECTED: 9,
    Split.AIMED: 9,
    Split.ELSEWHERE: 11,
}
TASKS = {"classification": Classification, "multilabel": MultiLabel, "regression": Regression}


def random_parts(
    *, task="classification", width=3, oracles=2, sizes=SIZES, seed=0, shape=None, targets=None
):
    """Return outputs and targets: all models random around a common answer."""
    rng = torch.Generator().manual_seed(seed)
    names = ["original", "unlearned", *(f"oracle/{k}" for k in range(oracles))]
    names += [f"random/{k}" for k in range(5)]
    if task == "classification":
        y = {s: torch.randint(0, width, (n,), generator=rng) for s, n in sizes.items()}
    elif task == "multilabel":
        y = {s: torch.randint(0, 2, (n, width), generator=rng).float() for s, n in sizes.items()}
    else:
        y = {s: torch.randn(n, width, generator=rng) for s, n in sizes.items()}
    y |= targets or {}
    shape = shape or (lambda z: z)
    base = {s: torch.randn(n, width, generator=rng) for s, n in sizes.items()}
    outputs = {
        name: {s: shape(base[s] + torch.randn(n, width, generator=rng)) for s, n in sizes.items()}
        for name in names
    }
    return outputs, y, TASKS[task](width)


@pytest.fixture
def parts():
    return random_parts


@pytest.fixture
def make():
    """Return a builder of evidence from the arguments of ``random_parts``."""

    def build(**settings):
        return Evidence.from_outputs(*random_parts(**settings), Runtime())

    return build


@pytest.fixture
def stored():
    """Return a builder of evidence from outputs, targets and task."""

    def build(outputs, targets, task):
        return Evidence.from_outputs(outputs, targets, task, Runtime())

    return build
