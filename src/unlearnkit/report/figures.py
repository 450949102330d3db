"""Figures: SVG in the page's colours, byte for byte reproducible.

Needs matplotlib, of the extra ``[report]``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unlearnkit.report.schema import MarginSample, Roc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

MODELS = ("original", "unlearned", "oracle")
NAMES = {"original": "Original", "unlearned": "This model", "oracle": "Retrained"}
OF_MANY = NAMES | {"unlearned": "This method"}
"""What models are called where there are many of each."""

SIZE = (4.4, 3.3)
"""Inches: a phone's width at a size of letters that can be read."""

_BINS = 30
_POINTS = 1200
COLOURS = {"original": "#0072b2", "unlearned": "#d55e00", "oracle": "#009e73"}
_DASHES: dict[str, object] = {"original": (0, (6, 2)), "unlearned": "solid", "oracle": (0, (1, 1))}
_WIDTHS = {"original": 1.6, "unlearned": 2.2, "oracle": 1.8}
INK, FAINT = "#1a1c21", "#8a8f99"
_VARIABLES = {
    **{c: f"var(--{who}, {c})" for who, c in COLOURS.items()},
    INK: f"var(--ink, {INK})",
    FAINT: f"var(--line-strong, {FAINT})",
}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "unlearnkit",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "path.simplify": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def kind(who: str) -> str:
    """Return which of the three a model is: ``oracle/3`` is an oracle."""
    return who.partition("/")[0]


def margins_by_role(samples: Iterable[MarginSample], split: str) -> dict[str, Floats]:
    """Return sorted margins ``(n,)`` on a split: original, unlearned, all oracles; without NaN."""
    found: dict[str, list[float]] = {}
    for s in samples:
        if s.split == split:
            found.setdefault(kind(s.who), []).extend(v for v in s.values if not math.isnan(v))
    return {m: np.sort(np.asarray(found[m])) for m in MODELS if found.get(m)}


def margin_figure(
    samples: Sequence[MarginSample],
    split: str,
    *,
    title: str,
    desc: str,
    unit: str = "rows",
    axis: str,
    names: Mapping[str, str] = NAMES,
) -> str:
    """Return how margins are distributed on one split, one outline for each role of model.

    All splits share bins and axes, so that figures can be compared. Margins beyond the 0.5 and
    99.5 percentiles are in the outermost bins.

    Returns:
        An ``<svg>`` element.
    """
    edges = _edges(samples)
    splits = sorted({s.split for s in samples})
    top = max(h.max() for p in splits for h in _shares(samples, p, edges).values())

    def draw(ax: Axes) -> None:
        for who, share in _shares(samples, split, edges).items():
            ax.stairs(
                share,
                edges,
                label=names[who],
                color=COLOURS[who],
                linestyle=_DASHES[who],
                linewidth=_WIDTHS[who],
            )
            if who == "unlearned":
                ax.stairs(share, edges, color=COLOURS[who], fill=True, alpha=0.16, linewidth=0)
        room = 0.02 * (edges[-1] - edges[0])
        ax.set(xlim=(edges[0] - room, edges[-1] + room), ylim=(0, top * 1.08))
        ax.set(xlabel=axis, ylabel=f"Share of {unit}")

    return make_svg(draw, f"margin-{split}", title, desc)


def roc_figure(rocs: Sequence[Roc], *, title: str, desc: str) -> str:
    """Return the attack's ROC curves on linear axes, as an ``<svg>`` element."""

    def draw(ax: Axes) -> None:
        ax.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8)
        _curves(ax, rocs, 0.0)
        ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        ax.set(xlabel="False-positive rate", ylabel="True-positive rate")

    return make_svg(draw, "roc", title, desc)


def low_roc_figure(rocs: Sequence[Roc], *, title: str, desc: str) -> str:
    """Return the curves at low false-positive rates, on logarithmic axes.

    Shaded: left of 10 / negatives a point has fewer than ten false positives.

    Returns:
        An ``<svg>`` element.
    """
    negatives = max(min(r.negatives for r in rocs), 1)
    low = 10.0 ** math.floor(math.log10(min(0.5 / negatives, 0.05)))

    def draw(ax: Axes) -> None:
        ax.set(xscale="log", yscale="log")
        ax.axvspan(low, min(10 / negatives, 1), color=FAINT, alpha=0.2, linewidth=0)
        ax.plot([low, 1], [low, 1], color=FAINT, linewidth=0.8)
        _curves(ax, rocs, low)
        ax.set(xlim=(low, 1), ylim=(low, 1.2))
        ax.set(xlabel="False-positive rate (log)", ylabel="True-positive rate (log)")
        ax.minorticks_off()

    return make_svg(draw, "roc-low", title, desc)


