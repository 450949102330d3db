"""EK-FAC: the Gauss-Newton matrix layer by layer, in a Kronecker-factored eigenbasis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch, View
from unlearnkit.core.digest import model_digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.module_state import eval_mode
from unlearnkit.core.ranks import SplitBatches, split_batches
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.linalg.conjugate_gradient import check_damping
from unlearnkit.linalg.curvature_products import Vector
from unlearnkit.linalg.fisher import parameters_with_row_gradients, squared_gradients
from unlearnkit.linalg.input_moments import InputMoments, add_input_products
from unlearnkit.linalg.rotated_squares import add_rotated_squares
from unlearnkit.linalg.row_gradients import (
    DenseRows,
    EmbeddingRows,
    FactoredRows,
    RowGradients,
    record_layer_calls,
)

WIDEST = 1024
"""Biases and scales with at most so many entries have a whole block; longer ones a diagonal."""

BASIS_ROWS = 1536
"""Rows, drawn at random, on which eigenvectors are measured where there are more."""

HELD = 2**24
"""Numbers that the layers of a batch may take in: larger ones are read in smaller batches, since
the gradients of all layers' outputs are held together."""

PROBED = 512
"""Most outputs a row of a model whose loss has its curvature read off in full."""


@dataclass(frozen=True)
class EkFacBlock:
    """One parameter's block: a matrix ``(groups, o, d)`` in an eigenbasis, and its eigenvalues."""

    left: Tensor | None
    """Eigenvectors of the output gradients' moments ``(groups, o, o)``; None is the identity."""

    right: Tensor | None
    """Eigenvectors of the inputs' moments ``(groups, d, k)``; None is the identity."""

    values: Tensor
    """Eigenvalues ``(groups, o, k)``."""

    rest: Tensor
    """Mean eigenvalue of the d - k directions of a wide layer that are not kept ``(groups, o)``."""

    def apply(self, vector: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Return a function of the block, times a tensor of the parameter's shape.

        Args:
            vector: The tensor.
            change: The function of the eigenvalues.

        Returns:
            A tensor of the parameter's shape.
        """
        v = vector.to(self.values.dtype).reshape(len(self.values), self.values.shape[1], -1)
        v = v if self.left is None else self.left.mT @ v
        if self.right is None:
            v = v * change(self.values)
        else:
            inside = v @ self.right
            outside = v - inside @ self.right.mT
            inside = inside * change(self.values)
            v = inside @ self.right.mT + outside * change(self.rest)[..., None]
        v = v if self.left is None else self.left @ v
        return v.reshape(vector.shape)


@dataclass(frozen=True)
class EkFac:
    """A block for each parameter, of the Gauss-Newton matrix of the mean loss of n rows.

    K-FAC takes a layer's block to be the Kronecker product of the second moments of its inputs and
    of its output gradients (Martens and Grosse, ICML 2015; for convolutions Grosse and Martens,
    ICML 2016). EK-FAC keeps the eigenvectors and measures the eigenvalues anew, which is the best
    diagonal in that basis (George et al., NeurIPS 2018, arXiv:1806.03884). For cross-entropy the
    Gauss-Newton matrix is the Fisher matrix with labels drawn from the model.

    Weights of linear layers, convolutions of one and two dimensions (strided, dilated, grouped)
    and embeddings have Kronecker factors; biases and the scales and shifts of normalisation layers
    whole blocks. A weight and its bias are blocks apart. Of a layer with more than 512 inputs the
    leading directions alone are kept, from a sketch (``InputMoments``), and the rest has its mean
    eigenvalue.
    """

    blocks: Mapping[str, EkFacBlock]
    """By parameter."""

    fallback: tuple[str, ...]
    """Parameters without Kronecker factors: other layers, weights used in other ways, biases of
    more than 1,024 entries. Their block is the diagonal of the same matrix."""

    rows: int
    """How many rows were read."""

    model: str
    """Digest of the model."""

    data: str
    """Digest of the rows."""

    @classmethod
    def measure(
        cls,
        model: nn.Module,
        view: View,
        task: Task,
        rt: Runtime,
        *,
        probes: int | None = 1,
        corrected: bool = True,
        basis_rows: int | None = BASIS_ROWS,
        batch_size: int = 64,
    ) -> EkFac:
        """Measure the blocks in two passes over some rows; one more where layers fall back.

        The first pass finds the eigenvectors, the second the eigenvalues in their basis. Of many
        rows the first reads a part, drawn at random: the basis is any orthonormal one, and in each
        the second pass gives the best diagonal (George et al., section 3).

        Args:
            model: Read only, in eval mode.
            view: The n rows, with targets.
            task: Supplies outputs and losses.
            rt: Device, seed, cost.
            probes: Random output gradients a row, ``H^(1/2) e`` with Gaussian ``e``, whose mean
                square is the Hessian ``H`` of its loss in the outputs; None takes each column of
                ``H^(1/2)`` in turn: exact, and as many backward passes as there are outputs.
            corrected: Eigenvalues measured (EK-FAC), or products of the factors' own (K-FAC).
            basis_rows: Most rows of the first pass; None reads all. K-FAC reads no others.
            batch_size: Most rows at once; fewer, 8 at least, of a model with large activations.

        Returns:
            The blocks of all parameters that require gradients.

        Raises:
            InputError: If there are no rows, no probes, no rows of the first pass, or too many
                outputs.
        """
        few = any(x is not None and x < 1 for x in (probes, basis_rows))
        if not len(view) or few:
            raise InputError(
                f"ekfac: {len(view)} rows, {basis_rows} for the basis and {probes} probes a row; at"
                " least one of each is needed"
            )
        basis = view
        if basis_rows is not None and len(view) > basis_rows:
            basis = view.sample(basis_rows, rt, "ekfac/basis")
        known = parameters_with_row_gradients(model, view, task, rt)
        with eval_mode(model), torch.enable_grad():
            size = _rows_at_once(model, view, task, rt, batch_size)
            run = _Passes(model, view, basis, task, rt, probes, size)
            blocks = run.bases(known)
            if corrected:
                blocks = run.corrected(blocks)
            lost = {n: p for n, p in model.named_parameters() if p.requires_grad}
            lost = {n: p for n, p in lost.items() if n not in blocks}
            blocks |= {n: _diagonal(t) for n, t in run.diagonal(lost).items()}
        return cls(blocks, tuple(lost), len(view), model_digest(model), view.key())

    def solve(self, vector: Mapping[str, Tensor], damping: float) -> Vector:
        """Return ``(G + damping I)^-1 v``.

        Args:
            vector: One tensor per parameter, by name.
            damping: Added to each eigenvalue, in units of the mean loss.

        Returns:
            Tensors of the same names and shapes.

        Raises:
            InputError: If a parameter has no block, the damping is negative or not finite, or it is
                0 and the matrix singular.
        """
        check_damping(damping)
        for name in vector:
            block = self._block(name)
            if damping == 0 and float(block.values.min()) <= _SINGULAR * float(block.values.max()):
                raise InputError(
                    f"ekfac: the block of {name!r} is singular at damping 0; give a damping above 0"
                )
        return {n: self._block(n).apply(v, lambda s: 1 / (s + damping)) for n, v in vector.items()}

    def product(self, vector: Mapping[str, Tensor]) -> Vector:
        """Return ``G v``, for tensors by name."""
        return {n: self._block(n).apply(v, lambda s: s) for n, v in vector.items()}

    def check(self, model: nn.Module, view: View) -> None:
        """Refuse another model or other rows than were measured.

        Args:
            model: The model.
            view: The rows.

        Raises:
            InputError: If a digest differs.
        """
        for what, mine, theirs in (
            ("weights", self.model, model_digest(model)),
            ("rows", self.data, view.key()),
        ):
            if mine != theirs:
                raise InputError(
                    f"ekfac: measured with other {what} than these; measure them anew with"
                    " EkFac.measure"
                )

    def _block(self, name: str) -> EkFacBlock:
        if name not in self.blocks:
            raise InputError(f"ekfac: no block for {name!r}; measure them with this model")
        return self.blocks[name]


_SINGULAR = 1e-12
"""Eigenvalue below this share of the largest: none."""


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors of a symmetric matrix ``(..., d, d)``.

    In float32 LAPACK can fail on a wide matrix of low rank, with an error or with values that are
    not finite; it is then solved in float64.
    """
    try:
        found = torch.linalg.eigh(matrix)
        solved = all(bool(t.isfinite().all()) for t in found)
    except RuntimeError:  # LinAlgError is one
        solved = False
    if not solved:
        found = torch.linalg.eigh(matrix.double())
    return found[0].to(matrix.dtype), found[1].to(matrix.dtype)


def _rows_at_once(model: nn.Module, view: View, task: Task, rt: Runtime, most: int) -> int:
    """Return how many rows are read at once, by what the layers take in for one row."""
    (batch,) = view.pick(torch.zeros(1, dtype=torch.long)).batches(1, rt)
    with record_layer_calls(model) as calls:
        task.outputs(model, batch)
    rt.cost.pending = 0
    scalars = sum(x.numel() for x in calls.inputs)
    return min(most, max(8, HELD // max(scalars, 1)))


def _diagonal(values: Tensor) -> EkFacBlock:
    flat = values.reshape(1, 1, -1)
    return EkFacBlock(None, None, flat, flat[..., 0])


@dataclass(frozen=True)
class _Passes:
    """Passes over the rows; over the same ones with the same output gradients in each."""

    model: nn.Module
    view: View
    basis: View
    """The rows of the first pass: all, or some of them."""

    task: Task
    rt: Runtime
    probes: int | None
    batch_size: int

    def bases(self, known: frozenset[str]) -> dict[str, EkFacBlock]:
        """Return the blocks of known parameters with the eigenvalues of their factors."""
        inputs: dict[str, Tensor] = {}
        outputs: dict[str, Tensor] = {}
        places: dict[str, int] = {}
        listen = add_input_products(self.model, inputs)
        with self._batches(self.basis) as batches, listen:
            for first, rows in self._gradients(batches):
                for name in rows.keys() & known:
                    g = _output_rows(rows[name])
                    if g is not None:
                        moment = g.mT @ g
                        outputs[name] = outputs[name] + moment if name in outputs else moment
                        places[name] = places.get(name, 0) + (g.shape[1] if first else 0)
            counts = {name: torch.tensor(count) for name, count in places.items()}
            for sums in (inputs, outputs, counts):
                batches.add(sums)
            places = {name: int(count) for name, count in counts.items()}
        moments = InputMoments(inputs, len(self.basis), "", "")
        return {
            name: self._basis(name, outputs[name], places[name], moments)
            for name, p in self.model.named_parameters()
            if name in outputs and (p.ndim < 2 or name in inputs)
        }

    def _basis(self, name: str, out: Tensor, places: int, moments: InputMoments) -> EkFacBlock:
        n = len(self.basis)
        values, vectors = _eigen(out)
        values = values.clamp(min=0)[:, :, None] / places
        if name not in moments.products:
            whole = values.mT
            return EkFacBlock(None, vectors, whole, whole[..., 0])
        product = moments.products[name].to(values)
        if product.ndim == 1:  # an embedding: its inputs are unit vectors
            whole = product[:, None] / n * values[:, :, 0]
            return EkFacBlock(None, vectors, whole[None], whole[None, :, 0])
        spectrum = moments.spectrum(name)
        whole = values * spectrum.values.to(values)[:, None] / n
        return EkFacBlock(vectors, spectrum.vectors.to(values), whole, whole[..., -1])

    def corrected(self, blocks: Mapping[str, EkFacBlock]) -> dict[str, EkFacBlock]:
        """Return the blocks with the mean squares of the rows' gradients as eigenvalues."""
        n, sampled = len(self.view), self.basis is not self.view
        total = {k: torch.zeros_like(b.values) for k, b in blocks.items()}
        whole = {k: torch.zeros_like(b.rest) for k, b in blocks.items()}
        with self._batches(self.view) as batches:
            for _, rows in self._gradients(batches):
                for name in rows.keys() & blocks.keys():
                    some, block = rows[name], blocks[name]
                    if isinstance(some, FactoredRows):
                        assert block.left is not None
                        assert block.right is not None
                        every = whole[name] if _truncated(block) else None
                        add_rotated_squares(some, block.left, block.right, total[name], every)
                    elif isinstance(some, EmbeddingRows):
                        assert block.right is not None
                        turned = some.grads.to(block.right) @ block.right[0]
                        EmbeddingRows(some.tokens, turned).squares_into(total[name][0])
                    elif isinstance(some, DenseRows) and sampled:
                        assert block.right is not None
                        turned = some.rows.flatten(1).to(block.right) @ block.right[0]
                        total[name][0, 0] += turned.square().sum(0)
            for sums in (total, whole):
                batches.add(sums)
        found = dict(blocks)
        for name, block in blocks.items():
            if sampled or block.left is not None or block.values.shape[1] > 1:  # others are exact
                left = (whole[name] - total[name].sum(-1)).clamp(min=0)
                missing = max(1, _width(block) - block.values.shape[-1])
                rest = left / (n * missing)
                found[name] = replace(block, values=total[name] / n, rest=rest)
        return found

    def diagonal(self, lost: Mapping[str, Tensor]) -> Vector:
        """Return the diagonal for some parameters, from gradients of single rows."""
        if not lost:
            return {}
        rng, parts = self.rt.rng("ekfac"), []
        with torch.no_grad():
            for batch in self.view.batches(self.batch_size, self.rt):
                out = self.task.outputs(self.model, batch)
                parts.append(self._output_gradients(out, batch, rng).cpu())
        total = {n: torch.zeros((), device=p.device) for n, p in lost.items()}
        for along in torch.cat(parts, 1):
            y = along.new_zeros(len(self.view.data), along.shape[1])
            y[self.view.rows] = along
            view = View(self.view.data.with_targets(y), self.view.rows)
            task = cast("Task", _Along(self.task))
            found = squared_gradients(
                self.model, view, task, self.rt, batch_size=self.batch_size, by_layer=()
            )
            total = {n: t + found[n] for n, t in total.items()}
        return total

    def _batches(self, view: View) -> AbstractContextManager[SplitBatches]:
        """Return the batches, split over ranks where no numbers are drawn from one to the next."""
        if self.probes is None:
            return split_batches(self.batch_size, self.rt, view)
        return nullcontext(SplitBatches(view.batches(self.batch_size, self.rt), None))

    def _gradients(
        self, batches: Iterable[Batch]
    ) -> Iterator[tuple[bool, dict[str, RowGradients]]]:
        """Yield the rows' gradients, probe by probe."""
        rng = self.rt.rng("ekfac")
        for batch in batches:
            with record_layer_calls(self.model) as calls:
                out = self.task.outputs(self.model, batch)
            self.rt.cost.pending = 0
            along = self._output_gradients(out.detach(), batch, rng)
            for i, s in enumerate(along):
                more = i + 1 < len(along)
                edges = calls.edges
                grads = torch.autograd.grad(out, edges, s, retain_graph=more, allow_unused=True)
                self.rt.cost.backward += len(batch)
                yield i == 0, calls.gradients(grads, len(batch))

    def _output_gradients(self, out: Tensor, batch: Batch, rng: torch.Generator) -> Tensor:
        """Return gradients ``(probes, B, K)`` whose squares have the loss's Hessian as mean."""
        if out.shape[1] > PROBED:
            raise InputError(
                f"ekfac: {out.shape[1]} outputs a row are too many (limit {PROBED}); use"
                " conjugate_gradient with curvature_product"
            )
        with torch.enable_grad():
            o = out.detach().requires_grad_()
            slope = torch.autograd.grad(self.task.losses(o, batch).sum(), o, create_graph=True)[0]
            rows = [
                torch.autograd.grad(s.sum(), o, retain_graph=True)[0]
                for s in (slope.unbind(1) if slope.requires_grad else ())
            ]
        if not rows:
            return out.new_zeros(1, *out.shape)
        values, vectors = _eigen(torch.stack(rows, 1))
        root: Tensor = vectors * values.clamp(min=0).sqrt()[:, None]
        if self.probes is None:
            return root.permute(2, 0, 1)
        drawn = torch.randn(*out.shape, self.probes, generator=rng, dtype=torch.float32)
        return (root @ drawn.to(root) / math.sqrt(self.probes)).permute(2, 0, 1)


@dataclass(frozen=True)
class _Along:
    """A task whose loss is the product of outputs and targets."""

    task: Task

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.task.outputs(model, batch)

    def losses(self, out: Tensor, batch: Batch) -> Tensor:
        products: Tensor = out * batch.y
        return products.sum(1)


def _output_rows(rows: RowGradients) -> Tensor | None:
    """Return the output gradients at all rows and places ``(groups, n, o)``."""
    if isinstance(rows, FactoredRows):
        parts = [use.grads.transpose(0, 1).flatten(1, 2) for use in rows.uses]
        g = torch.cat(parts, 1)
    elif isinstance(rows, EmbeddingRows):
        g = rows.grads.flatten(0, 1)[None]
    elif isinstance(rows, DenseRows) and rows.rows[0].numel() <= WIDEST:
        g = rows.rows.flatten(1)[None]
    else:
        return None
    return g.to(torch.promote_types(g.dtype, torch.float32))


def _width(block: EkFacBlock) -> int:
    return block.values.shape[-1] if block.right is None else block.right.shape[1]


def _truncated(block: EkFacBlock) -> bool:
    return _width(block) > block.values.shape[-1]
