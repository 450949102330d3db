"""Placebo control of a reference audit: the method, run on the retrained models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unlearnkit.attacks.permutation import permutation_test
from unlearnkit.auditing.strong.mask_transfer import find_localizer
from unlearnkit.auditing.strong.placebo import PlaceboRefusal, left_out, run_placebo
from unlearnkit.auditing.verdict_evaluation import FALSE_ALARMS
from unlearnkit.core.auto_method import Auto
from unlearnkit.core.border import first_line
from unlearnkit.core.errors import UnlearnkitError
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.outside_method import OutsideMethod
from unlearnkit.core.runtime import Runtime
from unlearnkit.metrics.ensembles import AUC_MARGIN
from unlearnkit.metrics.head_probe import SEEN, head_probe
from unlearnkit.oracles import Oracles
from unlearnkit.report.schema import ArmComparison, Estimate
from unlearnkit.stats.intervals import t_quantile, two_sample_t
from unlearnkit.stats.oracle_gap import (
    ENOUGH_FOR_INTERVALS,
    ComparisonRule,
    GapComparison,
    Judgement,
    compare,
)
from unlearnkit.stats.roc import auc_rows
from unlearnkit.unlearning.run_method import Unlearned

NO_PLACEBO = (
    "there was no placebo control, and a difference from retrained models may be memory or the"
    " signature of the algorithm"
)
"""Why an audit of one model says nothing about memory alone."""

TESTS = 3
"""Tests of memory: attack, mean shift of margins, error on the forget set."""

POWER_REACH = 0.84
"""Deviations beyond the limit of a two-sided test at which it has 80 % power."""


@dataclass(frozen=True)
class PlaceboControl:
    """How a model compares with placebo models, and these with retrained models."""

    memory: ArmComparison
    signature: ArmComparison
    models: int
    head_probes: tuple[float, ...] = ()
    """Error of a new head on the features of each placebo model; empty where no class has gone."""


def placebo_control(
    done: Unlearned, oracles: Oracles | None, evidence: Evidence, rt: Runtime
) -> PlaceboControl | str:
    """Return what the method makes of retrained models shows, on the rows of an audit.

    Each retrained model has the seed of its own training for the method. The attack is calibrated:
    a row's score is the margin of the model minus its mean over the reference models (Watson et
    al., ICLR 2022, arXiv:2111.08440), and a placebo model is left out of its own reference.

    Args:
        done: What ``unlearn`` returned.
        oracles: K retrained models; None for no control.
        evidence: Of the audit: the same rows and retrained models.
        rt: Where to run; its meter does not count it.

    Returns:
        The comparisons; or why there are none.
    """
    if oracles is None:
        return NO_PLACEBO
    if len(oracles) < ENOUGH_FOR_INTERVALS:
        return f"no placebo control: it needs at least {ENOUGH_FOR_INTERVALS} retrained models"
    if isinstance(done.method, Auto):
        return "no placebo control: auto chooses anew each time; audit the method that it chose"
    if isinstance(done.method, OutsideMethod):
        return left_out("another tool unlearned the model")
    try:
        localizer = find_localizer(done, rt)
        models = [
            run_placebo(
                one.model,
                done.case,
                done.request,
                done.method,
                rt.fork(one.seed, quiet=True),
                mask=localizer,
                projection=done.projection,
                parts=done.parts,
            ).model
            for one in oracles.runs
        ]
        margins = _Margins.of(done, models, evidence)
    except (PlaceboRefusal, UnlearnkitError) as e:
        return left_out(first_line(e))
    return PlaceboControl(
        memory=_memory(margins),
        signature=_signature(margins, rt),
        models=len(models),
        head_probes=_head_probes(models, evidence) if done.parts.removed_classes else (),
    )


def _head_probes(models: Sequence[nn.Module], e: Evidence) -> tuple[float, ...]:
    each = (Evidence({"unlearned": m}, e.views, e.task, e.rt, recipe=e.recipe) for m in models)
    found = tuple(head_probe(x).value for x in each) if set(SEEN) <= set(e.views) else ()
    return found if all(map(math.isfinite, found)) else ()


@dataclass(frozen=True)
class _Margins:
    """Margins by split ``(models, rows)``, the candidate's first, and mean errors."""

    forget: dict[str, Tensor]
    held_out: dict[str, Tensor]
    """Empty where there are no never-seen rows with targets."""

    errors: dict[str, Tensor]
    rate: bool

    @classmethod
    def of(cls, done: Unlearned, models: Sequence[nn.Module], e: Evidence) -> _Margins:
        """Return the margins of the model, the original, placebo and retrained models."""
        named = {f"oracle/{k}": m for k, m in enumerate(models)}
        placebo = Evidence(
            {"unlearned": done.model, **named}, e.views, e.task, e.rt, recipe=e.recipe
        )

        def read(split: Split) -> dict[str, Tensor]:
            view = e.views.get(split)
            if view is None or not view.labelled:
                return {}
            sides = {"placebo": placebo, "retrained": e}
            return {
                "model": e.margins(ModelRole.UNLEARNED, split)[None],
                "original": e.margins(ModelRole.ORIGINAL, split)[None],
            } | {
                name: torch.stack(
                    [at.margins(ModelRole.ORACLE, split, k) for k in range(at.oracles)]
                )
                for name, at in sides.items()
            }

        wrong = {"model": e.errors(ModelRole.UNLEARNED, Split.FORGET)[None]}
        wrong["placebo"] = torch.stack(
            [placebo.errors(ModelRole.ORACLE, Split.FORGET, k) for k in range(len(models))]
        )
        rate = all(bool(((w == 0) | (w == 1)).all()) for w in wrong.values())
        errors = {who: w.double().mean(1) for who, w in wrong.items()}
        return cls(read(Split.FORGET), read(Split.HELD_OUT), errors, rate)

    def aucs(self, who: str, reference: str) -> Tensor:
        """Return the AUC of the calibrated attack on each model of a kind ``(m,)``."""
        sides = [_calibrated(t, who, reference) for t in (self.forget, self.held_out)]
        return auc_rows(*sides)


