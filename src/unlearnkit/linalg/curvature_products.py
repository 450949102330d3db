"""Curvature products: Gauss-Newton, Hessian and Fisher matrices times vectors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import grad, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from unlearnkit.core.data import Batch, View
from unlearnkit.core.errors import InputError, UnlearnkitError
from unlearnkit.core.module_state import eval_mode
from unlearnkit.core.ranks import split_batches
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.linalg.bound_model import BoundModel

Vector = dict[str, Tensor]
"""One tensor per parameter, of the parameter's shape, by name."""

CurvatureKind = Literal["gauss_newton", "hessian", "empirical_fisher"]
"""Matrices of the mean loss of some rows."""

DENSE = 4096
"""Most parameters of which a whole matrix is made."""


def curvature_product(
    model: nn.Module,
    view: View,
    task: Task,
    rt: Runtime,
    vector: Mapping[str, Tensor],
    *,
    kind: CurvatureKind = "gauss_newton",
    batch_size: int = 256,
) -> Vector:
    """Return a curvature matrix of the mean loss of n rows, times a vector.

    ``hessian``: ``1/n sum_i d^2 loss_i / d theta^2``. ``gauss_newton``:
    ``1/n sum_i J_i^T H_i J_i``, with the Jacobian ``J_i`` of a row's outputs and the Hessian
    ``H_i`` of its loss in the outputs (Schraudolph, Neural Computation 2002); for cross-entropy it
    is the Fisher matrix with labels of the model itself. ``empirical_fisher``:
    ``1/n sum_i g_i g_i^T``, with the gradients ``g_i`` of the rows' losses, labels as given.

    The matrix is never made. A product of the Gauss-Newton or Fisher matrix goes through the model
    twice forward, once of these with derivatives, and once back; where a layer has no forward
    derivatives, such as a recurrent one, and for the Hessian, once forward and three times back.

    Args:
        model: Read only, in eval mode.
        view: The n rows.
        task: Supplies outputs and losses.
        rt: Device, cost.
        vector: One tensor per parameter, by name; parameters that are not named are held fixed.
        kind: Which matrix.
        batch_size: Rows at once.

    Returns:
        One tensor per parameter that the vector names, in float32 or better.

    Raises:
        InputError: If there are no rows, or the vector fits no parameters of the model.
    """
    here = parameters_of(model, vector)
    if not len(view):
        raise InputError("curvature product: there are no rows; give a view of at least one")
    along = {n: vector[n].detach().to(p) for n, p in here.items()}
    wide = {n: torch.promote_types(p.dtype, torch.float32) for n, p in here.items()}
    total = {n: torch.zeros_like(p, dtype=wide[n]) for n, p in here.items()}
    product = _PRODUCTS[kind]
    with (
        eval_mode(model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH),
        split_batches(batch_size, rt, view) as batches,
    ):  # fmt: skip
        for batch in batches:
            rows, before = _Rows(model, task, batch), rt.cost.forward
            part = product(rows, here, along)
            rt.cost.pending = 0
            rt.cost.forward = before + rows.forward * len(batch)
            rt.cost.backward += rows.backward * len(batch)
            for name, t in part.items():
                total[name] += t.detach().to(total[name].dtype)
        batches.add(total)
    return {name: t.div_(len(view)) for name, t in total.items()}


def curvature_matrix(
    model: nn.Module,
    view: View,
    task: Task,
    rt: Runtime,
    *,
    kind: CurvatureKind = "gauss_newton",
    only: Collection[str] | None = None,
) -> Tensor:
    """Return a whole curvature matrix ``(P, P)``, column by column; for small models.

    Args:
        model: Read only, in eval mode.
        view: The rows.
        task: Supplies outputs and losses.
        rt: Device, cost.
        kind: Which matrix; as in ``curvature_product``.
        only: Names of the parameters; all that require gradients when None.

    Returns:
        The matrix in the order of the model's parameters, each one flattened; symmetric.

    Raises:
        InputError: If there are more than 4,096 scalars: the matrix would not fit in memory.
    """
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    names = names if only is None else [n for n in names if n in only]
    shapes = {n: p for n, p in model.named_parameters() if n in names}
    size = sum(p.numel() for p in shapes.values())
    if size > DENSE:
        raise InputError(
            f"curvature matrix: {size} parameters are too many (limit {DENSE}); name fewer layers"
            " with only=, or use conjugate_gradient or EkFac"
        )
    columns = []
    for i in range(size):
        unit = torch.zeros(size, dtype=torch.float64)
        unit[i] = 1
        column = curvature_product(model, view, task, rt, unflatten(unit, shapes), kind=kind)
        columns.append(flatten(column, names))
    matrix = torch.stack(columns, 1)
    return (matrix + matrix.mT) / 2


