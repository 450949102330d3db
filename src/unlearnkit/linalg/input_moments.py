"""Second moments of what the layers of a model take in: the directions that its rows span."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.digest import digest, model_digest, tensor_digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import check_regular, write_bytes
from unlearnkit.core.module_state import eval_mode
from unlearnkit.core.ranks import split_batches
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task

EXACT_WIDTH = 512
"""Layers with at most so many inputs have their whole moment kept; wider ones a sketch of it."""

SKETCH_SHARE = 7 / 8
"""Columns of a sketch, as a share of the layer's outputs: it is then smaller than the layer."""

SMALLEST_SKETCH = 128
"""Fewest columns of a sketch."""

ROUNDING = 1e-6
"""Eigenvalues below this share of the largest are rounding: moments are stored in float32."""

_KEY = "unlearnkit_input_moments"


@dataclass(frozen=True)
class InputMoments:
    """The uncentred second moments ``C = A^T A`` of the inputs of a model's layers.

    Row by row ``A (n, d)`` has what a weight ``(o, d)`` is multiplied with: a convolution's input
    patches, one for each place of its output; a linear layer's input vectors; for an embedding the
    tokens, of which only the counts are kept. Moments of disjoint sets of rows add up, and those
    of rows that leave are subtracted (Hoang et al., WACV 2024, step 3.1).

    A wide layer keeps ``C Omega`` with a Gaussian ``Omega (d, r)`` drawn from the layer's name:
    linear in ``C``, so that sums and differences stay exact, and enough for the Nystrom
    approximation of its leading eigenvectors (Tropp et al., NeurIPS 2017).
    """

    products: Mapping[str, Tensor]
    """By the weight's name: ``C Omega (groups, d, r)``, with ``r = d`` and ``Omega = I`` where the
    whole moment is kept; for an embedding the counts ``(tokens,)``. float64."""

    rows: int
    """How many rows are in the moments."""

    model: str
    """Digest of the model whose layers took the inputs in; after a deletion of the unlearned one.
    """

    data: str
    """Digest of the training rows that are in the moments; where only forget rows were at hand when
    rows left, of those before."""

    def __add__(self, other: InputMoments) -> InputMoments:
        """Return the moments of both sets of rows."""
        return self._combined(other, 1)

    def __sub__(self, other: InputMoments) -> InputMoments:
        """Return the moments without rows that are among them."""
        return self._combined(other, -1)

    def _combined(self, other: InputMoments, sign: int) -> InputMoments:
        mine = {name: t.shape for name, t in self.products.items()}
        theirs = {name: t.shape for name, t in other.products.items()}
        if mine != theirs:
            odd = sorted(n for n in mine.keys() | theirs if mine.get(n) != theirs.get(n))
            raise InputError(
                f"input moments: of another model: {odd[0]} has {mine.get(odd[0])} and"
                f" {theirs.get(odd[0])}; measure both with one architecture"
            )
        rows = self.rows + sign * other.rows
        if rows <= 0:
            raise InputError(
                f"input moments: {other.rows} rows cannot leave {self.rows}; these are the"
                " moments of other rows, or no row stays"
            )
        sums = {n: t.add(other.products[n], alpha=sign) for n, t in self.products.items()}
        return replace(self, products=sums, rows=rows)

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model that the moments were not measured with.

        Args:
            model: The trained model.

        Raises:
            InputError: If its weights have another digest.
        """
        if model_digest(model) != self.model:
            raise InputError(
                "input moments: measured with other weights than this model's; measure them anew"
                " with InputMoments.measure, or load the model that they belong to"
            )

    def check_rows(self, rows: View) -> None:
        """Refuse training rows that the moments are not of.

        Args:
            rows: All training rows.

        Raises:
            InputError: If they have another digest.
        """
        if rows.key() != self.data:
            raise InputError(
                f"input moments: of {self.rows:,} other rows than the case's {len(rows):,} training"
                " rows; measure them anew with InputMoments.of_case, or give those that a run has"
                " updated"
            )

    def digest(self) -> str:
        """Return the digest of the moments as ``save`` writes them."""
        parts = {n: tensor_digest(_packed(t).float()) for n, t in self.products.items()}
        return digest({"model": self.model, "data": self.data, "rows": self.rows, **parts})

    def after_deletion(
        self,
        original: nn.Module,
        unlearned: nn.Module,
        forget: View,
        task: Task,
        rt: Runtime | None = None,
        *,
        stay: View | None = None,
    ) -> InputMoments:
        """Return the moments without rows that have left, to be used with the unlearned model.

        ``C - A_f^T A_f``, with the forget rows' inputs ``A_f`` in the model before: one pass over
        the forget rows, none over the others. The first layer's moments are exact. Those of later
        layers are of the inputs before the unlearning; ``pgu`` moves weights where retained inputs
        have no part, so that to first order these stay. After methods that move the retained rows'
        features, measure anew.

        Args:
            original: The model before, which the moments belong to; read only.
            unlearned: The model after.
            forget: The rows that have left.
            task: Runs the model.
            rt: Where to run.
            stay: All training rows that stay, of which the digest is taken; they are not measured.

        Returns:
            The moments of the rows that stay, for the unlearned model. Moments of another model
            than the original, and rows that are not among those measured, are refused.
        """
        self.check_model(original)
        left = self - self.measure(original, forget, task, rt or Runtime())
        data = self.data if stay is None else stay.key()
        return replace(left, model=model_digest(unlearned), data=data)

    @classmethod
    def of_case(cls, model: nn.Module, case: Case, rt: Runtime | None = None) -> InputMoments:
        """Measure the moments of all training rows, to keep them in place of the rows.

        Args:
            model: The trained model; read only.
            case: Its training rows are read once; their targets are not.
            rt: Where to run.

        Returns:
            The moments, for ``save`` and for ``Case.from_parts(input_moments=...)``.

        Raises:
            InputError: If the case has no whole training set.
        """
        if case.train is None:
            raise InputError("input moments: the case has no training set; build it with train=")
        return cls.measure(model, View.all(case.train), case.task, rt or Runtime())

    @classmethod
    def measure(
        cls, model: nn.Module, view: View, task: Task, rt: Runtime, *, batch_size: int = 64
    ) -> InputMoments:
        """Measure the moments in one pass over some rows.

        Args:
            model: Read only, in eval mode.
            view: The rows; their inputs are read, not their targets.
            task: Runs the model.
            rt: Device, precision, cost.
            batch_size: Rows at once.

        Returns:
            The moments of all layers that were run: linear layers, convolutions (strided, dilated,
            grouped, transposed), embeddings, the projections of ``MultiheadAttention``.
        """
        found: dict[str, Tensor] = {}
        split = split_batches(batch_size, rt, view)
        with eval_mode(model), torch.no_grad(), split as batches:
            with add_input_products(model, found):
                for batch in batches:
                    task.outputs(model, batch)
            batches.add(found)
        return cls(found, len(view), model_digest(model), view.key())

    def spectrum(self, name: str) -> Spectrum:
        """Return the eigenvectors and eigenvalues of one layer's moment.

        Args:
            name: The weight.

        Returns:
            Those of the nearest matrix without negative eigenvalues; with what was cut off.
        """
        product = self.products[name]
        if product.ndim == 1:
            counts = product.clamp(min=0)
            values, order = counts.sort(descending=True, stable=True)
            vectors = functional.one_hot(order, len(order)).to(product).mT
            return Spectrum(vectors[None], values[None], _negative_share(product))
        parts = [_eigen(group, _test_matrix(name, *group.shape)) for group in product]
        share = max(p.negative_share for p in parts)
        width = max(p.values.shape[1] for p in parts)
        vectors = torch.cat(
            [functional.pad(p.vectors, (0, width - p.values.shape[1])) for p in parts]
        )
        values = torch.cat(
            [functional.pad(p.values, (0, width - p.values.shape[1])) for p in parts]
        )
        return Spectrum(vectors, values, share)

    def save(self, path: str | Path) -> Path:
        """Write the moments as safetensors, whole or not at all.

        They are rounded to float32: an eigenvalue below a millionth of the largest is lost.

        Args:
            path: Where.

        Returns:
            The path.
        """
        about = {"rows": self.rows, "model": self.model, "data": self.data}
        tensors = {n: _packed(t).float().contiguous() for n, t in self.products.items()}
        shapes = {n: list(t.shape) for n, t in self.products.items()}
        text = json.dumps({**about, "shapes": shapes}, sort_keys=True)
        return write_bytes(Path(path), safetensors.torch.save(tensors, {_KEY: text}))

    @classmethod
    def load(cls, path: str | Path) -> InputMoments:
        """Read moments that ``save`` wrote.

        Args:
            path: The file.

        Returns:
            The moments.

        Raises:
            InputError: If the file is of another kind.
        """
        check_regular(Path(path), "input moments")
        try:
            with safetensors.safe_open(str(path), "pt") as f:
                about = json.loads((f.metadata() or {})[_KEY])
                packed = {n: f.get_tensor(n).double() for n in f.keys()}  # noqa: SIM118
            shapes = about["shapes"]
            whole = {n: _unpacked(packed[n], shapes[n]) for n in shapes}
            return cls(whole, int(about["rows"]), str(about["model"]), str(about["data"]))
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as e:
            raise InputError(
                f"input moments: {str(path)!r} holds none ({type(e).__name__}); name a file that"
                " InputMoments.save wrote"
            ) from None


@dataclass(frozen=True)
class Spectrum:
    """Eigenvectors of a moment and their eigenvalues, largest first, group by group."""

    vectors: Tensor
    """``(groups, d, k)``, orthonormal columns."""

    values: Tensor
    """``(groups, k)``, at least 0."""

    negative_share: float
    """Sum of the negative eigenvalues that were set to 0, as a share of the sum of all sizes: how
    far the subtracted rows were from being among those that were measured."""


def matrix_of(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return a weight, or its gradient, as ``(groups, o, d)``: what multiplies input rows.

    Args:
        layer: Where the weight stands.
        weight: Of the shape of the layer's weight.

    Returns:
        A view, or a copy where the memory does not allow one.
    """
    if isinstance(layer, nn.Embedding):
        return weight.mT[None]
    if isinstance(layer, nn.MultiheadAttention):
        return weight.reshape(3, -1, weight.shape[-1])
    groups = int(getattr(layer, "groups", 1))
    if isinstance(layer, _TRANSPOSED):
        return weight.reshape(groups, weight.shape[0] // groups, -1).mT
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def weight_of(layer: nn.Module, matrix: Tensor, shape: torch.Size) -> Tensor:
    """Return a matrix ``(groups, o, d)`` in a weight's own shape; undoes ``matrix_of``."""
    turned = isinstance(layer, (nn.Embedding, *_TRANSPOSED))
    return (matrix.mT if turned else matrix).reshape(shape)


def measured_weights(model: nn.Module) -> dict[str, nn.Module]:
    """Return by name the weights whose inputs can be measured, each with its first layer."""
    names = {id(p): name for name, p in model.named_parameters()}
    found: dict[str, nn.Module] = {}
    for layer in model.modules():
        weight = _weight(layer)
        if weight is not None and id(weight) in names:
            found.setdefault(names[id(weight)], layer)
    return found


_CONVOLUTIONS: dict[type[nn.Module], tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    nn.Conv1d: (functional.conv1d, conv1d_weight),
    nn.Conv2d: (functional.conv2d, conv2d_weight),
    nn.Conv3d: (functional.conv3d, conv3d_weight),
}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MEASURED = (nn.Linear, nn.Embedding, *_CONVOLUTIONS, *_TRANSPOSED)


def _weight(layer: nn.Module) -> Tensor | None:
    if isinstance(layer, nn.MultiheadAttention):
        return layer.in_proj_weight
    weight = getattr(layer, "weight", None) if isinstance(layer, _MEASURED) else None
    return weight if isinstance(weight, Tensor) else None


@contextmanager
def add_input_products(model: nn.Module, found: dict[str, Tensor]) -> Iterator[None]:
    """Add to each weight's product what its layers take in; the hooks are removed at the end."""
    names = {id(p): name for name, p in model.named_parameters()}
    drawn: dict[str, Tensor | None] = {}

    def test_matrix(name: str, d: int, columns: int, like: Tensor) -> Tensor | None:
        if name not in drawn:
            omega = _test_matrix(name, d, columns)
            drawn[name] = None if omega is None else omega.to(like)
        return drawn[name]

    def listen(layer: nn.Module, name: str) -> Callable[..., None]:
        def add(
            _: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any], out: object
        ) -> None:
            del out
            inputs = (*given, *named.values())
            part = _product(layer, inputs, partial(test_matrix, name)).double().cpu()
            found[name] = found[name] + part if name in found else part

        return add

    handles = [
        layer.register_forward_hook(listen(layer, names[id(weight)]), with_kwargs=True)
        for layer in model.modules()
        if (weight := _weight(layer)) is not None and id(weight) in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


_TestMatrix = Callable[[int, int, Tensor], Tensor | None]
"""Returns ``Omega (d, r)``, of the type and on the device of a tensor, by d, r and that tensor."""


def _product(layer: nn.Module, inputs: tuple[Any, ...], test_matrix: _TestMatrix) -> Tensor:
    """Return ``C Omega`` of one call of a layer."""
    x = inputs[0].detach()
    if isinstance(layer, nn.Embedding):
        return torch.bincount(x.flatten(), minlength=layer.num_embeddings)
    if isinstance(layer, tuple(_CONVOLUTIONS)):
        return _of_patches(layer, x, test_matrix)
    if isinstance(layer, nn.MultiheadAttention):
        a = torch.stack([t.detach().flatten(0, -2) for t in inputs[:3]])
    elif isinstance(layer, _TRANSPOSED):
        a = x.unflatten(1, (layer.groups, -1)).movedim((1, 2), (0, -1)).flatten(1, -2)
    else:
        a = x.reshape(1, -1, x.shape[-1])
    a = _wide(a)
    omega = test_matrix(a.shape[-1], _columns(a.shape[-1], _outputs(layer)), a)
    return a.mT @ (a if omega is None else a @ omega)


def _outputs(layer: nn.Module) -> int:
    """Return the outputs of a layer for one input row, in one group."""
    weight = _weight(layer)
    assert weight is not None
    return matrix_of(layer, weight).shape[1]


def _of_patches(layer: Any, x: Tensor, test_matrix: _TestMatrix) -> Tensor:
    """Return ``C Omega`` of a convolution, without making its patches.

    ``A Omega`` is a convolution with the columns of ``Omega`` as kernels, and ``A^T Z`` is the
    gradient of such a convolution's weights where its outputs have the gradient ``Z``.
    """
    convolve, weight_gradient = _CONVOLUTIONS[
        next(kind for kind in _CONVOLUTIONS if isinstance(layer, kind))
    ]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = functional.pad(_wide(x), layer._reversed_padding_repeated_twice, mode=mode)
    groups, kernel = layer.groups, layer.weight.shape[1:]
    d = math.prod(kernel)
    columns = _columns(d, layer.weight.shape[0] // groups)
    omega = test_matrix(d, columns, x)
    test = torch.eye(d, dtype=x.dtype, device=x.device) if omega is None else omega
    kernels = test.mT.reshape(columns, *kernel).repeat(groups, *[1] * len(kernel))
    how = {"stride": layer.stride, "dilation": layer.dilation, "groups": groups}
    z = convolve(x, kernels, **how)
    product = weight_gradient(x, kernels.shape, z, padding=0, **how)
    return product.reshape(groups, columns, d).mT


def _columns(d: int, outputs: int) -> int:
    """Return how many columns of ``C Omega`` are kept: all d, or fewer than the layer has rows."""
    return d if d <= EXACT_WIDTH else min(d, max(SMALLEST_SKETCH, int(SKETCH_SHARE * outputs)))


def _test_matrix(name: str, d: int, columns: int) -> Tensor | None:
    """Return ``Omega (d, columns)`` of a layer, equal on every machine; None stands for ``I``."""
    if columns == d:
        return None
    seed = int.from_bytes(hashlib.sha256(f"input moments/{name}".encode()).digest()[:7], "big")
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(d, columns, generator=draw, dtype=torch.float64)


def _eigen(product: Tensor, omega: Tensor | None) -> Spectrum:
    """Return the leading eigenvectors of ``C`` from ``C Omega (d, r)``, without negative parts."""
    core = product if omega is None else omega.mT @ product
    values, vectors = torch.linalg.eigh((core + core.mT) / 2)
    share = _negative_share(values)
    if omega is not None:
        real = values > ROUNDING * values.max()
        factor = product @ vectors[:, real] / values[real].sqrt()
        vectors, roots, _ = torch.linalg.svd(factor, full_matrices=False)
        return Spectrum(vectors[None], roots.square()[None], share)
    return Spectrum(vectors.flip(1)[None], values.clamp(min=0).flip(0)[None], share)


def _negative_share(values: Tensor) -> float:
    size = values.abs().sum().item()
    return -values.clamp(max=0).sum().item() / size if size else 0.0


def _packed(product: Tensor) -> Tensor:
    """Return the upper triangles of whole moments; a sketch and counts as they are."""
    if product.ndim == 1 or product.shape[1] != product.shape[2]:
        return product
    rows, columns = torch.triu_indices(*product.shape[1:])
    return product[:, rows, columns]


def _unpacked(packed: Tensor, shape: list[int]) -> Tensor:
    if packed.shape == torch.Size(shape):
        return packed
    whole = packed.new_zeros(shape)
    rows, columns = torch.triu_indices(*shape[1:])
    whole[:, rows, columns] = packed
    whole[:, columns, rows] = packed
    return whole


def _wide(t: Tensor) -> Tensor:
    return t.to(torch.promote_types(t.dtype, torch.float32))
