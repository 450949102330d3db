"""Noise planted in the rows to be forgotten: does the model still lean on it?

No retrained model is needed: without influence of the noise the statistic is a standard normal
number, whatever the model is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import special  # not scipy.stats: it takes half a second to import
from torch import Tensor, nn

from unlearnkit.core.case import Case
from unlearnkit.core.data import Batch, TensorData, View
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.module_state import eval_mode
from unlearnkit.core.request import ForgetRequest
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.stats.intervals import clopper_pearson
from unlearnkit.train.features import input_slopes

TINY = 1e-8
"""Gradient norms below which a direction is rounding."""

FPR = 0.01


@dataclass(frozen=True)
class Poisoned:
    """A case whose rows to be forgotten carry noise, and what must be kept to test for it."""

    case: Case
    """To be trained on; forget the same rows."""

    clean: View
    """The rows to be forgotten as they were."""

    noise: Tensor
    """What was added to each ``(n, ...)``: a secret of the auditor."""

    sigma: float
    """Its standard deviation."""


@dataclass(frozen=True)
class PoisonTest:
    """Whether a model still leans on the noise."""

    statistics: Tensor
    """``I (n,)``: standard normal without influence; nan where the gradient is too small."""

    skipped: int
    """Rows whose gradient is too small to have a direction."""

    z: float
    """``mean(I) sqrt(n)``; either sign is influence."""

    p: float
    """Two-sided."""

    tpr: float
    """Share of rows that lean further, on either side, than fresh noise does in 1 of 100."""

    interval: tuple[float, float]
    """Of that share, exact at 95 %; 0.01 inside it is nothing found."""

    note: str = ""
    """What is left out, or why all is nan."""


def poisoned(case: Case, request: ForgetRequest, rt: Runtime, *, sigma: float) -> Poisoned:
    """Return the case with Gaussian noise added to the rows that a request names.

    Train a model on it, unlearn the same request, and give the result to ``gaussian_poison``
    (Pawelczyk et al., 2024, arXiv:2406.17216).

    Args:
        case: Whole training set in memory, inputs one real tensor.
        request: The rows.
        rt: Its seed decides the noise.
        sigma: The noise's standard deviation in units of the inputs, above 0; 0.57 was used on
            standardised images.

    Returns:
        The poisoned case, and the secret.

    Raises:
        InputError: If sigma is not above 0.
        UnsupportedError: If the inputs are not one real tensor in memory.
    """
    if not 0 < sigma < math.inf:
        raise InputError(f"poisoned: sigma must be above 0, got {sigma}")
    data = case.train
    if (
        not isinstance(data, TensorData)
        or not isinstance(data.x, Tensor)
        or not data.x.is_floating_point()
    ):
        raise UnsupportedError(
            "poisoned: noise needs a training set in memory whose inputs are one real tensor; give"
            " train= as a pair (x, y) of arrays"
        )
    forget = case.partition(request).forget
    assert forget is not None
    rows = forget.rows
    noise = sigma * torch.randn(data.x[rows].shape, generator=rt.rng("poison/noise"))
    noise = noise.to(data.x)
    # Adding it to the inputs in place would change the caller's data.
    x = data.x.index_add(0, rows.to(data.x.device), noise)
    dirty = case.with_(train=TensorData(x, data.y, data.group), name=f"{case.name} with noise")
    return Poisoned(dirty, forget, noise, sigma)


def gaussian_poison(
    model: nn.Module,
    task: Task,
    clean: View,
    noise: Tensor,
    sigma: float,
    rt: Runtime,
    *,
    batch_size: int = 256,
) -> PoisonTest:
    """Test whether a model leans on noise that was added to rows before it was trained on them.

    ``I_i = <noise_i, g_i> / (sigma |g_i|)`` with ``g_i`` the gradient of the row's loss by its
    clean input. Noise that the model never met, or forgot, is independent of it, so that I is
    standard normal.

    Args:
        model: Run in eval mode; flags and weights stay as they are.
        task: Supplies each row's loss.
        clean: The n rows without noise.
        noise: What was added to each ``(n, ...)``, in the view's order.
        sigma: Its standard deviation.
        rt: Where to run.
        batch_size: Rows differentiated at once.

    Returns:
        The result; nan with a note where no row has a gradient.

    Raises:
        InputError: If there is not one noise for each row.
    """
    if len(noise) != len(clean):
        raise InputError(
            f"gaussian_poison: one noise a row is needed, got {len(noise)} for {len(clean)} rows"
        )
    found = torch.full((len(clean),), math.nan, dtype=torch.float64)
    start = 0
    with eval_mode(model):
        for batch in clean.batches(batch_size, rt):
            rows = slice(start, start + len(batch))
            start = rows.stop
            found[rows] = _leaning(model, task, batch, noise[rows], sigma)
            rt.cost.count_backward()
    return _test(found)


def _leaning(model: nn.Module, task: Task, batch: Batch, noise: Tensor, sigma: float) -> Tensor:
    slope = input_slopes(model, batch, task)
    if slope is None:
        raise UnsupportedError(
            "gaussian_poison: inputs must be one real tensor; tokens carry no noise"
        )
    g, xi = (t.detach().cpu().double().flatten(1) for t in (slope, noise))
    if g.shape != xi.shape:
        raise InputError(
            f"gaussian_poison: noise must be like the inputs {tuple(slope.shape[1:])}, got"
            f" {tuple(noise.shape[1:])}"
        )
    size = g.norm(dim=1)
    return torch.where(size < TINY, math.nan, (g * xi).sum(1) / (sigma * size))


def _test(found: Tensor) -> PoisonTest:
    known = found[~found.isnan()]
    skipped, n = len(found) - len(known), len(known)
    note = f"{skipped} of {len(found)} rows have no gradient" if skipped else ""
    if not n:
        return PoisonTest(
            found, skipped, math.nan, math.nan, math.nan, (math.nan, math.nan), note or "no rows"
        )
    z = float(known.mean()) * math.sqrt(n)
    edge = float(-special.ndtri(FPR / 2))
    beyond = int((known.abs() > edge).sum())
    p = float(2 * special.ndtr(-abs(z)))
    return PoisonTest(found, skipped, z, p, beyond / n, clopper_pearson(beyond, n), note)
