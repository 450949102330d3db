"""Table columns: metrics, shares of closed gaps, and costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import UnknownNameError
from unlearnkit.studies.table_schema import Column

CLOSED = "closed_"
"""Before the id of a distance to the oracles: the share of the original's that was closed."""

CORE = (
    *("accuracy_forget", "error_forget", "accuracy_retain", "error_retain"),
    *("accuracy_test", "error_test"),
    *("js_forget", "closed_js_forget", "divergence_forget", "closed_divergence_forget"),
    *("margin_auc", "cost_ratio"),
)
"""Columns of a table that asks for none; those that the task does not have are left out."""

STRONG = (
    *("permutation_p", "epsilon_exposed", "epsilon_worst", "ulira_auc", "rmia_auc"),
    *("klom_forget", "ensemble_margin_shift"),
    *("ensemble_accuracy_forget", "ensemble_error_forget"),
    *("ensemble_accuracy_retain", "ensemble_error_retain"),
    *("ensemble_accuracy_test", "ensemble_error_test", "cost_ratio"),
)
"""Core columns of tier strong: means over N models against N retrained ones."""

FORGETTING = ("js_forget", "divergence_forget", "accuracy_forget", "error_forget")
"""By the first of these that was measured, methods are compared in how they forget."""

UTILITY = {"accuracy_test": True, "error_test": False}
"""By the first of these that was measured, methods are compared in what they keep; of each,
whether higher is better."""


class MetricColumn(FrozenModel):
    """What a table must know of a metric; its function plays no part."""

    column: Column
    path: Literal["exact", "compat"]
    margin: float | None
    """Largest gap to the oracles that counts as none; from their deviation when None."""


def metric_columns() -> dict[str, MetricColumn]:
    """Return what a table must know of every metric, by id."""
    from unlearnkit.catalog import metrics  # late: it loads torch

    return {
        m.id: MetricColumn(
            column=Column(
                id=m.id,
                goal=m.goal.value,
                ideal=m.ideal,
                distance=m.distance,
                unit=m.unit,
                doc=first_paragraph(m.doc),
            ),
            path=m.path,
            margin=m.margin,
        )
        for m in metrics().values()
    }


def select_columns(names: Iterable[str], known: Mapping[str, MetricColumn]) -> list[Column]:
    """Return the columns of metric ids, or of ``closed_`` and the id of a distance, each once."""
    found = []
    closed = {CLOSED + i: m.column for i, m in known.items() if m.column.distance}
    for name in dict.fromkeys(names):
        if name in known:
            found.append(known[name].column)
        elif name in closed:
            found.append(_of_closed(closed[name]))
        else:
            raise UnknownNameError("column", name, [*known, *closed])
    return found


def metrics_of_columns(columns: Sequence[Column]) -> list[str]:
    """Return the metrics that the columns are made from."""
    return list(dict.fromkeys(c.id.removeprefix(CLOSED) for c in columns))


def first_paragraph(doc: str) -> str:
    """Return the first paragraph of a docstring in one line."""
    return " ".join(doc.partition("\n\n")[0].split())


def _of_closed(m: Column) -> Column:
    return Column(
        id=CLOSED + m.id,
        goal="high",
        ideal=1.0,
        distance=False,
        unit="fraction",
        doc=f"Share of the original's {m.id} that was closed: 1 is as an oracle, 0 as before.",
    )
