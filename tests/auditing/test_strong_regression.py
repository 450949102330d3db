"""Strong audits of real targets: predictions with their side, in the law of retrained models."""

import math

import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from tests.auditing.planted import SECTIONS
from unlearnkit.auditing.strong.margin_store import MarginMatrix, Membership, ModelId
from unlearnkit.auditing.strong.results_table import strong_table
from unlearnkit.auditing.strong.scores import EnsembleScores, towards_targets
from unlearnkit.auditing.verdicts_strong import strong_findings
from unlearnkit.core.runtime import Runtime
from unlearnkit.report.schema import Verdict

ADVERSE = {Verdict.LEAKS, Verdict.OVER_FORGOT, Verdict.DISTINGUISHABLE, Verdict.DAMAGED}
MODELS = 64


def regressions(moved, seed=0, targets=1, memory=3.0):
    """Predictions of retrained models about a mean; those of others moved towards the targets.

    By ``memory`` deviations over models for originals and ``moved`` for unlearned models, at
    forgotten rows alone, whose targets lie ten deviations away on either side.
    """
    rng = torch.Generator().manual_seed(seed)
    width = sum(SECTIONS.values())
    way = torch.randn(width, targets, generator=rng, dtype=torch.float64)
    way = way / way.norm(dim=1, keepdim=True)
    forgotten = (torch.arange(width) < SECTIONS["forget"]).double()[:, None]

    def draw(by):
        own = torch.randn(MODELS, width, targets, generator=rng, dtype=torch.float64)
        return -10.0 * way + by * forgotten * way + own

    kinds = {"original": memory, "unlearned": moved, "oracle": 0.0, "floor": 0.0}
    residuals = torch.cat([draw(by) for by in kinds.values()])
    errors = residuals.abs().mean(2)
    columns, start = {}, 0
    for name, count in SECTIONS.items():
        columns[name] = torch.arange(start, start + count)
        start += count
    members = tuple(ModelId(who, i) for who in kinds for i in range(MODELS))
    codes = torch.full(errors.shape, int(Membership.OUT), dtype=torch.uint8)
    return MarginMatrix(-errors, codes, errors.float(), members, columns, residuals)


def judged(signals):
    table = strong_table(signals, Runtime(), judged_only=True)
    return table, {f.verdict for f in strong_findings(table)}


def test_a_margin_is_the_prediction_signed_by_the_side_of_the_target():
    signals = regressions(1.0)
    gap = signals.residuals[..., 0]
    want = torch.where(gap.mean(0) < 0, gap, -gap)
    torch.testing.assert_close(towards_targets(signals).margins, want)


def test_of_several_targets_the_way_is_that_from_the_mean_prediction_to_them():
    signals = regressions(0.0, targets=3)
    found = towards_targets(signals)
    mean = signals.residuals.mean(0)
    want = torch.stack(
        [-(signals.residuals[:, i] @ mean[i]) / mean[i].norm() for i in range(len(mean))], 1
    )
    torch.testing.assert_close(found.margins, want)
    assert found.margins.std(0).mean() == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize(
    ("moved", "expected"), [(3.0, Verdict.LEAKS), (-3.0, Verdict.OVER_FORGOT), (0.0, None)]
)
def test_predictions_that_stay_near_their_targets_leak_and_those_beyond_are_over_forgotten(
    moved, expected, targets
):
    table, verdicts = judged(regressions(moved, targets=targets))
    assert verdicts & ADVERSE == ({expected} if expected else set())
    assert table.row("rmia_auc") is None
    row = table.row("lira_auc")
    assert row.oracle.mean == pytest.approx(0.5, abs=0.05)
    assert row.original.value > 0.9


def test_the_attack_is_the_tail_of_retrained_predictions():
    signals = towards_targets(regressions(1.0))
    go, held = (signals.of("oracle", part) for part in ("forget", "held_out"))
    ours = signals.of("unlearned", "forget"), signals.of("unlearned", "held_out")
    aucs = []
    for i in range(MODELS):
        tails = [
            stats.norm.cdf((x[i] - base.median(0).values).numpy())
            for x, base in zip(ours, (go, held), strict=True)
        ]
        truth = [1] * len(tails[0]) + [0] * len(tails[1])
        aucs.append(roc_auc_score(truth, [*tails[0], *tails[1]]))
    row = strong_table(regressions(1.0), Runtime(), judged_only=True).row("lira_auc")
    # The law's own width is estimated: that moves few pairs.
    assert row.estimate.value == pytest.approx(sum(aucs) / MODELS, abs=0.01)


def test_the_side_is_lost_in_errors_and_kept_here():
    """Predictions that moved past their targets have retrained models' errors, and are told."""
    signals = regressions(20.0)
    errors = MarginMatrix(
        signals.margins, signals.codes, signals.errors, signals.members, signals.columns
    )
    gap = [
        abs(float(s.answers("unlearned", "forget").mean() - s.answers("oracle", "forget").mean()))
        for s in (EnsembleScores(errors, Runtime()), EnsembleScores(signals, Runtime()))
    ]
    assert gap[0] < 0.2
    assert gap[1] == pytest.approx(20.0, abs=0.5)
    assert judged(signals)[1] & ADVERSE


def test_several_targets_are_attacked_together():
    seats = EnsembleScores(regressions(1.0, targets=2), Runtime())
    alone = EnsembleScores(regressions(1.0, targets=1), Runtime())
    assert not math.isnan(seats.ulira("unlearned").auc)
    assert seats.ulira("unlearned").auc == pytest.approx(alone.ulira("unlearned").auc, abs=0.06)
