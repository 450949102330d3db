"""Phrases: texts and numbers of a report, for terminal and page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence

from unlearnkit.core.evidence_statement import EvidenceStatement
from unlearnkit.core.request import LONGEST_KEY
from unlearnkit.core.text import one_line
from unlearnkit.report.recipe_outcome import RecipeCheck
from unlearnkit.report.schema import (
    Answer,
    CostComparison,
    Difficulty,
    MetricRow,
    NextStep,
    Provenance,
    ReportData,
    RequestSummary,
    SummaryRow,
    Verdict,
    as_sentence,
    end_sentence,
)
from unlearnkit.stats.oracle_gap import Judgement

SECTIONS = {
    1: "Request",
    2: "Distance to retraining",
    3: "Exposure of single records",
    4: "Membership attacks",
    5: "Retain set",
    6: "Attacker who has both models",
    7: "Relearning",
    8: "Accuracy and utility",
    9: "Cost",
    10: "Composite scores (appendix)",
    11: "Robustness of the forgetting",
}
"""Parts of the table, in the order of the audit."""

JUDGEMENTS = {
    Judgement.EQUIVALENT: "as retrained",
    Judgement.DIFFERENT: "differs",
    Judgement.NOT_SHOWN: "undecided",
    Judgement.NOT_JUDGED: "not judged",
}

TONES = {
    Judgement.EQUIVALENT: "good",
    Judgement.DIFFERENT: "bad",
    Judgement.NOT_SHOWN: "unclear",
    Judgement.NOT_JUDGED: "none",
}
"""The colour and mark of a judgement on a page."""

MEANINGS = {
    Verdict.LEAKS: "The model still carries information about the forget set.",
    Verdict.OVER_FORGOT: "The forget set is over-forgotten: the model knows it worse than a model"
    " that never saw it, and that shows which rows were removed.",
    Verdict.DISTINGUISHABLE: "The model can be distinguished from one retrained without the"
    " forget set.",
    Verdict.DAMAGED: "Unlearning cost accuracy that retraining keeps.",
    Verdict.INCONCLUSIVE: "No fault was found, but this audit cannot say that the model passes.",
    Verdict.MATCHES: "On every compared metric the model behaves like one retrained without the"
    " forget set.",
    Verdict.MEMORY_GONE: "The model shows no more of the forget set than the same method leaves in"
    " models that never saw it.",
}
"""What a verdict means, in one plain sentence."""

KINDS = {
    "exact": (
        "By construction: holds if every assumption below holds. Nothing was measured for it."
    ),
    "certified": (
        "By proof: a bound on the difference from retraining, which holds if every assumption below"
        " holds. Nothing was measured for it."
    ),
    "empirical": (
        "By measurement: what this audit found on this model. It proves nothing about attacks that"
        " it did not run."
    ),
}
"""What a kind of evidence is worth."""

QUESTIONS = {
    "memory": "Is the memory of the records gone?",
    "likeness": "Is the model like a retrained one?",
}
"""The two questions of an audit."""

TIERS = {
    "fast": "fast: one model, no retraining",
    "reference": "reference: compared with retrained models",
    "strong": "strong: attacks on single records, N unlearned against N retrained models",
}

DESIGNS = {
    "FULL": "FULL: every unlearned model was made from its own original",
    "REUSE": "REUSE: one original; results hold for it alone",
}

COMPAT = "compat: as in published code, with its errors; only for comparison with old tables"
LEGEND = (
    "Original: the model before unlearning. Retrained: models trained without the forget set, "
    "mean ± standard deviation over them. Gap: this model minus the mean of retrained models. "
    "z: the gap in standard deviations of retrained models; it needs three of them. "
    "Gap closed: share of the original's distance to retraining that unlearning removed "
    "(1 = as retrained, 0 = as the original). "
    "Oracle-oracle distance: that between two retrained models. "
    "Brackets: 95 % intervals. A dash: no value."
)
NO_ORACLE = "There was no retrained model, so nothing here is compared with retraining."
COST_HEAD = ("Quantity", "Unlearning", "Retraining")
RECIPE_HEAD = ("Quantity", "Given model", "Models of the recipe, mean [least, largest]", "p")
SUMMARY_HEAD = ("Measured", "This model", "Original", "Retrained", "Judgement")
UNDEFINED = "undefined"
ABSENT = "-"

_SPLITS = {
    "forget": "the forget set",
    "retain": "the retain set",
    "held_out": "held-out rows",
    "test": "test rows",
    "test_forget": "test rows of the forgotten classes",
    "affected": "rows that the tampering affects",
    "aimed": "affected rows, with the targets that the tampering aims at",
    "elsewhere": "rows that the tampering does not affect",
}


def decimals(values: Iterable[float | None]) -> int | None:
    """Return the decimals for 3 or 4 digits of the largest value; None: scientific."""
    sizes = [abs(v) for v in values if v is not None and math.isfinite(v)]
    top = max(sizes, default=0.0)
    if top == 0:
        return 3
    if top >= 1e5 or top < 1e-4:
        return None
    return min(max(2 - math.floor(math.log10(top)) + (top >= 1), 0), 6)


def number(value: float | None, places: int | None = 3, *, signed: bool = False) -> str:
    """Return a number as text: ``0.986``, ``+0.013``, ``1.2e-05``, ``infinite``, ``undefined``."""
    if value is None or math.isnan(value):
        return UNDEFINED
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    form = ".2e" if places is None else f".{places}f"
    text = format(value, form)
    if float(text) == 0:
        return text.removeprefix("-")
    return f"+{text}" if signed and value > 0 else text


def interval(
    low: float | None, high: float | None, places: int | None, *, signed: bool = False
) -> str:
    """Return ``[low, high]``, or nothing when there is no interval."""
    if low is None or high is None:
        return ""
    return f"[{number(low, places, signed=signed)}, {number(high, places, signed=signed)}]"


def gap_texts(row: MetricRow, places: int | None) -> tuple[str, str]:
    """Return a row's gap to retrained models and its interval, each with signs.

    A gap that is neither equivalent nor unjudged never reads as 0: where all of it would, it is
    shown with decimals of its own.
    """
    values = (row.gap, row.gap_low, row.gap_high)
    zero = places is not None and all(v is None or abs(v) <= 0.5 * 10**-places for v in values)
    if zero and row.judgement in {Judgement.NOT_SHOWN, Judgement.DIFFERENT}:
        places = decimals(values)
    gap = ABSENT if row.gap is None else number(row.gap, places, signed=True)
    return gap, interval(row.gap_low, row.gap_high, places, signed=True)


def row_decimals(row: MetricRow) -> int | None:
    """Return the decimals that a row's numbers share, so that they can be compared by eye."""
    return decimals(
        (
            row.estimate.value,
            row.estimate.low,
            row.estimate.high,
            row.original.value if row.original else None,
            row.oracle.mean if row.oracle else None,
        )
    )


