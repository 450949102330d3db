"""Report page: one HTML file without script or requests.

Needs matplotlib and jinja2, the extra ``[report]``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unlearnkit.report import figures as fig
from unlearnkit.report import mask_section as masks
from unlearnkit.report import phrases as w
from unlearnkit.report import strong_section as ensembles
from unlearnkit.report.schema import (
    ClassAccuracy,
    MarginSample,
    MaskSummary,
    MetricRow,
    ReportData,
    Roc,
    StrongSummary,
)
from unlearnkit.report.templating import Figure, check_installed, render_template

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_CLASSES = 40
MOST_EXPOSED = 50
_GOALS = {
    "high": "higher is better",
    "low": "lower is better",
    "match retraining": "best when equal to retraining",
    "descriptive": "neither high nor low is better",
}


@dataclass(frozen=True)
class HtmlRow:
    """One row of the table, ready to be set."""

    anchor: str
    row: MetricRow
    value: str
    interval: str
    original: str
    oracle: str
    floor: str
    gap: str
    gap_interval: str
    z: str
    gap_closed: str
    judgement: str
    tone: str
    goal: str
    brief: Markup
    more: list[Markup]


def render_page(report: ReportData) -> str:
    """Return the report as one HTML page without requests; equal reports give equal bytes."""
    check_installed()
    of_many = () if report.strong is None else report.strong.rows
    anchors = {row.metric: f"row-{i}" for i, row in enumerate((*report.rows, *of_many))}
    classes, left_out = _chosen(report.classes)
    return render_template(
        "report/page.html.jinja",
        report=report,
        w=w,
        many=ensembles,
        anchors=anchors,
        against=w.has_retrained(report.rows),
        summary=[w.summary_cells(r) for r in report.summary],
        sections=_sections(report.rows, anchors),
        ensembles=_sections(of_many, anchors),
        exposed=[]
        if report.strong is None
        else ensembles.exposed_lines(report.strong, MOST_EXPOSED),
        laws=[] if report.strong is None else _laws(report.strong, _axis(report)),
        degrees=[] if report.strong is None else _degrees(report.strong),
        margins=_margins(report),
        rocs=_rocs(report.rocs),
        classes=[_class_cells(c) for c in classes],
        left_out=left_out,
        mask=_mask(report.mask),
        mask_facts=[] if report.mask is None else masks.mask_facts(report.mask),
    )


def _sections(
    rows: Sequence[MetricRow], anchors: dict[str, str]
) -> list[tuple[str, list[HtmlRow]]]:
    return [
        (title, [_line(row, anchors[row.metric]) for row in part])
        for title, part in w.by_section(rows)
    ]


def _mask(found: MaskSummary | None) -> Figure | None:
    from markupsafe import Markup

    if found is None:
        return None
    title = "Share of each layer in the mask"
    return Figure(Markup(masks.mask_figure(found)), title, masks.HEAD, masks.layer_rows(found))


def _line(row: MetricRow, anchor: str) -> HtmlRow:
    places = w.row_decimals(row)
    gap, gap_interval = w.gap_texts(row, places)
    brief, *more = _doc(row.doc)
    return HtmlRow(
        anchor=anchor,
        row=row,
        value=w.number(row.estimate.value, places),
        interval=w.interval(row.estimate.low, row.estimate.high, places),
        original=w.ABSENT if row.original is None else w.number(row.original.value, places),
        oracle=w.oracle_text(row, places),
        floor=w.floor_text(row),
        gap=gap,
        gap_interval=gap_interval,
        z=w.ABSENT if row.z is None else w.number(row.z, 1, signed=True),
        gap_closed=w.closed_text(row),
        judgement=w.judgement_words(row),
        tone=w.TONES[row.judgement],
        goal=_GOALS.get(row.goal, row.goal),
        brief=brief,
        more=more,
    )


def _doc(doc: str) -> list[Markup]:
    """Return a docstring's paragraphs up to its sections, names in backticks set as code."""
    from markupsafe import Markup, escape

    text = re.split(r"\n\s*(?:Args|Returns|Raises):", inspect.cleandoc(doc))[0]
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", text.strip())]
    made = []
    for paragraph in paragraphs:
        parts = [
            Markup("<code>{}</code>").format(part) if i % 2 else escape(part)
            for i, part in enumerate(re.split(r"`{1,2}", paragraph))
        ]
        made.append(Markup("").join(parts))
    return made or [Markup("")]


def _margins(report: ReportData) -> list[Figure]:
    axis = w.margin_words(report.request_summary.task)[1]
    order = {"forget": 0, "held_out": 1}
    splits = sorted(
        {s.split for s in report.margins if s.values}, key=lambda s: (order.get(s, 2), s)
    )
    return [
        _spread(report.margins, split, f"Margins of {w.split_words(split)}", "rows", axis)
        for split in splits
    ]


