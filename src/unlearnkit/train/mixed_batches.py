"""Training on the retain set, with forget rows mixed in or without."""

from collections.abc import Callable

from torch import Tensor

from unlearnkit.core.data import Batch, View
from unlearnkit.core.method import Problem
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.schedule import (
    LossTerms,
    Run,
    StepExtras,
    WarmRestart,
    early_batches,
    joint_forward,
    run_schedule,
)

RowLosses = Callable[[Tensor, Batch], Tensor]
"""From outputs ``(B, K)`` and their batch to the loss of each row ``(B,)``."""


def train_on_retained(p: Problem, run: Run, rt: Runtime) -> None:
    """Minimise the task's loss on retained rows, in the order that every method sees them."""

    def loss(keep: Batch, progress: float) -> LossTerms:
        del progress
        losses = p.task.losses(p.task.outputs(p.model, keep), keep)
        return LossTerms(losses, losses)

    run_schedule(
        p.model, p.retain, loss, run, p.recipe, rt, never_seen=p.task.never_seen, stream="retain"
    )


def train_mixed(
    p: Problem,
    retain: View,
    run: Run,
    near: RowLosses,
    far: RowLosses,
    rt: Runtime,
    *,
    early: float,
    stream: str,
    before: int = 0,
) -> None:
    """Minimise ``near`` on retained rows and ``far`` on forget rows, mixed in every early batch.

    Forget rows are in proportion to their number, so that a pass over one set is about a pass over
    the other. A step minimises ``(sum of retained losses + sum of forget losses) / retained rows in
    a batch``. ``early`` is the share of the steps, from the first, that have forget rows;
    ``before`` counts rows that already went forward, which a restart's budget pays for.
    """
    own = p.recipe if isinstance(run, WarmRestart) else run.resolve(p.recipe)
    if own is None:
        return
    batch = min(own.batch_size, len(retain))
    size = min(max(1, round(batch * len(p.forget) / len(retain))), len(p.forget))
    draw = early_batches(p.forget, size, early, own, rt, stream=stream)

    def loss(keep: Batch, progress: float) -> LossTerms:
        drop = draw(progress)
        if drop is None:
            mean = near(p.task.outputs(p.model, keep), keep).mean()
            return LossTerms(mean, mean)
        stay, go = joint_forward(p.task, p.model, keep, drop)
        mean = near(stay, keep).mean()
        return LossTerms(mean, mean + far(go, drop).sum() / batch)

    run_schedule(
        p.model,
        retain,
        loss,
        run,
        p.recipe,
        rt,
        never_seen=p.task.never_seen,
        stream="retain",
        extra=StepExtras(rows=size, share=early, before=before),
    )