def oracle_text(row: MetricRow, places: int | None) -> str:
    """Return the oracle's mean and spread, with enough decimals for the spread to be seen."""
    if row.oracle is None:
        return ABSENT
    spread = row.oracle.sd
    if places is not None and spread is not None and 1e-5 <= spread < math.inf:
        places = max(places, 1 - math.floor(math.log10(spread)))
    mean = number(row.oracle.mean, places)
    return mean if spread is None else f"{mean} ± {number(spread, places)}"


def floor_text(row: MetricRow) -> str:
    """Return the distance between two oracles, with decimals of its own; nothing without one."""
    return "" if row.floor is None else number(row.floor, decimals([row.floor]))


def has_retrained(rows: Iterable[MetricRow]) -> bool:
    """Return whether any row is compared with a retrained model."""
    return any(r.oracle is not None for r in rows)


def by_section(rows: Iterable[MetricRow]) -> list[tuple[str, list[MetricRow]]]:
    """Return the rows under their headings, in the order of the audit."""
    found: dict[int, list[MetricRow]] = {}
    for row in rows:
        found.setdefault(row.section, []).append(row)
    return [(SECTIONS.get(k, "Other"), found[k]) for k in sorted(found)]


def split_words(split: str) -> str:
    """Return a split's name in words."""
    return _SPLITS.get(split, split.replace("_", " "))


def judgement_words(row: MetricRow) -> str:
    """Return the judgement of a row in words."""
    return JUDGEMENTS[row.judgement]


def answer_text(answer: Answer) -> str:
    """Return the answer to one of the two questions, in a sentence that begins with it."""
    return f"{QUESTIONS[answer.question]} {answer.sentence}"


