"""Shared run: a public function carried out by all ranks of a group as one."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from unlearnkit.core.border import first_line
from unlearnkit.core.case import Case
from unlearnkit.core.content import content_digest
from unlearnkit.core.data import SAMPLE, Data, TensorData, View
from unlearnkit.core.digest import digest, model_digest, source_digest, tensor_digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.method import Method
from unlearnkit.core.module_state import tensors
from unlearnkit.core.ranks import (
    RankLostError,
    Ranks,
    current_ranks,
    patience,
    with_ranks,
)
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.torchrun_environment import is_launched

P = ParamSpec("P")
R = TypeVar("R")

_GROUPS: list[dist.ProcessGroup] = []
"""The group of this process' runs; none before the first, and after one that failed."""

_FAILED = "unlearnkit/failed"


def on_ranks(step: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator: the processes of a group carry a call out together, as one would.

    It acts where ``torchrun`` started the process, or where the caller has made a process group of
    more than one; every process must make the call. Arguments are compared by digest first, and
    the weights of the result last. A failure on one rank ends the call on all.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        names = list(inspect.signature(function).parameters)

        @wraps(function)
        def together(*args: P.args, **kwargs: P.kwargs) -> R:
            if current_ranks() is None and not _in_group():
                return function(*args, **kwargs)
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            with join_ranks(step) as ranks:
                if ranks is None:
                    return function(*args, **kwargs)
                _compare(step, ranks, dict(_contents(given)))
                found = function(*args, **kwargs)
                model = getattr(found, "model", None)
                if isinstance(model, nn.Module):
                    _check_equal(step, ranks, model)
                return found

        return together

    return decorate


def _in_group() -> bool:
    return dist.is_available() and (is_launched() or dist.is_initialized())


@contextmanager
def join_ranks(step: str) -> Iterator[Ranks | None]:
    """Yield the ranks of this process' group, made active; None where it is alone.

    World size and number come from the process group; under ``torchrun`` one is made where there is
    none. Within another call of this function the same ranks come back.

    Raises:
        RankLostError: If another rank fails; it says how.
    """
    here = current_ranks()
    if here is not None or not _in_group():
        yield here
        return
    if not dist.is_initialized():
        dist.init_process_group(timeout=patience())
    if dist.get_world_size() == 1:
        yield None
        return
    store, place = dist.distributed_c10d._get_default_store(), f"{_FAILED}/{len(_FAILURES)}"
    try:
        ranks = Ranks(dist.get_rank(), dist.get_world_size(), _group(step))
        with with_ranks(ranks):
            yield ranks
    except RankLostError as e:
        _leave()
        raise RankLostError(f"{step}: {_why(store, place, e)}") from None
    except BaseException as e:
        with suppress(Exception):  # a store that is gone must not hide the error itself
            store.set(place, f"rank {dist.get_rank()} failed: {type(e).__name__}: {first_line(e)}")
        _leave()
        raise


_FAILURES: list[str] = []
"""One entry for each run that failed: the next one leaves its message under another name."""


def _group(step: str) -> dist.ProcessGroup:
    if not _GROUPS:
        try:
            made = dist.new_group(timeout=patience())
        except RuntimeError as e:
            raise RankLostError(
                f"{step}: not all of the {dist.get_world_size()} processes came: {first_line(e)};"
                " make the call on every rank"
            ) from None
        _GROUPS.append(made)
    return _GROUPS[0]


def _leave() -> None:
    """Close the group: the others, which wait in it, fail at once."""
    _FAILURES.append("")
    for group in _GROUPS:
        with suppress(Exception):
            dist.destroy_process_group(group)
    _GROUPS.clear()


def _why(store: Any, place: str, e: RankLostError) -> str:
    with suppress(Exception):
        if store.check([place]):
            return f"{store.get(place).decode()}; nothing was written"
    text = str(e).removeprefix("ranks: ")
    return f"{text}; see what the other processes say, none was waited for longer than {patience()}"


def _compare(step: str, ranks: Ranks, own: Mapping[str, str]) -> None:
    """Refuse ranks that were given different things.

    Raises:
        InputError: Naming the ranks and what differs.
    """
    found = ranks.exchange(own)
    for rank, given in enumerate(found):
        odd = [n for n in {**found[0], **given} if found[0].get(n) != given.get(n)]
        if odd:
            raise InputError(
                f"{step}: rank {rank} was given another {', another '.join(odd)} than rank 0; start"
                " every rank with the same code, data and settings"
            )


def _contents(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "code", f"{source_digest()} {torch.__version__} {platform.python_version()}"
    for name, value in given.items():
        if isinstance(value, nn.Module):
            yield name, model_digest(value)
        elif isinstance(value, Case):
            yield from _of_case(value)
        elif isinstance(value, Method):
            yield name, f"{value.id} {value.model_dump_json()}"
            yield f"code of method {value.id}", content_digest(type(value))
        elif isinstance(value, Runtime):
            yield "seed", str(value.seed)
            yield "precision", value.precision
        elif isinstance(getattr(value, "model", None), nn.Module):
            yield f"{name} model", model_digest(value.model)
        elif value is None or isinstance(value, str | int | float | bool | Mapping):
            yield name, repr(value)
        elif hasattr(value, "model_dump_json"):
            yield name, str(value.model_dump_json())


def _of_case(case: Case) -> Iterator[tuple[str, str]]:
    for name in ("train", "test", "validation", "held_out"):
        data = getattr(case, name)
        if data is not None:
            yield f"set of {name} rows", rows_digest(data)
    yield "task", digest(dict(case.task.spec()))
    if case.recipe is not None:
        yield "recipe", case.recipe.model_dump_json(fallback=repr)


def rows_digest(data: Data) -> str:
    """Return the digest of rows in memory; of others that of their targets and of a sample."""
    if isinstance(data, TensorData):
        return data.key()
    few = torch.linspace(0, len(data) - 1, min(SAMPLE, len(data))).round().long()
    parts = []
    for batch in View(data, few).batches(SAMPLE, Runtime()):
        x = {"x": batch.x} if isinstance(batch.x, torch.Tensor) else batch.x
        parts.append({n: tensor_digest(t) for n, t in x.items()})
    return digest({"x": parts, "y": tensor_digest(data.y)})


def _check_equal(step: str, ranks: Ranks, model: nn.Module) -> None:
    """Refuse a result that is not the same on every rank.

    Raises:
        InputError: Naming the first tensor that differs.
    """
    found = ranks.exchange({n: tensor_digest(t) for n, t in tensors(model).items()})
    for rank, own in enumerate(found):
        odd = next((n for n in {**found[0], **own} if found[0].get(n) != own.get(n)), None)
        if odd is not None:
            raise InputError(
                f"{step}: rank {rank} ends with another {odd!r} than rank 0, so that the result"
                " would depend on the rank; use one process, and report the method"
            )
