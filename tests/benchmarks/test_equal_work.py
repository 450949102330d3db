"""The plain loops of the benchmark at equal work do what our methods do."""

from dataclasses import replace

import pytest

from benchmarks.equal_work import METHODS, NEAR, Problem, checked
from benchmarks.plain_loops import Settings
from tests.benchmarks.tiny_images import ROWS, convolution, perceptron, tiny_images

SETTINGS = Settings(epochs=3, batch_size=16, forget_epochs=2, decay_after=2)
DROP = 15


def problem(network):
    return Problem.make(tiny_images(network), SETTINGS)


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
