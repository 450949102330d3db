"""Words and numbers as readers see them, shared by the text and the page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence

from unlearnkit.report.schema import (
    CostComparison,
    Difficulty,
    MetricRow,
    Report,
    RequestSummary,
)
from unlearnkit.stats.oracle_gap import Judgement

SECTIONS = {
    1: "What was asked",
    2: "Distinguishable from retraining?",
    3: "Worst-case exposure",
    4: "Membership attacks",
    5: "Retained rows",
    6: "Attacker who holds the old and the new model",
    7: "Recoverability",
    8: "Behaviour and utility",
    9: "Cost",
    10: "Composite scores (appendix)",
}
"""Parts of the table, in the order of the audit."""

TONES = {
    Judgement.EQUIVALENT: "good",
    Judgement.DIFFERENT: "bad",
    Judgement.NOT_SHOWN: "unclear",
    Judgement.NOT_JUDGED: "none",
}
"""The colour and mark of a judgement on a page."""

TIERS = {
    "fast": "fast: one model, no retraining",
    "reference": "reference: compared with retrained models",
    "strong": "strong: many models of the method beside as many retrained ones",
}

DESIGNS = {
    "FULL": "FULL: every unlearned model came from its own original",
    "REUSE": "REUSE: one original; results are conditional on it",
}

COMPAT = "compat: replays published code with its errors; for comparison with old tables only"
LEGEND = (
    "Original: the model before unlearning. Oracle: models retrained without the forgotten rows, "
    "mean ± standard deviation over them. Gap: this model minus the oracle's mean. z: the gap in "
    "oracle standard deviations; it needs three oracles. Closed: share of the original's distance "
    "to the oracle that was closed; 1 is as the oracle, 0 is as if nothing had happened. "
    "Floor: the distance between two oracles. Brackets: 95 % intervals. "
    "A dash: there is none."
)
NO_ORACLE = "No retrained model stood beside this one, so nothing here is compared with retraining."
UNDEFINED = "undefined"
ABSENT = "-"

_SPLITS = {
    "forget": "forgotten rows",
    "retain": "retained rows",
    "held_out": "held-out rows",
    "test": "test rows",
    "test_forget": "test rows of what was forgotten",
    "affected": "rows that tampered training rows act on",
    "aimed": "affected rows, with the targets that the tampering is after",
    "elsewhere": "rows that tampered training rows do not act on",
}


def decimals(values: Iterable[float | None]) -> int | None:
    """Return how many decimals show three or four digits of the largest value.

    Args:
        values: What stands on one line; None and infinities do not count.

    Returns:
        The number of decimals; None when scientific notation is needed.
    """
    sizes = [abs(v) for v in values if v is not None and math.isfinite(v)]
    top = max(sizes, default=0.0)
    if top == 0:
        return 3
    if top >= 1e5 or top < 1e-4:
        return None
    return min(max(2 - math.floor(math.log10(top)) + (top >= 1), 0), 6)


def number(value: float | None, places: int | None = 3, *, signed: bool = False) -> str:
    """Return a number in words or digits.

    Args:
        value: The number; None is undefined.
        places: Decimals; None for scientific notation.
        signed: Whether a positive number carries its sign.

    Returns:
        For example ``0.986``, ``+0.013``, ``1.2e-05``, ``infinite`` or ``undefined``.
    """
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


def compared(rows: Iterable[MetricRow]) -> bool:
    """Return whether any row has an oracle beside it."""
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


def asked_lines(asked: RequestSummary) -> list[tuple[str, str]]:
    """Return what was asked, and how hard it is, as names and sentences."""
    lines = [
        ("Case", asked.case),
        ("Task", asked.task),
        ("Request", asked.request),
        ("Rows to forget", f"{asked.forget:,}"),
        ("Rows retained", "not given" if asked.retain is None else f"{asked.retain:,}"),
    ]
    if asked.labels:
        lines.append(("Targets of the forgotten rows", label_counts(asked.labels)))
    if asked.duplicates is not None:
        some = f"{asked.duplicates:,} forgotten rows also stand among the retained rows"
        lines.append(
            (
                "Duplicates",
                f"{some}; even a retrained model still learns them" if asked.duplicates else "none",
            )
        )
    if asked.nearest is not None:
        near = number(asked.nearest, decimals([asked.nearest]))
        lines.append(
            ("Nearest retained row", f"{near} away in input units, median over forgotten rows")
        )
    lines += difficulty_lines(asked.difficulty)
    lines.append(("Headroom", headroom_sentence(asked)))
    if asked.tampered is not None and asked.known is not None:
        named = round(asked.known * asked.tampered)
        lines.append(
            ("Rows tampered with", f"{asked.tampered:,}, of which the request names {named:,}")
        )
    if asked.known is not None and asked.known < 1:
        lines.append(
            (
                "Target",
                "right answers where the tampered rows act; a model retrained without the named "
                "rows still learns the others, and is no oracle of that",
            )
        )
    elif asked.target == "concept":
        lines.append(
            (
                "Target",
                "a concept, not only rows; retraining without the rows may be the wrong target",
            )
        )
    else:
        lines.append(("Target", "the rows; the right answer is a model retrained without them"))
    return lines


def difficulty_lines(d: Difficulty) -> list[tuple[str, str]]:
    """Return how hard the forget rows are, as names and sentences; what is unknown is left out."""
    told = {}
    if d.confidence is not None and d.confidence_retained is not None:
        told["Confidence of the original"] = (
            f"{number(d.confidence, 4)} is its mean probability of a forgotten row's label, "
            f"{number(d.confidence_retained, 4)} of a retained row's; the lower, the more of them "
            "it is likely to know by heart alone"
        )
    if d.memorised is not None:
        told["Memorised"] = (
            f"{number(d.memorised, 3)}: the part of that probability which retrained models do not "
            "have"
        )
    if d.harder:
        shares = ", ".join(f"{number(v, 2)} by {_PROXIES[k]}" for k, v in sorted(d.harder.items()))
        told["Known by heart"] = (
            "a forgotten row looks it more than a retained one in this share of pairs, 0.5 being "
            f"no difference: {shares}"
        )
    if d.entanglement is not None:
        told["Entanglement"] = (
            f"{number(d.entanglement, decimals([d.entanglement]))}: spread within forgotten and "
            "retained rows over the spread between them, in the last layer's inputs"
        )
    if d.flip is not None and d.flip_retained is not None:
        told["Least change that flips a row"] = (
            f"moves {number(d.flip, 4)} of all rows, median over forgotten rows; "
            f"{number(d.flip_retained, 4)} over retained rows"
        )
    return list(told.items())


_PROXIES = {
    "curvature": "the bend of the loss",
    "hold_out": "the drift in a lesson of other rows",
    "influence": "the hold on its own answer",
}


def headroom_sentence(asked: RequestSummary) -> str:
    """Return whether this forget set can show anything at all."""
    if asked.enough_headroom is None:
        return "unknown; it needs at least three oracles"
    if asked.enough_headroom:
        return "enough: at least one metric tells the original from the oracles by 3 deviations"
    return (
        "too little: no metric tells the original from the oracles by 3 deviations, "
        "so a model that forgot nothing would look as good as one that did"
    )


def margin_words(task: str) -> tuple[str, str]:
    """Return what a margin is, as a sentence and as the words below an axis."""
    if task == "regression":
        return "The margin is minus the error.", "Margin (minus the error, in target units)"
    return (
        "The margin is how far the right answer stands above all others together, in log-odds.",
        "Margin in log-odds (larger: surer of the right answer)",
    )


def after_headline(report: Report) -> str:
    """Return the verdict's sentence for a place that stands under the headline itself."""
    text = report.sentence.removeprefix(f"{report.verdict}: ")
    return text[:1].upper() + text[1:]


