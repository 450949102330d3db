"""Figures for pages of results: the same bytes for the same numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

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
