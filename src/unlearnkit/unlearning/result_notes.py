"""What a run notes about the rows that it read and the model that it made."""

from __future__ import annotations

from torch import nn

from unlearnkit.core.case import Case, Partition
from unlearnkit.core.errors import DivergedError
from unlearnkit.core.method import Method, Need
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.damage import can_see_damage, damage
from unlearnkit.train.utility_loss import UtilityLoss


def note_rows(case: Case, split: Partition, rt: Runtime) -> None:
    """Note what a reader should know of how rows were read, and of copies of forget rows."""
    find, (go, stay) = getattr(case.task, "remarks", None), (split.forget, split.retain)
    found = () if find is None or go is None or stay is None else find(go, stay)
    for remark in (*case.remarks, *found):
        rt.note(remark)


def note_damage(
    how: Method, out: nn.Module, original: nn.Module, case: Case, split: Partition, rt: Runtime
) -> None:
    """Note a model that is worse on the retain set than a constant answer; refuse divergence."""
    if not can_see_damage(case, split):
        rt.note(
            f"{how.id}: not checked for damage: the case has neither retained nor test rows with"
            " targets; give Case(test=...)"
        )
        return
    found = damage(out, original, case, split, rt)
    if found is None:
        return
    repair = "try a smaller learning rate or fewer epochs"
    if found.diverged and Need.RETAIN in how.info.needs and not how.info.may_damage:
        raise DivergedError(f"{how.id}: diverged, {found}; the input model is unchanged; {repair}")
    rt.note(f"{how.id}: the model is damaged: {found}; {repair}")


def note_utility(how: Method, found: UtilityLoss | None, rt: Runtime) -> None:
    """Note a model that lost more than a point of accuracy on validation rows."""
    if found is not None and found.more_than_a_point:
        rt.note(
            f"{how.id}: {found}; removing the rows may cost as much: compare with a retrained"
            " model, train for longer, or take another method"
        )
