"""What the strong audit says has its place in the table's order, and no more than that."""

import csv
from pathlib import Path

import pytest

from experiments.auto_order import POOL, RETRAIN, TIE, Card, Measured, derived, kept_cards
from unlearnkit.auto.decision_table import Rule, load_decision_table

RESULTS = Path(__file__).parents[2] / "docs" / "results"
LINE = Rule.model_validate(
    {"id": "x", "because": "y", "evidence": "z", "candidates": [{"method": "ssd", "cost": 1}]}
)


def measured(name, closed):
    return Measured("a", "a", "class", "x", name, (closed,), (0.0,), (0.0,), (0.1,))


def order(shares, far):
    cards = [Card("digits", "x", "class", name, value) for name, value in far.items()]
    found = derived(LINE, [measured(n, c) for n, c in shares.items()], cards)
    assert found.candidates[-1] == RETRAIN
    return [c.method for c in found.candidates[:-1]]


@pytest.mark.parametrize(
    ("far", "want"),
    [
        ({}, ["scrub", "relabel", "ssd"]),
        ({"scrub": 4.0, "relabel": 1.0}, ["relabel", "scrub", "ssd"]),
        ({"scrub": 1.0, "relabel": 4.0}, ["scrub", "relabel", "ssd"]),
        ({"relabel": 1.0}, ["scrub", "relabel", "ssd"]),
        ({"scrub": 4.0, "relabel": 1.0, "ssd": 0.1}, ["relabel", "scrub", "ssd"]),
    ],
)
def test_the_strong_audit_orders_those_that_the_fast_one_cannot_tell_apart(far, want):
    shares = {"scrub": 0.98, "relabel": 0.98 - 0.9 * TIE, "ssd": 0.98 - 1.1 * TIE}
    assert order(shares, far) == want


def test_cards_are_compared_on_requests_that_all_have():
    cards = [Card("a", "x", "hard", "scrub", 4.0), Card("a", "x", "easy", "scrub", 0.5)]
    cards += [Card("a", "x", "easy", "relabel", 1.0)]
    found = derived(LINE, [measured("scrub", 0.97), measured("relabel", 0.98)], cards)
    assert [c.method for c in found.candidates] == ["scrub", "relabel", "retrain"]


def test_cards_of_another_line_play_no_part():
    found = derived(
        LINE,
        [measured("scrub", 0.98), measured("relabel", 0.97)],
        [Card("digits", "other", "q", "scrub", 4.0), Card("digits", "other", "q", "relabel", 1.0)],
    )
    assert [c.method for c in found.candidates] == ["scrub", "relabel", "retrain"]


def test_every_card_is_of_a_line_and_of_a_number_that_was_kept():
    lines = {x.id for x in load_decision_table()}
    with (RESULTS / "method_cards.csv").open(encoding="utf-8") as file:
        kept = {float(x["mean"]) for x in csv.DictReader(file) if x["metric"] == "klom_forget"}
    plain = [c for c in kept_cards() if c.candidate in POOL and " " not in c.candidate]
    assert {c.line for c in kept_cards()} <= lines
    assert {c.far for c in plain} <= kept
    assert len(plain) == 3 * len({"gradient_ascent", "relabel_restart", "ssd", "warm_restart"})
