"""Trade-off figure of a forget set: remaining gap, utility loss and cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unlearnkit.report.figures import COLOURS, FAINT, INK, make_svg
from unlearnkit.studies.table.leaderboard import TradeoffPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEFT = (-0.25, 1.15)
"""Largest remaining gap that is plotted; larger ones stand at the edge."""

WIDE = (4.9, 3.9)
"""Inches: room for many methods, in letters that can be read on a phone."""

_COSTS = ((0.01, "cost 1 %"), (0.1, "10 %"), (1.0, "100 % of retraining"))
_FIRST = 0.02
"""Losses up to this are drawn evenly, larger ones by their logarithm."""


def area(cost: float | None) -> float:
    """Return the area of a marker, in square points: it grows with the root of the cost."""
    return 24 + 260 * math.sqrt(min(max(cost or 0.0, 0.0), 1.0))


def tradeoff_figure(
    spots: Sequence[TradeoffPoint],
    numbers: Mapping[str, int],
    *,
    band: float | None,
    utility: str,
    name: str,
    title: str,
    desc: str,
) -> str:
    """Return the figure as ``<svg>``; ``band`` is two oracle deviations of the utility."""

    def draw(ax: Axes) -> None:
        top = max([_FIRST, *(abs(s.utility_loss) for s in spots)])
        low = min([0.0, *(s.utility_loss for s in spots)])
        reach = (min(1.5 * low, -0.4 * min(top, _FIRST)), top * 1.35)
        if top > 4 * _FIRST:
            ax.set_yscale("symlog", linthresh=_FIRST, linscale=0.8)
            steps = [_FIRST, 0.1, 1.0, 10.0]
            ticks = [t for t in (0.0, *steps, *(-s for s in steps)) if reach[0] <= t <= reach[1]]
            ax.set_yticks(ticks, [f"{t:g}".replace("-", "\u2212") for t in ticks], minor=False)
            ax.minorticks_off()
        ax.set(xlim=LEFT, ylim=reach, xticks=[0, 0.25, 0.5, 0.75, 1])
        if band is not None:
            ax.axhspan(-band, band, color=COLOURS["oracle"], alpha=0.13, linewidth=0)
        ax.axhline(0, color=FAINT, linewidth=0.8)
        ax.axvline(0, color=FAINT, linewidth=0.8)
        ax.scatter([0], [0], zorder=5, **_LOOKS["Oracle"])
        for s in sorted(spots, key=lambda s: -area(s.cost)):
            _mark(ax, s)
        _name(ax, spots, numbers)
        ax.set_xlabel("Remaining gap (0: as an oracle, 1: as the original)")
        ax.set_ylabel(f"Utility loss: {utility}")
        for (look, style), (cost, text) in zip(_LOOKS.items(), _COSTS, strict=True):
            ax.scatter([], [], label=look, **style)
            ax.scatter([], [], s=area(cost), color=FAINT, alpha=0.5, linewidths=0, label=text)

    return make_svg(draw, name, title, desc, columns=len(_COSTS), size=WIDE)


_LOOKS: dict[str, dict[str, Any]] = {
    "Oracle": {"s": 90, "marker": "P", "color": COLOURS["oracle"], "linewidths": 0},
    "Original": {"s": 60, "marker": "s", "color": COLOURS["original"]},
    "Method, by its number": {
        "s": area(0.1), "color": COLOURS["unlearned"], "alpha": 0.45, "linewidths": 0,
    },
}  # fmt: skip
"""What stands for what, as the legend names it."""


def _mark(ax: Axes, s: TradeoffPoint) -> None:
    x = _across(s)
    if s.kind == "original":
        ax.scatter([x], [s.utility_loss], **_LOOKS["Original"])
        return
    if s.remaining_gap_reach is not None and s.utility_loss_reach is not None:
        ax.errorbar(
            [x], [s.utility_loss], xerr=[s.remaining_gap_reach], yerr=[s.utility_loss_reach],
            color=COLOURS["unlearned"], linewidth=0.8, alpha=0.55, zorder=3,
        )  # fmt: skip
    edge = ">" if s.remaining_gap > LEFT[1] else "<" if s.remaining_gap < LEFT[0] else "o"
    look = {**_LOOKS["Method, by its number"], "s": area(s.cost), "marker": edge}
    ax.scatter([x], [s.utility_loss], zorder=2, clip_on=False, **look)


def _across(s: TradeoffPoint) -> float:
    return float(np.clip(s.remaining_gap, *LEFT))


def _name(ax: Axes, spots: Sequence[TradeoffPoint], numbers: Mapping[str, int]) -> None:
    """Write each method's number near its marker, where it covers least."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    at = ax.transData.transform
    points = figure.dpi / 72

    def radius(s: TradeoffPoint) -> float:
        return math.sqrt(area(s.cost) / math.pi) * points

    taken = [(at((_across(s), s.utility_loss)), radius(s)) for s in spots]
    taken.append((at((0.0, 0.0)), 5 * points))
    turns = [k * math.pi / 8 for k in (2, 6, 14, 10, 0, 8, 4, 12, 1, 3, 5, 7, 9, 11, 13, 15)]
    for s in spots:
        if s.kind != "method" or s.label not in numbers:
            continue
        spot = at((_across(s), s.utility_loss))
        places = [
            (spot + np.array([math.cos(t), math.sin(t)]) * (radius(s) + 9 + more), more)
            for more in (0, 12, 24, 36, 48)
            for t in turns
        ]
        crowd = [
            max(0.0, ax.bbox.y0 + 8 - p[1])
            + sum(max(0.0, r + 8 - float(np.hypot(*(p - q)))) for q, r in taken)
            for p, _ in places
        ]
        best, away = places[int(np.argmin(crowd))]
        taken.append((best, 6 * points))
        tie = {"arrowstyle": "-", "color": INK, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0}
        ax.annotate(
            str(numbers[s.label]), (_across(s), s.utility_loss),
            xytext=tuple((best - spot) / points), textcoords="offset points",
            ha="center", va="center", color=INK, fontsize=9.5,
            annotation_clip=False, zorder=6, arrowprops=tie if away else None,
        )  # fmt: skip