def closed_text(row: MetricRow) -> str:
    """Return the closed share; far below 0, where the original was near, it is only bounded."""
    if row.closed is None:
        return ABSENT
    return "< -1" if row.closed < -1 else number(row.closed, 2)


def label_counts(labels: dict[str, int], most: int = 12) -> str:
    """Return how many rows there are of each target, the commonest first."""
    order = sorted(labels.items(), key=lambda kv: (-kv[1], kv[0]))
    shown = ", ".join(f"{name}: {count:,}" for name, count in order[:most])
    rest = len(order) - most
    return f"{shown}, and {rest:,} more targets" if rest > 0 else shown


def spent_lines(spent: CostComparison) -> list[tuple[str, str, str]]:
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


def spent_sentence(spent: CostComparison) -> str:
    """Return the cost in a sentence."""
    if spent.ratio is None:
        return "Nothing is known about the cost of retraining, so there is no ratio."
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


def provenance_lines(report: Report) -> list[tuple[str, str]]:
    """Return where the numbers come from, as names and values."""
    p = report.provenance
    return [
        ("Audit", TIERS[report.tier]),
        ("Design", DESIGNS[p.design]),
        ("Method", p.method),
        ("Seed of the method", str(p.method_seed)),
        ("Seeds of the oracles", seeds(p.oracle_seeds)),
        ("Original model", p.original),
        ("Unlearned model", p.unlearned),
        ("Library", f"unlearnkit {p.version}, numerics {p.numerics}, PyTorch {p.torch}"),
        ("Device", f"{p.device}, {p.precision}"),
        ("Made", p.made),
        ("Layout of this report", f"version {report.schema_version}"),
    ]


def seeds(values: Sequence[int]) -> str:
    """Return seeds as a list; none means no oracle."""
    return ", ".join(str(v) for v in values) if values else "no oracle"
