"""Gradients of single rows, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional
from torch.nn.grad import conv1d_weight, conv2d_weight

CHUNK = 2**21
"""Scalars of gradients, or of a convolution's input patches, that are made at once."""


class RowGradients(Protocol):
    """The gradients of one parameter for B rows, in a form that needs little memory."""

    def concatenate(self, other: RowGradients) -> RowGradients | None:
        """Return the sum, row by row, with another use of the parameter; None if there is none."""
        ...

    def sum_into(self, total: Tensor) -> None:
        """Add the rows' gradients to a tensor of the parameter's shape."""
        ...

    def squares_into(self, total: Tensor) -> None:
        """Add the squares of the rows' gradients to a tensor of the parameter's shape."""
        ...


@dataclass(frozen=True)
class DenseRows:
    """Gradients as they are ``(B, ...)``: for biases and scales, which are small."""

    rows: Tensor

    def concatenate(self, other: RowGradients) -> RowGradients | None:
        """Return the sum, row by row, with another use of the parameter; None if there is none."""
        return DenseRows(self.rows + other.rows) if isinstance(other, DenseRows) else None

    def sum_into(self, total: Tensor) -> None:
        """Add the rows' gradients to a tensor of the parameter's shape."""
        total += self.rows.to(total.dtype).sum(0).view_as(total)

    def squares_into(self, total: Tensor) -> None:
        """Add the squares of the rows' gradients to a tensor of the parameter's shape."""
        total += self.rows.to(total.dtype).square().sum(0).view_as(total)


Factors = tuple[Tensor, Tensor]
"""Inputs ``(b, G, T, I)`` and output gradients ``(b, G, T, O)`` of G groups at T places."""


@dataclass(frozen=True)
class WeightUse:
    """One use of a weight: what a row's gradient is the product of."""

    factors: Callable[[slice], Factors]
    """Of some of the rows."""

    places: int
    """T."""

    scalars: int
    """Scalars of a row's factors that are made anew for a chunk of rows."""

    grads: Tensor
    """The output gradients of all rows ``(B, G, T, O)``, without the inputs."""

    quickly: Callable[[slice], Tensor] | None = None
    """Makes the gradients ``(b, G, O, I)`` of some rows faster than from their factors."""

    def gradients(self, part: slice, dtype: torch.dtype) -> Tensor:
        """Return the gradients ``(b, G, O, I)`` of some rows."""
        if self.quickly is not None:
            return self.quickly(part).to(dtype)
        a, g = (t.to(dtype) for t in self.factors(part))
        return g.mT @ a


