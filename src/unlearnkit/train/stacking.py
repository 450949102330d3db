"""Models of one architecture as one, and rules for what ``vmap`` does slowly on a CPU."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from unlearnkit.core.data import Batch, Inputs
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task

NARROW = 16
"""Columns of a product below which a vector register is not filled: rows take their place."""

PER_ROW = {"ignore_index": -100, "reduction": "none", "label_smoothing": 0.0}
"""How the tasks ask for cross-entropy."""

State = dict[str, Tensor]
Dims = Sequence[int | None]
Physical = Callable[..., tuple[Tensor, int]]


@dataclass(frozen=True)
class Drop:
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


class Losses(nn.Module):
    """A model with its loss, so that its state can be handed in as one mapping."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        """Join a model with the task that gives outputs and losses."""
        super().__init__()
        self.model, self.task = model, task

    def forward(self, x: Inputs, y: Tensor) -> Tensor:
        """Return the loss of each row ``(B,)``."""
        batch = Batch(x, y, torch.arange(y.shape[0]))
        return self.task.losses(self.task.outputs(self.model, batch), batch)


class Stack:
    """Models as one: each parameter and buffer with a first axis over models."""

    def __init__(
        self, models: Sequence[nn.Module], drops: Sequence[Drop], task: Task, rt: Runtime
    ) -> None:
        """Copy the state of models of one architecture.

        Args:
            models: Give the state; ``unload`` writes it back.
            drops: Dropout layers, whose factors are handed to ``losses``.
            task: Gives outputs and losses.
            rt: Device and precision.
        """
        self.models, self.rt = models, rt
        self.ruled = rt.device.type == "cpu" and rt.precision == "fp32"
        self.params = _stacked([m.named_parameters() for m in models])
        self.buffers = _stacked([m.named_buffers() for m in models])
        self.base = Losses(copy.deepcopy(models[0]).train(), task)
        for d in drops:
            noise = _Noise()
            noise.register_buffer("noise", torch.zeros(()))
            _replace(self.base.model, d.name, noise)
        self.run: Callable[..., Tensor] = vmap(self._one)

    def _one(self, state: State, x: Inputs, y: Tensor) -> Tensor:
        out: Tensor = functional_call(self.base, state, (x, y))
        return out

    def losses(self, x: Inputs, y: Tensor, noises: State) -> Tensor:
        """Return the loss of each row of each model ``(K, B)``."""
        rules = Rules() if self.ruled else nullcontext()
        # fused attention would go through vmap model by model
        with self.rt.autocast(), rules, sdpa_kernel(SDPBackend.MATH):
            return self.run({**self.params, **self.buffers, **noises}, x, y)

    def faithful(self, x: Inputs, y: Tensor, noises: State) -> bool:
        """Return whether a step of all models at once is a step of each by itself.

        Compares losses, gradients and buffers up to rounding: a rule changes how numbers lie in
        memory, and a module that edits a view in place would edit a copy. An edit that changes
        nothing on these rows is not seen. Uses the stack up: its buffers move.

        Args:
            x: Inputs ``(K, B, ...)``.
            y: Targets ``(K, B, ...)``.
            noises: Factors of the dropout layers ``(K, ...)``.
        """
        alone = [self._step(k, x, y, noises) for k in range(len(self.models))]
        losses = self.losses(x, y, noises)
        losses.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if not self.ruled:
            return True
        grads = [p.grad for p in self.params.values()]
        mine = (losses.detach(),), grads, self.buffers.values()
        theirs = zip(*alone, strict=True)
        return all(
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
        losses.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return [losses.detach()], [p.grad for p in params.values()], [*buffers.values()]

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


class Rules(TorchFunctionMode):
    """Inside ``vmap``: functions for which there is a rule follow it; the others run as ever.

    A rule gives the function's numbers up to rounding. Images of all models stand side by side as
    channels, the channels last in memory: that is one grouped convolution, one batch
    normalisation and one pooling over long rows, where ``vmap`` makes copies and short rows.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function, or its rule."""
        call: Callable[..., Any] = RULES.get(func, func) if args else func
        return call(*args, **(kwargs or {}))


class _Stacked(torch.autograd.Function):
    """Hands a rule the tensors that stand behind the vectorised ones."""

    @staticmethod
    def forward(rule: Physical, plain: Callable[..., Tensor], *args: Any) -> Tensor:
        return plain(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(
        info: Any, dims: Dims, rule: Physical, plain: Callable[..., Tensor], *args: Any
    ) -> tuple[Tensor, int]:
        return rule(info.batch_size, dims[2:], *args)


class _Product(torch.autograd.Function):
    """``x @ w.T + b`` for each model, with gradients laid out as the weights are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        if w.shape[1] < NARROW:
            return torch.baddbmm(b[:, :, None], w, x.mT).mT
        return torch.baddbmm(b[:, None], x, w.mT)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        asked = ctx.needs_input_grad
        return (
            torch.bmm(g, w) if asked[0] else None,
            torch.bmm(g.mT, x) if asked[1] else None,
            g.sum(1) if asked[2] else None,
        )


