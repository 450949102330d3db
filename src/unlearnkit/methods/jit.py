"""JiT: smooth the model around forget rows, from the model and these rows alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.data import Batch, View
from unlearnkit.core.inference import predict
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.module_state import eval_mode
from unlearnkit.core.ranks import average_gradients, shared_rows
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.train.early_stopping import (
    OFF,
    StopMonitor,
    StopRule,
    retreat,
    snapshot,
)
from unlearnkit.train.input_noise import Clip, InputNoise, Unit, input_noise
from unlearnkit.train.loop import training

FLAT = 1e-4
"""Relative slope of the objective, ``|gradient| |weights| / objective``, below which a gradient is
rounding."""

LEAST = 0.1
"""Share of the distance from rows never seen that a run must close; it is taken back otherwise."""

TRIES = 4
"""States tried between two passes to find the furthest that does no harm."""


def _published(noise: float, lr: float, batch_size: int) -> dict[str, Any]:
    return {
        "noise": noise,
        "unit": "one",
        "copies": 25,
        "draw": "independent",
        "clip": "batch",
        "reduction": "sum",
        "reset": "run",
        "mode": "train",
        "run": FineTuneSchedule.exact(lr=lr, momentum=0.0, batch_size=batch_size),
        "guard": OFF,
    }


class SmoothingSteps(FrozenModel):
    """Steps down the slope, of a length relative to the weights, without an optimiser."""

    kind: Literal["relative"] = "relative"
    """Take relative steps."""

    step: Annotated[float, SearchRange(0.001, 0.03, log=True)] = Field(
        0.01, ge=0, allow_inf_nan=False
    )
    """Length of a pass over the forget rows, as a share of the norm of all weights."""

    reach: float = Field(0.03, ge=0)
    """Length of all passes, in the same unit, where there are no validation rows to watch."""

    share: Annotated[float, SearchRange(0.2, 3, log=True)] = Field(0.9, ge=0, le=100)
    """Most that it may cost, as a share of what training on the forget rows alone costs with the
    recipe: at 1, forgetting one row in a hundred costs a hundredth of retraining."""


@register
class JiT(Method):
    """Pull the outputs at forget rows towards the outputs at noisy copies of them."""

    info = Info(
        title="JiT",
        cite="Foster et al., TMLR 2025, arXiv:2402.01401",
        needs=frozenset({Need.FORGET}),
        uses=frozenset({Need.VALIDATION}),
        tasks=frozenset({"classification"}),
        may_damage=True,
        when=(
            "For whole classes when no retained row is at hand: it reads the forget rows, without"
            " their targets, and validation rows where there are any. It makes a class less sure;"
            " it does not remove it. Of rows drawn at random it mostly forgets nothing, and says"
            " so."
        ),
        differs=(
            "by default steps are relative to the norm of the weights and end by rules that need no"
            " retained row; published code takes one pass at a rate searched for each network and"
            " data set, and users report collapses (its issues 1 and 3)",
            "a run that closes less than a tenth of the distance from validation rows is taken"
            " back, with a note; for some rows of a class, and no validation rows, nothing is done",
            "noise is by default in units of the inputs' spread and comes in pairs of opposite"
            " sign; as published it is in units of normalised images and independent",
            "the paper's formula may differentiate both outputs; published code only the one at the"
            " row itself, as the default does: for a linear model its mean gradient is zero, the"
            " other shrinks all weights alike",
            "published code sets gradients to zero only once and leaves the model in train mode"
            " with dropout: presets vgg_* and vit_*; the paper's algorithm takes single rows:"
            " preset paper, with the rate of the code because the paper's is not known to us",
            "whole numbers are perturbed at the outputs of embedding layers; the paper has images"
            " alone",
            "batches are in random order; copies at no distance count as 0, where published code"
            " divides 0 by 0",
        ),
        fails=(
            "on digits, means of 3 seeds, a class is answered at 0.82 when the guard stops the run"
            " and retained rows lose 0.014 of their accuracy; fine-tuning for three times that cost"
            " comes to 0.77 and loses nothing",
            "most requests for rows drawn at random, wrong labels, memorised rows and three classes"
            " of digits, and a class of an overfitted network on cifar10_small, are left as they"
            " are, with a note",
            "on cifar10_small, a random tenth, the preset vgg_random takes test rows from 0.67 to"
            " 0.40 and paper to 0.63, with forget rows at 0.59 and 0.99 (one seed)",
            "without a guard, four passes of 0.03 erase a class of digits and cost retained rows a"
            " third of their accuracy; users of published code are left with 1 to 38 % (its issues"
            " 1 and 3)",
        ),
        presets={
            "paper": _published(0.5, 3e-4, 1)
            | {"gradient": "both", "clip": "none", "reset": "step", "mode": "eval"},
            "vgg_class": _published(0.5, 3e-4, 128),
            "vgg_sub_class": _published(0.01, 3e-4, 64),
            "vgg_random": _published(0.01, 3e-4, 128),
            "vit_class": _published(0.8, 1.5, 128),
            "vit_sub_class": _published(1.5, 0.5, 64),
            "vit_random": _published(0.5, 0.1, 128),
        },
        smoke={"guard": OFF},
    )

    noise: Annotated[float, SearchRange(0.05, 2, log=True)] = Field(0.5, ge=0, allow_inf_nan=False)
    """Standard deviation of the noise, in its unit (paper: sigma); 0 changes nothing."""

    unit: Unit = "spread"
    """Unit of the noise: the deviation of each column of a table, of all numbers of images and
    sequences, or of an embedding's weights, over forget rows; or 1 (paper: normalised images)."""

    copies: int = Field(8, ge=1)
    """Noisy copies of each row (paper: N, 25)."""

    draw: Literal["pairs", "independent"] = "pairs"
    """Whether every second copy has the opposite noise of the one before: what a linear model
    says then cancels exactly; or each copy has noise of its own (paper)."""

    clip: Clip = "row"
    """Whether noisy inputs stay between the extremes of their batch (published code), between
    those of their own row, or are not limited (paper)."""

    gradient: Literal["clean", "both"] = "clean"
    """Whether the gradient goes through the outputs at the rows alone (published code), or also
    through those at the noisy copies (the paper's formula)."""

    power: Literal[1, 2] = 1
    """Exponent of the two norms that are divided."""

    reduction: Literal["mean", "sum"] = "mean"
    """Over the rows of a batch; a learning rate for the sum (published code) depends on the batch
    size. Relative steps do not change."""

    reset: Literal["step", "run"] = "step"
    """When gradients are set to zero: before each step, or only before the first, so that each
    step takes the sum of all gradients so far (published code)."""

    mode: Literal["eval", "train"] = "eval"
    """Whether the model is in eval mode, so that batch statistics and dropout play no part, or in
    train mode (published code)."""

    run: Annotated[SmoothingSteps | FineTuneSchedule, Field(discriminator="kind")] = (
        SmoothingSteps()
    )
    """How fast and how long: steps relative to the weights, or a plain run (kind tuning) over the
    forget rows."""

    guard: StopRule = StopRule(sample=128)
    """When it is enough, and when too much, after each pass over the forget rows. What rows are
    called is the original's own answer: no target is read. What stays is watched on validation
    rows."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Take steps down the mean slope of the outputs around forget rows (paper: algorithm 1).

        Args:
            p: The problem; no retained row and no target is read.
            rt: Where to run.

        Returns:
            The model.
        """
        start = rt.cost.work
        noise = input_noise(
            p.model,
            p.forget,
            rt,
            size=self.noise,
            unit=self.unit,
            clip=self.clip,
            paired=self.draw == "pairs",
            who="jit",
        )
        watch = StopMonitor(self.guard, _with_own_answers(p, self.guard.sample, rt), rt, "jit")
        before = watch.remaining() if watch.stops else math.inf
        why = self._unneeded(watch, before)
        if why:
            rt.note(f"jit: did nothing: {why}")
            return p.model
        came = snapshot(p.model)
        why = self._walk(p, noise, watch, start, rt)
        if watch.stops and p.validation is not None and watch.remaining() > (1 - LEAST) * before:
            p.model.load_state_dict(came)
            why = f"less than {LEAST:.0%} of the way to rows never seen is gone before {why}"
        if all(torch.equal(t, came[name]) for name, t in p.model.state_dict().items()):
            rt.note(f"jit: did nothing: {why or 'the outputs around the forget rows are level'}")
        elif why:
            rt.note(f"jit: stopped before the forget rows look never seen: {why}")
        return p.model

    def _unneeded(self, watch: StopMonitor, before: float) -> str:
        """Return why there is nothing to do, or nothing that is safe; empty otherwise."""
        if before <= 0:
            return "the forget rows look never seen as they are"
        if self.guard.stop == "unseen" and not watch.stops:
            return "without validation rows nothing says what rows never seen look like"
        return ""

    def _walk(
        self, p: Problem, noise: InputNoise, watch: StopMonitor, start: int, rt: Runtime
    ) -> str:
        """Go round the forget rows until the guard or the budget ends it; return what ended it."""
        recipe = self.run.resolve(p.recipe) if isinstance(self.run, FineTuneSchedule) else p.recipe
        if recipe is None:
            return "its settings move nothing"
        weights = [w for w in p.model.parameters() if w.requires_grad]
        plain = recipe.build(weights) if isinstance(self.run, FineTuneSchedule) else None
        rng, good = rt.rng("jit/noise"), snapshot(p.model)
        p.model.zero_grad(set_to_none=True)
        turn = 0
        while not (ended := self._ended(turn, p, watch, rt.cost.work - start)):
            for batch in p.forget.batches(recipe.batch_size, rt, shuffle=f"jit/{turn}"):
                with self._mode(p.model), rt.autocast(), shared_rows():
                    value = self.slope(p, batch, noise, rng)
                rt.backward(value)
                average_gradients(weights)
                if plain is None:
                    _relative_step(weights, value, self._length(p, recipe.batch_size), rt)
                else:
                    plain.step()
                    rt.restore()
                if self.reset == "step":
                    p.model.zero_grad(set_to_none=True)
            if not watch.intact() or watch.overshot():
                retreat(p.model, good, watch, TRIES)
                return "going on harms what stays"
            if watch.unseen():
                return ""
            good, turn = snapshot(p.model), turn + 1
        return ended

    def slope(self, p: Problem, batch: Batch, noise: InputNoise, rng: torch.Generator) -> Tensor:
        """Return the mean slope of the outputs around rows, ``|f(x) - f(x + e)| / |e|``.

        Args:
            p: Gives the model.
            batch: The B rows; those whose copies are where they are count as 0.
            noise: Makes the copies.
            rng: Draws their noise.

        Returns:
            A scalar: the mean over copies, and the mean or sum over rows.
        """
        out = p.task.outputs(p.model, batch)
        through = torch.enable_grad() if self.gradient == "both" else torch.no_grad()
        with through:
            moved, length = noise.outputs(p.model, batch, p.task, self.copies, rng)
        gap = (out - moved).square().sum(-1)
        there = (gap > 0) & (length > 0)
        ratio = gap.where(there, 1).sqrt() / length.where(there, 1)
        rows = torch.where(there, ratio**self.power, 0).mean(0)
        return rows.sum() if self.reduction == "sum" else rows.mean()

    def _mode(self, model: nn.Module) -> AbstractContextManager[None]:
        return eval_mode(model) if self.mode == "eval" else training(model)

    def _length(self, p: Problem, batch_size: int) -> float:
        assert isinstance(self.run, SmoothingSteps)
        return self.run.step / p.forget.steps(batch_size)

    def _ended(self, turn: int, p: Problem, watch: StopMonitor, spent: int) -> str:
        """Return why there is no further pass; empty if there is one."""
        if isinstance(self.run, FineTuneSchedule):
            recipe = self.run.resolve(p.recipe)
            assert recipe is not None
            return "its run is over" if turn >= recipe.epochs else ""
        if watch.kept is None and turn * self.run.step >= self.run.reach:
            return "without validation rows nothing says what harm a longer run would do"
        look = len(watch.forget) + len(watch.unseen_rows or ()) + len(watch.kept or ())
        ahead = (self.copies + 3) * len(p.forget) + (1 + TRIES) * look
        budget = self.run.share * 3 * p.recipe.epochs * len(p.forget)
        return "its budget is spent: raise run.share" if turn and spent + ahead > budget else ""


