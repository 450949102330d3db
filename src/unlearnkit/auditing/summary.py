"""Summary of a report: at most eight numbers, each with its judgement."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from unlearnkit.auditing.recipe_measures import ACCURACY, ERROR
from unlearnkit.report.phrases import JUDGEMENTS, judgement_words
from unlearnkit.report.recipe_outcome import RecipeCheck
from unlearnkit.report.schema import (
    ArmComparison,
    CostComparison,
    Finding,
    MetricRow,
    SummaryRow,
    Verdict,
)
from unlearnkit.stats.oracle_gap import Judgement

LINES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Accuracy, forget set", ("accuracy_forget",)),
    ("Error, forget set", ("error_forget",)),
    ("Accuracy, retain set", ("accuracy_retain",)),
    ("Error, retain set", ("error_retain",)),
    ("Accuracy, test set", ("accuracy_test",)),
    ("Error, test set", ("error_test",)),
    ("Distance to retrained", ("js_forget", "divergence_forget", "margin_spread_forget")),
    ("Membership attack AUC", ("matched_margin_auc", "margin_auc")),
)
"""Lines of the summary, and the metrics that may stand there: the first that was measured."""

WITHOUT_RETRAINED = {"margin_spread_forget": "Spread of margins, forget set"}
"""Names of metrics that stand in the line of another without retrained models."""

STRONG_LINES = (("Likeness, single-record AUC", ("ulira_auc",)),)
"""Lines that the strong tier adds, after that of memory."""

EXPOSED = (("Exposed records", ("epsilon_exposed",)),)
"""Line of the strong tier that stands in the place of memory where there is no placebo arm."""

COST = "Cost (retraining = 1)"

RECIPE = "Recipe check, retain set"
"""Line that says whether the recipe gives models like the original."""

RETAINED = tuple(f"{what}, retain set" for what in (ACCURACY, ERROR))
"""What it shows of both."""

MOST_LINES = 8

_ADVERSE = {
    Verdict.LEAKS: "leaks",
    Verdict.OVER_FORGOT: "over-forgot",
    Verdict.DISTINGUISHABLE: "differs",
    Verdict.DAMAGED: "damaged",
}


def summary_rows(
    rows: Sequence[MetricRow],
    found: Sequence[Finding],
    spent: CostComparison,
    strong: Sequence[MetricRow] = (),
    memory: ArmComparison | None = None,
    recipe: RecipeCheck | None = None,
) -> tuple[SummaryRow, ...]:
    """Return the summary of a report.

    Args:
        rows: The table of the one model.
        found: The findings.
        spent: What unlearning and retraining cost.
        strong: The table of the strong tier.
        memory: Unlearned against placebo models; None where there are none.
        recipe: Whether the recipe gives models like the original; None where there was no check.

    Returns:
        At most eight lines; what was not measured is left out.
    """
    accused = {
        m: _ADVERSE[f.verdict] for f in reversed(found) if f.verdict in _ADVERSE for m in f.rows
    }
    lines = [_line(name, ids, rows, accused) for name, ids in LINES]
    lines += [_memory(memory)] if memory else []
    extra = STRONG_LINES if memory else (*STRONG_LINES, *EXPOSED)
    lines += [_line(name, ids, strong, accused) for name, ids in extra]
    shown = [x for x in lines if x is not None]
    if spent.ratio is not None:
        words = "cheaper" if spent.ratio < 1 else "not cheaper"
        shown.append(
            SummaryRow(name=COST, metric="", model=spent.ratio, retrained=1.0, judgement=words)
        )
    if recipe is not None and recipe.outcome != "not checked":
        shown.append(_of_recipe(recipe))
        if len(shown) > MOST_LINES:  # likeness has an answer of its own
            shown = [x for x in shown if x.name != STRONG_LINES[0][0]]
    return tuple(shown)


def _of_recipe(recipe: RecipeCheck) -> SummaryRow:
    """Return the retain set's accuracy or error: of the original, and of originals by the recipe.

    The latter stand in the column of retrained models.
    """
    shown = [m for m in recipe.measures if m.name in RETAINED]
    given, values = None, list[float]()
    if shown:
        given, values = shown[0].original, [v for v in shown[0].originals if v is not None]
    return SummaryRow(
        name=RECIPE,
        metric="",
        model=None,
        original=given,
        retrained=fmean(values) if values else None,
        judgement=recipe.outcome,
    )


def _memory(memory: ArmComparison) -> SummaryRow:
    """Return U-LiRA against placebo models; retrained is the value of two equal sets."""
    return SummaryRow(
        name="Memory, single-record AUC",
        metric="",
        model=memory.auc.value,
        low=memory.auc.low,
        high=memory.auc.high,
        original=memory.auc_original,
        retrained=memory.auc_floor,
        judgement=_of_memory(memory),
    )


def _of_memory(memory: ArmComparison) -> str:
    if memory.familiar:
        return "remembers"
    if memory.strange:
        return "over-forgot"
    if memory.judgement is Judgement.DIFFERENT:
        return "remembers" if (memory.shift.value or 0.0) > 0 else "over-forgot"
    return "gone" if memory.judgement is Judgement.EQUIVALENT else JUDGEMENTS[memory.judgement]


def _line(
    name: str, ids: Sequence[str], rows: Sequence[MetricRow], accused: dict[str, str]
) -> SummaryRow | None:
    table = {r.metric: r for r in rows}
    row = next((table[m] for m in ids if m in table), None)
    if row is None:
        return None
    return SummaryRow(
        name=WITHOUT_RETRAINED.get(row.metric, name),
        metric=row.metric,
        model=row.estimate.value,
        low=row.estimate.low,
        high=row.estimate.high,
        original=None if row.original is None else row.original.value,
        retrained=None if row.oracle is None else row.oracle.mean,
        judgement=accused.get(row.metric) or judgement_words(row),
    )
