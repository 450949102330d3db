"""Each check goes red: metrics that break the contract on purpose, on no list."""

import pytest
import torch

from unlearnkit.core.evidence import ModelRole, Split
from unlearnkit.core.metric import Goal, Metric, Score, mean
from unlearnkit.testing import ContractError, check_metric


class Unguarded(Metric):
    """Calls its function whatever is missing."""

    def __call__(self, e):
        return self.fn(e)


def make(fn, kind=Metric, **changes):
    facts = {
        "id": "liar",
        "fn": fn,
        "goal": Goal.ORACLE,
        "low": 0.0,
        "high": float("inf"),
        "ideal": None,
        "unit": "",
        "reads": frozenset({ModelRole.UNLEARNED}),
        "splits": frozenset({Split.FORGET}),
        "tasks": None,
        "tier": "fast",
        "path": "exact",
        "models": False,
        "section": "behaviour",
        "margin": None,
        "family": "liars",
        "doc": "A lie.",
    }
    return kind(**facts | changes)


def honest(e):
    return mean(e.errors(ModelRole.UNLEARNED, Split.FORGET))


def defaults(e):
    return honest(e) if e.has(ModelRole.UNLEARNED) else Score(0.5)


def peeks(e):
    return Score(float(honest(e).value + e.oracles))


def moves_weights(e):
    with torch.no_grad():
        next(e.model(ModelRole.UNLEARNED).parameters()).add_(1)
    return honest(e)


def leaves_eval_mode(e):
    e.model(ModelRole.UNLEARNED).train(not e.model(ModelRole.UNLEARNED).training)
    return honest(e)


def sorts_in_place(e):
    e.outputs(ModelRole.UNLEARNED, Split.FORGET).mul_(2)
    return honest(e)


def draws(e):
    return Score(honest(e).value + float(torch.rand(())))


def counts_batches(e):
    return Score(float(e._size))


def silent_nan(e):
    return Score(float("nan"))


def wrong_rows(e):
    return Score(honest(e).value, honest(e).rows + 1)


def upside_down(e):
    return Score(honest(e).value, interval=(1.0, 0.0))


def one_row_by_variance(e):
    return Score(
        e.losses(ModelRole.UNLEARNED, Split.FORGET).var(correction=0).sqrt().reciprocal().item()
    )


LIES = [
    (make(defaults, Unguarded), "refuses_what_is_missing", "gives 0.5 without"),
    (make(honest, splits=frozenset()), "reads_what_it_declares", None),
    (make(peeks), "reads_what_it_declares", "undeclared models"),
    (make(moves_weights), "leaves_all_alone", "changes the unlearned model"),
    (make(leaves_eval_mode), "leaves_all_alone", "changes the mode"),
    (make(sorts_in_place), "leaves_all_alone", "changes the evidence"),
    (make(draws), "leaves_all_alone", "moves a global generator"),
    (make(draws), "same_value_twice", "two values"),
    (make(counts_batches), "any_batch_size", "depends on the batch size"),
    (make(moves_weights), "stored_outputs_suffice", None),
    (make(silent_nan), "in_range_plain", "nan without a note"),
    (make(wrong_rows), "in_range_plain", "rows' mean"),
    (make(upside_down), "in_range_plain", "interval from 1.0 to 0.0"),
    (make(one_row_by_variance, high=1e9), "in_range_one_row", "inf outside"),
    (make(honest, high=1e-9), "in_range_plain", "outside"),
    (make(honest, ideal=-1.0), "declaration_complete", "outside its range"),
    (make(honest, tasks=frozenset({"nothing"})), "declaration_complete", "no task"),
]


@pytest.mark.parametrize(("metric", "check", "told"), LIES)
def test_the_check_goes_red(metric, check, told):
    with pytest.raises(Exception if told is None else ContractError, match=told):
        check_metric(metric, tasks=["classification"], only=[check])


def test_an_honest_metric_passes_every_check():
    check_metric(make(honest))


def test_a_default_of_its_own_is_never_reached():
    check_metric(make(defaults), only=["refuses_what_is_missing"])
