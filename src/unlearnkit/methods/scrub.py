"""Obey the teacher on what stays, disobey it on what must go."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.data import Batch, View
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.evidence import run
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.recipe import Tuning
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.loop import Pass, alternate
from unlearnkit.train.reading import answers
from unlearnkit.train.stopping import alike, capped, snapshot


@register
class Scrub(Method):
    """A student leaves the original's outputs on forget rows and keeps them on retained rows."""

    info = Info(
        title="SCRUB",
        cite="Kurmanji et al., NeurIPS 2023, arXiv:2302.09880",
        needs=frozenset({Need.FORGET, Need.RETAIN}),
        uses=frozenset({Need.VALIDATION}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "For removing bias or wrong labels, where a high forget error is wanted; with `rewind`"
            " (the paper's SCRUB+R) for privacy, where the error of unseen rows is."
        ),
        differs=(
            "the student starts where the divergence and its gradient are zero, and without batch"
            " normalisation or dropout the first forget pass moves nothing: `nudge` takes a small"
            " random step first; 0 is as published",
            "each row's divergence is capped in the forget passes, because its negative has no"
            " lower bound; infinity is as published",
            "the learning rate is constant or a cosine; published scripts divide it by ten after"
            " some epochs, mostly beyond the last one",
            "rewinding chooses among the states after each epoch; published code can choose the"
            " untouched original, whose file does not exist",
            "the teacher's outputs are computed once a row unless inputs are augmented",
            "outputs of tasks without classes are compared by the task's own divergence; for"
            " regression the temperature scales it and no more",
        ),
        fails=(
            "three public ports train a student that never moves or a teacher that moves along;"
            " figures made with them say nothing about the method",
            "at the published rate of 5e-4 small models do not change",
        ),
        presets={
            "paper": {
                "retain_loss": 0.99,
                "retain_divergence": 0.001,
                "temperature": 4.0,
                "forget_epochs": 2,
                "forget_batch": 256,
                "cap": float("inf"),
                "nudge": 0.0,
                "run": Tuning.exact(
                    lr=5e-4, momentum=0.9, weight_decay=5e-4, epochs=3, batch_size=512
                ),
            },
            "reference": {
                "retain_loss": 1.0,
                "retain_divergence": 0.5,
                "temperature": 4.0,
                "forget_epochs": 3,
                "cap": float("inf"),
                "nudge": 0.0,
                "run": Tuning.exact(
                    lr=5e-4, momentum=0.9, weight_decay=5e-4, epochs=5, batch_size=64
                ),
            },
        },
        smoke={"run": {"lr": 0.5, "share": 0.2}, "forget_epochs": 1},
    )

    retain_loss: float = Field(0.99, ge=0)
    """Weight of the task's loss on retained rows (paper: gamma)."""

    retain_divergence: float = Field(0.1, ge=0)
    """Weight of the divergence from the teacher on retained rows (paper: alpha)."""

    temperature: float = Field(2.0, gt=0)
    """Softens both outputs before they are compared (paper: T); its square scales the result."""

    forget_epochs: int = Field(4, ge=0)
    """Epochs, from the first, that begin with a forget pass (code: msteps); 0 is fine-tuning with
    distillation."""

    forget_batch: int | None = Field(None, ge=1)
    """Rows in a step of a forget pass; the run's batch size when None."""

    cap: float = Field(4.0, gt=0)
    """Divergence, scaled, at which a forget row no longer counts, as a multiple of the loss of a
    model without knowledge; infinity is no cap."""

    nudge: float = Field(0.01, ge=0)
    """Random step before the first forget pass, as a share of each tensor's root mean square."""

    rewind: Literal["never", "unseen"] = "never"
    """Return the last state, or that state after an epoch whose forget error is nearest to the last
    state's error on validation rows of the same classes (the paper's SCRUB+R)."""

    run: Tuning = Tuning(lr=0.5, share=0.15)
    """How fast and how long; an epoch is a forget pass, while there are any, and a retain pass."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Alternate max and min passes (paper: equation 4).

        Args:
            p: The problem.
            rt: The run's place and seed.

        Returns:
            The student.

        Raises:
            UnsupportedError: If it should rewind and there are no validation rows.
        """
        recipe = self.run.resolve(p.recipe)
        if self.rewind == "unseen" and p.validation is None:
            raise UnsupportedError(
                "scrub: rewind needs validation rows, which the case does not give; give"
                " Case(validation=...) or set rewind to 'never'"
            )
        if recipe is None:
            return p.model
        passes = []
        if self.forget_epochs:
            teach = answers(p.original, p.forget, p.task, rt, recipe)

            def away(drop: Batch) -> Tensor:
                d = self.distance(p, p.task.outputs(p.model, drop), teach(drop))
                return -capped(d, self.cap, p.task).mean()

            passes.append(
                Pass(p.forget, away, "scrub/forget", self.forget_epochs, self.forget_batch)
            )
            _nudge(p.model, self.nudge, rt)
        guide = (
            answers(p.original, p.retain, p.task, rt, recipe) if self.retain_divergence else None
        )

        def near(keep: Batch) -> Tensor:
            out = p.task.outputs(p.model, keep)
            total = self.retain_loss * p.task.losses(out, keep).mean()
            if guide is not None:
                total = total + self.retain_divergence * self.distance(p, out, guide(keep)).mean()
            return total

        passes.append(Pass(p.retain, near, "retain"))
        states: list[tuple[dict[str, Tensor], float]] = []

        def keep_state(epoch: int) -> bool:
            del epoch
            if self.rewind == "unseen":
                states.append((snapshot(p.model), _error(p, p.forget, rt)))
            return False

        alternate(p.model, passes, recipe, rt, after_epoch=keep_state)
        if self.rewind == "unseen" and p.validation is not None:
            goal = _error(p, alike(p.validation, p.forget), rt)
            p.model.load_state_dict(min(states, key=lambda s: abs(s[1] - goal))[0])
        return p.model

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


def _error(p: Problem, view: View, rt: Runtime) -> float:
    out = run(p.model, view, p.task, rt)
    batch = Batch(torch.empty(len(view), 0), view.y, view.rows)
    return p.task.errors(out, batch).double().mean().item()