def verdict_text(report: ReportData) -> str:
    """Return verdict and meaning in one sentence: ``LEAKS: The model still ...``."""
    return f"{report.verdict.value}: {MEANINGS[report.verdict]}"


def reason_text(report: ReportData) -> str:
    """Return why, as a sentence that begins with a capital."""
    return as_sentence(report.reason)


def recipe_text(report: ReportData) -> str:
    """Return what the recipe check found, where a reader must know it first; else nothing."""
    check = report.recipe
    if check is None or check.outcome not in {"mismatch", "spread unknown"}:
        return ""
    label = "Warning" if check.outcome == "mismatch" else "Note"
    return f"{label}: {end_sentence(check.sentence)}"


def guarantees(report: ReportData) -> list[EvidenceStatement]:
    """Return the exact and the certified statements; what the audit measured is the rest."""
    return [s for s in report.evidence if s.kind != "empirical"]


def evidence_text(report: ReportData) -> str:
    """Return which kinds of evidence there are, in a line; nothing for an audit alone."""
    kinds = []
    for s in guarantees(report):
        e, d = s.numbers.get("epsilon"), s.numbers.get("delta")
        size = "" if e is None or d is None else f", epsilon {e:.3g}, delta {d:.2g}"
        kinds.append(f"{s.kind} ({s.source.partition(':')[0]}{size})")
    if not kinds:
        return ""
    return f"Evidence: {'; '.join([*kinds, 'empirical (this audit)'])}. Each stands by itself."


def evidence_numbers(statement: EvidenceStatement) -> list[tuple[str, str]]:
    """Return the numbers of a certificate that are known, by name."""
    return [(k, f"{v:.4g}") for k, v in statement.numbers.items() if v is not None]


def recipe_lines(check: RecipeCheck) -> list[tuple[str, str, str, str]]:
    """Return the quantities of the recipe check as cells, in the order of ``RECIPE_HEAD``."""
    lines = []
    for m in check.measures:
        known = [v for v in m.originals if v is not None]
        places = decimals([m.original, *known])
        spread = interval(min(known), max(known), places) if len(known) > 1 else ""
        mean = number(math.fsum(known) / len(known) if known else None, places)
        p = ABSENT if m.p is None else f"{m.p:.2g}"
        lines.append((m.name, number(m.original, places), f"{mean} {spread}".rstrip(), p))
    return lines


def recipe_cost(check: RecipeCheck) -> str:
    """Return what the originals of the recipe check cost, in a sentence."""
    count = len(check.seeds)
    if not count:
        return "The recipe check trained no model."
    rows = f", {check.forward:,} rows forward and {check.backward:,} backward" * bool(check.forward)
    return (
        f"Recipe check: {count} original{'s' if count > 1 else ''} (seeds {seeds(check.seeds)}),"
        f" {check.trained_models} trained for this audit; all training takes"
        f" {duration(check.seconds)}{rows}."
    )


def step_text(step: NextStep) -> str:
    """Return a next step, and about how long it takes where that is known."""
    if step.seconds is None:
        return step.action
    return f"{step.action} About {duration(step.seconds)} of training on this machine."


def duration(value: float) -> str:
    """Return a time in words: ``1 s``, ``40 s``, ``12 min``, ``3.5 h``."""
    if value < 100:
        return f"{max(1, value):.0f} s"
    return f"{value / 60:.0f} min" if value < 6000 else f"{value / 3600:.1f} h"


def summary_cells(row: SummaryRow) -> tuple[str, str, str, str, str]:
    """Return a line of the summary as cells, in the order of ``SUMMARY_HEAD``."""
    places = decimals((row.model, row.low, row.high, row.original, row.retrained))

    def cell(value: float | None) -> str:
        return ABSENT if value is None else number(value, places)

    between = interval(row.low, row.high, places)
    model = number(row.model, places) + (f" {between}" if between else "")
    if row.model is None and not row.metric:
        model = ABSENT
    return row.name, model, cell(row.original), cell(row.retrained), row.judgement


def warning_label(report: ReportData, text: str) -> str:
    """Return ``Warning``, or ``Note`` for what a method reports of a run that went well."""
    note = text in report.provenance.notes and "FAILED" not in text
    return "Note" if note else "Warning"


