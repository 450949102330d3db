"""The part of the contract that is checked inside a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.errors import UndeclaredReadError
from unlearnkit.core.method import Need, Problem
from unlearnkit.core.module_state import structural_difference
from unlearnkit.core.runtime import Cost, Runtime
from unlearnkit.testing.subject import ToyProblem, bits, expect, generators, same_bits, with_probe
from unlearnkit.unlearning.run_method import run_method

Inputs = tuple[object, ...]


class _Injected(Exception):  # noqa: N818  # it is not about an error
    """Raised in the middle of a run."""


@dataclass
class _Seen:
    """Rows that go through models, counted by hooks while a method runs."""

    on: bool = False
    forward: int = 0
    backward: int = 0
    hidden: bool = False
    """Whether a transform of torch.func hid how many rows there are."""

    fail_at: int = 0
    """At which call to raise; never when 0."""

    calls: int = 0

    def count(self, inputs: tuple[object, ...], out: object) -> None:
        """Count one call of a model."""
        if not self.on:
            return
        self.calls += 1
        if self.calls == self.fail_at:
            raise _Injected
        first = next(x for x in inputs if isinstance(x, Tensor))
        if torch._C._functorch.maybe_current_level() is not None:
            self.hidden = True
            return
        self.forward += len(first)
        if isinstance(out, Tensor) and out.requires_grad:
            out.register_hook(lambda _: self._back(len(first)))  # type: ignore[no-untyped-call]  # torch's

    def watch(self, model: nn.Module) -> nn.Module:
        """Count what goes through a model and its copies, which share the function."""

        def hook(_: nn.Module, args: Inputs, kwargs: dict[str, object], out: object) -> None:
            self.count((*args, *kwargs.values()), out)

        model.register_forward_hook(hook, with_kwargs=True)
        return model

    @contextmanager
    def inside(self, p: Problem, rt: Runtime) -> Iterator[None]:
        """Count while the method runs."""
        self.on = True
        try:
            yield
        finally:
            self.on = False

    def case(self, case: Case) -> Case:
        """Return the case with a factory whose models are watched."""
        make = case.fresh
        assert make is not None
        return case.replace(fresh=lambda: self.watch(make()))

    def _back(self, rows: int) -> None:
        self.backward += rows


def cost_metered(s: ToyProblem) -> None:
    """The meter counts the rows that hooks see, of this run alone.

    Rows forward: every row that goes through any model inside ``apply``, exactly. Where a
    transform of ``torch.func`` hides the rows, the hooks' count is a lower bound. Rows backward: at
    least the rows that a gradient came back to, and no more than rows forward, or three times these
    where a transform goes back through one pass again: a curvature product does. What is kept for
    other requests too is made before, and has a meter of its own.
    """
    seen, rt = _Seen(), s.rt()
    method, case = with_probe(s.smoke(), seen.inside), seen.case(s.case)
    first = s.run(seen.watch(s.model()), case=case)
    done = s.run(seen.watch(s.model()), case=case, method=method, rt=rt)
    cost, who = done.cost, s.method.id
    if seen.hidden:
        expect(cost.forward > seen.forward, f"{who}: rows inside a transform are not metered")
    else:
        expect(
            cost.forward == seen.forward,
            f"{who}: {seen.forward} rows went forward, the meter says {cost.forward}",
        )
    most = cost.forward * (3 if seen.hidden else 1)
    fits = seen.backward <= cost.backward <= most
    expect(fits, f"{who}: {seen.backward} rows of {seen.forward} back, metered {cost.backward}")
    expect(rt.cost == Cost(), f"{who}: a run changes the meter of the caller's runtime")
    kept = first.cost.precomputation == cost.precomputation
    expect(
        kept, f"{who}: what is kept costs {first.cost.precomputation}, then {cost.precomputation}"
    )
    again = s.run(rt=rt)
    same = (again.cost.forward, again.cost.backward) == (cost.forward, cost.backward)
    expect(same, f"{who}: a second run on one runtime costs other than the first")
    expect(again.notes == done.notes, f"{who}: a second run on one runtime has other notes")


def draws_from_its_own_streams(s: ToyProblem) -> None:
    """On a model that draws nothing itself, the method draws from no global generator."""
    moved = [False]

    @contextmanager
    def inside(p: Problem, rt: Runtime) -> Iterator[None]:
        before = generators()
        yield
        moved[0] = generators() != before

    s.run(method=with_probe(s.smoke(), inside))
    expect(not moved[0], f"{s.method.id}: draws from a global generator; use rt.rng(name)")


def undeclared_inputs_sealed(s: ToyProblem) -> None:
    """What is not declared raises when it is read, and is not behind the seal either."""
    info = s.method.info
    declared = info.reads

    @contextmanager
    def inside(p: Problem, rt: Runtime) -> Iterator[None]:
        for need, view in _views(p).items():
            if need not in declared:
                expect(view is not None and _is_sealed(view, rt), f"{need} rows are not sealed")
            elif Need.LABELS not in declared and view is not None:
                expect(_hides_targets(view, rt), f"targets of {need} rows are not sealed")
        if Need.FRESH not in declared:
            expect(_raises_undeclared(p), "a fresh model is not sealed")
        yield

    s.run(method=with_probe(s.smoke(), inside))


def exception_leaves_nothing_behind(s: ToyProblem) -> None:
    """After an error in the middle all is as before, and the next run is not affected."""
    model = s.model()
    first, want = bits(model), bits(s.run().model)
    before, rt = generators(), s.rt()
    seen = _Seen(fail_at=2)
    method = with_probe(s.smoke(), seen.inside)
    watched = seen.watch(s.model())
    try:
        run_method(watched, seen.case(s.case), s.request, method, rt)
    except _Injected:
        pass
    else:
        expect(seen.calls < 2, f"{s.method.id}: swallows an error of the model")
    who = s.method.id
    expect(same_bits(first, bits(watched)), f"{who}: after an error, the caller's model differs")
    expect(
        not structural_difference(watched, seen.watch(model)),
        f"{who}: after an error, something is left",
    )
    expect(generators() == before, f"{who}: after an error, a global generator differs")
    expect(rt.cost == Cost() and not rt.notes, f"{who}: after an error, the runtime differs")
    expect(same_bits(want, bits(s.run().model)), f"{who}: after an error, the next run differs")


def _views(p: Problem) -> dict[Need, View | None]:
    return {Need.FORGET: p.forget, Need.RETAIN: p.retain, Need.VALIDATION: p.validation}


def _is_sealed(view: View, rt: Runtime) -> bool:
    for read in (lambda: view.y, lambda: next(view.batches(1, rt)), lambda: view.sample(1, rt, "")):
        try:
            read()
        except UndeclaredReadError:
            continue
        return False
    return len(view.rows) == 0 and len(view.data) == 0


def _hides_targets(view: View, rt: Runtime) -> bool:
    batch = next(view.batches(1, rt.fork(0)))
    reads: tuple[Callable[[], object], ...] = (lambda: view.y, lambda: batch.y + 0)
    for read in reads:
        try:
            read()
        except UndeclaredReadError:
            continue
        return False
    return view.data.y.numel() == 0


def _raises_undeclared(p: Problem) -> bool:
    try:
        p.fresh()
    except UndeclaredReadError:
        return True
    return False


PROBE_CHECKS = (
    cost_metered,
    draws_from_its_own_streams,
    undeclared_inputs_sealed,
    exception_leaves_nothing_behind,
)
