"""The picture of a forget set: what is left to forget, what was lost, and at what cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from unlearnkit.report.figures import COLOURS, FAINT, INK, make_svg
from unlearnkit.studies.leaders import Spot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEFT = (-0.4, 1.4)
"""What is left to forget, as far as it is drawn; beyond stands at the edge."""

_KEYS = ((0.01, "cost 1 %"), (0.1, "10 %"), (1.0, "100 %"))
_FIRST = 0.02
"""Losses up to this are drawn evenly, larger ones by their logarithm."""


def area(cost: float | None) -> float:
    """Return the area of a marker, in square points: it grows with the root of the cost."""
    return 24 + 260 * math.sqrt(min(max(cost or 0.0, 0.0), 1.0))


def tradeoff_figure(
    spots: Sequence[Spot],
    numbers: Mapping[str, int],
    *,
    band: float | None,
    what: tuple[str, str],
    name: str,
    title: str,
    desc: str,
) -> str:
    """Return the picture of a forget set, the oracle at the origin.

    Args:
        spots: The original and the methods.
        numbers: What stands beside a method's marker, by label.
        band: Two oracle deviations of utility, drawn as a band; none when None.
        what: Names of the columns of forgetting and of utility.
        name: Before every id of the figure.
        title: Short name, for those who cannot see it.
        desc: What it shows, in sentences.

    Returns:
        An ``<svg>`` element.
    """

    def draw(ax: Axes) -> None:
        top = max([_FIRST, *(abs(s.lost) for s in spots)])
        if top > 4 * _FIRST:
            ax.set_yscale("symlog", linthresh=_FIRST, linscale=0.8)
            ticks = [0, _FIRST, *(t for t in (0.1, 1.0, 10.0) if t <= 1.6 * top)]
            ax.set_yticks(ticks, [f"{t:g}" for t in ticks], minor=False)
            ax.minorticks_off()
        low = min([0.0, *(s.lost for s in spots)])
        ax.set(xlim=LEFT, ylim=(min(1.5 * low, -0.4 * min(top, _FIRST)), top * 1.35))
        if band is not None:
            ax.axhspan(-band, band, color=COLOURS["oracle"], alpha=0.13, linewidth=0)
        ax.axhline(0, color=FAINT, linewidth=0.8)
        ax.axvline(0, color=FAINT, linewidth=0.8)
        ax.scatter(
            [0], [0], s=90, marker="P", color=COLOURS["oracle"], label="Oracle", zorder=5,
            linewidths=0,
        )  # fmt: skip
        for s in sorted(spots, key=lambda s: -area(s.cost)):
            _mark(ax, s)
        _name(ax, spots, numbers)
        ax.set(xlabel="Left to forget (1: all)", ylabel=f"Lost: {what[1].replace('_', ' ')}")
        for cost, text in _KEYS:
            ax.scatter([], [], s=area(cost), color=FAINT, alpha=0.5, linewidths=0, label=text)

    return make_svg(draw, name, title, desc, columns=3)


def _mark(ax: Axes, s: Spot) -> None:
    x = float(np.clip(s.left, *LEFT))
    if s.kind == "original":
        ax.scatter([x], [s.lost], s=60, marker="s", color=COLOURS["original"], label="Original")
        return
    if s.left_reach is not None and s.lost_reach is not None:
        ax.errorbar(
            [x], [s.lost], xerr=[s.left_reach], yerr=[s.lost_reach],
            color=COLOURS["unlearned"], linewidth=0.9, zorder=3,
        )  # fmt: skip
    edge = ">" if s.left > LEFT[1] else "<" if s.left < LEFT[0] else "o"
    ax.scatter(
        [x], [s.lost], s=area(s.cost), marker=edge, facecolor=COLOURS["unlearned"], alpha=0.45,
        linewidths=0, zorder=2, clip_on=False,
    )  # fmt: skip


def _name(ax: Axes, spots: Sequence[Spot], numbers: Mapping[str, int]) -> None:
    """Write each method's number beside its marker, where the fewest others stand."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    at = ax.transData.transform
    taken = [at((float(np.clip(s.left, *LEFT)), s.lost)) for s in spots]
    taken.append(at((0.0, 0.0)))
    turns = [(k * math.pi / 4) for k in (1, 3, 5, 7, 0, 2, 4, 6)]
    for s in spots:
        if s.label not in numbers or s.kind != "method":
            continue
        spot = at((float(np.clip(s.left, *LEFT)), s.lost))
        reach = math.sqrt(area(s.cost) / math.pi) * figure.dpi / 72 + 9
        places = [
            spot + np.array([math.cos(t), math.sin(t)]) * (reach + more)
            for more in (0, 11, 22)
            for t in turns
        ]
        crowd = [sum(np.hypot(*(p - other)) < 13 for other in taken) for p in places]
        best = places[int(np.argmin(crowd))]
        taken.append(best)
        shift = (best - spot) * 72 / figure.dpi
        ax.annotate(
            str(numbers[s.label]), (float(np.clip(s.left, *LEFT)), s.lost), xytext=tuple(shift),
            textcoords="offset points", ha="center", va="center", color=INK, fontsize=9.5,
            annotation_clip=False, zorder=6,
        )  # fmt: skip