def _axis(report: ReportData) -> str:
    """Return what a margin is over models."""
    if report.request_summary.task == "regression":
        return "Prediction, towards the row's target"
    return w.margin_words(report.request_summary.task)[1]


def _degrees(strong: StrongSummary) -> list[Figure]:
    """Return how far rows still are on the way to the originals."""
    if not strong.degrees:
        return []
    title = "Forget set between retrained models (0) and originals (1)"
    axis = "Fraction of the distance to the original"
    return [_spread(strong.degrees, "degree", title, "rows", axis, fig.OF_MANY)]


def _laws(strong: StrongSummary, axis: str) -> list[Figure]:
    """Return how the margins of the most exposed rows are spread over models."""
    panels = []
    for split in dict.fromkeys(s.split for s in strong.laws):
        own = [s for s in strong.laws if s.split == split]
        title = f"Margin of row {split.removeprefix('row-')} of the forget set, over models"
        panels.append(_spread(own, split, title, "models", axis, fig.OF_MANY))
    return panels


def _spread(
    samples: Sequence[MarginSample],
    split: str,
    title: str,
    unit: str,
    axis: str,
    names: Mapping[str, str] = fig.NAMES,
) -> Figure:
    from markupsafe import Markup

    body = []
    said = []
    for who, values in fig.margins_by_role(samples, split).items():
        low, mid, high = np.percentile(values, [10, 50, 90], method="nearest")
        texts = tuple(w.number(float(v), 2) for v in (low, mid, high))
        body.append((names[who], f"{len(values):,}", *texts))
        said.append(
            f"{names[who]}: median {texts[1]}, 10 % to 90 % of {unit} from {texts[0]} to"
            f" {texts[2]}."
        )
    words = " ".join(said)
    svg = fig.margin_figure(
        samples, split, title=title, desc=words, unit=unit, axis=axis, names=names
    )
    head = ("Model", unit.capitalize(), "10 %", "Median", "90 %")
    return Figure(Markup(svg), title, head, body)


def _rocs(rocs: Sequence[Roc]) -> list[Figure]:
    from markupsafe import Markup

    if not rocs:
        return []
    order = sorted(rocs, key=lambda r: fig.MODELS.index(fig.kind(r.who)))
    body = [
        (
            f"{fig.NAMES[fig.kind(r.who)]} {r.who.partition('/')[2]}".rstrip(),
            w.number(r.auc, 3),
            _tpr(r, 0.1),
            _tpr(r, 0.01),
            _tpr(r, 0.001),
        )
        for r in order
    ]
    said = " ".join(f"{name}: AUC {auc}." for name, auc, *_ in body)
    head = ("Model", "AUC", "TPR at FPR 10 %", "TPR at FPR 1 %", "TPR at FPR 0.1 %")
    negatives = min(r.negatives for r in rocs)
    whole = "Membership attack by the margin: every threshold. The thin line is guessing."
    low = (
        "The same at low false-positive rates. Shaded: fewer than ten false positives "
        f"among {negatives:,} never-seen rows."
    )
    first = fig.roc_figure(rocs, title="Attack ROC", desc=said)
    inset = fig.low_roc_figure(
        rocs,
        title="Attack ROC at low false-positive rates",
        desc="True-positive rates: "
        + " ".join(f"{name}: {ten} at 10 %, {one} at 1 %." for name, _, ten, one, _ in body),
    )
    return [
        Figure(Markup(first), whole, head, body),
        Figure(Markup(inset), low, (), []),
    ]


def _tpr(roc: Roc, rate: float) -> str:
    """Return the largest true-positive rate at a false-positive rate of at most ``rate``."""
    if roc.negatives * rate < 10:
        return "too few rows"
    reached = [t for f, t in zip(roc.fpr, roc.tpr, strict=True) if f <= rate]
    return w.number(max(reached, default=0.0), 3)


def _chosen(classes: Sequence[ClassAccuracy]) -> tuple[list[ClassAccuracy], int]:
    """Return the classes to show: the forgotten ones, then those furthest from the oracle."""

    def far(c: ClassAccuracy) -> tuple[bool, float]:
        against = c.oracle if c.oracle is not None else c.original
        known = c.unlearned is not None and against is not None
        return not c.forgotten, -abs(c.unlearned - against) if known else 0.0  # type: ignore[operator]

    if len(classes) <= MOST_CLASSES:
        return list(classes), 0
    kept = sorted(classes, key=far)[:MOST_CLASSES]
    return sorted(kept, key=lambda c: c.label), len(classes) - MOST_CLASSES


def _class_cells(c: ClassAccuracy) -> tuple[ClassAccuracy, list[tuple[str, float]]]:
    """Return a class with its accuracies as text and as the width of a bar."""
    test = (c.original, c.unlearned, c.oracle)
    values = (*test, c.forget_original, c.forget_unlearned, c.forget_oracle)
    return c, [(w.ABSENT, 0.0) if v is None else (w.number(v, 3), round(v, 3)) for v in values]
