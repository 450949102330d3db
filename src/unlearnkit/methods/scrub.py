"""SCRUB: diverge from the teacher on the forget set, follow it elsewhere."""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.data import Batch
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.recipe import FineTuneSchedule, Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.train.early_stopping import alike, cap_losses, snapshot
from unlearnkit.train.features import mean_error, teacher_outputs
from unlearnkit.train.loop import Pass, alternate
from unlearnkit.train.schedule import first_epochs


@register
class Scrub(Recalibrated):
    """A student leaves the original's outputs on forget rows and keeps them on retained rows."""

    info = Info(
        title="SCRUB",
        cite="Kurmanji et al., NeurIPS 2023, arXiv:2302.09880",
        needs=frozenset({Need.FORGET, Need.RETAIN, Need.LABELS}),
        uses=frozenset({Need.VALIDATION}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        may_damage=True,
        when=(
            "For classes, and for removing bias or wrong labels, where a high forget error is"
            " wanted; for privacy with `rewind` (the paper's SCRUB+R), which aims at the error of"
            " unseen rows."
        ),
        differs=(
            "by default at twice the recipe's peak learning rate, falling to zero along a cosine,"
            " for 0.15 of the recipe's epochs, with forget passes in the first 0.15 of these;"
            " published settings are presets",
            "the student starts where the divergence and its gradient are zero, and without batch"
            " normalisation or dropout the first forget pass moves nothing: `nudge` takes a small"
            " random step first; 0 is as published",
            "each row's divergence is capped in the forget passes, because its negative has no"
            " lower bound; infinity is as published",
            "published scripts divide the rate by ten after listed epochs (3, 5, 9), mostly beyond"
            " the last one: the preset `reference` does so after the third of five; lists whose"
            " gaps differ cannot be given",
            "rewinding chooses among the states after each epoch; published code can choose the"
            " untouched original, whose file does not exist",
            "the teacher's outputs are computed once a row unless inputs are augmented",
            "tasks without classes compare outputs by their own divergence; in regression the"
            " temperature only scales it",
        ),
        fails=(
            "three public ports train a student that never moves or a teacher that moves too;"
            " figures made with them say nothing about the method",
            "at the published rate of 5e-4 small models do not change: a forgotten class of"
            " digits keeps an accuracy of 1",
            "a class of digits, perceptron, is pushed far beyond what a model says that never knew"
            " it: margins 35 deviations below the placebo's",
        ),
        presets={
            "paper": {
                "batch_norm": "keep",
                "retain_loss": 0.99,
                "retain_divergence": 0.001,
                "temperature": 4.0,
                "early": 2 / 3,
                "forget_batch": 256,
                "cap": float("inf"),
                "nudge": 0.0,
                "run": FineTuneSchedule.exact(
                    lr=5e-4, momentum=0.9, weight_decay=5e-4, epochs=3, batch_size=512
                ),
            },
            "reference": {
                "batch_norm": "keep",
                "retain_loss": 1.0,
                "retain_divergence": 0.5,
                "temperature": 4.0,
                "early": 3 / 5,
                "cap": float("inf"),
                "nudge": 0.0,
                "run": FineTuneSchedule.exact(
                    lr=5e-4,
                    momentum=0.9,
                    weight_decay=5e-4,
                    schedule="step",
                    step_epochs=3,
                    epochs=5,
                    batch_size=64,
                ),
            },
        },
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    retain_loss: float = Field(0.99, ge=0)
    """Weight of the task's loss on retained rows (paper: gamma)."""

    retain_divergence: Annotated[float, SearchRange(0.0001, 1, log=True)] = Field(0.001, ge=0)
    """Weight of the divergence from the teacher on retained rows (paper: alpha)."""

    temperature: Annotated[float, SearchRange(1, 8, log=True)] = Field(1.0, gt=0)
    """Softens both outputs before they are compared (paper: T); its square scales the result."""

    early: Annotated[float, SearchRange(0, 1)] = Field(0.15, ge=0, le=1)
    """Share of the epochs, from the first, that begin with a pass over the forget rows (code:
    msteps); 0 is fine-tuning with distillation."""

    forget_batch: int | None = Field(None, ge=1)
    """Rows in a forget step; the run's batch size when None."""

    cap: Annotated[float, SearchRange(0.5, 4, log=True)] = Field(1.0, gt=0)
    """Divergence, scaled, at which a forget row no longer counts, as a multiple of the loss of a
    model without knowledge; infinity is no cap."""

    nudge: float = Field(0.01, ge=0)
    """Random step before the first forget step, as a share of each tensor's root mean square."""

    rewind: Literal["never", "unseen"] = "never"
    """Return the last state, or that state after an epoch whose forget error is nearest to the last
    state's error on validation rows of the same classes (the paper's SCRUB+R)."""

    run: FineTuneSchedule = FineTuneSchedule(lr=2.0, share=0.15)
    """How to train: early epochs are a forget pass and then a retain pass."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Return the student after max steps and min steps (paper: equation 4).

        Raises:
            UnsupportedError: If it should rewind and there are no validation rows.
        """
        if self.rewind == "unseen" and p.validation is None:
            raise UnsupportedError(
                "scrub: rewind needs validation rows, which the case does not give; give"
                " Case(validation=...) or set rewind to 'never'"
            )
        recipe = self.run.resolve(p.recipe)
        if recipe is not None:
            self._alternate(p, recipe, rt)
        return p.model

    def _alternate(self, p: Problem, recipe: Recipe, rt: Runtime) -> None:
        times = first_epochs(self.early, recipe)
        passes = []
        if times:
            away = self._away(p, recipe, rt)
            passes.append(Pass(p.forget, away, "scrub/forget", times, self.forget_batch))
        passes.append(Pass(p.retain, self._near(p, recipe, rt), "retain"))
        states: list[tuple[dict[str, Tensor], float]] = []

        def keep_state(epoch: int) -> bool:
            del epoch
            if self.rewind == "unseen":
                states.append((snapshot(p.model), mean_error(p.model, p.forget, p.task, rt)))
            return False

        alternate(p.model, passes, recipe, rt, after_epoch=keep_state)
        if self.rewind == "unseen" and p.validation is not None:
            goal = mean_error(p.model, alike(p.validation, p.forget), p.task, rt)
            p.model.load_state_dict(min(states, key=lambda s: abs(s[1] - goal))[0])

    def _away(self, p: Problem, recipe: Recipe, rt: Runtime) -> Callable[[Batch], Tensor]:
        """Return the loss of a max step; take the random step that it needs to have a gradient."""
        teach = teacher_outputs(p.original, p.forget, p.task, rt, recipe)
        _nudge(p.model, self.nudge, rt)

        def away(drop: Batch) -> Tensor:
            d = self.distance(p, p.task.outputs(p.model, drop), teach(drop))
            return -cap_losses(d, self.cap, p.task).mean()

        return away

    def _near(self, p: Problem, recipe: Recipe, rt: Runtime) -> Callable[[Batch], Tensor]:
        """Return the loss of a min step."""
        guided = bool(self.retain_divergence)
        guide = teacher_outputs(p.original, p.retain, p.task, rt, recipe) if guided else None

        def near(keep: Batch) -> Tensor:
            out = p.task.outputs(p.model, keep)
            total = self.retain_loss * p.task.losses(out, keep).mean()
            if guide is not None:
                total = total + self.retain_divergence * self.distance(p, out, guide(keep)).mean()
            return total

        return near

    def distance(self, p: Problem, out: Tensor, target: Tensor) -> Tensor:
        """Return ``T^2 * divergence(teacher || student)`` at the temperature, per row ``(B,)``."""
        t = self.temperature
        return t * t * p.task.divergence(out, target, t)


def _nudge(model: nn.Module, share: float, rt: Runtime) -> None:
    if not share:
        return
    rng = rt.rng("scrub/nudge")
    with torch.no_grad():
        for w in model.parameters():
            if w.requires_grad:
                noise = torch.randn(w.shape, generator=rng, dtype=torch.float64).to(w)
                w.add_(share * w.square().mean().sqrt() * noise)
