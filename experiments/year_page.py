"""Page and plot of the year of deletion requests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def page(kept: Mapping[str, Any]) -> str:
    """Return the page of results."""
    return ""


def plot(kept: Mapping[str, Any], path: Path) -> None:
    """Write the plot."""
