"""Words and numbers of a strong audit as readers see them, shared by the text and the page."""

from __future__ import annotations

from unlearnkit.report import phrases as w
from unlearnkit.report.schema import Stratum, StrongSummary

LEGEND = (
    "Every number is of N models of this method, each made from its own original, beside N models "
    "retrained without the forgotten rows. Original: N models before unlearning in the same "
    "place. Oracle: N further retrained models in the same place, so what the number is when "
    "nothing is wrong; of a rate, mean ± standard deviation over retrained models. Gap: this "
    "method minus the oracle. Brackets: 95 % intervals."
)
REAL_LEGEND = (
    "Margin: how far a prediction has come towards the row's own target, in target units; of "
    "several targets, along the way from the mean of all models to them."
)
"""What a margin is where targets are numbers."""


def title(strong: StrongSummary) -> str:
    """Return what the table of ensembles is about."""
    return f"What {strong.models} models of this method show, beside as many retrained ones"


def exposed_sentence(strong: StrongSummary) -> str:
    """Return how many forgotten rows stay exposed one by one."""
    if not strong.exposure or strong.exposure[0].epsilon is None:
        return "Single forgotten rows could not be judged; the table says why."
    return (
        f"{len(strong.exposed):,} of {len(strong.exposure):,} forgotten rows are exposed one by"
        " one: for them the bound on the distance from retraining, corrected for the number of"
        " rows, is above 0. Rows without a bound are not shown to be safe."
    )


EXPOSED_HEAD = ("Row", "Bound (nats)", "Attack accuracy", "Shift (deviations)")


def exposed_lines(strong: StrongSummary, most: int) -> list[tuple[str, str, str, str]]:
    """Return the most exposed rows as cells, as many as are exposed and no more than ``most``."""
    return [
        (
            str(e.row),
            w.number(e.epsilon, 2),
            w.number(e.accuracy),
            w.number(e.shift, 2, signed=True),
        )
        for e in strong.exposed[:most]
    ]


ORDERS = {
    "memorisation": "Memorisation: what having had a row gives a model there, in probability of "
    "its label or in error; rows with little of it are a control, where no memory can be",
    "difficulty": "Difficulty: what retrained models lack there, in probability or in error",
    "entanglement": "Entanglement: nearness of last-layer inputs to the middle of all rows, in the "
    "model at hand; the level is the distance",
}
"""What forgotten rows are ordered by."""

STRATA_HEAD = (
    "Third",
    "Rows",
    "Level",
    "U-LiRA AUC",
    "95 %",
    "Retrained",
    "KLoM",
    "Retrained",
    "Exposed",
)


def strata(strong: StrongSummary) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Return what is known of each third of the forgotten rows: order by order, cells by line."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for part in strong.strata:
        found.setdefault(ORDERS.get(part.by, part.by), []).append(_cells(part))
    return list(found.items())


def _cells(part: Stratum) -> tuple[str, ...]:
    def told(value: float | None, places: int) -> str:
        return w.ABSENT if value is None else w.number(value, places)

    return (
        part.part,
        f"{part.examples:,}",
        w.number(part.level, w.decimals([part.level])),
        told(part.auc.value, 3),
        w.interval(part.auc.low, part.auc.high, 3) or w.ABSENT,
        told(part.auc_floor, 3),
        told(part.klom, 2),
        told(part.klom_floor, 2),
        w.ABSENT if part.exposed is None else f"{part.exposed:,}",
    )
