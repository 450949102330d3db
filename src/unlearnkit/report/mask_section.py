"""Mask section: the share of each layer, as table and figure.

Drawing needs matplotlib, of the extra ``[report]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unlearnkit.core.text import without_controls
from unlearnkit.localize.mask import Mask
from unlearnkit.report.figures import COLOURS, FAINT, INK, SIZE, make_svg
from unlearnkit.report.schema import LayerShare, MaskSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 24
"""Most bars of the figure; beyond that, layers are merged by module."""

_LETTERS = 22
"""Characters of a layer's name at its bar, from the end."""

HEAD = ("Layer", "Scalars", "In the mask", "Of the layer", "Of the mask")


def mask_summary(mask: Mask) -> MaskSummary:
    """Return what a report says of a mask."""
    return MaskSummary(
        criterion=mask.criterion,
        budget=mask.budget,
        granularity=mask.granularity,
        seed=mask.seed,
        layers=tuple(LayerShare(name=n, scalars=s, chosen=c) for n, s, c in mask.layers()),
    )


def mask_facts(found: MaskSummary) -> list[tuple[str, str]]:
    """Return how a mask was found and how large it is, as names and values."""
    chosen, total = _sums(found.layers)
    return [
        ("Found by", found.criterion),
        ("Budget", f"{found.budget:.3g} of the trainable scalars, by {found.granularity}"),
        ("In the mask", f"{chosen:,} of {total:,} scalars ({_percent(chosen, total)})"),
        ("Seed", str(found.seed)),
    ]


def layer_rows(found: MaskSummary) -> list[tuple[str, ...]]:
    """Return a row for each layer, in the order of ``HEAD``."""
    whole = _sums(found.layers)[0]
    return [
        (
            _name(x),
            f"{x.scalars:,}",
            f"{x.chosen:,}",
            _percent(x.chosen, x.scalars),
            _percent(x.chosen, whole),
        )
        for x in found.layers
    ]


def mask_figure(found: MaskSummary) -> str:
    """Return the share of each layer in the mask as bars; beyond 24 layers, one bar a module."""
    bars = merge_layers(found.layers)
    chosen, total = _sums(found.layers)
    shares = [x.chosen / max(1, x.scalars) for x in bars]

    def draw(ax: Axes) -> None:
        places = range(len(bars))
        if len(bars) <= MOST:
            ax.barh(places, [1.0] * len(bars), height=0.72, color=FAINT, alpha=0.15, linewidth=0)
        ax.barh(places, shares, height=0.72, color=COLOURS["unlearned"], linewidth=0)
        ax.axvline(chosen / max(1, total), color=INK, linewidth=1, linestyle=(0, (3, 2)))
        every = -(-len(bars) // MOST)
        ax.set_yticks(places[::every], [_short(_name(x)) for x in bars[::every]])
        ax.set(xlim=(0, 1), ylim=(len(bars) - 0.4, -0.6), xlabel="Share of the layer in the mask")
        ax.tick_params(axis="y", length=0)

    said = " ".join(f"{_name(x)}: {_percent(x.chosen, x.scalars)}." for x in bars)
    return make_svg(
        draw,
        "mask",
        "Share of each layer in the mask",
        f"Of all trainable scalars {_percent(chosen, total)}, the dashed line. {said}",
        size=(SIZE[0], 0.85 + 0.19 * min(len(bars), MOST)),
    )


def mask_file(found: MaskSummary) -> str:
    """Return the same figure as a file of its own, dark on light."""
    figure = mask_figure(found)
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" style="background:#fff" font-family="sans-serif"'
    )
    return without_controls(figure.replace("<svg", head, 1)) + "\n"


def merge_layers(layers: Sequence[LayerShare]) -> list[LayerShare]:
    """Return layers merged by module, as deep as leaves 24 at most; unmerged where none does."""
    if len(layers) <= MOST:
        return list(layers)
    deepest = max(x.name.count(".") for x in layers)
    for depth in range(deepest, 0, -1):
        found: dict[str, LayerShare] = {}
        for x in layers:
            name = ".".join(x.name.split(".")[:depth])
            had = found.get(name, LayerShare(name=name, scalars=0, chosen=0))
            found[name] = LayerShare(
                name=name, scalars=had.scalars + x.scalars, chosen=had.chosen + x.chosen
            )
        if len(found) <= MOST:
            return list(found.values())
    return list(layers)


def _sums(layers: Sequence[LayerShare]) -> tuple[int, int]:
    return sum(x.chosen for x in layers), sum(x.scalars for x in layers)


def _name(layer: LayerShare) -> str:
    return layer.name or "(the model's own)"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.1f} %"


def _short(name: str) -> str:
    return name if len(name) <= _LETTERS else f"\u2026{name[1 - _LETTERS :]}"
