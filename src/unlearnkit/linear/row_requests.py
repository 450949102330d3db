"""Requests in words: row numbers, labels and features checked before anything changes."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.linear.removal_state import RemovalState


def row_numbers(rows: Sequence[int] | NDArray[np.intp], state: RemovalState) -> NDArray[np.intp]:
    """Return rows that can be removed or relabelled, as an array.

    Args:
        rows: Positions in the data of the fit, from 0.
        state: Says which are there no more.

    Returns:
        The positions ``(M,)``.

    Raises:
        InputError: If one is no position, is named twice, or is removed already.
    """
    found = np.asarray(rows)
    total = len(state.removed_rows)
    if found.size == 0:
        return np.empty(0, dtype=np.intp)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise InputError(f"unlearn: rows must be a list of row numbers, got {rows!r:.80}")
    outside = found[(found < 0) | (found >= total)]
    if len(outside):
        raise InputError(
            f"unlearn: no row {int(outside[0])}; name rows from 0 to {total - 1}, their positions"
            " in the data of the fit"
        )
    values, counts = np.unique(found, return_counts=True)
    if counts.max() > 1:
        raise InputError(
            f"unlearn: row {int(values[counts.argmax()])} is named twice; name each row once"
        )
    gone = found[state.removed_rows[found]]
    if len(gone):
        raise InputError(
            f"unlearn: row {int(gone[0])} is removed already; leave it out of the request"
        )
    return found.astype(np.intp)


def column_numbers(
    features: Sequence[int | str], names: Sequence[str] | None, width: int, state: RemovalState
) -> tuple[int, ...]:
    """Return columns that can be removed.

    Args:
        features: Positions from 0, or names.
        names: Names of the columns, if the model was fitted on a table.
        width: Number of columns.
        state: Says which are there no more.

    Returns:
        The positions.

    Raises:
        InputError: If one does not exist, is named twice or is removed already.
        UnknownNameError: If no column has the name.
    """
    found: list[int] = []
    for feature in features:
        if isinstance(feature, str):
            if names is None:
                raise InputError(
                    f"unlearn: the model knows no feature names, got {feature!r}; fit on a table"
                    f" with names, or name columns from 0 to {width - 1}"
                )
            if feature not in list(names):
                raise UnknownNameError("feature", feature, names)
            at = list(names).index(feature)
        else:
            at = int(feature)
        if not 0 <= at < width:
            raise InputError(f"unlearn: no feature {feature!r}; columns go from 0 to {width - 1}")
        if at in state.dropped_columns:
            raise InputError(
                f"unlearn: feature {feature!r} is removed already; leave it out of the request"
            )
        if at in found:
            raise InputError(f"unlearn: feature {feature!r} is named twice; name each once")
        found.append(at)
    return tuple(found)


def new_targets(
    labels: Mapping[int, object], present: Mapping[int, float], encoded: Mapping[int, float]
) -> None:
    """Refuse labels that are right already.

    Args:
        labels: New label of each row, as given.
        present: Targets now.
        encoded: New targets.

    Raises:
        InputError: If a row has its new label already.
    """
    for row, target in encoded.items():
        if present[row] == target:
            raise InputError(
                f"unlearn: row {row} has the label {labels[row]!r} already; leave it out of the"
                " request"
            )
