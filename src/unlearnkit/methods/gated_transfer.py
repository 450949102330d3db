"""Gated knowledge transfer: data-free distillation without the forgotten classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.data import Batch
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.train.activations import attention, attention_gap, capture_activations, match_layers
from unlearnkit.train.data_free.class_gate import ClassGate, Kind
from unlearnkit.train.data_free.generator import Generator, constant, generator, reinitialise
from unlearnkit.train.data_free.input_optimization import freeze
from unlearnkit.train.early_stopping import ReduceRateOnPlateau, follow, snapshot
from unlearnkit.train.loop import Norm, training

PAPER = {
    "gate": "sample",
    "attention": 250.0,
    "batches": 4000,
    "batch_size": 256,
    "student_lr": 1e-3,
    "schedule": "plateau",
    "average": 0.0,
    "leak": math.inf,
}

RESTARTS = 3
"""How often a generator whose inputs no longer pass the gate is drawn anew."""

KNOWN = (
    "gated_transfer: at the first look the student knew a forgotten class; if it still does, set"
    " gate to logit or lower the threshold"
)


@register
class GatedTransfer(Method):
    """A generator finds inputs where student and teacher differ; a gate holds back some classes."""

    info = Info(
        title="Gated knowledge transfer",
        cite="Chundawat et al., IEEE TIFS 2023, arXiv:2201.05629",
        needs=frozenset({Need.CLASSES, Need.SHAPE, Need.FRESH}),
        tasks=frozenset({"classification"}),
        rebuilds=True,
        replaces=True,
        when=(
            "For whole classes when no training row is left and a new model may be built, of the"
            " same architecture or another. No weight of the original is in the result. It costs"
            " more than retraining a small model would, if its rows were available."
        ),
        differs=(
            "by default the logits of forgotten classes are lowered below all others and every"
            " pseudo-input is used (logit gate); the paper drops pseudo-inputs (sample gate). On"
            " digits with classes 0 and 2 to forget, the sample gate lets 52 % pass and the"
            " student still predicts these classes for 30 % of the forget rows, with the logit"
            " gate for none; retained accuracy is 0.97 and 0.96",
            "the weight of attention is 10; 250 as published slows the logit gate down: on 8x8"
            " digits with a convolutional network retained accuracy is 0.74 after 200"
            " pseudo-batches, with 10 it is 0.95",
            "pseudo-inputs, the teacher's outputs and its attention are computed once for all"
            " student steps of a pseudo-batch, which all use the same generator and random"
            " numbers; published code computes them at each step, to the same numbers",
            "learning rates follow a cosine, or (plateau, as published) the student's own loss;"
            " published code halves them by the accuracy on real test rows and by a constant",
            "the student is in train mode; published code leaves it in eval mode, so that batch"
            " normalisation is never updated: preset `reference`",
            "the result is a running mean of the student; a run ends early, without any data,"
            " when the generator collapses or the student learns a forgotten class; published runs"
            " are stopped by hand, from real test accuracy",
            "random numbers and steps stay together when the gate drops a batch; in published"
            " code they drift apart. A generator whose inputs no longer pass is drawn anew at most"
            " three times; published code reloads one from a file",
            "generators for sizes other than 32x32 and 28x28, and for vectors, are our own",
        ),
        fails=(
            "with the sample gate forgotten classes leak through small probabilities and"
            " attention: the authors' own log shows forget accuracy rise from 0 to 76 % within 150"
            " pseudo-batches",
            "the meter counts rows through teacher and student, but not the generator's work",
        ),
        presets={"paper": PAPER, "reference": {**PAPER, "norm": "frozen"}},
        smoke={"batches": 4, "batch_size": 16, "student_steps": 3, "look": 2},
    )

    gate: Kind = "logit"
    """What keeps the forgotten classes out: their logits are lowered below all others before the
    student sees them, pseudo-inputs that look like them are dropped (paper), or both."""

    threshold: Annotated[float, SearchRange(0.001, 0.3, log=True)] = Field(0.01, ge=0, le=1)
    """Largest probability of a forgotten class with which a pseudo-input passes the sample gate
    (paper: epsilon); at 1 all pass."""

    margin: float = Field(0.0, ge=0, allow_inf_nan=False)
    """How far below the smallest logit the logit gate puts those of the forgotten classes."""

    batches: Annotated[int, SearchRange(50, 800, log=True)] = Field(200, ge=0)
    """Pseudo-batches: random numbers drawn, each for some generator and student steps."""

    batch_size: int = Field(128, ge=2)
    """Pseudo-inputs in a batch."""

    generator_steps: int = Field(1, ge=0)
    """Generator steps in a pseudo-batch (paper: n_g)."""

    student_steps: int = Field(10, ge=1)
    """Student steps in a pseudo-batch, all on the same pseudo-inputs (paper: n_s)."""

    latent: int = Field(128, ge=1)
    """Random numbers for each pseudo-input."""

    width: int = Field(128, ge=4)
    """Channels, or hidden units, of the generator."""

    generator_lr: Annotated[float, SearchRange(2e-4, 5e-3, log=True)] = Field(
        1e-3, gt=0, allow_inf_nan=False
    )
    """Learning rate of the generator, by Adam."""

    student_lr: Annotated[float, SearchRange(5e-4, 1e-2, log=True)] = Field(
        2e-3, gt=0, allow_inf_nan=False
    )
    """Learning rate of the student, by Adam."""

    schedule: Literal["constant", "cosine", "plateau"] = "cosine"
    """Both learning rates over the run: constant, a cosine to zero, or halved when the student's
    own loss has not fallen for two looks."""

    clip: float = Field(5.0, gt=0)
    """Largest norm of a gradient; infinity is no limit."""

    temperature: float = Field(1.0, gt=0)
    """Softens both outputs before they are compared (paper: tau)."""

    attention: Annotated[float, SearchRange(0, 250)] = Field(10.0, ge=0, allow_inf_nan=False)
    """Weight of the difference in attention (paper: beta), next to a divergence that is divided by
    the number of classes; 0 compares outputs only."""

    taps: tuple[str, ...] | None = None
    """Layers whose attention is compared, as ``named_modules`` calls them, in teacher and student;
    the ends of stages when None."""

    norm: Norm = "train"
    """Whether the student's normalisation layers follow the pseudo-inputs in training."""

    average: float = Field(0.99, ge=0, lt=1)
    """The result is a running mean of the student's weights that keeps this share at each step; at
    0 it is the last student."""

    leak: float = Field(1.0, gt=0)
    """The run ends, one look earlier, once the student gives the forgotten class more than this
    many times ``1 / K`` on pseudo-inputs that the teacher is sure are of it; infinity never."""

    look: int = Field(50, ge=1)
    """Pseudo-batches between two checks of the run."""

    patience: int = Field(100, ge=1)
    """Pseudo-batches in a row that the gate may hold back altogether."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Take turns: the generator raises the divergence, the student lowers it."""
        assert p.input_shape is not None
        made = generator(
            p.input_shape, rt, "gated_transfer/generator", latent=self.latent, width=self.width
        )
        return transfer(self, p, made, rt)


