"""Densities of margins over models: one distribution an example.

The variance of an example is drawn towards that of all examples, because with few models its own
says little; what is left of the doubt goes into the tails (Student's t instead of a normal law).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from scipy import special  # not scipy.stats: it takes half a second to import
from torch import Tensor

from unlearnkit.stats.matrix_checks import blocks

Centre = Literal["auto", "mean", "median"]

MEDIAN_FROM = 9
"""Models from which on the median is the centre: with fewer it costs more than outliers do."""

PRIOR = 8.0
"""Models that the variance common to all examples counts for."""


@dataclass(frozen=True)
class ExampleDensity:
    """A law for each of E examples: of one number, or of P numbers together."""

    centre: Tensor
    """``(E,)``, or ``(E, P)``; nan where no model was there to tell."""

    scale: Tensor
    """``(E,)``; for vectors the lower Cholesky factor of the scale matrix ``(E, P, P)``."""

    freedom: Tensor
    """Degrees of freedom of Student's t ``(E,)``; infinite for a normal law."""

    def part(self, examples: slice) -> ExampleDensity:
        """Return the laws of some examples."""
        return ExampleDensity(self.centre[examples], self.scale[examples], self.freedom[examples])

    def log_density(self, x: Tensor) -> Tensor:
        """Return the log density, nats ``(..., E)``, at ``x (..., E)`` or ``(..., E, P)``.

        A law without spread is a point: infinite at the centre, minus infinite elsewhere.
        """
        gap = x - self.centre
        if self.centre.ndim == 1:
            width, volume = 1, self.scale.log()
            square = (gap / self.scale).square()
        else:
            width = self.centre.shape[-1]
            volume = self.scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            white = torch.linalg.solve_triangular(self.scale, gap[..., None], upper=False)
            square = white[..., 0].square().sum(-1)
        df = self.freedom
        if bool(df.isinf().any()):
            found = -square / 2 - width / 2 * math.log(2 * math.pi) - volume
        else:
            constant = torch.lgamma((df + width) / 2) - torch.lgamma(df / 2)
            constant = constant - width / 2 * (df * math.pi).log() - volume
            found = constant - (df + width) / 2 * torch.log1p(square / df)
        if self.centre.ndim > 1:
            return found
        point = torch.where(gap == 0, math.inf, -math.inf)
        return torch.where((self.scale == 0) & gap.isfinite(), point, found)

    def below(self, x: Tensor) -> Tensor:
        """Return the chance of a value below ``x (..., E)``, for laws of one number."""
        z = self._standard(x)
        if bool(self.freedom.isinf().any()):
            return torch.as_tensor(special.ndtr(z.numpy()))
        return torch.as_tensor(special.stdtr(self.freedom.numpy(), z.numpy()))

    def log_odds_below(self, x: Tensor) -> Tensor:
        """Return ``log P[X < x] - log P[X > x]`` at ``x (..., E)``: the tail, resolved far out.

        It orders values as the distribution function does, which is rounded to 1 long before.
        """
        z = self._standard(x)
        if bool(self.freedom.isinf().any()):
            return torch.as_tensor(special.log_ndtr(z.numpy()) - special.log_ndtr(-z.numpy()))
        df, t = self.freedom.numpy(), z.numpy()
        low, high = (torch.as_tensor(special.stdtr(df, side)).log() for side in (t, -t))
        return low - high

    def _standard(self, x: Tensor) -> Tensor:
        z = (x - self.centre) / self.scale
        return torch.where((self.scale == 0) & (x == self.centre), 0.0, z)


def log_ratio(a: ExampleDensity, b: ExampleDensity, x: Tensor) -> Tensor:
    """Return ``log a(x) - log b(x)`` in nats ``(..., E)``; 0 where both are infinite alike."""
    above, beneath = a.log_density(x), b.log_density(x)
    return torch.where((above == beneath) & above.isinf(), 0.0, above - beneath)