def make_svg(
    draw: Callable[[Axes], None],
    name: str,
    title: str,
    desc: str,
    *,
    columns: int | None = None,
    size: tuple[float, float] = SIZE,
) -> str:
    """Return a figure as an element of a page, in the page's colours and fonts.

    Args:
        draw: Draws on the axes; labels become a legend above.
        name: Prefix of every id, so that figures of a page do not clash.
        title: Short name of the figure, for screen readers.
        desc: What it shows, in sentences.
        columns: Of the legend; all in one row when None.
        size: Width and height, in inches.

    Returns:
        An ``<svg>`` element.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=size, layout="constrained")
        ax = figure.add_subplot()
        draw(ax)
        _legend(figure, ax, columns)
        out = StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return _inline(out.getvalue(), name, title, desc)


def _edges(samples: Sequence[MarginSample]) -> Floats:
    every = np.concatenate([np.asarray(s.values, dtype=np.float64) for s in samples])
    finite = every[np.isfinite(every)]
    low, high = np.percentile(finite, [0.5, 99.5]) if len(finite) else (0.0, 1.0)
    wide = max(high - low, 1e-6 * max(abs(low), abs(high), 1.0))
    return np.linspace(low, low + wide, _BINS + 1)


def _shares(samples: Sequence[MarginSample], split: str, edges: Floats) -> dict[str, Floats]:
    return {
        who: np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
        for who, values in margins_by_role(samples, split).items()
    }


def _curves(ax: Axes, rocs: Sequence[Roc], low: float) -> None:
    many = sum(kind(r.who) == "oracle" for r in rocs)
    named: set[str] = set()
    for roc in sorted(rocs, key=lambda r: MODELS.index(kind(r.who))):
        who = kind(roc.who)
        label = f"{NAMES[who]} ({many})" if who == "oracle" and many > 1 else NAMES[who]
        x, y = _thin(roc, max(_POINTS // len(rocs), 40))
        ax.plot(
            np.maximum(x, low),
            np.maximum(y, low),
            color=COLOURS[who],
            linestyle=_DASHES[who],
            linewidth=_WIDTHS[who] if who != "oracle" or many == 1 else 1.1,
            label=None if who in named else label,
            drawstyle="steps-post",
            zorder=3 if who == "unlearned" else 2,
        )
        named.add(who)


def _thin(roc: Roc, most: int) -> tuple[Floats, Floats]:
    """Keep points evenly along the curve, and as many evenly in the logarithm of the rate."""
    x, y = np.asarray(roc.fpr), np.asarray(roc.tpr)
    if len(x) <= most:
        return x, y
    along = np.searchsorted(x + y, np.linspace(0, 2, most // 2))
    rates = np.searchsorted(x, np.geomspace(0.5 / max(roc.negatives, 1), 1, most // 2))
    keep = np.unique(np.clip(np.concatenate([[0], along, rates, [len(x) - 1]]), 0, len(x) - 1))
    return x[keep], y[keep]


def _legend(figure: Figure, ax: Axes, columns: int | None) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside upper left",
            ncols=columns or len(handles),
            frameon=False,
            handlelength=2.2,
            columnspacing=1.4,
            borderpad=0,
        )


def _inline(svg: str, name: str, title: str, desc: str) -> str:
    """Turn a file into an element: own ids, the page's colours and letters, words for listeners."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.S).replace("xlink:href", "href")
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    svg = re.sub(r"'DejaVu Sans'(, sans-serif)?", "inherit", svg)
    svg = re.sub(r"font: ([\d.]+)px inherit", r"font-size: \1px", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    box = re.search(r'viewBox="[^"]+"', svg)
    assert box is not None
    head = (
        f'<svg {box[0]} role="img" aria-labelledby="{name}-title {name}-desc" '
        'stroke-linejoin="round" stroke-linecap="butt">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(desc)}</desc>'
    )
    return head + svg[svg.index(">") + 1 :].strip()
