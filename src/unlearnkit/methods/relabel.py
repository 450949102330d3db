"""Teach wrong targets for the rows that must go, the right ones for the rest."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.data import Batch
from unlearnkit.core.evidence import run
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.recipe import Tuning
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.loop import Loss, Pass, alternate
from unlearnkit.train.reading import remembered
from unlearnkit.train.stopping import OFF, Guard, Watch

EXCLUDED = -1e4
"""Logit of a class that must not be answered: its probability is zero in any precision."""


@register
class Relabel(Method):
    """Each epoch: a pass over forget rows with wrong targets, then one over retained rows."""

    info = Info(
        title="Random relabelling",
        cite="Golatkar et al., CVPR 2020, arXiv:1911.04933; Graves et al., arXiv:2010.10981",
        needs=frozenset({Need.FORGET, Need.RETAIN}),
        uses=frozenset({Need.VALIDATION}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "For whole classes, with `targets` at runner_up: a retrained model answers there what"
            " looks most alike. Wrong labels for rows drawn at random overshoot unless stopped."
        ),
        differs=(
            "targets are never the true one (the paper's rule); reference code draws from all"
            " classes, so that one in C keeps its label",
            "classes that must vanish whole are never drawn, because a retrained model does not"
            " know them",
            "`runner_up` is ours: the original's own answer without the true and the vanished"
            " classes, as a soft target",
            "multilabel rows get flipped labels, regression rows targets drawn from a Gaussian"
            " with the training targets' mean and deviation",
            "for requests that leave every class some rows, the run ends early once forget rows"
            " look unseen; published code runs for a fixed number of epochs",
        ),
        fails=(
            "with uniform targets the forget rows end up unsure in a way that retrained models"
            " are not, which membership attacks see",
            "rows drawn at random are pushed past the retrained model: on a random tenth of digits"
            " the divergence from it grew elevenfold",
        ),
        presets={
            "paper": {
                "targets": "uniform",
                "run": Tuning.exact(
                    lr=0.01,
                    momentum=0.9,
                    weight_decay=5e-4,
                    epochs=10,
                    batch_size=256,
                    augment="flip_crop",
                ),
                "guard": OFF,
            },
            "reference": {
                "targets": "uniform",
                "run": Tuning.exact(optimizer="adam", lr=1e-4, epochs=3, batch_size=128),
                "guard": OFF,
            },
        },
        smoke={"run": {"lr": 0.5, "share": 0.2}},
    )

    targets: Literal["uniform", "runner_up"] = "runner_up"
    """What forget rows are taught: a wrong target drawn anew for each batch, or the original's own
    answer (a distribution) without the true and the vanished classes. Where outcomes do not
    exclude each other there is no runner-up, and targets are drawn."""

    retain: float = Field(1.0, ge=0, le=1)
    """Share of the retained rows that are trained on, drawn once; 0 is the forget pass alone."""

    run: Tuning = Tuning(lr=0.5, share=0.15)
    """How fast and how long; an epoch is a pass over the forget rows and one over the retained."""

    guard: Guard = Guard()
    """When it is enough; looked at after each epoch."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Alternate the two passes."""
        recipe = self.run.resolve(p.recipe)
        if recipe is None:
            return p.model

        def right(keep: Batch) -> Tensor:
            return p.task.losses(p.task.outputs(p.model, keep), keep).mean()

        stay = p.retain.sample(round(self.retain * len(p.retain)), rt, "relabel/share")
        watch = Watch(self.guard, p, rt, "relabel")
        passes = [Pass(p.forget, self._wrong(p, rt), "relabel/forget")]
        if len(stay):
            passes.append(Pass(stay, right, "retain"))
        alternate(p.model, passes, recipe, rt, after_epoch=watch.done)
        return p.model

    def _wrong(self, p: Problem, rt: Runtime) -> Loss:
        if self.targets == "runner_up":
            second = runner_up(p, rt)
            if second is not None:
                goal = remembered(p.forget, second, rt)
                return lambda drop: p.task.divergence(
                    p.task.outputs(p.model, drop), goal(drop)
                ).mean()
        rng, gone = rt.rng("relabel/targets"), torch.tensor(p.gone, dtype=torch.long)

        def loss(drop: Batch) -> Tensor:
            lie = p.task.wrong(drop, rng, avoid=gone)
            return p.task.losses(p.task.outputs(p.model, lie), lie).mean()

        return loss


def runner_up(p: Problem, rt: Runtime) -> Tensor | None:
    """Return the original's answers on the forget rows without true and vanished classes.

    Args:
        p: The problem.
        rt: Where to run.

    Returns:
        Log-probabilities ``(n, C)``, not normalised, ``EXCLUDED`` where a class must not be
        answered; None for a task whose outcomes do not exclude each other.
    """
    logp = p.task.log_probs(run(p.original, p.forget, p.task, rt))
    if logp is None:
        return None
    out = torch.zeros_like(logp, dtype=torch.bool)
    out[:, list(p.gone)] = True
    out.scatter_(1, p.forget.y[:, None], True)
    stuck = out.all(1)
    out[stuck] = False
    out[stuck] = out[stuck].scatter(1, p.forget.y[stuck][:, None], True)
    return logp.masked_fill(out, EXCLUDED)