def fit_law(
    cells: Tensor,
    used: Tensor | None = None,
    *,
    prior: float = PRIOR,
    common: Tensor | None = None,
    centre: Centre = "auto",
    form: Literal["student", "normal"] = "student",
    ddof: Literal[0, 1] = 1,
) -> ExampleDensity:
    """Return the law of each example over models, float64.

    With k models at an example, ``scale² = (prior common + (k - 1) s²) / (prior + k - 1)``; here s²
    is the variance about the mean (vectors: the covariance) and common is that of all examples,
    ``sum (k - 1) s² / sum (k - 1)``: spread between examples does not enter. Values are then t with
    ``prior + k - 1`` degrees of freedom and scale ``scale sqrt(1 + 1 / k)``, which is what a new
    model's value is like if the prior is right. ``prior = 0`` takes each example by itself,
    ``math.inf`` one variance for all.

    Args:
        cells: Values ``(k, E)``, or vectors ``(k, E, P)``.
        used: Which cells count ``(k, E)``, boolean; all when None.
        prior: Models that the common variance counts for.
        common: That variance, or covariance ``(P, P)``, when it is known from elsewhere.
        centre: The mean, the median of each number, or the median from 9 models on.
        form: Student's t, or a normal law with the plain scale as in the published attack.
        ddof: Subtracted from the number of models where squares are averaged: 1, or 0 as
            ``numpy.std``.
    """
    vectors = cells.ndim == 3
    each = cells[0, 0].numel() ** 2 * len(cells) if len(cells) and cells.shape[1] else 1
    examples = cells.shape[1]
    shape = (examples, *cells.shape[2:])
    middle = torch.empty(shape, dtype=torch.float64)
    squares = torch.empty((*shape, shape[-1]) if vectors else shape, dtype=torch.float64)
    count = torch.empty(examples, dtype=torch.float64)
    for part in blocks(examples, 4 * each):
        own = None if used is None else used[:, part]
        count[part], middle[part], squares[part] = _moments(cells[:, part].double(), own, centre)
    spare = (count - 1).clamp(min=0)
    averaged = (count - ddof).clamp(min=0)
    if common is None:
        common = squares.sum(0) / averaged.sum()
    wide = spare[:, None, None] if vectors else spare
    if math.isinf(prior):
        variance = common.expand_as(squares).clone()
    else:
        weight = prior + (averaged[:, None, None] if vectors else averaged)
        variance = ((prior * common if prior else 0.0) + squares) / weight
    variance[count == 0] = math.nan
    if form == "student":
        variance = variance * (1 + 1 / (wide + 1))
    freedom = prior + spare if form == "student" else torch.full_like(spare, math.inf)
    return ExampleDensity(middle, _root(variance) if vectors else variance.sqrt(), freedom)


def _moments(cells: Tensor, used: Tensor | None, centre: Centre) -> tuple[Tensor, Tensor, Tensor]:
    """Return count, centre and sum of squares about the mean of the models at each example."""
    if used is None:
        used = torch.ones(cells.shape[:2], dtype=torch.bool)
    wide = used[..., None] if cells.ndim == 3 else used
    count = used.sum(0)
    over = wide.sum(0).double()
    mean = torch.where(wide, cells, 0.0).sum(0) / over
    rest = torch.where(wide, cells - mean, 0.0)
    squares = rest.square().sum(0)
    if cells.ndim == 3:
        squares = torch.einsum("kep,keq->epq", rest, rest)
    if centre == "mean":
        return count, mean, squares
    ladder = torch.where(wide, cells, math.inf).sort(0).values
    low, high = ((count - 1) // 2).clamp(min=0), (count // 2).clamp(max=len(cells) - 1)
    low, high = (i.reshape(1, *i.shape, *[1] * (cells.ndim - 2)) for i in (low, high))
    ends = [ladder.gather(0, i.expand(1, *cells.shape[1:]))[0] for i in (low, high)]
    median = torch.where(over > 0, (ends[0] + ends[1]) / 2, math.nan)
    if centre == "median":
        return count, median, squares
    return count, torch.where(over >= MEDIAN_FROM, median, mean), squares


def _root(covariance: Tensor) -> Tensor:
    """Return Cholesky factors; directions without spread get a billionth of the mean variance."""
    size = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    floor = torch.eye(covariance.shape[-1], dtype=covariance.dtype) * size * 1e-9
    factor, failed = torch.linalg.cholesky_ex(covariance + floor)
    return torch.where((failed == 0)[..., None, None], factor, math.nan)
