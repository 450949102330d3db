"""Memory, signature and likeness: two arms of models compared, in total and per record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unlearnkit.attacks.permutation import permutation_test, smallest_shift
from unlearnkit.attacks.rmia import rmia
from unlearnkit.auditing.strong.bootstrap_intervals import (
    AucError,
    auc_over_models,
    auc_with_error,
)
from unlearnkit.auditing.strong.margin_store import MarginMatrix
from unlearnkit.auditing.strong.placebo import PLACEBO
from unlearnkit.auditing.strong.scores import EnsembleScores
from unlearnkit.auditing.strong.table_rows import EnsembleEstimate, estimate_of, finite_or_none
from unlearnkit.core.runtime import Runtime
from unlearnkit.report.schema import ArmComparison, Estimate, RecordComparison
from unlearnkit.stats.intervals import two_sample_t, z_quantile
from unlearnkit.stats.oracle_gap import ComparisonRule, Judgement, compare
from unlearnkit.stats.roc import auc_rows

CHANCE = 0.5
"""U-LiRA AUC between equal sets of models, in the mean: attacked models are not those fitted on."""

MEMORY_MARGIN = 0.05
"""Largest difference of the U-LiRA AUC from that of equal sets which counts as no memory."""

Name = Literal["memory", "signature", "likeness"]


@dataclass(frozen=True)
class ArmPair:
    """Two arms: which models, against which, and what their difference is called."""

    name: Name
    ours: str
    scores: EnsembleScores
    """Their reference set is the other arm."""


def arm_pairs(likeness: EnsembleScores, signals: MarginMatrix, rt: Runtime) -> list[ArmPair]:
    """Return memory, signature and likeness; likeness alone where there is no placebo arm.

    Args:
        likeness: Unlearned against retrained models.
        signals: Of all arms.
        rt: Gives the order of permutations.

    Returns:
        The pairs.
    """
    like = ArmPair("likeness", "unlearned", likeness)
    if not signals.count(PLACEBO):
        return [like]
    memory = EnsembleScores(signals, rt, against=PLACEBO)
    # Where margins do not hang on which arms there are, the scores of likeness serve both.
    signature = likeness if signals.residuals is None else EnsembleScores(signals, rt)
    return [
        ArmPair("memory", "unlearned", memory),
        ArmPair("signature", PLACEBO, signature),
        like,
    ]


def compare_arms(
    pair: ArmPair, equal: EnsembleScores, p: float | None, *, judged_only: bool = False
) -> ArmComparison:
    """Return how two arms differ on the forget set.

    The AUC of U-LiRA is equivalent to that of equal sets, 0.5, where its 90 % interval lies within
    0.05 of it (two one-sided tests), and different where the 95 % interval lies beyond that.

    Args:
        pair: The arms.
        equal: Scores of two equal sets: of ``floor`` against ``oracle``.
        p: Of the permutation test, where it is known.
        judged_only: Whether to leave out what no verdict rests on.

    Returns:
        The comparison; what so few models cannot give is None, with the reason.
    """
    s, ours = pair.scores, pair.ours
    proven, attack, floor = s.quality(ours), s.ulira(ours), equal.ulira("floor")
    sides = s.pair(ours)
    if p is None:
        p = permutation_test(*sides, rng=s.rt.rng(f"strong/permutation/{pair.name}")).p
    exposed = _exposed(pair)
    auc, judgement = Estimate(value=None, note=attack.note), Judgement.NOT_JUDGED
    if not math.isnan(attack.auc):
        auc = estimate_of(auc_over_models(s.ratios(ours)), sides[0].shape[1])
        judgement = _judged(auc_with_error(s.ratios(ours)))
    detectable = math.nan
    if not judged_only:
        detectable = smallest_shift(*sides, rng=s.rt.rng(f"strong/power/{pair.name}"))
    accuracy, margin = _knowledge(pair)
    few = proven.note if math.isnan(proven.worst) else ""
    return ArmComparison(
        name=pair.name,
        auc=auc,
        auc_floor=finite_or_none(floor.auc),
        auc_original=finite_or_none(equal.ulira("original").auc),
        judgement=judgement,
        klom=None if judged_only else finite_or_none(s.klom(ours, "forget").median),
        klom_floor=None if judged_only else finite_or_none(equal.klom("floor", "forget").median),
        shift=_shift(*sides),
        attack=_attack(pair),
        accuracy=accuracy,
        accuracy_margin=margin,
        p=finite_or_none(p),
        records=len(proven.rows),
        familiar=None if exposed is None else int((exposed & (proven.shift > 0)).sum()),
        strange=None if exposed is None else int((exposed & (proven.shift <= 0)).sum()),
        worst=finite_or_none(proven.worst),
        detectable=finite_or_none(detectable),
        note="; ".join(dict.fromkeys(x for x in (few, attack.note) if x)),
    )


def per_record(pair: ArmPair) -> list[RecordComparison]:
    """Return how two arms differ on each record of the forget set, in its order."""
    bound = pair.scores.quality(pair.ours).corrected_rows
    right, shift = pair.scores.ulira(pair.ours).accuracies, pair.scores.wasserstein(pair.ours).shift
    return [
        RecordComparison(
            epsilon=finite_or_none(b), accuracy=finite_or_none(a), shift=finite_or_none(x)
        )
        for b, a, x in zip(bound.tolist(), right.tolist(), shift.tolist(), strict=True)
    ]


def _exposed(pair: ArmPair) -> Tensor | None:
    """Return which records are exposed after correction: by their bound, or by their attack."""
    proven, attack = pair.scores.quality(pair.ours), pair.scores.ulira(pair.ours)
    if math.isnan(proven.worst):
        return None
    bounded = proven.corrected_rows > 0
    return bounded if math.isnan(attack.auc) else bounded | attack.exposed_rows


def _judged(found: AucError) -> Judgement:
    """Return whether an AUC is that of equal sets, by two one-sided tests."""
    gap = found.value - CHANCE
    if math.isnan(found.error):
        return Judgement.NOT_JUDGED
    if abs(gap) + z_quantile(0.9) * found.error <= MEMORY_MARGIN:
        return Judgement.EQUIVALENT
    if gap - z_quantile(0.95) * found.error > MEMORY_MARGIN:
        return Judgement.DIFFERENT
    return Judgement.NOT_SHOWN


def _shift(ours: Tensor, theirs: Tensor) -> Estimate:
    """Return the mean shift of margins in deviations of the reference; Student over models."""
    unit = theirs.std(0)
    varies = unit > 0
    if len(ours) < 2 or not bool(varies.any()):
        return Estimate(value=None, note="too few models, or the reference models do not vary")
    return _difference([(t[:, varies] / unit[varies]).mean(1) for t in (ours, theirs)])


def _attack(pair: ArmPair) -> Estimate | None:
    """Return the difference in AUC of RMIA, forget set against never-seen rows, of memory's arms.

    Both are attacked with retrained models as reference, which belong to neither.
    """
    s = pair.scores
    if pair.name != "memory" or s.is_regression or not s.has("held_out", "population"):
        return None
    size, each = s.size("forget"), []
    for who in (pair.ours, s.against):
        ours, base = (
            torch.cat([s.answers(w, part) for part in ("forget", "held_out")], 1)
            for w in (who, "oracle")
        )
        found = rmia(ours, base, s.answers(who, "population"), s.answers("oracle", "population"))
        each.append(auc_rows(found.log_ratios[:, :size], found.log_ratios[:, size:]))
    return _difference(each)


def _knowledge(pair: ArmPair) -> tuple[Estimate, float | None]:
    """Return by how much fewer errors one arm makes on the forget set, and the margin of that."""
    s = pair.scores
    wrong = [s.answers(who, "forget", "errors").double() for who in (pair.ours, s.against)]
    rate = all(bool(((w == 0) | (w == 1)).all()) for w in wrong)
    sides = [-w.mean(1) for w in wrong]
    rule = ComparisonRule("match retraining", "fraction" if rate else "as targets", None)
    apart = compare(sides[0].tolist(), sides[1].tolist(), rule)
    return _difference(sides), None if apart is None else apart.margin


def _difference(sides: Sequence[Tensor]) -> Estimate:
    ours, theirs = (side[~side.isnan()].tolist() for side in sides)
    if not ours or not theirs:
        return Estimate(value=None, note="no model has it")
    apart = two_sample_t(ours, theirs)
    number = EnsembleEstimate(
        apart.value, low=apart.low, high=apart.high, how="Student's t over models"
    )
    return estimate_of(number, 0)
