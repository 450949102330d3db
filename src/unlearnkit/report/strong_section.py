"""Strong section: texts and tables of ensembles, for terminal and page."""

from __future__ import annotations

from collections.abc import Sequence

from unlearnkit.report import phrases as w
from unlearnkit.report.schema import ArmComparison, Stratum, StrongSummary

LEGEND = (
    "N unlearned models, each made from its own original, against N models retrained without the "
    "forget set. Original: N models before unlearning, measured in the same way. Retrained: N "
    "other retrained models, measured in the same way: the value when nothing is wrong; of a "
    "fraction, mean ± standard deviation over them. Gap: this method minus retrained. Brackets: "
    "95 % intervals."
)
REAL_LEGEND = (
    "Margin: how close a prediction is to the row's target, in target units; of several targets, "
    "along the direction from the mean of all models to the target."
)
"""What a margin is where targets are numbers."""


def title(strong: StrongSummary) -> str:
    """Return what the table of ensembles is about."""
    return f"{strong.models} models of this method against {strong.models} retrained models"


ARMS_HEAD = (
    "Comparison",
    "AUC",
    "Equal",
    "Original",
    "KLoM",
    "Equal",
    "Shift",
    "p",
    "Exposed",
    "Seen",
)

_ARMS = (
    "Memory: unlearned against placebo models. Signature: placebo against retrained models. "
    "Likeness: unlearned against retrained models. Placebo: models made by the same method, with "
    "the same request and settings, from retrained models, which never saw the forget set. "
)

ARMS_LEGEND = _ARMS + (
    "AUC: U-LiRA, 0.5 = alike. Equal: the value of two sets of retrained models, when nothing is "
    "wrong. Original: originals against retrained models. Shift: mean shift of margins in standard "
    "deviations of the second set of models. p: permutation test. Exposed: records that a "
    "corrected attack distinguishes. Seen: smallest shift that is seen with 80 % power."
)

ONE_MODEL_LEGEND = _ARMS + (
    "Here there is one unlearned model. AUC: membership attack on the forget set, calibrated by "
    "placebo models. Equal: that of placebo models. Original: that of the original. Shift: mean "
    "shift of margins in standard deviations. p: permutation test. Seen: smallest shift that is "
    "seen with 80 % power. Single records were not tested."
)


def arms_legend(strong: StrongSummary) -> str:
    """Return what the comparisons of arms are, and what holds of the placebo arm here."""
    here = f" Here {strong.placebo}." if strong.placebo else ""
    return ARMS_LEGEND + here


def arm_lines(arms: Sequence[ArmComparison]) -> list[tuple[str, ...]]:
    """Return memory, signature and likeness as cells, one line each."""

    def cell(value: float | None, places: int, *, signed: bool = False) -> str:
        return w.ABSENT if value is None else w.number(value, places, signed=signed)

    return [
        (
            a.name.capitalize(),
            f"{cell(a.auc.value, 3)} {w.interval(a.auc.low, a.auc.high, 3)}".rstrip(),
            cell(a.auc_floor, 3),
            w.ABSENT if a.name == "signature" else cell(a.auc_original, 3),
            cell(a.klom, 2),
            cell(a.klom_floor, 2),
            cell(a.shift.value, 2, signed=True),
            cell(a.p, 3),
            w.ABSENT
            if a.familiar is None or a.strange is None
            else f"{a.familiar + a.strange:,}/{a.records:,}",
            cell(a.detectable, 2),
        )
        for a in arms
    ]


def exposed_sentence(strong: StrongSummary) -> str:
    """Return how many records of the forget set are exposed by an attack on each."""
    first = strong.exposure[0] if strong.exposure else None
    if first is None or first.epsilon is None:
        return "Single records could not be judged; the table says why."
    against = "retrained" if first.memory is None else "placebo"
    return (
        f"{len(strong.exposed_rows):,} of {len(strong.exposure):,} records of the forget set are"
        f" exposed against {against} models: their lower bound on epsilon, corrected for the number"
        " of records, is above 0. A record without a bound is not shown to be safe."
    )


EXPOSED_HEAD = ("Row", "Bound (nats)", "Attack accuracy", "Shift (standard deviations)")


def exposed_lines(strong: StrongSummary, most: int) -> list[tuple[str, str, str, str]]:
    """Return the most exposed rows as cells, as many as are exposed and no more than ``most``."""
    shown = [(e.row, e if e.memory is None else e.memory) for e in strong.exposed_rows[:most]]
    return [
        (
            str(row),
            w.number(e.epsilon, 2),
            w.number(e.accuracy),
            w.number(e.shift, 2, signed=True),
        )
        for row, e in shown
    ]


ORDERS = {
    "memorisation": "Memorisation: by how much training on a row raises the probability of its "
    "label, or lowers its error; the low third is a control",
    "difficulty": "Difficulty: missing probability of the true label, or error, of retrained "
    "models",
    "entanglement": "Entanglement: distance of the row's last-layer inputs from the mean of all "
    "rows, in this model; nearer is more entangled",
}
"""Orders of the forget set."""

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
    def cell(value: float | None, places: int) -> str:
        return w.ABSENT if value is None else w.number(value, places)

    return (
        part.part,
        f"{part.examples:,}",
        w.number(part.level, w.decimals([part.level])),
        cell(part.auc.value, 3),
        w.interval(part.auc.low, part.auc.high, 3) or w.ABSENT,
        cell(part.auc_floor, 3),
        cell(part.klom, 2),
        cell(part.klom_floor, 2),
        w.ABSENT if part.exposed_rows is None else f"{part.exposed_rows:,}",
    )