def flatten(vector: Mapping[str, Tensor], names: Collection[str]) -> Tensor:
    """Return the tensors of a vector as one ``(P,)``, in the order of some names."""
    return torch.cat([vector[n].flatten() for n in names])


def unflatten(flat: Tensor, like: Mapping[str, Tensor]) -> Vector:
    """Return parts of ``(P,)`` in the shapes of some tensors, by name."""
    sizes = [t.numel() for t in like.values()]
    parts = torch.split(flat, sizes)
    return {n: part.view(t.shape) for (n, t), part in zip(like.items(), parts, strict=True)}


def parameters_of(model: nn.Module, vector: Mapping[str, Tensor]) -> Vector:
    """Return the parameters that a vector names, detached, in the model's order.

    Args:
        model: Has them.
        vector: One tensor per parameter, by name.

    Returns:
        By name.

    Raises:
        InputError: If a name is no parameter, or a shape is another.
    """
    have = {n: p.detach() for n, p in model.named_parameters()}
    for name, t in vector.items():
        want = tuple(have[name].shape) if name in have else None
        if want != tuple(t.shape):
            raise InputError(
                f"vector: {name!r} has shape {tuple(t.shape)}, the model has {want}; give one"
                " tensor per parameter of this model"
            )
    if not vector:
        raise InputError("vector: is empty; give at least one parameter's tensor")
    return {n: p for n, p in have.items() if n in vector}


class _Rows:
    """Outputs and losses of a batch as functions of parameters, and the passes of a product."""

    def __init__(self, model: nn.Module, task: Task, batch: Batch) -> None:
        self.model, self.task, self.batch = model, task, batch
        self.forward, self.backward = 1, 3

    def outputs(self, params: Vector) -> Tensor:
        return self.task.outputs(BoundModel(self.model, params), self.batch)

    def losses(self, params: Vector) -> Tensor:
        return self.task.losses(self.outputs(params), self.batch)

    def loss(self, params: Vector) -> Tensor:
        return self.losses(params).sum()

    def loss_of(self, out: Tensor) -> Tensor:
        return self.task.losses(out, self.batch).sum()


def _gauss_newton(rows: _Rows, params: Vector, along: Vector) -> Vector:
    out, pull = _vjp(rows.outputs, params)
    _, bend = _vjp(grad(rows.loss_of), out.detach())
    return _pulled(pull, bend(_moved(rows, rows.outputs, params, along, out, pull))[0])


def _hessian(rows: _Rows, params: Vector, along: Vector) -> Vector:
    _, pull = _vjp(grad(rows.loss), params)
    return _pulled(pull, along)


def _empirical_fisher(rows: _Rows, params: Vector, along: Vector) -> Vector:
    losses, pull = _vjp(rows.losses, params)
    return _pulled(pull, _moved(rows, rows.losses, params, along, losses, pull))


def _vjp(function: Callable[..., Any], at: Tensor | Vector) -> tuple[Tensor, Pull]:
    found: Any = vjp(function, at)
    return found[0], found[1]


def _moved(
    rows: _Rows,
    function: Callable[[Vector], Tensor],
    params: Vector,
    along: Vector,
    out: Tensor,
    pull: Pull,
) -> Tensor:
    """Return ``J v`` by forward mode; where a layer has none, by reverse mode alone.

    Reverse mode alone: the gradient of ``u^T J v`` in u.

    Raises:
        UnlearnkitError: If the model fails for another reason.
        NotImplementedError: Likewise.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.script. is deprecated")
            moved: Tensor = jvp(function, (params,), (along,))[1]
    except (NotImplementedError, UnlearnkitError) as e:
        if "forward AD" not in str(e):
            raise
        _, twice = _vjp(lambda u: pull(u)[0], torch.zeros_like(out))
        moved = twice(along)[0]
    else:
        rows.forward, rows.backward = 4, 1  # a pass with derivatives is three forward
    return moved.detach()


def _pulled(pull: Pull, by: Tensor | Vector) -> Vector:
    found: Vector = pull(by)[0]
    return found


Pull = Callable[..., Any]
"""From a vector of outputs to one of parameters."""

_PRODUCTS: dict[str, Callable[[_Rows, Vector, Vector], Vector]] = {
    "gauss_newton": _gauss_newton,
    "hessian": _hessian,
    "empirical_fisher": _empirical_fisher,
}
