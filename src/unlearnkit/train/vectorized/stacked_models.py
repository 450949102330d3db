"""Stacked models: many models of one architecture as one."""

import copy
import math
import pickle
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from unlearnkit.core.data import Batch, Inputs, as_named_tensors
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.training_task import TrainingLoss
from unlearnkit.train.vectorized.step_recorder import StepRecorder
from unlearnkit.train.vectorized.vmap_rules import VmapRules

State = dict[str, Tensor]


@dataclass(frozen=True)
class DropoutCall:
    """A dropout layer: what it draws in a step."""

    name: str
    keep: float
    shape: tuple[int, ...]
    dtype: torch.dtype


class _Noise(nn.Module):
    """Stands in for a dropout layer: multiplies by factors that were drawn outside."""

    noise: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.noise


class ModelWithLoss(nn.Module):
    """A model with its loss, so that its state can be handed in as one mapping."""

    def __init__(self, model: nn.Module, task: TrainingLoss) -> None:
        """Join a model with the task that gives outputs and losses."""
        super().__init__()
        self.model, self.task = model, task

    def forward(self, x: Inputs, y: Tensor) -> Tensor:
        """Return the loss of each row ``(B,)``; refuse a model with a memory besides its buffers.

        What it keeps or draws in Python, be it only a count of its calls, a stack would share
        between models and a recorded step would not see.

        Raises:
            RuntimeError: If a buffer is another tensor than before, a plain attribute has another
                value, or Python or NumPy have drawn.
        """
        batch = Batch(x, y, torch.arange(y.shape[0]))
        before, aside = list(self.model.buffers()), _beside_tensors(self.model)
        losses = self.task.losses(self.task.outputs(self.model, batch), batch)
        if any(b is not was for b, was in zip(self.model.buffers(), before, strict=True)):
            raise RuntimeError("a buffer was replaced, not edited")
        if _beside_tensors(self.model) != aside:
            raise RuntimeError("the model keeps or draws something besides its tensors")
        return losses


def _beside_tensors(model: nn.Module) -> object:
    """Return what a forward pass may change besides tensors, to compare it with ``==``."""
    plain = [
        {n: v for n, v in vars(m).items() if isinstance(v, int | float | str | None)}
        for m in model.modules()
    ]
    drawn = pickle.dumps(np.random.get_state())  # noqa: NPY002  # the global one
    return plain, random.getstate(), drawn


