"""What verdicts make of the head probe."""

import pytest

from unlearnkit.auditing.verdicts_reference import VerdictInputs, judge
from unlearnkit.report.schema import Estimate, MetricRow, OracleValue, Verdict


def row(metric, value, *, low=None, high=None, original=None, oracles=()):
    oracle = None
    if oracles:
        oracle = OracleValue(mean=sum(oracles) / len(oracles), sd=0.01, values=tuple(oracles))
    return MetricRow(
        metric=metric,
        family="relearn",
        goal="match retraining",
        ideal=None,
        unit="loss",
        path="exact",
        section=7,
        estimate=Estimate(value=value, low=low, high=high),
        original=None if original is None else Estimate(value=original),
        oracle=oracle,
        gap=None,
        z=None,
        judgement="not judged",
        models=len(oracles),
        doc="",
    )


def leaks(*rows):
    found = judge(
        VerdictInputs(rows, classes_removed=True, head_only=False, unchanged=False, oracles=5)
    )
    return [f for f in found if f.verdict is Verdict.LEAKS]


ORACLES = (0.46, 0.47, 0.48, 0.47, 0.465)


@pytest.mark.parametrize(
    ("value", "original", "untrained", "accused"),
    [
        (0.30, 0.30, 0.41, True),
        (0.33, 0.30, 0.41, True),
        (0.44, 0.30, 0.45, False),
        (0.42, 0.30, 0.41, False),
        (0.35, 0.30, 0.34, False),
        (0.47, 0.30, 0.50, False),
        (0.60, 0.30, 0.41, False),
        (0.30, 0.469, 0.41, False),
        (0.30, 0.30, None, True),
    ],
    ids=[
        "as the original",
        "near the original",
        "more than half closed",
        "more than half closed, no better than random",
        "no better than random features",
        "as an oracle",
        "less than an oracle",
        "no headroom",
        "no factory",
    ],
)
def test_features_that_hold_a_class_leak(value, original, untrained, accused):
    rows = [row("head_probe", value, original=original, oracles=ORACLES)]
    if untrained is not None:
        rows.append(row("head_probe_untrained", untrained))
    reasons = ["still hold the forgotten classes" in f.reason for f in leaks(*rows)]
    assert reasons == [True] * accused


def test_two_oracles_accuse_no_features():
    assert not leaks(row("head_probe", 0.1, original=0.1, oracles=(0.46, 0.47)))
