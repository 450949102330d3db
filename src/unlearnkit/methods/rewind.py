"""Rewinding: go on from a state of the training before the forget set was learned."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from unlearnkit.core.errors import InputError
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.train.checkpoint_history import Checkpoint, load_state
from unlearnkit.train.checkpointed_training import CheckpointedTraining, kept_training, train_from
from unlearnkit.train.features import row_losses


@register
class Rewind(Method):
    """Load the last state from before the forget loss fell, and go on without the forget set."""

    info = Info(
        title="Rewinding to a kept checkpoint",
        cite=(
            "this library; the rewinding of SCRUB+R (Kurmanji et al., NeurIPS 2023,"
            " arXiv:2302.09880) is a relative that chooses among the states of unlearning itself"
        ),
        needs=frozenset({Need.FORGET, Need.RETAIN, Need.LABELS, Need.CHECKPOINTS}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        may_damage=True,
        replaces=True,
        when=(
            "Where the states of the training were kept"
            " (`with_checkpoints(case, MemoryCheckpoints())`) and rows were learned late, as wrong"
            " labels are. Rows that no step before the state had read leave nothing in it: then the"
            " result owes nothing to them, and the note says so."
        ),
        differs=(
            "it is ours. The optimiser starts anew at the checkpoint: its moments hold gradients of"
            " forget rows",
            "where more of the schedule is left than `share` pays for, what is left is gone through"
            " in fewer epochs",
        ),
        fails=(
            "where all rows are read in the first epoch, every state but the untrained one has seen"
            " the forget rows; a loss that has not fallen does not prove that nothing is left",
        ),
        smoke={"share": 1.0},
    )

    fall: Annotated[float, SearchRange(0.3, 1)] = Field(0.9, gt=0, le=1)
    """Share of the untrained model's loss on the forget rows below which they count as learned. At
    1 every fall counts."""

    share: Annotated[float, SearchRange(0.05, 1)] = Field(0.2, gt=0, le=1)
    """Most epochs of training after the checkpoint, as a share of the recipe's; at least one."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Choose the state, then the rest of the schedule on the retained rows."""
        how, training = kept_training(p, "rewind")
        point = self.before_the_fall(p, how, training, rt)
        load_state(p.model, point.state)
        left = how.recipe.epochs - point.epoch
        epochs = min(left, max(1, int(self.share * how.recipe.epochs + 1e-9)))
        rt.note(_said(point, p, left, epochs))
        train_from(p.model, p.retain, p.task, how.recipe, rt, done=point.epoch, epochs=epochs)
        return p.model

    def before_the_fall(
        self, p: Problem, how: CheckpointedTraining, training: str, rt: Runtime
    ) -> Checkpoint:
        """Return the last kept state before the mean loss of the forget rows first fell.

        Raises:
            InputError: If the untrained state is not there.
        """
        found: Checkpoint | None = None
        first = 0.0
        for point in how.checkpoints.points(training):
            load_state(p.model, point.state)
            loss = float(row_losses(p.model, p.forget, p.task, rt).double().mean())
            if found is None:
                if point.epoch:
                    raise InputError("rewind: the untrained state is not there; keep all files")
                first = loss
            elif point.epoch >= how.recipe.epochs or not loss >= self.fall * first:
                break
            found = point
        if found is None:
            raise InputError("rewind: the history of this training is empty; keep all files")
        return found


def _said(point: Checkpoint, p: Problem, left: int, epochs: int) -> str:
    where = f"rewind: went back to epoch {point.epoch}, {left} epochs were left"
    text = where if epochs == left else f"{where}, gone through in {epochs}"
    unread = bool(torch.isin(p.forget.rows.cpu(), point.unread).all())
    if unread:
        return f"{text}; exact: no step before had read a forget row"
    return f"{text}; not exact: steps before had read forget rows, whose loss had not fallen yet"