def _calibrated(margins: dict[str, Tensor], who: str, reference: str) -> Tensor:
    """Return margins minus their mean over the reference, without the model of the same place."""
    ours, base = margins[who], margins[reference]
    if len(ours) == 1:
        return ours - base.mean(0)
    others = (base.sum(0) - base) / (len(base) - 1)
    return ours - others


def _memory(m: _Margins) -> ArmComparison:
    placebo, (models, count) = m.forget["placebo"], m.forget["placebo"].shape
    unit = _spread(placebo)
    shifts = [_calibrated(m.forget, who, "placebo").mean(1) / unit for who in ("model", "placebo")]
    shift = _compared(
        shifts[0],
        shifts[1],
        ComparisonRule("match retraining", "", None),
        left_out=(models - 1) / models,
    )
    unit_name = "fraction" if m.rate else "as targets"
    known = _compared(
        -m.errors["model"],
        -m.errors["placebo"],
        ComparisonRule("match retraining", unit_name, None),
        examples=count,
    )
    attack = original = None
    if m.held_out:
        values = m.aucs("model", "placebo"), m.aucs("placebo", "placebo")
        attack = _compared(
            values[0],
            values[1],
            ComparisonRule("match retraining", "fraction", AUC_MARGIN),
            left_out=math.sqrt((models - 1) / (models + 1)),
        )
        original = float(m.aucs("original", "retrained")[0])
    limit = None if shift is None else shift.high - shift.value + POWER_REACH * shift.deviation
    mean = None if attack is None else float(m.aucs("placebo", "placebo").mean())
    return ArmComparison(
        name="memory",
        auc=Estimate(value=None) if attack is None or mean is None else _estimate(attack, mean),
        auc_floor=mean,
        auc_original=original,
        judgement=Judgement.NOT_JUDGED if attack is None else attack.judgement,
        klom=None,
        klom_floor=None,
        shift=_estimate(shift),
        attack=None if attack is None else _estimate(attack),
        accuracy=_estimate(known),
        accuracy_margin=None if known is None else known.margin,
        p=None,
        records=count,
        familiar=None,
        strange=None,
        worst=None,
        detectable=limit,
        note="single records were not tested",
    )


def _signature(m: _Margins, rt: Runtime) -> ArmComparison:
    ours, theirs = m.forget["placebo"], m.forget["retrained"]
    unit = _spread(theirs)
    return ArmComparison(
        name="signature",
        auc=Estimate(value=None, note="too few models"),
        auc_floor=None,
        auc_original=None,
        judgement=Judgement.NOT_JUDGED,
        klom=None,
        klom_floor=None,
        shift=_difference(ours.mean(1) / unit, theirs.mean(1) / unit),
        attack=None,
        accuracy=Estimate(value=None),
        accuracy_margin=None,
        p=permutation_test(ours, theirs, rng=rt.rng("placebo/permutation")).p,
        records=ours.shape[1],
        familiar=None,
        strange=None,
        worst=None,
        detectable=None,
        note="single records were not tested",
    )


def _spread(margins: Tensor) -> float:
    """Return the deviation of margins over models, pooled over rows; 1 where nothing varies."""
    pooled = math.sqrt(float(margins.double().var(0).mean()))
    return pooled if pooled > 0 else 1.0


def _compared(
    one: Tensor,
    others: Tensor,
    rule: ComparisonRule,
    *,
    examples: int = 0,
    left_out: float = 1.0,
) -> GapComparison | None:
    """Return the gap with a prediction interval, and its judgement by that interval.

    Three tests share the level (Bonferroni).

    Of K placebo models each is calibrated on K - 1, the candidate on all K. Theirs then spread too
    far: a mean shift by ``K / (K - 1)``; an AUC, which sees the shift in units of the rows' own
    spread, together with the mean that it is compared with by ``sqrt((K + 1) / (K - 1))``.
    ``left_out`` takes that back.
    """
    found = compare(one.tolist(), others.tolist(), rule, examples=examples)
    if found is None:
        return None
    freedom = len(others) - 1
    stretch = left_out * t_quantile(1 - FALSE_ALARMS / TESTS, freedom) / t_quantile(0.95, freedom)
    reach = stretch * (found.high - found.value)
    low, high = found.value - reach, found.value + reach
    judgement = found.judgement
    if judgement is not Judgement.EQUIVALENT:
        beyond = low > found.margin or high < -found.margin
        judgement = Judgement.DIFFERENT if beyond else Judgement.NOT_SHOWN
    return replace(found, low=low, high=high, judgement=judgement)


def _estimate(gap: GapComparison | None, mean: float = 0.0) -> Estimate:
    if gap is None:
        return Estimate(value=None, note="too few models")
    how = "" if mean else " t over models"
    return Estimate(
        value=mean + gap.value,
        low=mean + gap.low,
        high=mean + gap.high,
        method=f"Student's{how} prediction interval, {TESTS} tests together {1 - FALSE_ALARMS:.0%}",
    )


def _difference(ours: Tensor, theirs: Tensor) -> Estimate:
    apart = two_sample_t(ours.tolist(), theirs.tolist())
    return Estimate(
        value=apart.value, low=apart.low, high=apart.high, method="Student's t over models"
    )
