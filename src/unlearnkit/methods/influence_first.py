"""One step along the gradient that a request adds: features, labels or rows, first order."""

from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.curvature_products import curvature_product
from unlearnkit.linalg.request_gradient import chosen_parameters, request_gradient
from unlearnkit.train.early_stopping import (
    OFF,
    StopMonitor,
    StopRule,
    move_weights,
    retreat,
    snapshot,
)

ROWS = 1024
"""Most retained rows whose curvature sets the rate."""


@register
class InfluenceFirst(Method):
    """Move once against the gradient that corrected rows add and old rows leave."""

    info = Info(
        title="First-order influence update (FO)",
        cite="Warnecke et al., NDSS 2023, arXiv:2108.11577",
        needs=frozenset({Need.FORGET, Need.LABELS}),
        uses=frozenset({Need.CORRECTED, Need.RETAIN, Need.VALIDATION}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "For a request to correct features or labels of few rows, where only these rows are at"
            " hand: it costs two gradients of them. For linear models and small networks"
            " influence_second is closer to retraining."
        ),
        differs=(
            "the published rate is found by trial; by default it is the step that lowers the loss"
            " most in the model of second order along the gradient, with one curvature product on"
            " up to 1,024 retained rows. Without retained rows it is the recipe's learning rate"
            " divided by the number of affected rows",
            "a row's loss includes its share of the recipe's weight decay; published code for deep"
            " models leaves the penalty out",
            "weights move back where the loss on retained rows rises by more than its limit;"
            " published code has no bound",
            "published code for images moves the last 6 tensors and takes rows that the model gets"
            " wrong as the ones to correct; here all parameters move (`last`), and the request says"
            " which rows",
        ),
        fails=(
            "one step of first order corrects a part: the error that is left grows with the number"
            " of affected rows",
            "the exposure of a planted secret stays at its maximum (case alice), also at rates that"
            " cost a tenth of the test accuracy",
        ),
        presets={"paper": {"rate": 2e-5, "last": 6, "guard": OFF}},
        gradient_steps=False,
        smoke={"rate": 0.01},
    )

    rate: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Step against the summed gradient (paper: tau); found from the curvature when None."""

    last: int | None = Field(None, ge=1)
    """Move only the last so many parameter tensors; all when None."""

    guard: StopRule = StopRule(stop="never")
    """When to move back."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Take the step; move back as far as the guard demands."""
        names = chosen_parameters(p, self.last)
        slope = request_gradient(p, rt, names)
        rate = self._rate(p, rt, slope) if self.rate is None else self.rate
        watch, good = StopMonitor(self.guard, p, rt, "influence_first"), snapshot(p.model)
        move_weights(p.model, slope, -rate)
        if not watch.intact():
            retreat(p.model, good, watch, tries=5)
        return p.model

    def _rate(self, p: Problem, rt: Runtime, slope: dict[str, Tensor]) -> float:
        if p.retain.sealed_because:
            return p.recipe.lr / len(p.forget)
        some = p.retain.sample(ROWS, rt, "influence_first/curvature")
        bent = curvature_product(p.model, some, p.task, rt, slope)
        size = sum(float((g.double() ** 2).sum()) for g in slope.values())
        bend = sum(float((slope[n].double() * bent[n].double()).sum()) for n in slope)
        bend = len(p.retain) * (bend + p.recipe.weight_decay * size)
        return size / bend if bend > 0 else 0.0
