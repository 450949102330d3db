"""Step recorder: records the tensor operations of a step and replays them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

REFUSED = {
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
    torch.Tag.nondeterministic_seeded,
}
"""What would not come out the same when it is played: it follows values or draws."""


@dataclass(frozen=True)
class _Place:
    """Stands for a tensor: its place in the tape's memory."""

    at: int


@dataclass(frozen=True)
class _Op:
    """An operation, with places where it reads and writes tensors."""

    func: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any

    def reads(self) -> set[int]:
        """Return the places of its arguments."""
        return _places((self.args, tuple(self.kwargs.values())))


class StepRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Records the operations of its context as they reach the device, and plays them.

    Playing costs one call an operation: modules, ``vmap`` and the graph behind a gradient are not
    gone through again. Tensors made outside (weights, buffers) are read and written where they
    were at the recording, whatever their values are now; inputs are given anew, in the shape and
    layout of the recorded ones. Views of the former are made once. An operation whose result
    follows values, or draws, cannot be recorded.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        """Name the tensors that are given anew."""
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._at: dict[int, int] = {}
        self._memory: list[Tensor | None] = []
        self._kept: list[Tensor] = []
        self._ops: list[_Op] = []
        self._made = {self._place(t).at for t in inputs}
        self._inputs = [self._place(t).at for t in inputs]
        self._own: set[int] = set()
        """Places of what was made here and stands for one tensor only: its shape may be edited."""

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return an operation's result and record it; raise if it cannot be replayed."""
        turned = torch.Tag.inplace_view in func.tags and self._place(args[0]).at not in self._own
        if turned or _follows_values(func, args):
            raise RuntimeError(f"{func} cannot be played again")
        kwargs = dict(kwargs or {})
        out = func(*args, **kwargs)
        if not (func.is_view and isinstance(out, Tensor) and self._seen(args[0], out)):
            named = {name: _map(self._place, a) for name, a in kwargs.items()}
            op = _Op(func, _map(self._place, args), named, _map(self._place, out))
            new = _places(op.out) - op.reads()
            self._made |= new
            self._own |= new
            self._ops.append(op)
        return out

    def _seen(self, base: Tensor, view: Tensor) -> bool:
        """Return whether a view need not be made again: of what stays, or its base itself."""
        at = self._place(base).at
        if at not in self._made:
            self._place(view)
            return True
        same = view.stride() == base.stride() and view.storage_offset() == base.storage_offset()
        if same and view.shape == base.shape and view.dtype == base.dtype:
            self._at[id(view)] = at
            self._own.discard(at)
            self._kept.append(view)
            return True
        return False

    def _place(self, t: Tensor) -> _Place:
        if id(t) not in self._at:
            self._at[id(t)] = len(self._memory)
            self._memory.append(t)
            self._kept.append(t)
        return _Place(self._at[id(t)])

    def end(self, results: Sequence[Tensor | None]) -> None:
        """Name what ``play`` returns; what it does not take is forgotten.

        Args:
            results: Made in the context.
        """
        self._results = [None if t is None else self._place(t).at for t in results]
        needed = {at for at in self._results if at is not None}
        played: list[tuple[_Op, set[int]]] = []
        for op in reversed(self._ops):
            out = _places(op.out)
            if op.func._schema.is_mutable or out & needed:
                over = ((op.reads() | out) & self._made) - needed
                needed |= op.reads() | out
                played.append((op, over))
        self._played = played[::-1]
        self._memory = [t if i in needed - self._made else None for i, t in enumerate(self._memory)]
        self._at.clear()
        self._kept.clear()

    def same(self, other: "StepRecorder") -> bool:
        """Return whether two tapes hold the same operations on the same places."""
        return self._ops == other._ops and self._results == other._results

    @torch.no_grad()
    def play(self, inputs: Sequence[Tensor]) -> list[Tensor | None]:
        """Run the recorded operations on new inputs; return their results in order."""
        memory = self._memory.copy()
        for at, t in zip(self._inputs, inputs, strict=True):
            memory[at] = t

        def read(place: _Place) -> Tensor | None:
            return memory[place.at]

        for op, over in self._played:
            kwargs = {name: _map(read, a) for name, a in op.kwargs.items()}
            _write(memory, op.out, op.func(*[_map(read, a) for a in op.args], **kwargs))
            for at in over:
                memory[at] = None
        return [None if at is None else memory[at] for at in self._results]


def _follows_values(func: OpOverload, args: Sequence[Any]) -> bool:
    """Return whether an operation's shape or result follows values, or is drawn."""
    if func is torch.ops.aten.index.Tensor:
        return any(i is not None and i.dtype in {torch.bool, torch.uint8} for i in args[1])
    return bool(REFUSED & set(func.tags))


def _map(call: Callable[[Any], Any], found: Any) -> Any:
    """Return the same lists and tuples, with the result of a call for each tensor or place."""
    if isinstance(found, (Tensor, _Place)):
        return call(found)
    return type(found)(_map(call, f) for f in found) if type(found) in {list, tuple} else found


def _write(memory: list[Tensor | None], place: Any, made: Any) -> None:
    if isinstance(place, _Place):
        memory[place.at] = made
    elif type(place) in {list, tuple}:
        for one, t in zip(place, made, strict=True):
            _write(memory, one, t)


def _places(found: Any) -> set[int]:
    at: set[int] = set()
    _map(lambda place: at.add(place.at), found)
    return at