def transfer(how: GatedTransfer, p: Problem, made: Generator, rt: Runtime) -> nn.Module:
    """Return a student taught on what a generator, changed in place, makes."""
    run = _Run(how, p, made, rt)
    with training(run.student, how.norm), freeze(p.original):
        for k in range(how.batches):
            run.pseudo_batch(k)
            if (k + 1) % how.look == 0 and run.ends(k + 1):
                break
    run.tell()
    return run.mean


@dataclass(frozen=True)
class _Shown:
    """Pseudo-inputs, and what the teacher says about them."""

    x: Tensor
    out: Tensor
    """The teacher's logits, before any gate."""

    keep: Tensor
    """Which rows pass."""


class _Run:
    """A run: teacher, student, generator, and its progress."""

    def __init__(self, how: GatedTransfer, p: Problem, made: Generator, rt: Runtime) -> None:
        self.how, self.p, self.made, self.rt = how, p, made, rt
        self.step = self.restarts = 0
        self.student, self.mean = p.fresh(), p.fresh()
        self.params = [w for w in self.student.parameters() if w.requires_grad]
        self.student_opt = torch.optim.Adam(self.params, lr=how.student_lr)
        self.generator_opt = torch.optim.Adam(made.parameters(), lr=how.generator_lr)
        self.pairs: dict[str, str] = {}
        if how.attention:
            with torch.no_grad():
                few = self._batch(made(self._draw(-1)[:2]))
            self.pairs = match_layers(p.original, self.student, how.taps, p.task, few)
        self.gate = ClassGate(
            how.gate,
            p.removed_classes,
            threshold=how.threshold,
            margin=how.margin,
            patience=how.patience,
            who="gated_transfer",
        )
        self.losses: list[Tensor] = []
        self.last: _Shown | None = None
        self.good: dict[str, Tensor] | None = None
        self.plateau = ReduceRateOnPlateau()

    def pseudo_batch(self, k: int) -> None:
        """Draw random numbers; move the generator, then the student."""
        z = self._draw(k)
        factor = self.plateau.factor
        if self.how.schedule == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * k / self.how.batches))
        for opt, lr in (
            (self.generator_opt, self.how.generator_lr),
            (self.student_opt, self.how.student_lr),
        ):
            for group in opt.param_groups:
                group["lr"] = lr * factor
        for _ in range(self.how.generator_steps):
            self._challenge(z)
        self._teach(z)

    def ends(self, k: int) -> bool:
        """Check the progress of the run; return whether it ends here."""
        assert self.last is not None
        rate = self.gate.rate()
        self.rt.reporter.progress(f"gated_transfer, {rate:.0%} pass", k, self.how.batches)
        if self.how.schedule == "plateau" and self.losses:
            self.plateau.step(float(torch.stack(self.losses).mean()))
        self.losses = []
        if constant(self.last.x):
            self.rt.note(
                "gated_transfer: the generator collapsed, its inputs are all the same; stopped"
                f" after {k} of {self.how.batches} pseudo-batches"
            )
            return True
        if self._leaks(self.last):
            if self.good is None:
                self.rt.note(KNOWN)
                return False
            self.mean.load_state_dict(self.good)
            self.rt.note(
                "gated_transfer: the student began to know a forgotten class; stopped after"
                f" {k} of {self.how.batches} pseudo-batches, with the student of the look before"
            )
            return True
        self.good = snapshot(self.mean)
        return False

    def tell(self) -> None:
        """Say what share of pseudo-inputs passed, and which classes they hardly showed."""
        if not len(self.gate.classes):
            return
        self.rt.note(
            f"gated_transfer: {self.gate.whole_rate():.0%} of pseudo-inputs passed the gate"
        )
        share = self.gate.classes / self.gate.classes.sum()
        rare = (share < 0.1 / len(share)).nonzero()[:, 0].tolist()
        rare = [c for c in rare if c not in self.p.removed_classes]
        if rare:
            self.rt.note(
                "gated_transfer: the generator hardly made inputs of class"
                f" {', '.join(map(str, rare[:8]))}; the student may not know"
                f" {'it' if len(rare) == 1 else 'them'}"
            )

    def _challenge(self, z: Tensor) -> None:
        """Move the generator to where student and teacher differ (paper: L_G = -D)."""
        shown = self._show(self.made(z))
        x, out = self._passed(shown)
        if len(x) < 2:
            return
        with freeze(self.student, self.how.norm), self.rt.autocast():
            loss = -self._distance(self._outputs(self.student, x), self.gate.goal(out))
        self._move(self.generator_opt, list(self.made.parameters()), loss)

    def _teach(self, z: Tensor) -> None:
        """Move the student towards the gated teacher, in several steps on the same inputs."""
        how = self.how
        with torch.no_grad(), capture_activations(self.p.original, tuple(self.pairs)) as taps:
            shown = self._show(self.made(z))
            looks = {name: attention(taps[name])[shown.keep] for name in self.pairs}
        self.last = shown
        self.gate.count(shown.out, shown.keep)
        x, out = self._passed(shown)
        if len(x) < 2:
            if self.gate.stuck(shown.out, last=self.restarts == RESTARTS):
                self._redraw()
            return
        self.gate.let_some_pass()
        goal = self.gate.goal(out)
        for _ in range(how.student_steps):
            with (
                capture_activations(self.student, tuple(self.pairs.values())) as taps,
                self.rt.autocast(),
            ):
                loss = self._distance(self._outputs(self.student, x), goal)
                gaps = [
                    attention_gap(attention(taps[mine]), looks[theirs])
                    for theirs, mine in self.pairs.items()
                ]
            loss = loss + how.attention * sum(gaps)
            self._move(self.student_opt, self.params, loss)
            self._follow()
        self.losses.append(loss.detach())

    def _show(self, x: Tensor) -> _Shown:
        with self.rt.autocast():
            out = self._outputs(self.p.original, x)
        return _Shown(x, out, self.gate.keep(out))

    def _passed(self, shown: _Shown) -> tuple[Tensor, Tensor]:
        if self.how.gate == "logit":
            return shown.x, shown.out
        return shown.x[shown.keep], shown.out[shown.keep]

    def _distance(self, out: Tensor, goal: Tensor) -> Tensor:
        """Return ``mean KL(teacher || student) / K`` at the temperature (paper: D)."""
        return self.p.task.divergence(out, goal, self.how.temperature).mean() / out.shape[-1]

    def _outputs(self, model: nn.Module, x: Tensor) -> Tensor:
        return self.p.task.outputs(model, self._batch(x))

    def _batch(self, x: Tensor) -> Batch:
        rows = torch.arange(len(x))
        return Batch(x, rows.to(x.device), rows, self.rt.cost)

    def _draw(self, k: int) -> Tensor:
        stream = f"gated_transfer/numbers/{self.restarts}/{k}"
        z = torch.randn(self.how.batch_size, self.made.latent, generator=self.rt.rng(stream))
        return z.to(self.rt.device)

    def _move(self, opt: torch.optim.Optimizer, params: list[nn.Parameter], loss: Tensor) -> None:
        opt.zero_grad(set_to_none=True)
        self.rt.backward(loss)
        if self.how.clip < math.inf:
            nn.utils.clip_grad_norm_(params, self.how.clip)
        opt.step()

    def _follow(self) -> None:
        """Move the running mean of the student; it forgets its start sooner than its share says."""
        self.step += 1
        share = min(self.how.average, (self.step - 1) / (self.step + 9))
        follow(self.mean, self.student, share)

    def _redraw(self) -> None:
        self.restarts += 1
        self.rt.note(f"gated_transfer: the generator was drawn anew, {self.restarts} of {RESTARTS}")
        reinitialise(self.made, self.rt, f"gated_transfer/generator/{self.restarts}")
        self.generator_opt = torch.optim.Adam(self.made.parameters(), lr=self.how.generator_lr)

    def _leaks(self, shown: _Shown) -> bool:
        """Return whether the student knows a forgotten class from the teacher's surest inputs."""
        removed = list(self.p.removed_classes)
        surest = shown.out.softmax(-1)[:, removed].amax(-1) > 0.5
        if math.isinf(self.how.leak) or not bool(surest.any()):
            return False
        with freeze(self.mean), torch.no_grad():
            out = self._outputs(self.mean, shown.x[surest])
        known = out.softmax(-1)[:, removed].sum(-1).mean()
        return bool(known > self.how.leak * len(removed) / out.shape[-1])
