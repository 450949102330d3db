"""The one entry point: run a method on a copy, under guard."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.catalog import method as make
from unlearnkit.catalog import methods
from unlearnkit.core.case import Case, Partition
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.errors import DivergedError, InputError, UnlearnkitError, UnsupportedError
from unlearnkit.core.method import Method, Need, Problem
from unlearnkit.core.recipe import ASSUMED
from unlearnkit.core.request import ForgetRequest, parse_request
from unlearnkit.core.runtime import Cost, Runtime


@dataclass(frozen=True)
class Unlearned:
    """A model that has been through a method, with all that an audit needs to know of it."""

    model: nn.Module
    original: nn.Module
    case: Case
    request: ForgetRequest | None
    method: Method
    seed: int
    seconds: float
    cost: Cost
    notes: tuple[str, ...]
    """What the method assumed, and other things that a reader should know."""


def unlearn(
    model: nn.Module,
    case: Case,
    request: ForgetRequest | str | Mapping[str, Any] | None,
    method: Method | str,
    rt: Runtime | None = None,
) -> Unlearned:
    """Return a copy of a model that has been made to forget; the input is not touched.

    Args:
        model: The trained model.
        case: What it was trained on, and how.
        request: What must go, as a request or in its words (``"class=3"``); None for a case made
            from parts.
        method: How: a method with its hyper-parameters, or a name for its defaults.
        rt: Device, precision, seed; the CPU in fp32 with seed 0 by default.

    Returns:
        The new model, with its cost and circumstances.

    Raises:
        UnsupportedError: If the method does not serve this task, or needs what the case has not.
        InputError: If the request or the model does not fit the case, or weights are not finite.
        DivergedError: If the method returned no usable model.
        UnlearnkitError: If a method changed the original model.
    """
    rt = rt or Runtime()
    how = make(method) if isinstance(method, str) else method
    asked = None if request is None else parse_request(request)
    split = case.partition(asked)
    _check_needs(how, case, split)
    check_weights(model, "model")
    original = _copy(model).to(rt.device).eval().requires_grad_(False)
    work = _full_precision(_copy(model)).to(rt.device)
    _check_fit(original, case, split, rt)
    problem = _problem(how, case, split, work, _full_precision(original), rt)
    before = (rt.cost.forward, rt.cost.backward)
    start = time.perf_counter()
    with seeded(rt), _memory(rt):
        out = how.apply(problem, rt)
    seconds = time.perf_counter() - start
    rt.cost.pending = 0
    out = _like(out, model, how.id)
    _check_same(problem.original, model, how.id)
    spent = Cost(rt.cost.forward - before[0], rt.cost.backward - before[1], rt.cost.peak_bytes)
    return Unlearned(
        out, original, case, asked, how, rt.seed, seconds, spent, tuple(rt.notes)
    )


@contextmanager
def seeded(rt: Runtime, stream: str = "global") -> Iterator[None]:
    """Seed torch's global generators from a stream; on leaving, they are as they were.

    Layers that draw by themselves (dropout, initialisers) use the global generator.
    """
    devices = [] if rt.device.type in {"cpu", "mps"} else [rt.device]
    with torch.random.fork_rng(devices=devices, device_type=rt.device.type if devices else "cuda"):
        torch.manual_seed(rt.rng(stream).initial_seed())
        yield


def fresh_model(case: Case, rt: Runtime, stream: str = "fresh") -> nn.Module:
    """Return an untrained model of a case, initialised from a stream of the run's seed.

    Args:
        case: Gives the model factory.
        rt: Device and seed.
        stream: Name of the stream.

    Returns:
        The model, on the run's device.

    Raises:
        UnsupportedError: If the case has no factory.
        InputError: If the factory does not return a new module each time.
    """
    if case.fresh is None:
        raise UnsupportedError("fresh: the case has no model factory; give Case(fresh=make_model)")
    with seeded(rt, stream):
        built = case.fresh()
    if not isinstance(built, nn.Module):
        raise InputError(f"fresh: must return a torch module, got {type(built).__name__}")
    return built.to(rt.device)


def check_weights(model: nn.Module, who: str) -> None:
    """Refuse a model whose weights are not finite.

    Args:
        model: Any module.
        who: What to call it.

    Raises:
        InputError: Naming the first tensor that is not finite.
    """
    for name, t in model.state_dict().items():
        if isinstance(t, Tensor) and t.is_floating_point() and not torch.isfinite(t).all():
            bad = int((~torch.isfinite(t)).sum())
            raise InputError(
                f"{who}: {name} has {bad} of {t.numel()} values that are not finite; load another"
                " checkpoint"
            )


def _check_needs(how: Method, case: Case, split: Partition) -> None:
    info = how.info
    if case.task.name not in info.tasks:
        fits = [i for i, m in methods().items() if case.task.name in m.info.tasks]
        raise UnsupportedError(
            f"{how.id} serves {', '.join(sorted(info.tasks))}, not {case.task.name}; these do:"
            f" {', '.join(fits) or 'none'}"
        )
    have = {
        Need.FORGET: split.forget is not None,
        Need.RETAIN: split.retain is not None,
        Need.VALIDATION: case.validation is not None,
        Need.FRESH: case.fresh is not None,
    }
    lacking = sorted(n for n in info.needs if not have[n])
    if not lacking:
        return
    fits = [
        i
        for i, m in methods().items()
        if case.task.name in m.info.tasks and all(have[n] for n in m.info.needs)
    ]
    raise UnsupportedError(
        f"{how.id} needs {' and '.join(lacking)}, which the case does not give; with what there is,"
        f" these work: {', '.join(fits) or 'none'}"
    )


def _check_fit(model: nn.Module, case: Case, split: Partition, rt: Runtime) -> None:
    others = {"test": case.test, "validation": case.validation, "held_out": case.held_out}
    views = {"retain": split.retain, "forget": split.forget} | {
        name: None if data is None else View.all(data) for name, data in others.items()
    }
    quiet = Runtime(rt.device, rt.precision, rt.seed)
    for name, view in views.items():
        if view is None:
            continue
        few = view.pick(torch.arange(min(2, len(view))))
        try:
            with seeded(rt, "fit"), torch.inference_mode():
                for batch in few.batches(2, quiet):
                    case.task.losses(case.task.outputs(model, batch), batch)
        except InputError as e:
            raise InputError(f"{name}: {e}") from e


def _problem(
    how: Method, case: Case, split: Partition, work: nn.Module, original: nn.Module, rt: Runtime
) -> Problem:
    allowed = how.info.needs | how.info.uses

    def sealed(view: View | None, need: Need) -> View:
        if view is None or need not in allowed:
            absent = "the case has none" if view is None else "does not declare it"
            empty = view or View.all(_NOTHING)
            return empty.seal(f"{how.id} reads {need} rows but {absent}")
        return view

    validation = None if case.validation is None else View.all(case.validation)
    may_build = Need.FRESH in allowed
    if case.recipe is None:
        rt.note(
            f"the recipe that trained the model is unknown: assumed lr {ASSUMED.lr}, batch"
            f" {ASSUMED.batch_size}, {ASSUMED.epochs} epochs; give Case(recipe=...) to be exact"
        )
    return Problem(
        model=work,
        original=original,
        task=case.task,
        forget=sealed(split.forget, Need.FORGET),
        retain=sealed(split.retain, Need.RETAIN),
        validation=validation if Need.VALIDATION in allowed else None,
        recipe=case.recipe or ASSUMED,
        gone=split.gone,
        build=(lambda: fresh_model(case, rt)) if may_build and case.fresh else None,
        sealed_build="" if may_build else f"{how.id} builds a fresh model but does not declare it",
    )


_NOTHING = TensorData(torch.empty(0), torch.empty(0, dtype=torch.long))


def _copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model)


def _full_precision(model: nn.Module) -> nn.Module:
    """Widen half-precision weights, so that small steps are not rounded away."""
    half = {torch.float16, torch.bfloat16}
    if any(t.dtype in half for t in (*model.parameters(), *model.buffers())):
        return model.float()
    return model


def _like(out: nn.Module, model: nn.Module, who: str) -> nn.Module:
    """Bring a method's result back to the input model's types and flags, and check it.

    Args:
        out: What the method returned.
        model: What the caller gave.
        who: The method's id.

    Returns:
        The result.

    Raises:
        DivergedError: If it is not a finite model of the same shape.
    """
    if not isinstance(out, nn.Module):
        raise DivergedError(f"{who}: returned {type(out).__name__}, not a model")
    want, got = model.state_dict(), out.state_dict()
    if list(want) != list(got):
        odd = sorted(set(want) ^ set(got))
        raise DivergedError(f"{who}: the result's state differs in {odd[0] if odd else 'order'!r}")
    with torch.no_grad():
        for name, ref in want.items():
            if not isinstance(ref, Tensor):
                continue
            if got[name].shape != ref.shape:
                raise DivergedError(
                    f"{who}: {name} has shape {tuple(got[name].shape)}, was {tuple(ref.shape)}"
                )
            if got[name].is_floating_point() and not torch.isfinite(got[name].to(ref.dtype)).all():
                raise DivergedError(
                    f"{who}: diverged, {name} is not finite; the input model is unchanged; try a"
                    " smaller learning rate or fewer epochs"
                )
    mine = (*out.named_parameters(), *out.named_buffers())
    types = {n: t.dtype for n, t in (*model.named_parameters(), *model.named_buffers())}
    for name, t in mine:
        if t.dtype != types[name]:
            t.data = t.data.to(types[name])
    out.zero_grad(set_to_none=True)
    flags = dict(model.named_parameters())
    for name, p in out.named_parameters():
        p.requires_grad_(flags[name].requires_grad)
        if not flags[name].requires_grad and not torch.equal(p.cpu(), flags[name].cpu()):
            raise DivergedError(f"{who}: changed {name}, which is frozen")
    if _hooks(out) != _hooks(model):
        raise DivergedError(f"{who}: left hooks on the model")
    for ours, theirs in zip(out.modules(), model.modules(), strict=True):
        ours.training = theirs.training
    return out


def _check_same(original: nn.Module, model: nn.Module, who: str) -> None:
    for (name, ours), theirs in zip(
        original.state_dict().items(), model.state_dict().values(), strict=True
    ):
        if not torch.equal(ours.cpu().to(theirs.dtype), theirs.cpu()):
            raise UnlearnkitError(f"{who}: changed {name} of the original, which is read only")


def _hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)


@contextmanager
def _memory(rt: Runtime) -> Iterator[None]:
    if rt.device.type != "cuda":
        yield
        return
    torch.cuda.reset_peak_memory_stats(rt.device)
    yield
    rt.cost.peak_bytes = max(rt.cost.peak_bytes, torch.cuda.max_memory_allocated(rt.device))
