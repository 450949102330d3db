"""Figures for pages of results: the same bytes for the same numbers."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = {"svg.hashsalt": "unlearnkit", "svg.fonttype": "none", "font.size": 9}


@contextmanager
def figure(path: Path, width: float, height: float) -> "Iterator[Figure]":
    """Yield an empty figure, and write it at the end.

    Args:
        path: Where; its suffix says what kind of picture.
        width: In inches.
        height: In inches.

    Yields:
        The figure.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _STYLE]):
        made = Figure(figsize=(width, height), layout="constrained")
        yield made
        made.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


@contextmanager
def panels(
    path: Path, names: Sequence[str], across: int, width: float, height: float
) -> "Iterator[tuple[Figure, dict[str, Any]]]":
    """Yield a figure with a panel for each name, row by row, and write it at the end.

    Args:
        path: Where.
        names: Of the panels.
        across: How many stand in a row.
        width: Of one panel, in inches.
        height: Of one panel, in inches.

    Yields:
        The figure, and its axes by name.
    """
    down = math.ceil(len(names) / across)
    with figure(path, width * across, height * down) as drawn:
        axes = drawn.subplots(down, across, squeeze=False).flatten()
        for left_over in axes[len(names) :]:
            left_over.set_axis_off()
        yield drawn, dict(zip(names, axes, strict=False))
