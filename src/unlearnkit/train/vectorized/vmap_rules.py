"""Rules for operations that ``vmap`` runs slowly on a CPU."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

NARROW = 16
"""Columns of a product below which a vector register is not filled: rows take their place."""

PER_ROW = {"ignore_index": -100, "reduction": "none", "label_smoothing": 0.0}
"""How the tasks ask for cross-entropy."""

Dims = Sequence[int | None]
Physical = Callable[..., tuple[Tensor, int]]


class VmapRules(TorchFunctionMode):
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
        needed = ctx.needs_input_grad
        return (
            torch.bmm(g, w) if needed[0] else None,
            torch.bmm(g.mT, x) if needed[1] else None,
            g.sum(1) if needed[2] else None,
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
    given = {k: v for k, v in kwargs.items() if v is not None}
    if args or given != PER_ROW or (x.ndim, y.ndim) != (2, 1):
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
