"""Ranks: processes that share the rows of each batch and stay identical."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from unlearnkit.core.data import Batch, View, as_named_tensors
from unlearnkit.core.errors import InputError, UnlearnkitError, UnsupportedError
from unlearnkit.core.runtime import Runtime

T = TypeVar("T")

TIMEOUT = "UNLEARNKIT_RANK_TIMEOUT"
"""Environment variable: seconds that a rank waits for the others."""

_PATIENCE = 600.0


class RankLostError(UnlearnkitError):
    """Another process of the group failed, was killed, or did not come in time."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run: this one's number, their count, and how they talk."""

    rank: int
    size: int
    group: dist.ProcessGroup

    def share(self, rows: int) -> slice:
        """Return which of the rows of a batch are this rank's: a block, in order."""
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def exchange(self, value: T) -> list[T]:
        """Return the values of all ranks, in order; they travel as objects."""
        found: list[Any] = [None] * self.size
        with _rank_errors():
            dist.all_gather_object(found, value, group=self.group)
        return found

    def add(self, t: Tensor) -> Tensor:
        """Add up a tensor over the ranks, in place."""
        with _rank_errors():
            dist.all_reduce(t, group=self.group)
        return t

    def rows(self, own: Tensor, total: int) -> Tensor:
        """Return the rows of all ranks ``(total, ...)``, in order, from each rank's share."""
        most = -(-total // self.size)
        padded = own.new_zeros(most, *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        with _rank_errors():
            dist.all_gather(parts, padded, group=self.group)
        ends = [replace(self, rank=r).share(total) for r in range(self.size)]
        return torch.cat([p[: s.stop - s.start] for p, s in zip(parts, ends, strict=True)])


_RANKS: ContextVar[Ranks | None] = ContextVar("ranks", default=None)
_SHARED: ContextVar[bool] = ContextVar("shared", default=False)


def current_ranks() -> Ranks | None:
    """Return the ranks of the run that this code is part of; None where one process works."""
    return _RANKS.get()


@contextmanager
def with_ranks(ranks: Ranks | None) -> Iterator[None]:
    """Let these ranks share the work in the context; None: this process works alone."""
    before = _RANKS.set(ranks)
    shared = _SHARED.set(False)
    try:
        yield
    finally:
        _SHARED.reset(shared)
        _RANKS.reset(before)


def is_first() -> bool:
    """Return whether this process is the one of its ranks that keeps what they make."""
    here = _RANKS.get()
    return here is None or here.rank == 0


def patience() -> timedelta:
    """Return how long a rank waits for the others."""
    given = os.environ.get(TIMEOUT, "")
    try:
        return timedelta(seconds=float(given or _PATIENCE))
    except (ValueError, OverflowError):
        raise InputError(f"{TIMEOUT}: must be a number of seconds, got {given[:40]!r}") from None


def from_first(make: Callable[[], T]) -> T:
    """Return what rank 0 makes, on every rank: for clocks, and for folders that only it may see."""
    here = _RANKS.get()
    if here is None:
        return make()
    box: list[Any] = [None, None]
    if here.rank == 0:
        try:
            box[0] = make()
        except (UnlearnkitError, OSError, ValueError) as e:
            box[1] = e
    with _rank_errors():
        dist.broadcast_object_list(box, group=here.group, group_src=0)
    if box[1] is not None:
        raise box[1]
    made: T = box[0]
    return made


@contextmanager
def shared_rows() -> Iterator[None]:
    """Let each rank run models on its share of a batch; outputs of all rows come back on each.

    A loss is then computed on every rank from all rows, so that losses which couple rows, uneven
    shares and last batches need no weights. ``average_gradients`` must follow a backward pass.
    """
    before = _SHARED.set(_RANKS.get() is not None)
    try:
        yield
    finally:
        _SHARED.reset(before)


def check_divisible(rows: int) -> None:
    """Refuse batches of so many rows where there are more ranks.

    Raises:
        InputError: Then.
    """
    here = _RANKS.get()
    if here is not None and rows < here.size:
        raise InputError(
            f"ranks: {here.size} processes cannot share batches of {rows} rows; start fewer, or"
            " give a larger batch_size"
        )


def check_alone(who: str) -> None:
    """Refuse work that one process must do where ranks share it.

    Raises:
        UnsupportedError: Then; ``who`` begins the message.
    """
    if _RANKS.get() is not None:
        raise UnsupportedError(
            f"{who} trains many models, each on one process; start it without torchrun, and give"
            " ray= for a cluster"
        )


def average_gradients(params: Iterable[Tensor]) -> None:
    """Make the gradients of a loss under ``shared_rows`` those of the whole batch.

    Each rank's outputs carry ``size`` times their gradient (``_Gathered``), so that the mean over
    ranks is the sum over rows; what does not go through a model, such as a penalty on weights, is
    the same on all ranks and stays as it is.
    """
    here = _RANKS.get()
    if here is None:
        return
    grads = [p.grad for p in params if p.grad is not None and not _is_sharded(p)]
    for kind in dict.fromkeys(g.dtype for g in grads):
        some = [g for g in grads if g.dtype is kind]
        flat = here.add(torch.cat([g.flatten() for g in some])).div_(here.size)
        for g, mean in zip(some, torch.split(flat, [g.numel() for g in some]), strict=True):
            g.copy_(mean.view_as(g))


def _is_sharded(p: Tensor) -> bool:
    """Return whether a parameter is spread over ranks (FSDP), which average its gradient."""
    return hasattr(p, "device_mesh")


@contextmanager
def split_batches(size: int, rt: Runtime, *views: View) -> Iterator[SplitBatches]:
    """Give each rank its own batches of some views, for sums over batches.

    Yields:
        The batches, with ``add`` to add up over ranks what was made of them. What the meter counts
        in the context is added up as well. With fewer batches than ranks each rank has all.
    """
    here = _RANKS.get()
    if here is not None and sum(-(-len(v) // size) for v in views) < here.size:
        here = None
    cost = rt.cost
    before = (cost.forward, cost.backward)
    with with_ranks(None) if here is not None else shared_rows_off():
        yield SplitBatches(chain.from_iterable(v.batches(size, rt) for v in views), here)
    if here is not None:
        spent = torch.tensor([cost.forward - before[0], cost.backward - before[1]])
        forward, backward = here.add(spent).tolist()
        cost.forward, cost.backward = before[0] + forward, before[1] + backward


@contextmanager
def shared_rows_off() -> Iterator[None]:
    """Run models on whole batches in the context, on every rank."""
    before = _SHARED.set(False)
    try:
        yield
    finally:
        _SHARED.reset(before)


@dataclass(frozen=True)
class SplitBatches:
    """Every ``size``-th batch of a view, from the rank's own."""

    batches: Iterator[Batch]
    ranks: Ranks | None

    def __iter__(self) -> Iterator[Batch]:
        for i, batch in enumerate(self.batches):
            if self.ranks is None or i % self.ranks.size == self.ranks.rank:
                yield batch

    def add(self, sums: Mapping[str, Tensor]) -> None:
        """Add up sums over the ranks, in place; every rank must hold the same names."""
        if self.ranks is not None:
            for name in sorted(sums):
                whole = sums[name].contiguous()
                sums[name].copy_(self.ranks.add(whole))


def run_on_shares(
    model: nn.Module, batch: Batch, call: Callable[[nn.Module, Batch], Tensor]
) -> Tensor:
    """Return ``call(model, batch)``, each rank having run the model on its share of the rows.

    The whole batch is run where it has fewer rows than there are ranks, where inputs carry
    gradients, where a layer has hooks (which would see a share), and inside of ``torch.func``.
    A model that draws random numbers other than by dropout of rows is refused.
    """
    here, rows = _RANKS.get(), len(batch)
    if here is None or not _SHARED.get() or rows < here.size or not _divisible(model, batch):
        return call(model, batch)
    own = here.share(rows)
    x = {k: t[own] for k, t in as_named_tensors(batch.x).items()}
    part = replace(
        batch, x=x["x"] if isinstance(batch.x, Tensor) else x, row=batch.row[own], cost=None
    )
    with shared_rows_off(), _RowsOfAllRanks(here, rows, next(iter(x.values())).device) as watch:
        out = call(model, part)
    watch.check()
    if out.ndim == 0 or len(out) != len(part):
        return out
    gathered: Tensor = _Gathered.apply(out, here, rows)  # type: ignore[no-untyped-call]  # torch's
    return gathered


def _divisible(model: nn.Module, batch: Batch) -> bool:
    if any(t.requires_grad for t in as_named_tensors(batch.x).values()):
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    return not any(
        m._forward_hooks or m._forward_pre_hooks or (isinstance(m, nn.RNNBase) and m.dropout)
        for m in model.modules()
        if not _is_sharded(next(m.parameters(recurse=False), torch.empty(0)))
    )


class _Gathered(torch.autograd.Function):
    """All rows from each rank's; back, ``size`` times the gradient of the rank's own rows."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, ranks: Ranks, rows: int) -> Tensor:
        ctx.ranks, ctx.rows = ranks, rows
        return ranks.rows(own.detach(), rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0][ctx.ranks.share(ctx.rows)] * ctx.ranks.size, None, None


class _Added(torch.autograd.Function):
    """The sum over ranks; back, the sum of the gradients that the ranks' results have."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.add(t.detach().clone())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.add(grads[0].contiguous().clone()), None


_DROPOUTS = (functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d)
_RAW_NORMS = (torch.batch_norm, torch.native_batch_norm)


class _RowsOfAllRanks(TorchFunctionMode):
    """Batch normalisation and dropout of the whole batch, while a model runs on a share."""

    def __init__(self, ranks: Ranks, rows: int, device: torch.device) -> None:
        super().__init__()
        self.ranks, self.rows = ranks, rows
        self.device = device
        self.state = self._rng_state()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.batch_norm:
            return self._batch_norm(*args, **kwargs)
        if func in _DROPOUTS:
            return self._dropout(func, *args, **kwargs)
        if func in _RAW_NORMS:
            raise UnsupportedError(
                f"ranks: the model calls {func.__name__}, whose statistics would be those of a"
                " share of the rows; use nn.BatchNorm, or one process"
            )
        return func(*args, **kwargs)

    def check(self) -> None:
        """Refuse a model that has drawn numbers which are not those of one process."""
        if not torch.equal(self.state, self._rng_state()):
            raise UnsupportedError(
                "ranks: the model draws random numbers otherwise than by dropout layers (as fused"
                " attention with dropout does), so that ranks would not equal one process; set that"
                " dropout to 0, or use one process"
            )

    def _dropout(
        self, func: Any, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        """Draw for all rows, as one process would, and keep the share's."""
        if not training or p == 0:
            return x
        own = self.ranks.share(self.rows)
        times, rest = divmod(len(x), own.stop - own.start)
        if rest:
            raise UnsupportedError(
                f"ranks: dropout on a tensor of shape {tuple(x.shape)}, whose first axis is not the"
                " rows; use one process"
            )
        self.check()
        whole = func(x.new_ones(self.rows * times, *x.shape[1:]), p, True)
        self.state = self._rng_state()
        return (
            x.mul_(whole[own.start * times : own.stop * times])
            if inplace
            else (x * whole[own.start * times : own.stop * times])
        )

    def _batch_norm(
        self,
        input: Tensor,  # noqa: A002  # torch's own name, by which it may be passed
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """Normalise by mean and variance of all ranks' rows: sums before squares."""
        x = input
        if not training:
            return functional.batch_norm(
                x, running_mean, running_var, weight, bias, False, momentum, eps
            )
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        count = wide[0, 0].numel() * self.rows
        mean = self._added(wide.sum(axes)) / count
        centred = wide - mean.view(shape)
        var = self._added(centred.square().sum(axes)) / count
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean), momentum)
                running_var.lerp_((var * count / (count - 1)).to(running_var), momentum)
        out = centred * (var + eps).rsqrt().view(shape)
        if weight is not None:
            out = out * weight.view(shape)
        if bias is not None:
            out = out + bias.view(shape)
        return out.to(x.dtype)

    def _rng_state(self) -> Tensor:
        on_chip = self.device.type == "cuda"
        return torch.cuda.get_rng_state(self.device) if on_chip else torch.get_rng_state()

    def _added(self, t: Tensor) -> Tensor:
        whole: Tensor = _Added.apply(t, self.ranks)  # type: ignore[no-untyped-call]  # torch's
        return whole


@contextmanager
def _rank_errors() -> Iterator[None]:
    """Say that a rank was lost where the group cannot talk."""
    try:
        yield
    except UnlearnkitError:
        raise
    except RuntimeError as e:
        first = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise RankLostError(f"ranks: another process ended or did not answer: {first}") from e