@dataclass(frozen=True)
class FactoredRows:
    """Gradients ``sum_t g_t a_t^T``, of the weights of linear layers and convolutions."""

    rows: int
    uses: tuple[WeightUse, ...]
    groups: int = 1

    def concatenate(self, other: RowGradients) -> RowGradients | None:
        """Return the sum, row by row, with another use of the parameter; None if there is none."""
        if not isinstance(other, FactoredRows) or self.groups != other.groups:
            return None
        return FactoredRows(self.rows, (*self.uses, *other.uses), self.groups)

    def sum_into(self, total: Tensor) -> None:
        """Add the rows' gradients to a tensor of the parameter's shape."""
        into = self._grouped(total)
        for part in self._parts(total):
            for use in self.uses:
                a, g = (t.to(total.dtype).transpose(0, 1).flatten(1, 2) for t in use.factors(part))
                into.baddbmm_(g.mT, a)

    def squares_into(self, total: Tensor) -> None:
        """Add the squares of the rows' gradients to a tensor of the parameter's shape.

        With one place a row's gradient is an outer product, whose square is that of the squares:
        ``sum_n (g_n a_n^T)^2 = (g^2)^T (a^2)``. With more places each row's gradient is made, for a
        few rows at a time.
        """
        into = self._grouped(total)
        if sum(use.places for use in self.uses) == 1:
            a, g = (t[:, :, 0].to(total.dtype) for t in self.uses[0].factors(slice(None)))
            into.baddbmm_(g.square().permute(1, 2, 0), a.square().transpose(0, 1))
            return
        for part in self._parts(total):
            add_squares(self.gradients(part, total.dtype), into)

    def gradients(self, part: slice, dtype: torch.dtype) -> Tensor:
        """Return the gradients ``(b, G, O, I)`` of some rows."""
        total = self.uses[0].gradients(part, dtype)
        for use in self.uses[1:]:
            total.add_(use.gradients(part, dtype))
        return total

    def _grouped(self, total: Tensor) -> Tensor:
        return total.reshape(self.groups, total.shape[0] // self.groups, -1)

    def _parts(self, total: Tensor) -> Iterator[slice]:
        each = max(total.numel(), *(use.scalars for use in self.uses), 1)
        size = max(1, CHUNK // each)
        return (slice(i, min(i + size, self.rows)) for i in range(0, self.rows, size))


def add_squares(each: Tensor, total: Tensor) -> None:
    """Add the squares of a tensor ``(b, ...)``, summed over b, to one of shape ``(...)``.

    Args:
        each: Overwritten, unless b is 1.
        total: Where they are added.
    """
    if len(each) == 1:
        total.addcmul_(each[0], each[0])
    else:
        total += each.square_().sum(0)


@dataclass(frozen=True)
class EmbeddingRows:
    """Gradients of an embedding: those of the tokens that a row has."""

    tokens: Tensor
    """``(B, T)``."""

    grads: Tensor
    """``(B, T, D)``."""

    def concatenate(self, other: RowGradients) -> RowGradients | None:
        """Return the sum, row by row, with another use of the parameter; None if there is none."""
        if not isinstance(other, EmbeddingRows):
            return None
        return EmbeddingRows(
            torch.cat([self.tokens, other.tokens], 1), torch.cat([self.grads, other.grads], 1)
        )

    def sum_into(self, total: Tensor) -> None:
        """Add the rows' gradients to a tensor of the parameter's shape."""
        total.index_add_(0, self.tokens.flatten(), self.grads.flatten(0, 1).to(total.dtype))

    def squares_into(self, total: Tensor) -> None:
        """Add the squares of the rows' gradients to a tensor of the parameter's shape."""
        row = torch.arange(len(self.tokens), device=self.tokens.device)[:, None]
        cells, of = torch.unique(row * len(total) + self.tokens, return_inverse=True)
        sums = total.new_zeros(len(cells), total.shape[1])
        sums.index_add_(0, of.flatten(), self.grads.flatten(0, 1).to(total.dtype))
        total.index_add_(0, cells % len(total), sums.square_())


@dataclass
class LayerCalls:
    """What layers took in one pass, and where the gradients of their outputs will be."""

    model: nn.Module
    layers: list[nn.Module] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    edges: list[GradientEdge] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    odd: set[nn.Module] = field(default_factory=set)
    """Layers that were called in a way that no rule covers."""

    def record(self, layer: nn.Module, given: tuple[object, ...], out: object) -> None:
        """Keep one call of a layer."""
        x = given[0] if len(given) == 1 else None
        if isinstance(x, Tensor) and isinstance(out, Tensor) and out.requires_grad:
            self.layers.append(layer)
            self.inputs.append(x.detach())
            self.edges.append(get_gradient_edge(out))
            self.versions.append(x._version)
        else:
            self.odd.add(layer)

    def gradients(self, grads: Sequence[Tensor | None], rows: int) -> dict[str, RowGradients]:
        """Return the rows' gradients, by name, of the parameters whose every use a rule covers.

        ``grads`` are the gradients of the summed losses at each edge, None where they do not depend
        on it. Parameters of layers that were not called, or that no rule covers, are missing.
        """
        names = {p: n for n, p in self.model.named_parameters() if p.requires_grad}
        found: dict[str, RowGradients] = {}
        lost: set[str] = set()
        for layer, x, version, g in zip(
            self.layers, self.inputs, self.versions, grads, strict=True
        ):
            mine = {k: names[p] for k, p in layer._parameters.items() if p in names}
            fits = g is None or (len(x) == len(g) == rows if x.ndim and g.ndim else False)
            if layer in self.odd or x._version != version or not fits:
                lost |= set(mine.values())
            elif g is not None:
                rule = _rule(layer)
                made = rule(layer, x, g) if rule is not None else None
                for key, name in mine.items():
                    new = None if made is None else made.get(key)
                    joined = found[name].concatenate(new) if new and name in found else new
                    if joined is None:
                        lost.add(name)
                    else:
                        found[name] = joined
        return {n: f for n, f in found.items() if n not in lost}


@contextmanager
def record_layer_calls(model: nn.Module) -> Iterator[LayerCalls]:
    """Listen to the layers that a rule covers, for one pass; the hooks are removed at the end."""
    calls = LayerCalls(model)
    handles = [
        layer.register_forward_hook(calls.record)
        for layer in model.modules()
        if any(p is not None and p.requires_grad for p in layer._parameters.values())
        and _rule(layer) is not None
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


Rule = Callable[..., dict[str, RowGradients] | None]


def _linear(layer: nn.Linear, x: Tensor, g: Tensor) -> dict[str, RowGradients] | None:
    if x.ndim < 2:
        return None
    a, g = (t.reshape(len(t), 1, -1, t.shape[-1]) for t in (x, g))
    use = WeightUse(lambda part: (a[part], g[part]), a.shape[2], 0, g)
    return {"weight": FactoredRows(len(x), (use,)), "bias": DenseRows(g.sum((1, 2)))}


def _convolution(
    layer: nn.Conv1d | nn.Conv2d, x: Tensor, g: Tensor
) -> dict[str, RowGradients] | None:
    if x.ndim != layer.weight.ndim:
        return None
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    bias = DenseRows(g.flatten(2).sum(2))
    padding = layer._reversed_padding_repeated_twice
    one = x.ndim == 3

    def pair(sizes: tuple[int, ...], fill: int) -> tuple[int, ...]:
        return (fill, *sizes) if one else tuple(sizes)

    kernel, stride = pair(layer.kernel_size, 1), pair(layer.stride, 1)
    dilation, groups = pair(layer.dilation, 1), layer.groups

    def factors(part: slice) -> Factors:
        images = functional.pad(x[part], padding, mode=mode)
        images = images[:, :, None] if one else images
        patches = functional.unfold(images, kernel, dilation=dilation, stride=stride)
        a = patches.reshape(len(patches), groups, -1, patches.shape[-1]).mT
        return a, at[part]

    def quickly(part: slice) -> Tensor:
        # One convolution with a group for each row: its weights' gradient is that of all rows.
        images, outer = functional.pad(x[part], padding, mode=mode), g[part]
        rows, shape = len(images), layer.weight.shape
        weight_gradient: Callable[..., Tensor] = conv1d_weight if one else conv2d_weight
        found = weight_gradient(
            images.flatten(0, 1)[None],
            (rows * shape[0], *shape[1:]),
            outer.flatten(0, 1)[None].to(images.dtype),
            stride=layer.stride,
            dilation=layer.dilation,
            groups=rows * groups,
        )
        return found.view(rows, groups, shape[0] // groups, -1)

    places = g[0, 0].numel()
    at = g.reshape(len(g), groups, -1, places).mT
    scalars = places * layer.weight[0].numel() * groups
    long = places >= 2 * layer.out_channels and math.prod(kernel) > 1
    how = quickly if long and g.device.type == "cpu" else None
    return {
        "weight": FactoredRows(len(x), (WeightUse(factors, places, scalars, at, how),), groups),
        "bias": bias,
    }


def _embedding(layer: nn.Embedding, x: Tensor, g: Tensor) -> dict[str, RowGradients] | None:
    if layer.scale_grad_by_freq or layer.max_norm is not None:
        return None
    tokens, g = x.reshape(len(x), -1).long(), g.reshape(len(g), -1, g.shape[-1])
    if layer.padding_idx is not None:
        g = g.masked_fill((tokens == layer.padding_idx)[..., None], 0)
    return {"weight": EmbeddingRows(tokens, g)}


def _affine(
    layer: nn.Module, normal: Tensor, g: Tensor, axes: tuple[int, ...]
) -> dict[str, RowGradients]:
    """Return the gradients of scale and shift of normalised inputs; sums run over some axes."""
    wide = torch.promote_types(g.dtype, torch.float32)
    g = g.to(wide)
    scaled = g * normal.to(wide)
    rows = [t.sum(axes) if axes else t for t in (scaled, g)]
    return dict(zip(("weight", "bias"), map(DenseRows, rows), strict=True))


def _layer_norm(layer: nn.LayerNorm, x: Tensor, g: Tensor) -> dict[str, RowGradients] | None:
    shape = list(layer.normalized_shape)
    if x.ndim <= len(shape):
        return None
    normal = functional.layer_norm(_wide(x), shape, eps=layer.eps)
    return _affine(layer, normal, g, tuple(range(1, x.ndim - len(shape))))


def _rms_norm(layer: nn.RMSNorm, x: Tensor, g: Tensor) -> dict[str, RowGradients] | None:
    shape = list(layer.normalized_shape)
    if x.ndim <= len(shape):
        return None
    normal = functional.rms_norm(x, shape, eps=layer.eps)  # its default eps hangs on the type
    return _affine(layer, normal, g, tuple(range(1, x.ndim - len(shape))))


def _group_norm(layer: nn.GroupNorm, x: Tensor, g: Tensor) -> dict[str, RowGradients] | None:
    normal = functional.group_norm(_wide(x), layer.num_groups, eps=layer.eps)
    return _affine(layer, normal, g, tuple(range(2, x.ndim)))


def _batch_norm(
    layer: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, x: Tensor, g: Tensor
) -> dict[str, RowGradients] | None:
    if layer.training or layer.running_mean is None or layer.running_var is None:
        return None
    mean, var = _wide(layer.running_mean), _wide(layer.running_var)
    normal = functional.batch_norm(_wide(x), mean, var, training=False, eps=layer.eps)
    return _affine(layer, normal, g, tuple(range(2, x.ndim)))


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.GroupNorm: _group_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
}


def _rule(layer: nn.Module) -> Rule | None:
    return next((rule for kind, rule in RULES.items() if isinstance(layer, kind)), None)


def _wide(t: Tensor) -> Tensor:
    return t.to(torch.promote_types(t.dtype, torch.float32))
