"""Model outputs on rows, and arithmetic on them, in batches."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unlearnkit.core.data import Batch, MapData, View, as_named_tensors
from unlearnkit.core.errors import InputError, OutOfMemoryError, UnsupportedError
from unlearnkit.core.module_state import eval_mode
from unlearnkit.core.ranks import run_on_shares, shared_rows
from unlearnkit.core.runtime import Runtime

if TYPE_CHECKING:
    from unlearnkit.core.task import Task

CHUNK = 8192
"""Rows that per-row arithmetic takes at once: float64 copies stay this small."""

PART = 2**22
"""Numbers of outputs that are held at once where only per-row numbers of them are needed."""

MOST = 512
"""Rows that a model is run on at once, where nothing says fewer."""

LEAST = 8
"""Rows that it is run on at once, however large they are."""

NUMBERS = 32 * 3 * 32 * 32
"""Input numbers that a model is run on at once on a CPU: what it makes of 32 small images stays in
the processor's cache, and a row takes 0.25 to 0.9 of its time among 512 (benchmark ``images``)."""


SUM_TOLERANCE = 1e-3
"""How near 1 the outputs of every row must sum to count as probabilities: float16 rounds so far."""

SPREAD = 0.75
"""Outputs that spread less say too little to tell probabilities from small logits."""

SMALLEST = 1e-7
"""Probabilities are cut at this, and at 1 minus this, before their log-odds are taken."""

BETTER = 0.9
"""Loss as probabilities over loss as logits, below which outputs are probabilities."""

BATCHING = "the model's outputs change with the batch size"
"""How the note on such models begins."""

TRIED = 16
"""Rows that a model is tried on at two batch sizes."""

BATCHING_TOLERANCE = 1e-2
"""Difference between batch sizes, of the largest output, that rounding does not explain: bfloat16
keeps three digits."""


def forward(model: nn.Module, batch: Batch) -> Tensor:
    """Return a model's output on a batch ``(B, ...)``, at least float32.

    Every model call goes through here. Dictionary inputs are passed by name (by position if the
    names are numbers) and cast to the weights' precision; normalisation layers are frozen for a
    batch of one row; logits are taken out of structured outputs; rows are counted.

    Raises:
        UnsupportedError: If no tensor with one entry a row comes back. Inputs of a shape that the
            model does not take are an ``InputError``.
    """
    rows = len(batch)
    out = run_on_shares(model, batch, lambda m, part: _call(m, part, rows))
    if out.ndim == 0 or out.shape[0] != rows:
        raise UnsupportedError(
            f"the model returns shape {tuple(out.shape)} for {rows} rows; one entry a row is needed"
        )
    if out.dtype in {torch.float16, torch.bfloat16}:
        out = out.float()
    if batch.cost is not None:
        batch.cost.count_forward(rows, graph=out.requires_grad)
    return out


def _call(model: nn.Module, batch: Batch, rows: int) -> Tensor:
    """Return the output on a batch, which is the share of a rank of ``rows`` rows."""
    args, kwargs = _arguments(model, batch.x)
    try:
        with _still_norm(model) if model.training and rows == 1 else nullcontext():
            return _tensor(model(*args, **kwargs))
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except (RuntimeError, ValueError, TypeError) as e:
        message = _first_line(e)
        if "can't allocate memory" in message:
            raise OutOfMemoryError(
                f"out of memory while the model reads {len(batch)} rows, input shape"
                f" {_shape(batch.x)}; use a smaller batch_size in the recipe or the method, or"
                " another device"
            ) from e
        if "Cannot access data pointer" in message:
            message = (
                "its forward pass cannot be differentiated row by row, as where it packs sequences"
                " (pack_padded_sequence); use padded sequences, or a method without per-row"
                " gradients such as finetune"
            )
        else:
            message += "; give x in the shape and dtype that the model was trained on"
        raise InputError(
            f"the model does not take this input, shape {_shape(batch.x)}: {message}"
        ) from e


def _arguments(
    model: nn.Module, x: Tensor | Mapping[str, Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)

    def fit(t: Tensor) -> Tensor:
        if weight is not None and t.is_floating_point() and t.dtype != weight.dtype:
            return t.to(weight.dtype)
        return t

    if isinstance(x, Tensor):
        return (fit(x),), {}
    if all(name.isdigit() for name in x):
        return tuple(fit(x[k]) for k in sorted(x, key=int)), {}
    takes = inspect.signature(model.forward).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    if open_ended or set(x) <= set(takes):
        return (), {k: fit(t) for k, t in x.items()}
    return ({k: fit(t) for k, t in x.items()},), {}


def _tensor(out: Any) -> Tensor:
    if isinstance(out, Tensor):
        return out
    logits = out.get("logits") if isinstance(out, Mapping) else getattr(out, "logits", None)
    if logits is None and isinstance(out, tuple | list) and out:
        logits = out[0]
    if not isinstance(logits, Tensor):
        raise UnsupportedError(
            f"the model returns {type(out).__name__}; a tensor, a tuple that starts with one, or an"
            " object with .logits is needed"
        )
    return logits


@contextmanager
def _still_norm(model: nn.Module) -> Iterator[None]:
    moved = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    for m in moved:
        m.eval()
    try:
        yield
    finally:
        for m in moved:
            m.train()


def _shape(x: Tensor | Mapping[str, Tensor]) -> str:
    if isinstance(x, Tensor):
        return str(tuple(x.shape))
    return "{" + ", ".join(f"{k}: {tuple(t.shape)}" for k, t in x.items()) + "}"


def _first_line(e: Exception) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0]


