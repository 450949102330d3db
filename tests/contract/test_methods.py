"""Every method keeps the contract on every task that it serves; nothing here names a method."""

import pytest

from tests.together import check_each
from unlearnkit import catalog
from unlearnkit.core.token_rows import TOKEN_TASKS
from unlearnkit.testing import check_method
from unlearnkit.testing.methods import METHOD_CHECKS

ON_AWKWARD_MODELS = [
    name for name in METHOD_CHECKS if name.startswith("zoo_") or name == "inputs_in_any_order"
]
ON_TOYS = [name for name in METHOD_CHECKS if name not in ON_AWKWARD_MODELS]
THAT_TASKS_CHANGE = [
    "same_seed_same_bits",
    "undeclared_inputs_sealed",
    "missing_inputs_refused",
    "student_moves_and_teacher_stays",
    "every_request_served",
    "autocast_runs",
]
"""What depends on targets and losses; other checks look at settings and at how a run is kept."""
METHODS = catalog.methods()
FLAT = {i: m.info.tasks - TOKEN_TASKS for i, m in METHODS.items()}
"""Tasks with one output vector a row, as awkward models have."""
LIKE_CAUSAL = {"masked_lm", "seq2seq"}
"""Tasks that share all code with ``causal_lm`` but which logits are whose: all checks are long."""
PAIRS = [
    pytest.param(
        i,
        task,
        id=f"{i}-{task}",
        marks=[pytest.mark.exhaustive] if task in LIKE_CAUSAL else [],
    )
    for i, cls in METHODS.items()
    for task in sorted(cls.info.tasks)
]


TWO = ("finetune", "ssd")
"""A method that trains, and one that edits weights: on every awkward model each time."""

LIKE_OTHERS = {"zoo_fp64", "zoo_bf16", "zoo_strided"}
"""Awkward in a way that ``zoo_fp16``, or a network in ``tests/models``, is awkward too."""


def check(method, task, names):
    check_each(names, lambda name: check_method(method, tasks=[task], only=[name]))


def first(method):
    return min(METHODS[method].info.tasks)


@pytest.mark.parametrize(("method", "task"), PAIRS)
def test_the_contract_holds(method, task):
    assert set(THAT_TASKS_CHANGE) < set(ON_TOYS)
    check(method, task, ON_TOYS if task == first(method) else THAT_TASKS_CHANGE)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("method", "task"), PAIRS)
def test_the_whole_contract_holds_on_every_task(method, task):
    check(method, task, ON_TOYS)


ON_FLAT = [i for i, tasks in FLAT.items() if tasks]


@pytest.mark.parametrize("method", ON_FLAT)
def test_the_contract_holds_on_awkward_models(method):
    assert set(ON_AWKWARD_MODELS) > LIKE_OTHERS
    left_out = set() if method in TWO else LIKE_OTHERS
    names = [name for name in ON_AWKWARD_MODELS if name not in left_out]
    check(method, min(FLAT[method]), names)


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", ON_FLAT)
def test_the_contract_holds_on_all_awkward_models(method):
    check(method, min(FLAT[method]), ON_AWKWARD_MODELS)