class _Channels(torch.autograd.Function):
    """Images of all models ``(K, B, C, H, W)`` as ``(B, K*C, H, W)``, channels last in memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = len(x)
        return x.permute(1, 3, 4, 0, 2).flatten(3).contiguous().permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        g = g.contiguous(memory_format=torch.channels_last)
        return _split(g, ctx.size).movedim(1, 0)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return _call(_Stacked, _products, functional.linear, x, weight, bias)


def _products(size: int, dims: Dims, x: Tensor, w: Tensor, b: Tensor | None) -> tuple[Tensor, int]:
    x, w = _front(x, dims[0], size), _front(w, dims[1], size)
    b = w.new_zeros(size, w.shape[1]) if b is None else _front(b, dims[2], size)
    rows = x.reshape(size, -1, x.shape[-1])
    return _call(_Product, rows, w, b).reshape(*x.shape[:-1], -1), 0


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    rest = (stride, padding, dilation, groups)
    if x.ndim != 4:
        return functional.conv2d(x, weight, bias, *rest)
    return _call(_Stacked, _convolutions, functional.conv2d, x, weight, bias, *rest)


def _convolutions(
    size: int, dims: Dims, x: Tensor, w: Tensor, b: Tensor | None, *rest: Any
) -> tuple[Tensor, int]:
    x, w = _as_channels(x, dims[0], size), _front(w, dims[1], size).flatten(0, 1)
    b = None if b is None else _front(b, dims[2], size).flatten()
    stride, padding, dilation, groups = rest
    out = functional.conv2d(x, w, b, stride, padding, dilation, groups * size)
    return _split(out, size), 1


def _batch_norm(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if x.ndim != 4:
        return functional.batch_norm(x, *args, **kwargs)
    return _norm_images(x, *args, **kwargs)


def _norm_images(
    x: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    state = (mean, var, weight, bias)
    return _call(_Stacked, _norms, functional.batch_norm, x, *state, training, momentum, eps)


def _norms(size: int, dims: Dims, x: Tensor, *args: Any) -> tuple[Tensor, int]:
    mean, var, weight, bias = [
        None if t is None else _front(t, dim, size).view(-1)
        for t, dim in zip(args[:4], dims[1:5], strict=True)
    ]
    x = _as_channels(x, dims[0], size)
    out = functional.batch_norm(x, mean, var, weight, bias, *args[4:])
    return _split(out, size), 1


def _by_channel(func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the rule of a function that treats each channel of an image by itself."""

    def rule(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if x.ndim != 4:
            return func(x, *args, **kwargs)

        def plain(t: Tensor) -> Tensor:
            return func(t, *args, **kwargs)

        def stacked(size: int, dims: Dims, t: Tensor) -> tuple[Tensor, int]:
            return _split(plain(_as_channels(t, dims[0], size)), size), 1

        return _call(_Stacked, stacked, plain, x)

    return rule


def _cross_entropy(x: Tensor, y: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    told = {k: v for k, v in kwargs.items() if v is not None}
    if args or told != PER_ROW or (x.ndim, y.ndim) != (2, 1):
        return functional.cross_entropy(x, y, *args, **kwargs)
    return _call(_Stacked, _entropies, functional.cross_entropy, x, y)


def _entropies(size: int, dims: Dims, x: Tensor, y: Tensor) -> tuple[Tensor, int]:
    x, y = _front(x, dims[0], size), _front(y, dims[1], size)
    return functional.cross_entropy(x.mT, y, reduction="none"), 0


def _view(x: Tensor, *shape: Any) -> Tensor:
    try:
        return x.view(*shape)
    except RuntimeError:
        return x.reshape(*shape)


def _call(function: type[torch.autograd.Function], *args: Any) -> Tensor:
    out: Tensor = function.apply(*args)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


def _split(t: Tensor, size: int) -> Tensor:
    """Return channels of all models ``(B, K*C, H, W)`` by model ``(B, K, C, H, W)``."""
    return t.reshape(len(t), size, -1, *t.shape[2:])


def _front(t: Tensor, dim: int | None, size: int) -> Tensor:
    return t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)


def _as_channels(x: Tensor, dim: int | None, size: int) -> Tensor:
    return _call(_Channels, _front(x, dim, size))


RULES: dict[Any, Callable[..., Tensor]] = {
    functional.linear: _linear,
    functional.conv2d: _conv2d,
    functional.batch_norm: _batch_norm,
    functional.max_pool2d: _by_channel(functional.max_pool2d),
    functional.avg_pool2d: _by_channel(functional.avg_pool2d),
    functional.adaptive_avg_pool2d: _by_channel(functional.adaptive_avg_pool2d),
    functional.cross_entropy: _cross_entropy,
    Tensor.view: _view,
}
"""By the function that a model calls."""
