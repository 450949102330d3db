"""What verdicts make of the head probe."""

from dataclasses import replace

import pytest

import unlearnkit as uk
from tests.auditing.test_verdict_rules import placebo_arm
from unlearnkit.auditing.audit_evidence import evidence_of
from unlearnkit.auditing.placebo_models import PlaceboControl, placebo_control
from unlearnkit.auditing.splits import choose
from unlearnkit.auditing.verdicts_reference import VerdictInputs, judge
from unlearnkit.cases.digits import one_class
from unlearnkit.core.runtime import Runtime
from unlearnkit.metrics.head_probe import head_probe
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


def leaks(*rows, placebo=None):
    found = judge(
        VerdictInputs(
            rows,
            classes_removed=True,
            head_only=False,
            unchanged=False,
            oracles=5,
            placebo=placebo,
        )
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


@pytest.mark.parametrize(
    ("probes", "accused"),
    [
        ((0.46, 0.47, 0.48, 0.47, 0.465), True),
        ((0.31, 0.29, 0.30, 0.33, 0.32), False),
        ((0.27, 0.28, 0.26, 0.27, 0.29), False),
        ((0.47, 0.47, 0.47), True),
        ((), True),
    ],
    ids=["like retrained", "like the model", "below the model", "all alike", "none"],
)
def test_features_that_placebo_models_have_too_are_the_methods_and_no_memory(probes, accused):
    arms = [placebo_arm(name) for name in ("memory", "signature")]
    placebo = PlaceboControl(*arms, models=len(probes), head_probes=probes)
    held = row("head_probe", 0.30, original=0.30, oracles=ORACLES)
    inputs = {"classes_removed": True, "head_only": False, "unchanged": False, "oracles": 5}
    found = judge(VerdictInputs([held], placebo=placebo, **inputs))
    holds = {f.verdict for f in found if "still hold the forgotten classes" in f.reason}
    assert holds == {Verdict.LEAKS if accused else Verdict.DISTINGUISHABLE}
    assert bool(leaks(held, placebo=placebo)) is accused
    warned = [f for f in found if "no placebo model was probed" in f.reason]
    assert bool(warned) is (not probes)


def test_a_training_from_scratch_has_the_probes_of_its_placebo_models():
    asked = one_class()
    truth = uk.oracle(asked.case, asked.request, seeds=3)
    how = uk.method("shrink_perturb", renew=1.0)
    done = uk.unlearn(uk.train_original(asked.case).model, asked.case, asked.request, how)
    views = choose(done.case, done.parts, Runtime(), asked.request).views
    models = {f"oracle/{k}": m for k, m in enumerate(truth.models)}
    e = evidence_of(done, views, Runtime(), oracles=models)
    probes = placebo_control(done, truth, e, Runtime()).head_probes
    own = [
        uk.unlearn(m, asked.case, asked.request, how, rt=Runtime(seed=r.seed)).model
        for m, r in zip(truth.models, truth.runs, strict=True)
    ]
    want = [head_probe(evidence_of(replace(done, model=m), views, Runtime())).value for m in own]
    assert probes == pytest.approx(want)
    assert len(set(probes)) == 3
