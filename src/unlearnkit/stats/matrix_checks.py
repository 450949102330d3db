"""Checks of margin matrices, and iteration over their examples."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from unlearnkit.core.errors import InputError

CELLS = 1 << 20
"""Numbers held at once by a step over examples; 8 MiB in float64."""


def check_margins(who: str, **sides: Tensor) -> None:
    """Refuse margins that are no matrix ``(models, E)``, differ in examples, or are not finite.

    How many models are enough is for each number to say; too few make it nan, with a note.

    Raises:
        InputError: Naming ``who``, the side and how many of its margins are not finite.
    """
    first: tuple[str, int] | None = None
    for name, margins in sides.items():
        if not isinstance(margins, Tensor):
            raise InputError(
                f"{who}: {name} margins must be a tensor (models, examples), got"
                f" {type(margins).__name__}"
            )
        if margins.ndim != 2:
            raise InputError(
                f"{who}: {name} margins must be (models, examples), got shape"
                f" {tuple(margins.shape)}; give a row for each model"
            )
        rows, examples = margins.shape
        first = first or (name, examples)
        if examples != first[1]:
            raise InputError(
                f"{who}: {name} and {first[0]} must have the same examples, got {examples} and"
                f" {first[1]}; columns are examples"
            )
        bad = sum(int((~margins[:, part].isfinite()).sum()) for part in blocks(examples, rows))
        if bad:
            raise InputError(
                f"{who}: {name} margins must be finite, got {bad} of {rows * examples} that are"
                " not; leave out models that diverged"
            )


def matrix(margins: Tensor) -> Tensor:
    """Return margins of several numbers an example ``(models, E, P)`` as ``(models, E P)``.

    Any other shape comes back as it is, for ``check_margins`` to judge.
    """
    return margins.flatten(1) if isinstance(margins, Tensor) and margins.ndim == 3 else margins


def blocks(examples: int, each: int) -> Iterator[slice]:
    """Yield slices over E examples such that a step of ``each`` numbers an example fits memory."""
    size = max(1, CELLS // max(1, each))
    for start in range(0, examples, size):
        yield slice(start, min(start + size, examples))
