"""Training with wrong targets for the forget set."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from unlearnkit.core.data import Batch
from unlearnkit.core.inference import predict as outputs
from unlearnkit.core.method import Problem
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.features import lookup_by_row
from unlearnkit.train.loop import Pass, alternate
from unlearnkit.train.mixed_batches import RowLosses, train_mixed
from unlearnkit.train.schedule import Run, WarmRestart, first_epochs

Misleading = Literal["uniform", "runner_up"]
"""What forget rows are taught: a wrong target drawn for each batch, or the original's answer
without the true and the removed classes."""

EXCLUDED = -1e4
"""Logit of a class that must not be answered: its probability is zero in any precision."""


Passes = Literal["mixed", "in turn"]
"""Whether both kinds of rows are in one batch, in proportion, or an epoch is a pass over the forget
rows and then one over the retained."""


def train_on_wrong_targets(
    p: Problem,
    targets: Misleading,
    run: Run,
    rt: Runtime,
    *,
    early: float,
    passes: Passes = "mixed",
) -> None:
    """Train on retained rows as they are and on forget rows with wrong targets.

    ``early`` is the share of the steps (or, in turn, of the epochs), from the first, that have
    forget rows. A warm restart has no epochs: it always mixes.
    """
    recipe = run.resolve(p.recipe) if isinstance(run, FineTuneSchedule) else p.recipe
    if recipe is None:
        return
    second = runner_up(p, rt) if targets == "runner_up" and early > 0 else None
    wrong = wrong_target_losses(p, rt) if second is None else soft(p, second, rt)
    if passes == "mixed" or isinstance(run, WarmRestart):
        before = 0 if second is None else len(p.forget)
        train_mixed(
            p,
            p.retain,
            run,
            p.task.losses,
            wrong,
            rt,
            early=early,
            before=before,
            stream="relabel/forget",
        )
        return

    def lie(drop: Batch) -> Tensor:
        return wrong(p.task.outputs(p.model, drop), drop).mean()

    def right(keep: Batch) -> Tensor:
        return p.task.losses(p.task.outputs(p.model, keep), keep).mean()

    times = first_epochs(early, recipe)
    turns = (Pass(p.forget, lie, "relabel/forget", times), Pass(p.retain, right, "retain"))
    alternate(p.model, turns, recipe, rt)


def wrong_target_losses(p: Problem, rt: Runtime) -> RowLosses:
    """Return the loss on wrong targets, drawn anew for each batch."""
    rng, removed = rt.rng("relabel/targets"), torch.tensor(p.removed_classes, dtype=torch.long)

    def wrong(out: Tensor, drop: Batch) -> Tensor:
        return p.task.losses(out, p.task.wrong(drop, rng, avoid=removed))

    return wrong


def fixed_target_losses(p: Problem, targets: Tensor, rt: Runtime) -> RowLosses:
    """Return the loss on targets ``(n, ...)`` that forget rows keep for the whole run."""
    recall = lookup_by_row(p.forget, targets, rt)
    return lambda out, drop: p.task.losses(out, replace(drop, y=recall(drop)))


def soft(p: Problem, goal: Tensor, rt: Runtime) -> RowLosses:
    """Return the divergence from fixed targets, given as log-probabilities ``(n, C)``."""
    recall = lookup_by_row(p.forget, goal, rt)
    return lambda out, drop: p.task.divergence(out, recall(drop))


def runner_up(p: Problem, rt: Runtime) -> Tensor | None:
    """Return the original's answers on the forget rows without the true and the removed classes.

    Log-probabilities ``(n, C)``, not normalised, ``EXCLUDED`` where a class must not be answered;
    None for a task whose outcomes do not exclude each other.
    """
    logp = p.task.log_probs(outputs(p.original, p.forget, p.task, rt))
    if logp is None:
        return None
    out = torch.zeros_like(logp, dtype=torch.bool)
    out[:, list(p.removed_classes)] = True
    out.scatter_(1, p.forget.y[:, None], True)
    stuck = out.all(1)
    out[stuck] = False
    out[stuck] = out[stuck].scatter(1, p.forget.y[stuck][:, None], True)
    return logp.masked_fill(out, EXCLUDED)