class Stack:
    """Models as one: each parameter and buffer with a first axis over models."""

    def __init__(
        self,
        models: Sequence[nn.Module],
        drops: Sequence[DropoutCall],
        task: TrainingLoss,
        rt: Runtime,
    ) -> None:
        """Copy the state of models of one architecture; ``unload`` writes it back."""
        self.models, self.rt = models, rt
        self.ruled = rt.device.type == "cpu" and rt.precision == "fp32"
        self.params = _stacked([m.named_parameters() for m in models])
        self.buffers = _stacked([m.named_buffers() for m in models])
        self.base = ModelWithLoss(copy.deepcopy(models[0]).train(), task)
        for d in drops:
            noise = _Noise()
            noise.register_buffer("noise", torch.zeros(()))
            _replace(self.base.model, d.name, noise)
        self.moving = [p for p in self.params.values() if p.requires_grad]
        self.run: Callable[..., Tensor] = vmap(self._one)
        self.tapes: dict[int, StepRecorder] = {}

    def _one(self, state: State, x: Inputs, y: Tensor) -> Tensor:
        out: Tensor = functional_call(self.base, state, (x, y))
        return out

    def step(self, x: Inputs, y: Tensor, noises: State) -> Tensor:
        """Return the loss of each row ``(K, B)``; set the gradient of each model's mean loss.

        A step with as many rows as one before replays that one's operations, where rules apply.
        Inputs and targets are ``(K, B, ...)``, dropout factors ``(K, ...)``.
        """
        given, rows = [*as_named_tensors(x).values(), y, *noises.values()], y.shape[1]
        if rows in self.tapes:
            losses, *grads = self.tapes[rows].play(given)
        elif self.ruled:
            self.tapes[rows], (losses, *grads) = self._recorded(given, x, y, noises)
        else:
            losses, *grads = self._gradients(x, y, noises)
        for p, grad in zip(self.moving, grads, strict=True):
            p.grad = grad
        assert losses is not None
        return losses

    def _recorded(
        self, given: Sequence[Tensor], x: Inputs, y: Tensor, noises: State
    ) -> tuple[StepRecorder, list[Tensor | None]]:
        with StepRecorder(given) as tape:
            made = self._gradients(x, y, noises)
        tape.end(made)
        return tape, made

    def _gradients(self, x: Inputs, y: Tensor, noises: State) -> list[Tensor | None]:
        """Return the losses, and the gradients in the layout of their parameters."""
        rules = VmapRules() if self.ruled else nullcontext()
        # fused attention would go through vmap model by model
        with self.rt.autocast(), rules, sdpa_kernel(SDPBackend.MATH):
            losses = self.run({**self.params, **self.buffers, **noises}, x, y)
        seed = torch.full_like(losses, 1 / y.shape[1])
        grads = torch.autograd.grad(losses, self.moving, seed, allow_unused=True)
        return [losses.detach(), *(None if g is None else g.contiguous() for g in grads)]

    def faithful(self, x: Inputs, y: Tensor, noises: State) -> bool:
        """Return whether a step of all models at once is a step of each by itself, up to rounding.

        Compares losses, gradients and buffers: a rule changes how numbers lie in memory, and a
        module that edits a view in place would edit a copy. An edit that changes nothing on these
        rows is not seen. A step is recorded twice: operations that change from step to step cannot
        be replayed. Uses the stack up: its buffers move.
        """
        alone = [self._step(k, x, y, noises) for k in range(len(self.models))]
        start = {n: b.clone() for n, b in self.buffers.items()}
        self.step(x, y, noises)
        if not self.ruled:
            return True
        given = [*as_named_tensors(x).values(), y, *noises.values()]
        again, _ = self._recorded(given, x, y, noises)
        with torch.no_grad():
            for n, b in self.buffers.items():
                b.copy_(start[n])
        losses = self.step(x, y, noises)
        mine = (losses,), [p.grad for p in self.moving], self.buffers.values()
        theirs = zip(*alone, strict=True)
        return self.tapes[y.shape[1]].same(again) and all(
            _near(own, [_joined(same) for same in zip(*other, strict=True)])
            for own, other in zip(mine, theirs, strict=True)
        )

    def _step(self, k: int, x: Inputs, y: Tensor, noises: State) -> tuple[list[Tensor | None], ...]:
        """Return the losses, gradients and buffers of one model after a plain step."""
        params, buffers, own = (
            {n: t.detach()[k].clone() for n, t in state.items()}
            for state in (self.params, self.buffers, noises)
        )
        for n, p in params.items():
            p.requires_grad_(self.params[n].requires_grad)
        x = x[k] if isinstance(x, Tensor) else {n: t[k] for n, t in x.items()}
        losses = self._one({**params, **buffers, **own}, x, y[k])
        losses.mean().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        moving = [p.grad for p in params.values() if p.requires_grad]
        return [losses.detach()], moving, [*buffers.values()]

    @torch.no_grad()
    def unload(self) -> None:
        """Write the state back into the models."""
        for k, model in enumerate(self.models):
            for name, p in model.named_parameters():
                p.copy_(self.params[f"model.{name}"][k])
            for name, b in model.named_buffers():
                b.copy_(self.buffers[f"model.{name}"][k])


def _joined(same: Sequence[Tensor | None]) -> Tensor | None:
    found = [t for t in same if t is not None]
    return torch.stack(found) if len(found) == len(same) else None


def _near(mine: Iterable[Tensor | None], theirs: Iterable[Tensor | None]) -> bool:
    """Return whether tensors are the same, to half the digits of the largest among them."""
    pairs = list(zip(mine, theirs, strict=True))
    if any((a is None) != (b is None) for a, b in pairs):
        return False
    found = [(a, b) for a, b in pairs if a is not None and b is not None and b.numel()]
    scale = max((float(b.abs().max()) for _, b in found), default=0.0)
    return all(float((a - b).abs().max()) <= _tolerance(b) * scale for a, b in found)


def _tolerance(t: Tensor) -> float:
    return math.sqrt(torch.finfo(t.dtype).eps) if t.is_floating_point() else 0.0


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)


def _stacked(models: Sequence[Iterator[tuple[str, Tensor]]]) -> State:
    """Return the tensors of all models by name, with a first axis over models."""
    found: State = {}
    for same in zip(*models, strict=True):
        name, first = same[0]
        whole = torch.stack([t.detach() for _, t in same])
        found[f"model.{name}"] = whole.requires_grad_(first.requires_grad)
    return found
