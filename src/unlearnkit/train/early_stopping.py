"""When to stop without an oracle: rows look never seen, and what stays is not harmed."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.data import View
from unlearnkit.core.method import Problem
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.core.task import Task
from unlearnkit.train.features import row_losses

FEW, SURE = 64, 4.0
"""Retained rows of a first look, and the standard errors at which they decide."""

NUDGE = 0.1
"""Share of a bracket by which a point is moved towards its middle."""

FAR = 7.0
"""Where the logarithm of a rise over the floor is cut off."""


class StopRule(FrozenModel):
    """When a run has forgotten enough, and when it has done too much harm."""

    stop: Literal["unseen", "never"] = "unseen"
    """Stop once forget rows look never seen, or at the end of the run."""

    gone_loss: Annotated[float, SearchRange(0.5, 8, log=True)] = Field(2.0, gt=0)
    """Mean loss at which rows of vanished classes look never seen, as a multiple of the loss of a
    model without knowledge; other rows look so at the loss of validation rows."""

    floor: Annotated[float, SearchRange(0.001, 0.3, log=True)] = Field(0.01, ge=0)
    """Largest rise of the mean loss on retained rows, as a share of the loss of a model without
    knowledge; infinity is no limit."""

    sample: int = Field(512, ge=1)
    """Rows of each kind that are looked at."""


OFF = StopRule(stop="never", floor=float("inf"))
"""Neither stops nor limits anything: published methods run to their end."""


class StopMonitor:
    """What a guard sees in one run: the model as it is now, against the model as it came."""

    def __init__(self, guard: StopRule, p: Problem, rt: Runtime, who: str) -> None:
        """Draw the rows to look at, and measure how the model came.

        Args:
            guard: The limits.
            p: The problem; its model is looked at, its original is where it came from.
            rt: Where to run.
            who: The method's id: names the random streams.
        """
        self._guard, self._p, self._rt = guard, p, rt
        gone = rows_of_removed_classes(p.forget, p.removed_classes)
        self.forget = p.forget.sample(guard.sample, rt, f"{who}/watch/forget")
        self._gone_share = float(gone.double().mean()) if len(gone) else 0.0
        self.unseen_rows = None
        if guard.stop == "unseen" and self._gone_share < 1 and p.validation is not None:
            matched = alike(p.validation, p.forget.pick(~gone))
            self.unseen_rows = matched.sample(guard.sample, rt, f"{who}/watch/validation")
        self.subset = self._gone_share == 0
        self.stops = guard.stop == "unseen"
        if self.stops and self._gone_share < 1 and self.unseen_rows is None:
            self.stops = False
            rt.note(
                f"{who}: no validation rows, so nothing says when forget rows look unseen: the run"
                " goes to its end; give Case(validation=...)"
            )
        self.kept = self._kept_rows(who)
        self.ceiling = float("inf")
        if self.kept is not None:
            order = torch.randperm(len(self.kept), generator=rt.rng(f"{who}/watch/few"))
            pieces = order[:FEW].sort().values, order[FEW:].sort().values
            self._pieces = [self.kept.pick(rows) for rows in pieces if len(rows)]
            self._came = [self._losses(p.original, piece) for piece in self._pieces]
            self._limit = guard.floor * p.task.never_seen
            self.ceiling = torch.cat(self._came).mean().item() + self._limit

    def intact(self) -> bool:
        """Return whether retained rows are still within the floor; a loss of NaN is not."""
        return self.excess()[0] <= 0

    def excess(self, *, all_rows: bool = True) -> tuple[float, bool]:
        """Return how far the loss on retained rows is above what the floor allows.

        Args:
            all_rows: Whether to read all rows; else a few, and the others only where the mean rise
                of the loss on the few is within 4 standard errors of the floor.

        Returns:
            The logarithm of rise over floor, cut off: at most 0 within the floor, above 0 beyond
            it or for a loss of NaN; and whether all rows were read.
        """
        if self.kept is None:
            return -FAR, True
        model = self._p.model
        now = [self._losses(model, self._pieces[0])]
        if len(self._pieces) > 1:
            rise = now[0] - self._came[0]
            error = float(rise.std()) * math.sqrt(1 / FEW - 1 / len(self.kept))
            gap = float(rise.mean()) - self._limit
            if not all_rows and abs(gap) > SURE * error:
                return self._scaled(float(rise.mean()), fine=gap < 0), False
            now.append(self._losses(model, self._pieces[1]))
        loss = torch.cat(now).mean().item()
        rise_of_all = loss - (self.ceiling - self._limit)
        return self._scaled(rise_of_all, fine=loss <= self.ceiling), True

    def _scaled(self, rise: float, *, fine: bool) -> float:
        far = -FAR if fine else FAR
        if not (0 < self._limit < math.inf and math.isfinite(rise)):
            return far
        value = math.log(max(rise / self._limit, math.exp(-FAR)))
        return max(value, -FAR) if fine and value <= 0 else min(max(value, 1e-9), FAR)

    def unseen(self) -> bool:
        """Return whether forget rows look never seen; always False where nothing can tell."""
        return self.stops and self.remaining() <= 0

    def overshot(self) -> bool:
        """Return whether forget rows look worse than never seen: only a subset can."""
        if not (self.stops and self.subset):
            return False
        return self.remaining() < 0

    def remaining(self) -> float:
        """Return how far the mean loss on forget rows is below that of rows never seen."""
        return self.goal() - self._mean(self._p.model, self.forget)

    def goal(self) -> float:
        """Return the mean loss that forget rows have once they look never seen."""
        gone = self._guard.gone_loss * self._p.task.never_seen
        if self.unseen_rows is None:
            return gone
        other = self._mean(self._p.model, self.unseen_rows)
        return self._gone_share * gone + (1 - self._gone_share) * other

    def _kept_rows(self, who: str) -> View | None:
        p, guard = self._p, self._guard
        if guard.floor == float("inf"):
            return None
        if not p.retain.sealed_because:
            return p.retain.sample(guard.sample, self._rt, f"{who}/watch/retain")
        if p.validation is not None:
            rest = p.validation.pick(~rows_of_removed_classes(p.validation, p.removed_classes))
            if len(rest):
                return rest.sample(guard.sample, self._rt, f"{who}/watch/retain")
        self._rt.note(f"{who}: no retained and no validation rows, so no floor under what stays")
        return None

    def _mean(self, model: nn.Module, view: View) -> float:
        return self._losses(model, view).mean().item()

    def _losses(self, model: nn.Module, view: View) -> Tensor:
        return row_losses(model, view, self._p.task, self._rt).double()


def rows_of_removed_classes(view: View, gone: tuple[int, ...]) -> Tensor:
    """Return which rows ``(n,)`` have a class that no kept row has."""
    if not gone:
        return torch.zeros(len(view), dtype=torch.bool)
    return torch.isin(view.y, torch.tensor(gone, dtype=view.y.dtype, device=view.y.device)).cpu()


def alike(view: View, other: View) -> View:
    """Return the rows whose class some row of another view has; all where there are no classes."""
    if view.y.ndim != 1 or view.y.is_floating_point():
        return view
    same = torch.isin(view.y, other.y)
    return view.pick(same.cpu()) if bool(same.any()) else view


def cap_losses(losses: Tensor, cap: float, task: Task) -> Tensor:
    """Return losses ``(B,)``, each no larger than ``cap`` times that of a model without knowledge.

    A row at the cap has no gradient left: ascent on it ends there.
    """
    return losses.clamp(max=cap * task.never_seen)


def furthest(fine: Callable[[float], bool], *, steps: int) -> float:
    """Return the furthest of the points tried in [0, 1] that is fine, by bisection.

    Args:
        fine: Whether a point is; expected to hold up to some point and to fail after it. The point
            0 is not tried.
        steps: Points tried between 0 and 1; the answer is ``2**-steps`` short at most.

    Returns:
        1 if that is fine, else a point that was tried, or 0.
    """
    if fine(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        if fine(middle):
            low = middle
        else:
            high = middle
    return low


def furthest_by_excess(excess: Callable[[float], float], *, steps: int) -> float:
    """Return what ``furthest`` returns, with fewer tries where the excess rises steadily.

    The next point is where a line between both ends of the bracket crosses 0, moved towards the
    middle: the ITP method (Oliveira and Takahashi, ACM Trans. Math. Softw. 47, 2020) on a grid,
    which takes one try more than bisection at worst.

    Args:
        excess: At most 0 where a point is fine, above 0 where it is not.
        steps: The answer is ``2**-steps`` short at most.

    Returns:
        1 if that is fine, else a point that was tried, or 0.
    """
    low, high = 0, 2**steps
    below, above = -FAR, excess(1.0)
    if above <= 0:
        return 1.0
    for left in range(steps, -1, -1):
        if high - low <= 1:
            break
        middle, crossing = (low + high) / 2, low + (high - low) * below / (below - above)
        nearer = min(abs(middle - crossing), max(1.0, NUDGE * (high - low)))
        point = crossing + math.copysign(nearer, middle - crossing)
        reach = 2**left - (high - low) / 2
        point = round(min(max(point, middle - reach), middle + reach))
        point = min(max(point, low + 1), high - 1)
        found = excess(point / 2**steps)
        if found <= 0:
            low, below = point, found
        else:
            high, above = point, found
    return float(low / 2**steps)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a model's state, without the weights of an adapter's frozen base."""
    adapted = hasattr(model, "peft_config")
    still = {n for n, p in model.named_parameters() if adapted and not p.requires_grad}
    state = model.state_dict()
    return {name: t.detach().clone() for name, t in state.items() if name not in still}