def map_rows(fn: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Return ``fn`` of tensors of n rows ``(n,)``, in chunks: from ``(b, ...)`` each to ``(b,)``.

    Floating-point numbers reach ``fn`` as float64.
    """
    # One block for the result: many small ones between large temporary ones would pin the heap.
    found, rows = torch.empty(len(tensors[0]), dtype=torch.float64), chunk(*tensors)
    for into, *part in zip(*(torch.split(t, rows) for t in (found, *tensors)), strict=True):
        into.copy_(fn(*(p.double() if p.is_floating_point() else p for p in part)))
    return found


def chunk(*tensors: Tensor) -> int:
    """Return how many rows per-row arithmetic takes at once: fewer where a row is wide."""
    widest = max((t[0].numel() for t in tensors if len(t)), default=1)
    return max(1, min(CHUNK, PART // max(widest, 1)))


def predict(
    model: nn.Module, view: View, task: Task, rt: Runtime, size: int | None = None
) -> Tensor:
    """Return a model's outputs on rows ``(n, K)``, on the CPU, in eval mode; flags are restored.

    ``size`` rows run at once; ``inference_batch_size`` of them when None.
    """
    size = inference_batch_size(view, rt) if size is None else size
    with eval_mode(model), torch.inference_mode(), rt.autocast(), shared_rows():
        outs = (task.outputs(model, b).cpu() for b in view.batches(size, rt))
        return _gathered(outs, len(view))


def _gathered(outs: Iterator[Tensor], rows: int) -> Tensor:
    """Return the outputs of batches as one tensor that gradients may go through, held once."""
    first = next(outs, torch.empty(0))
    with torch.inference_mode(mode=False):
        found = torch.empty(rows, *first.shape[1:], dtype=first.dtype)
    place = 0
    for out in chain([first], outs):
        found[place : place + len(out)] = out
        place += len(out)
    return found[:place]


def run_in_parts(
    model: nn.Module, view: View, task: Task, rt: Runtime
) -> Iterator[tuple[slice, Tensor]]:
    """Yield parts of a view with their outputs ``(k, K)`` of ``predict``, never holding all."""
    size = inference_batch_size(view, rt)
    start, rows = 0, size
    while start < len(view):
        part = slice(start, min(start + rows, len(view)))
        out = predict(model, view.pick(torch.arange(part.start, part.stop)), task, rt, size)
        yield part, out
        # The same batches as in one run: a part is a whole number of them.
        start, rows = part.stop, size * max(1, chunk(out) // size)


def check_logits(out: Tensor, y: Tensor, task: Task, who: str) -> None:
    """Refuse outputs ``(n, K)`` that are probabilities, where the task computes with logits.

    Non-negative rows that sum to 1 come from a softmax. Numbers in [0, 1] that spread over most of
    it, and that explain the targets better when read as probabilities, come from a sigmoid. Tasks
    with real targets are not checked.

    Raises:
        InputError: If they are probabilities; ``who`` is what the message calls the model.
    """
    out = out.detach().double()
    if len(out) < 2 or not may_be_probabilities(out, task):
        return
    exclusive = task.log_probs(out) is not None
    if exclusive and bool(((out.sum(1) - 1).abs() < SUM_TOLERANCE).all()):
        raise InputError(_not_logits(who, "softmax", "torch.log(p)"))
    one = exclusive and out.shape[1] == 2 and not bool(out[:, 0].any())
    spread = out[:, 1] if one else out
    if float(spread.max() - spread.min()) <= SPREAD:
        return
    logits = torch.logit(out, SMALLEST)
    if one:
        logits = torch.stack([torch.zeros_like(out[:, 1]), logits[:, 1]], 1)
    batch = Batch.of_targets(y, torch.arange(len(y)))
    raw, converted = (float(task.losses(o, batch).mean()) for o in (out, logits))
    if converted < BETTER * raw:
        raise InputError(_not_logits(who, "sigmoid", "torch.logit(p)"))


def may_be_probabilities(out: Tensor, task: Task) -> bool:
    """Return whether outputs ``(n, K)`` lie in [0, 1], where the task computes with logits."""
    if out.ndim != 2 or task.predictions(out) is not None:
        return False
    return bool(((out >= 0) & (out <= 1)).all())


def _not_logits(who: str, layer: str, way: str) -> str:
    return (
        f"{who}: outputs must be logits, got probabilities (of a {layer}); leave out the last"
        f" {layer}, or give {way}"
    )


def batching_note(model: nn.Module, view: View, task: Task, rt: Runtime) -> str:
    """Return a sentence if outputs of the first rows depend on how they are batched, else ""."""
    few = view.pick(torch.arange(min(TRIED, len(view))))
    if len(few) < 2:
        return ""
    quiet = rt.fork(rt.seed)
    first, parts = (predict(model, few, task, quiet, size).double() for size in (len(few), 3))
    gap = float((first - parts).abs().max())
    if not gap > BATCHING_TOLERANCE * max(1.0, float(first.abs().max())):
        return ""
    return (
        f"{BATCHING}, by up to {gap:.3g}: it keeps state between calls or mixes rows; every number"
        " depends on it, so make each row's output its own in eval mode"
    )


def inference_batch_size(view: View, rt: Runtime) -> int:
    """Return how many rows of a view to run a model on at once."""
    if rt.device.type != "cpu" or not len(view):
        return MOST
    x = first_rows(view, rt, 1).x
    numbers = sum(t.numel() for t in as_named_tensors(x).values() if t.is_floating_point())
    return max(LEAST, min(MOST, NUMBERS // max(1, numbers)))


def first_rows(view: View, rt: Runtime, count: int = 2) -> Batch:
    """Return up to this many first rows of a view, to try something on; starts no workers."""
    first = view.pick(torch.arange(min(count, len(view))))
    if isinstance(first.data, MapData):
        first = replace(first, data=replace(first.data, workers=0))
    return next(first.batches(count, rt))
