"""One Newton step towards the minimum after a request: features, labels or rows, second order."""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.data import View
from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.linalg.conjugate_gradient import LinearSolution, conjugate_gradient
from unlearnkit.linalg.curvature_products import CurvatureKind, curvature_product
from unlearnkit.linalg.ekfac import EkFac
from unlearnkit.linalg.lissa import largest_eigenvalue, lissa
from unlearnkit.linalg.request_gradient import chosen_parameters, request_gradient
from unlearnkit.train.early_stopping import (
    OFF,
    StopMonitor,
    StopRule,
    move_weights,
    retreat,
    snapshot,
)

Vector = dict[str, Tensor]
WORK = 7
"""Most work of a curvature product on a row: a pass forward, three backward, which count twice."""

LEAST = 128
"""Fewest rows that curvature is measured on, where there are so many."""


@register
class InfluenceSecond(Recalibrated):
    """Move once by the inverse curvature of the corrected data times the request's gradient."""

    info = Info(
        title="Second-order influence update (SO)",
        cite="Warnecke et al., NDSS 2023, arXiv:2108.11577; Koh and Liang, ICML 2017",
        needs=frozenset({Need.FORGET, Need.RETAIN, Need.LABELS}),
        uses=frozenset({Need.CORRECTED, Need.VALIDATION}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "For a request to correct features or labels, or for few rows, with linear models and"
            " small networks: for squared loss and a linear model it is exact, and a removed"
            " column's weight becomes 0. For deep networks it has no guarantee: read the audit."
        ),
        differs=(
            "the curvature is that of the corrected data, as in the published code for certified"
            " linear models: one exact Newton step for the new problem",
            "the Gauss-Newton matrix by default: the Hessian of a network has negative eigenvalues,"
            " and a step along their directions leads away",
            "published deep code pairs a summed gradient with the curvature of a batch, and leaves"
            " weight decay out; here both are means over the corrected rows, with weight decay",
            "conjugate gradients by default, with their residual as a note; LiSSA (`solver`) as"
            " published, but with the damping that it adds in fact: scale times the published one",
            "curvature is measured on so many retained rows that the run stays within `share` of"
            " the cost of retraining, 128 at least; published code draws batches",
            "weights move back where the loss on retained rows rises by more than its limit",
        ),
        fails=(
            "it does not remove the memory of single rows: on a random tenth of digits, with 64"
            " models of each kind, an attack tells forget rows from placebo models at U-LiRA AUC"
            " 0.798, those of the untouched model at 0.772 (at damping 0.003: 0.842)",
            "a feature of all rows is no small change for a network: on digits with 8 of 64 pixels"
            " removed, test accuracy rises from 0.741 to 0.752, with Kronecker factors to 0.833;"
            " retrained models have 0.952, warm_restart has 0.948 for 0.18 of their cost",
            "a secret that a character model knows by heart stays the likeliest of 10,000 strings:"
            " its log-perplexity rises from 8.6 to at most 18.7 bits, retrained models have 65.9;"
            " neggrad_plus brings its exposure from 13.3 to 3.1 bits (case alice)",
            "meeting the request in several steps, as published code can, diverged on diabetes",
        ),
        presets={
            "lissa": {
                "solver": "lissa",
                "iterations": 30,
                "damping": 0.01,
                "guard": OFF,
                "batch_norm": "keep",
            },
            "last_layers": {"last": 6, "batch_norm": "keep"},
        },
        gradient_steps=False,
        smoke={"iterations": 5, "damping": 0.1},
    )

    solver: Literal["cg", "lissa", "ekfac"] = "cg"
    """Conjugate gradients, the published recursion over batches, or Kronecker factors."""

    curvature: CurvatureKind = "gauss_newton"
    """Which matrix; of conjugate gradients and LiSSA."""

    damping: Annotated[float, SearchRange(1e-4, 1, log=True)] = Field(
        0.03, ge=0, allow_inf_nan=False
    )
    """Added to the diagonal, in units of the mean loss; weight decay comes on top."""

    iterations: int = Field(20, ge=1)
    """Most curvature products."""

    tolerance: float = Field(1e-3, gt=0, lt=1)
    """Relative residual at which conjugate gradients stop."""

    scale: float | None = Field(None, gt=0)
    """Of LiSSA: above half of the largest eigenvalue (paper: s); measured when None."""

    batch_size: int = Field(128, ge=1)
    """Of LiSSA: rows of a batch."""

    share: float = Field(0.1, ge=0)
    """Most that a run may cost, as a share of retraining: what the gradient and a pass over the
    retained rows leave of it goes to curvature."""

    last: int | None = Field(None, ge=1)
    """Move only the last so many parameter tensors; all when None."""

    guard: StopRule = StopRule(stop="never")
    """When to move back."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Solve for the step, take it, and move back as far as the guard demands."""
        names = chosen_parameters(p, self.last)
        slope = request_gradient(p, rt, names)
        slope = {n: g / len(p.retain) for n, g in slope.items()}
        if not any(bool(g.any()) for g in slope.values()):
            return p.model
        step = self._solve(p, rt, slope)
        watch, good = StopMonitor(self.guard, p, rt, "influence_second"), snapshot(p.model)
        move_weights(p.model, step, -1.0)
        if not watch.intact():
            retreat(p.model, good, watch, tries=5)
        return p.model

    def _solve(self, p: Problem, rt: Runtime, slope: Vector) -> Vector:
        damping = self.damping + p.recipe.weight_decay
        if self.solver == "ekfac":
            rows = self._rows(p, rt, 2 * 3)
            return EkFac.measure(p.model, rows, p.task, rt).solve(slope, damping)
        found = (
            self._lissa(p, rt, slope, damping)
            if self.solver == "lissa"
            else conjugate_gradient(
                self._product(p, rt, self._rows(p, rt, WORK * self.iterations)),
                slope,
                damping=damping,
                tolerance=self.tolerance,
                iterations=self.iterations,
            )
        )
        rt.note(
            f"influence_second: {self.solver} left a residual of {found.residual:.2g} (relative)"
            f" after {found.iterations} curvature products, damping {damping:.3g}"
        )
        return found.vector

    def _lissa(self, p: Problem, rt: Runtime, slope: Vector, damping: float) -> LinearSolution:
        rows = self._rows(p, rt, WORK * self.iterations, most=self.iterations * self.batch_size)
        order = torch.randperm(len(rows), generator=rt.rng("influence_second/lissa"))
        parts = [
            self._product(p, rt, rows.pick(some)) for some in torch.split(order, self.batch_size)
        ]
        scale = self.scale
        if scale is None:
            rng = rt.rng("influence_second/power")

            def draw(like: Tensor) -> Tensor:
                return torch.randn(like.shape, generator=rng).to(like)

            top = max(largest_eigenvalue(part, slope, draw, steps=4) for part in parts[:4])
            scale = 1.5 * (top + damping) or 1.0
        return lissa(parts, slope, damping=damping, scale=scale, iterations=self.iterations)

    def _product(self, p: Problem, rt: Runtime, rows: View) -> Callable[[Vector], Vector]:
        def product(v: Vector) -> Vector:
            return curvature_product(p.model, rows, p.task, rt, v, kind=self.curvature)

        return product

    def _rows(self, p: Problem, rt: Runtime, work: int, most: int | None = None) -> View:
        """Return as many retained rows as the share allows at so much work for each."""
        whole = len(p.retain)
        spent = rt.cost.work + whole
        allowed = int((self.share * 3 * p.recipe.epochs * whole - spent) / work)
        count = min(max(allowed, LEAST), whole if most is None else most)
        return p.retain.sample(count, rt, "influence_second/curvature")