def _relative_step(
    weights: Sequence[nn.Parameter], value: Tensor, length: float, rt: Runtime
) -> None:
    """Move all weights down the gradient by a share of their norm, unless it is rounding."""
    rt.project()
    slopes = [(w, w.grad) for w in weights if w.grad is not None]
    if not slopes:
        return
    with torch.no_grad():
        steep = torch.stack([g.norm() for _, g in slopes]).norm()
        size = torch.stack([w.norm() for w, _ in slopes]).norm()
        real = steep * size > FLAT * value.detach()
        rate = torch.where(real, length * size / steep.where(real, 1), 0)
        for w, g in slopes:
            w.sub_(rate * g)
    rt.restore()


def _with_own_answers(p: Problem, sample: int, rt: Runtime) -> Problem:
    """Return the problem with the original's top class as the target of the rows to watch."""

    def answer(view: View) -> View:
        top = predict(p.original, view, p.task, rt).argmax(1)
        y = torch.zeros(len(view.data), dtype=top.dtype)
        y[view.rows] = top
        return replace(view, data=view.data.with_targets(y), targets_hidden_because="")

    forget = answer(p.forget.sample(sample, rt, "jit/answers/forget"))
    if p.validation is None:
        return replace(p, forget=forget)
    unseen = answer(p.validation.sample(sample, rt, "jit/answers/validation"))
    return replace(p, forget=forget, validation=unseen)