def request_lines(asked: RequestSummary) -> list[tuple[str, str]]:
    """Return the request, and how hard it is, as names and sentences."""
    lines = [
        ("Case", asked.case),
        ("Task", asked.task),
        ("Request", asked.request),
        ("Forget set", f"{asked.forget:,} rows"),
        ("Retain set", "not given" if asked.retain is None else f"{asked.retain:,} rows"),
    ]
    if asked.labels:
        lines.append(("Targets of the forget set", label_counts(asked.labels)))
    if asked.duplicates is not None:
        some = f"{asked.duplicates:,} rows of the forget set are also in the retain set"
        lines.append(
            (
                "Duplicates",
                f"{some}; a retrained model still learns them" if asked.duplicates else "none",
            )
        )
    if asked.nearest is not None:
        near = number(asked.nearest, decimals([asked.nearest]))
        lines.append(
            ("Nearest retained row", f"distance {near} in input units (median over the forget set)")
        )
    lines += difficulty_lines(asked.difficulty)
    lines.append(("Headroom", headroom_sentence(asked)))
    if asked.tampered_rows is not None and asked.known_share is not None:
        named = round(asked.known_share * asked.tampered_rows)
        lines.append(
            ("Tampered rows", f"{asked.tampered_rows:,}; the request names {named:,} of them")
        )
    lines.append(("Target", target_sentence(asked)))
    return lines


def target_sentence(asked: RequestSummary) -> str:
    """Return which model the unlearned one should be like."""
    if asked.known_share is not None and asked.known_share < 1:
        return (
            "correct answers on the rows that the tampering affects; a model retrained without the "
            "named rows still learns the other tampered rows, so it is no oracle of that"
        )
    if asked.target == "concept":
        return "a concept, not only rows; a retrained model may be the wrong target"
    return "a model retrained without these rows"


def difficulty_lines(d: Difficulty) -> list[tuple[str, str]]:
    """Return how hard the forget set is, as names and sentences; what is unknown is left out."""
    lines = {}
    if d.confidence is not None and d.confidence_retained is not None:
        lines["Confidence of the original"] = (
            "mean probability of the true label, original model: forget set "
            f"{number(d.confidence, 3)}, retain set {number(d.confidence_retained, 3)}"
        )
    if d.memorised is not None:
        lines["Memorisation"] = (
            f"{number(d.memorised, 3)}: mean probability of the true label, original model minus "
            "retrained models, forget set"
        )
    if d.harder:
        shares = ", ".join(f"{_PROXIES[k]} {number(v, 2)}" for k, v in sorted(d.harder.items()))
        lines["Memorisation AUC"] = f"forget set against retain set (0.5 = no difference): {shares}"
    if d.entanglement is not None:
        lines["Entanglement"] = (
            f"{number(d.entanglement, decimals([d.entanglement]))}: spread within forget and "
            "retain set over the spread between them, in the inputs of the last layer"
        )
    if d.flip is not None and d.flip_retained is not None:
        lines["Least disagree metric"] = (
            "share of all rows that change label with the smallest change of the last layer that "
            f"flips a row (median): forget set {number(d.flip, 4)}, retain set "
            f"{number(d.flip_retained, 4)}"
        )
    return list(lines.items())


_PROXIES = {
    "curvature": "loss curvature",
    "hold_out": "hold-out drift",
    "influence": "self-influence",
}


def headroom_sentence(asked: RequestSummary) -> str:
    """Return whether this forget set can show anything at all."""
    if asked.enough_headroom is None:
        return "unknown; it needs at least three retrained models"
    if asked.enough_headroom:
        return (
            "enough: on at least one metric the original differs from retrained models by 3 "
            "standard deviations"
        )
    return (
        "too little: on no metric does the original differ from retrained models by 3 standard "
        "deviations, so a model that forgot nothing would pass as well"
    )


def margin_words(task: str) -> tuple[str, str]:
    """Return what a margin is, as a sentence and as the words below an axis."""
    if task == "regression":
        return "The margin is minus the error.", "Margin (minus the error, in target units)"
    return (
        "The margin is the log-odds of the true label against all other labels.",
        "Margin (log-odds of the true label)",
    )


def closed_text(row: MetricRow) -> str:
    """Return the closed share; far below 0, where the original was near, it is only bounded."""
    if row.gap_closed is None:
        return ABSENT
    return "< -1" if row.gap_closed < -1 else number(row.gap_closed, 2)