def bisect_state(
    model: nn.Module, start: dict[str, Tensor], end: dict[str, Tensor], share: float
) -> None:
    """Put a model's state between two: 0 is the start, 1 the end; whole numbers are the end's."""
    with torch.no_grad():
        for name, t in model.state_dict().items():
            if name not in start:
                continue
            if t.is_floating_point():
                t.copy_(torch.lerp(start[name], end[name], share))
            else:
                t.copy_(end[name] if share > 0 else start[name])


def move_weights(model: nn.Module, step: Mapping[str, Tensor], factor: float) -> None:
    """Add ``factor`` times a step, tensors by name, to a model's parameters."""
    with torch.no_grad():
        for name, w in model.named_parameters():
            if name in step:
                w.add_(step[name].to(w), alpha=factor)


def retreat(model: nn.Module, good: dict[str, Tensor], watch: StopMonitor, tries: int) -> None:
    """Take a model back towards a good state, as little as the monitor demands.

    Args:
        model: Changed in place.
        good: A state that is intact and not overshot.
        watch: Looks at this model.
        tries: Looks between the two states.
    """
    far = snapshot(model)

    def fine(share: float) -> bool:
        bisect_state(model, good, far, share)
        return watch.intact() and not watch.overshot()

    bisect_state(model, good, far, furthest(fine, steps=tries))


def follow(mean: nn.Module, model: nn.Module, share: float) -> None:
    """Move a running mean of a model's state; whole numbers are the model's.

    Args:
        mean: Of the same architecture; changed in place.
        model: What it follows.
        share: What is kept of the mean: at 0 it becomes the model.
    """
    theirs = model.state_dict()
    with torch.no_grad():
        for name, t in mean.state_dict().items():
            if t.is_floating_point():
                t.lerp_(theirs[name], 1 - share)
            else:
                t.copy_(theirs[name])


class ReduceRateOnPlateau:
    """Halves a rate once a loss has not fallen for two looks, by a ten-thousandth at least."""

    def __init__(self) -> None:
        self.factor, self._best, self._bad = 1.0, float("inf"), 0

    def step(self, loss: float) -> None:
        """Hear the loss of a look."""
        self._bad = 0 if loss < self._best * (1 - 1e-4) else self._bad + 1
        self._best = min(self._best, loss)
        if self._bad > 2:
            self.factor, self._bad = self.factor / 2, 0
