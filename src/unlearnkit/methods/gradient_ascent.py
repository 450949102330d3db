"""Gradient ascent on the forget loss, with a stop rule."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.data import Batch
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.module_state import eval_mode
from unlearnkit.core.ranks import average_gradients, shared_rows
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.core.token_rows import TOKEN_TASKS
from unlearnkit.train.early_stopping import (
    OFF,
    StopMonitor,
    StopRule,
    cap_losses,
    retreat,
    snapshot,
)
from unlearnkit.train.loop import descend


class Climb(FrozenModel):
    """Steps up the loss, relative to the weights, in eval mode and without an optimiser."""

    kind: Literal["climb"] = "climb"
    """Climb by relative steps."""

    step: Annotated[float, SearchRange(0.001, 0.1, log=True)] = Field(
        0.01, ge=0, allow_inf_nan=False
    )
    """Length of a pass over the forget rows, as a share of each tensor's norm."""

    share: Annotated[float, SearchRange(0.02, 0.25)] = Field(0.15, ge=0, le=10)
    """Most that it may cost, as a share of retraining's cost on the retained rows (on the forget
    rows where the retained are not at hand)."""


@register
class GradientAscent(Method):
    """Ascend on the forget loss until the rows look unseen or the retained loss suffers."""

    info = Info(
        title="Gradient ascent",
        cite="Graves et al., AAAI 2021, arXiv:2010.10981; Golatkar et al., CVPR 2020",
        needs=frozenset({Need.FORGET, Need.LABELS}),
        uses=frozenset({Need.RETAIN, Need.VALIDATION}),
        tasks=frozenset({"classification", "multilabel", "regression"}) | TOKEN_TASKS,
        may_damage=True,
        when=(
            "Where the retain set is not available, or for a class in a hurry: on digits it costs"
            " 0.03 of retraining. Otherwise methods that also train on retained rows come nearer"
            " to retraining and do less harm. Where forget rows already look unseen, as wrong"
            " labels mostly do, it changes nothing."
        ),
        differs=(
            "by default it climbs in eval mode, without an optimiser: each pass over the forget"
            " rows moves each tensor by 0.01 of its norm, so that no rate has to be chosen; the"
            " preset climbs by SGD as published",
            "running statistics of batch normalisation stay the original's: measured again on"
            " retained rows they undo most of a climb in eval mode",
            "published ascent has no bound and diverges: here each row's loss is capped, the run"
            " ends once the rows look unseen, and weights move back until the retained loss is"
            " within its limit; `cap` of infinity with `guard` off is the published rule",
        ),
        fails=(
            "on mislabelled rows, whose loss is above that of validation rows from the start, it"
            " stops at once: on digits it closes 0 of the distance to retraining (a class: 0.74; a"
            " random tenth: 0.06)",
            "a model with wide margins and few rows needs more passes than its budget allows:"
            " wine, class 1, closes 0.06",
            "random training rows that look like held-out rows leave nothing to climb to: their"
            " influence stays (Ascent Fails to Forget, 2025)",
            "with batch normalisation, running statistics measured again on retained rows bring"
            " back what it removed: a class of 400 digits had an accuracy of 0.26 to 0.60 after"
            " it, and of 0.89 to 0.97 with such statistics",
            "at the published rates the model either does not change or breaks",
        ),
        presets={
            "paper": {
                "run": FineTuneSchedule.exact(
                    lr=1e-4,
                    momentum=0.9,
                    weight_decay=5e-4,
                    epochs=5,
                    batch_size=256,
                    augment="flip_crop",
                ),
                "cap": float("inf"),
                "guard": OFF,
            }
        },
        smoke={"guard": OFF, "cap": 4.0},
    )

    run: Annotated[Climb | FineTuneSchedule, Field(discriminator="kind")] = Climb()
    """How fast and how long to climb at most: by steps relative to the weights, or by a plain run
    (kind tuning) over the forget rows."""

    cap: Annotated[float, SearchRange(0.5, 8, log=True)] = Field(1.0, gt=0)
    """Loss at which a row no longer counts, as a multiple of the loss of a model without
    knowledge; infinity is no cap."""

    guard: StopRule = StopRule()
    """When to stop, and when to move back; checked after each pass over the forget rows."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Ascend pass by pass; bisect the last pass where it went too far."""
        recipe = self.run.resolve(p.recipe) if isinstance(self.run, FineTuneSchedule) else p.recipe
        if recipe is None:
            return p.model
        watch = StopMonitor(self.guard, p, rt, "gradient_ascent")
        if watch.overshot():
            rt.note("gradient_ascent: the forget rows look unseen already: nothing to unlearn")
            return p.model
        good = snapshot(p.model)

        def height(drop: Batch) -> Tensor:
            climbed = p.task.losses(p.task.outputs(p.model, drop), drop)
            return cap_losses(climbed, self.cap, p.task).mean()

        def enough(epoch: int) -> bool:
            del epoch
            nonlocal good
            if watch.intact() and not watch.overshot():
                good = snapshot(p.model)
                return watch.unseen()
            retreat(p.model, good, watch, tries=5)
            return True

        if isinstance(self.run, FineTuneSchedule):
            name = "gradient_ascent"
            descend(
                p.model, p.forget, lambda b: -height(b), recipe, rt, stream=name, after_epoch=enough
            )
        else:
            climb(p, height, self.run, rt, enough)
        return p.model


def climb(
    p: Problem,
    height: Callable[[Batch], Tensor],
    run: Climb,
    rt: Runtime,
    enough: Callable[[int], bool],
) -> None:
    """Ascend in eval mode by steps that are a share of each tensor's norm, until it is enough."""
    weights = [w for w in p.model.parameters() if w.requires_grad]
    budget = run.share * 3 * p.recipe.epochs * (len(p.retain) or len(p.forget))
    start = rt.cost.work
    share = run.step / p.forget.steps(p.recipe.batch_size)
    with eval_mode(p.model):
        for turn in count():
            if rt.cost.work - start >= budget:
                break
            order = f"gradient_ascent/{turn}"
            for batch in p.forget.batches(p.recipe.batch_size, rt, shuffle=order):
                with rt.autocast(), shared_rows():
                    value = height(batch)
                rt.backward(value)
                average_gradients(weights)
                _step(weights, share, rt)
            if enough(turn):
                break


def _step(weights: Sequence[nn.Parameter], share: float, rt: Runtime) -> None:
    """Move each tensor up its gradient by a share of its own size."""
    rt.project()
    with torch.no_grad():
        for w in weights:
            if w.grad is not None:
                size = w.grad.norm().clamp(min=1e-12)
                w.add_(share * w.norm() / size * w.grad)
            w.grad = None
    rt.restore()