def label_counts(labels: dict[str, int], most: int = 12) -> str:
    """Return how many rows there are of each target, the commonest first."""
    order = sorted(labels.items(), key=lambda kv: (-kv[1], kv[0]))
    shown = ", ".join(f"{name}: {count:,}" for name, count in order[:most])
    rest = len(order) - most
    return f"{shown}, and {rest:,} more targets" if rest > 0 else shown


def cost_lines(spent: CostComparison) -> list[tuple[str, str, str]]:
    """Return the cost as lines of quantity, unlearning and retraining."""

    def count(v: int | None) -> str:
        return ABSENT if v is None else f"{v:,}"

    shared = f" ({spent.retrain_together} at once)" if spent.retrain_together > 1 else ""
    return [
        ("Rows forward", count(spent.forward), count(spent.retrain_forward)),
        ("Rows backward", count(spent.backward), count(spent.retrain_backward)),
        ("Seconds", seconds(spent.seconds), seconds(spent.retrain_seconds) + shared),
        ("Peak memory", memory(spent.peak_bytes), ABSENT),
    ]


def cost_sentence(spent: CostComparison) -> str:
    """Return the cost in a sentence."""
    if spent.ratio is None:
        return "The cost of retraining is not known, so there is no ratio."
    text = (
        f"Unlearning took {number(spent.ratio, decimals([spent.ratio]))} times the work of "
        "retraining, counted as rows forward plus twice rows backward"
    )
    if spent.backward_ratio is None:
        return text + "."
    ratio = number(spent.backward_ratio, decimals([spent.backward_ratio]))
    return f"{text}; by rows backward alone, {ratio} times."


def seconds(value: float | None) -> str:
    """Return a duration in seconds."""
    if value is None:
        return ABSENT
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def memory(count: int) -> str:
    """Return bytes in the largest unit that keeps a digit before the point."""
    if count <= 0:
        return "not measured"
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if unit != "B" else f"{count} B"
        size /= 1024
    return f"{size:.3g} TiB"


def settings_lines(settings: dict[str, object]) -> list[tuple[str, str]]:
    """Return a method's settings as names and values, as JSON would write them."""
    return [
        (k, v if isinstance(v, str) else json.dumps(v, ensure_ascii=False, default=str))
        for k, v in sorted(settings.items())
    ]


def provenance_lines(report: ReportData) -> list[tuple[str, str]]:
    """Return where the numbers come from, as names and values."""
    p = report.provenance
    return [
        ("Audit", TIERS[report.tier]),
        ("Design", DESIGNS[p.design]),
        ("Training data", p.training_data or "no digest"),
        ("Removed rows", removed_rows(report)),
        ("Method", p.method),
        ("Seed of the method", str(p.method_seed)),
        *_retrained(p),
        ("Original model", p.original),
        ("Unlearned model", p.unlearned),
        *([("Recipe check", report.recipe.sentence)] if report.recipe is not None else []),
        ("Library", f"unlearnkit {p.version}, numerics {p.numerics}, PyTorch {p.torch}"),
        ("Device", f"{p.device}, {p.precision}"),
        ("Made", p.time),
        ("Layout of this report", f"version {report.schema_version}"),
    ]


def _retrained(p: Provenance) -> list[tuple[str, str]]:
    """Return where the retrained models come from."""
    told = [("Seeds of retrained models", seeds(p.oracle_seeds))]
    if p.outside_oracles:
        told = [("Retrained models", f"from outside, weights {', '.join(p.outside_oracles)}")]
    return [*told, ("Trained by", p.training)] if p.training else told


def removed_rows(report: ReportData) -> str:
    """Return digest and count of the removed rows, and the rows where they are listed."""
    p = report.provenance
    listed = f"{p.removed_by}s not listed (audit --list-rows)"
    if p.removed_rows is not None:
        rows = ", ".join(one_line(str(row), LONGEST_KEY) for row in p.removed_rows)
        listed = f"{p.removed_by}s {rows}"
    return f"{p.request or 'no digest'}; {report.request_summary.forget:,} rows; {listed}"


def seeds(values: Sequence[int]) -> str:
    """Return seeds as a list; none means no retrained model."""
    return ", ".join(str(v) for v in values) if values else "no retrained model"
