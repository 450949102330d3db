"""Every method keeps the contract on every task that it serves; nothing here names a method."""

import pytest

from unlearnkit import catalog
from unlearnkit.core.token_rows import TOKEN_TASKS
from unlearnkit.testing import check_method
from unlearnkit.testing.methods import METHOD_CHECKS

ON_AWKWARD_MODELS = [
    name for name in METHOD_CHECKS if name.startswith("zoo_") or name == "inputs_in_any_order"
]
ON_TOYS = [name for name in METHOD_CHECKS if name not in ON_AWKWARD_MODELS]
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


@pytest.mark.parametrize("check", ON_TOYS)
@pytest.mark.parametrize(("method", "task"), PAIRS)
def test_the_contract_holds(method, task, check):
    check_method(method, tasks=[task], only=[check])


@pytest.mark.parametrize("check", ON_AWKWARD_MODELS)
@pytest.mark.parametrize("method", [i for i, tasks in FLAT.items() if tasks])
def test_the_contract_holds_on_an_awkward_model(method, check):
    task = min(FLAT[method])
    check_method(method, tasks=[task], only=[check])
