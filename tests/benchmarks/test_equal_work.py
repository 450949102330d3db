"""The plain loops of the benchmark at equal work do what our methods do."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.equal_work import METHODS, NEAR, Problem, checked
from benchmarks.plain_loops import Settings
from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Recipe
from unlearnkit.tasks.classification import Classification

SETTINGS = Settings(epochs=3, batch_size=16, forget_epochs=2, decay_after=2)
ROWS, DROP = 150, 15


def perceptron():
    return nn.Sequential(nn.Flatten(), nn.Linear(27, 12), nn.ReLU(), nn.Linear(12, 10))


def convolution():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 10)
    )


def problem(network):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 3, 3, 3, generator=rng)
    case = Case(
        train=(x, torch.arange(ROWS) % 10),
        task=Classification(10),
        fresh=network,
        recipe=Recipe(epochs=2, batch_size=16),
    )
    return Problem.make(case, SETTINGS)


@pytest.mark.parametrize("network", [perceptron, convolution])
@pytest.mark.parametrize("name", METHODS)
def test_a_loop_makes_the_same_row_passes_and_ends_where_the_method_ends(name, network):
    _, apart = checked(problem(network), name)
    assert apart < NEAR / 100


@pytest.mark.parametrize(
    ("loop", "backward", "read"),
    [
        ("scrub", 2 * DROP + 3 * (ROWS - DROP), 2 * DROP + 3 * (ROWS - DROP)),
        ("ssd", ROWS + DROP, 0),
        ("salun", DROP + 3 * ROWS, 0),
        ("localized", DROP + 3 * (ROWS - DROP), 0),
    ],
)
def test_a_loop_reads_the_rows_of_its_schedule_and_moves_the_model(loop, backward, read):
    given = problem(convolution)
    model, passes = given.theirs(loop)
    assert (passes.backward, passes.read) == (backward, read)
    before = given.model.state_dict()
    moved = max(float((t - before[n]).abs().max()) for n, t in model.state_dict().items())
    assert moved > 1e-3


@pytest.mark.parametrize("name", ["scrub", "ssd", "salun", "del_localized"])
def test_a_comparison_of_unlike_settings_is_refused(name):
    given = problem(perceptron)
    other = replace(SETTINGS, lr=0.02, dampening=0.5)
    with pytest.raises(AssertionError, match=r"weight|bias"):
        checked(replace(given, settings=other), name, method=METHODS[name][1](SETTINGS))
