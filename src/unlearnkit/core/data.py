"""Rows, views of rows, and batches."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset, default_collate

from unlearnkit.core.border import user_code_error
from unlearnkit.core.content import attribute_digests, content_digest
from unlearnkit.core.digest import digest, tensor_digest
from unlearnkit.core.errors import InputError, NoTargetsError, UndeclaredReadError, UnlearnkitError
from unlearnkit.core.given_rows import GivenRows, RelabelledRows
from unlearnkit.core.hidden_targets import Hidden, no_targets

if TYPE_CHECKING:
    from unlearnkit.core.runtime import Cost, Runtime

Inputs = Tensor | dict[str, Tensor]

Sampler = Callable[[Tensor, torch.Generator], Tensor]
"""From the targets of n rows and a generator to the positions of an epoch's rows ``(n,)``."""

SAMPLE = 64
"""Rows of a data set that are read again to see whether it has changed."""


@dataclass(frozen=True)
class Batch:
    """Some rows on one device: ``x (B, ...)`` or a dict of such, ``y (B, ...)``, ``row (B,)``."""

    x: Inputs
    y: Tensor
    row: Tensor
    cost: Cost | None = None
    """Counts the rows that go through a model; None where they are counted otherwise."""

    @classmethod
    def of_targets(cls, y: Tensor, row: Tensor) -> Batch:
        """Return rows without inputs, for what is read of outputs and targets alone."""
        return cls(torch.empty(len(row), 0), y, row)

    def __len__(self) -> int:
        return self.row.shape[0]

    def pick(self, keep: Tensor) -> Batch:
        """Return the rows where a boolean ``(B,)`` is true."""
        return replace(self, x=index_rows(self.x, keep), y=self.y[keep], row=self.row[keep.cpu()])


class Data(Protocol):
    """All rows of a set: their targets and owners at hand, their inputs on demand."""

    @property
    def y(self) -> Tensor:
        """Return the targets ``(N, ...)``; of shape ``(N, 0)`` where there are none."""
        ...

    @property
    def group(self) -> Tensor | None:
        """Return the owner (subject, client) of each row ``(N,)``, if rows have owners."""
        ...

    def __len__(self) -> int: ...

    def inputs(self, order: Tensor, size: int, rng: torch.Generator) -> Iterator[Inputs]:
        """Yield the inputs of rows, in this order, ``size`` at a time."""
        ...

    def key(self) -> str:
        """Return the content address of all rows."""
        ...

    @property
    def given(self) -> GivenRows | None:
        """Return what the user gave, for a training loop of the user's own."""
        ...

    def with_targets(self, y: Tensor, given: GivenRows | None = None) -> Data:
        """Return the same rows with other targets; ``given`` is what has these targets, too."""
        ...

    def pick(self, rows: Tensor) -> Data:
        """Return some rows, at positions ``(k,)``, as data of their own."""
        ...

    def copy(self) -> Data:
        """Return the same rows in memory of their own."""
        ...

    def as_given(self) -> GivenRows:
        """Return the rows as the kind of object that the user gave."""
        ...

    def extra_content(self) -> str:
        """Return the digest of what the user's object holds besides inputs and targets."""
        ...


@dataclass(frozen=True)
class TensorData:
    """Rows in memory, indexed and never looped over: ``x (N, ...)``, ``y (N, ...)``."""

    x: Inputs
    y: Tensor
    group: Tensor | None = None
    given: GivenRows | None = field(default=None, compare=False, repr=False)
    """What the user gave, for a training loop of the user's own."""

    columns: tuple[str, ...] | None = None
    """Names of the columns of ``x (N, columns)``; None where they have none."""

    def __len__(self) -> int:
        return len(self.y)

    def inputs(self, order: Tensor, size: int, rng: torch.Generator) -> Iterator[Inputs]:
        """Yield the inputs of rows, in this order, ``size`` at a time."""
        for part in torch.split(order, size):
            if isinstance(self.x, Tensor):
                yield self.x.index_select(0, part)
            else:
                yield {k: t.index_select(0, part) for k, t in self.x.items()}

    def with_targets(self, y: Tensor, given: GivenRows | None = None) -> TensorData:
        """Return the same rows with other targets; ``given`` is what has these targets, too."""
        return replace(self, y=y, given=given)

    def as_given(self) -> GivenRows:
        """Return the rows as the kind of object that the user gave."""
        return self.given or GivenRows((self.x, self.y))

    def extra_content(self) -> str:
        """Return the digest of what the user's object holds besides inputs and targets."""
        return "" if self.given is None else self.given.content()

    def pick(self, rows: Tensor) -> TensorData:
        """Return some rows, at positions ``(k,)``, as data of their own."""
        owners = None if self.group is None else self.group[rows]
        given = None if self.given is None else self.given.pick(rows)
        return TensorData(index_rows(self.x, rows), self.y[rows], owners, given, self.columns)

    def copy(self) -> TensorData:
        """Return the same rows in memory of their own."""
        return self.pick(torch.arange(len(self)))

    def key(self) -> str:
        """Return the content address of all rows, as they are now: memory may be shared."""
        parts = {k: tensor_digest(t) for k, t in as_named_tensors(self.x).items()}
        return digest({"x": parts, "y": tensor_digest(self.y)})


@dataclass(frozen=True)
class MapData:
    """Rows of a map-style data set, read by a loader as they are requested; may exceed memory.

    Nothing that was read is kept: a set that transforms its rows at random does so at each read.
    Its draws from torch's generators follow the run's seed, in this process and in the workers.
    """

    source: Any
    """Anything with a length whose items are pairs ``(x, y)``; ``x`` may be a dict or a tuple."""

    y: Tensor
    group: Tensor | None = None
    workers: int = 0
    collate: Callable[[list[Any]], Any] | None = None
    """Makes a batch of the ``x`` of its rows, such as by padding; they are stacked when None."""
    given: GivenRows | None = field(default=None, compare=False, repr=False)
    """As in ``TensorData``."""

    _known: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """The digest of all inputs, by what a sample of them and the set's attributes were."""

    _moving: set[str] = field(default_factory=set, compare=False, repr=False)
    """Attributes of the set that reading changes, such as a counter: they are no settings."""

    def __len__(self) -> int:
        return len(self.y)

    def inputs(self, order: Tensor, size: int, rng: torch.Generator) -> Iterator[Inputs]:
        """Yield the inputs of rows at positions ``order (k,)``, ``size`` at a time.

        Raises:
            InputError: If rows do not fit together or are not finite.
            user_code_error: If the data set raises; running out of memory is raised as it is.
        """
        loader: DataLoader[Any] = DataLoader(
            self.source,
            batch_size=size,
            sampler=order.tolist(),
            num_workers=self.workers,
            collate_fn=partial(collate_inputs, self.collate),
            generator=rng,
        )
        batches = iter(loader)
        for rows in torch.split(order, size):
            try:
                x = as_inputs(next(batches))
            except StopIteration:
                raise InputError(
                    f"data: rows {int(rows[0])} and on were not read; the data set ends before"
                    " the length that it states"
                ) from None
            except Exception as e:  # the data set is the user's own code
                raise user_code_error(
                    e,
                    f"data: rows {int(rows[0])} and on cannot be put into one batch"
                    f" ({type(e).__name__}: {last_line(e)}); return pairs (x, y) of arrays of one"
                    " shape, or give data_collator= to pad them, and mend what the data set raises",
                ) from e
            for name, t in as_named_tensors(x).items():
                check_finite("data", name, t, rows)
            yield x

    def with_targets(self, y: Tensor, given: GivenRows | None = None) -> MapData:
        """Return the same rows with other targets; ``given`` is what has these targets, too."""
        return replace(self, y=y, given=given)

    def as_given(self) -> GivenRows:
        """Return the rows as the kind of object that the user gave."""
        return self.given or GivenRows(RelabelledRows(self.source, self.y))

    def extra_content(self) -> str:
        """Return the digest of the attributes of the set, but for those that reading changes."""
        return self._state("", attribute_digests(self.source))

    def pick(self, rows: Tensor) -> MapData:
        """Return some rows, at positions ``(k,)``, as data of their own; none are read."""
        owners = None if self.group is None else self.group[rows]
        given = None if self.given is None else self.given.pick(rows)
        some = Subset(self.source, rows.tolist())
        return replace(
            self, source=some, y=self.y[rows], group=owners, given=given, _known={}, _moving=set()
        )

    def copy(self) -> MapData:
        """Return the same rows with targets in memory of their own; inputs are read on demand."""
        return replace(self, y=self.y.clone())

    def key(self) -> str:
        """Return the content address of all rows, as a fixed seed gives them.

        All rows are read the first time, and again once the set's attributes or one of 64 sampled
        rows have changed. For a set that augments at random, settings and code are part of the
        address.

        Raises:
            InputError: If a row differs between two reads under one seed.
        """
        order = torch.linspace(0, len(self) - 1, min(SAMPLE, len(self))).round().long()
        alone = replace(self, workers=0)
        sample, again, other = (alone._digest(order, seed) for seed in (0, 0, 1))
        if sample != again:
            raise InputError(
                "data: rows differ between two reads under one seed, so that no training on them"
                " can be repeated; draw from the global generator of torch, random or numpy, and"
                " keep no state between reads"
            )
        before = attribute_digests(self.source)
        inputs = self._known.get(self._state(sample, before))
        if inputs is None:
            inputs = self._digest(torch.arange(len(self)), 0)
            after = attribute_digests(self.source)
            self._moving.update(n for n in after if after[n] != before.get(n))
            self._known.clear()
            self._known[self._state(sample, after)] = inputs
        parts = {"x": inputs, "y": tensor_digest(self.y)}
        if sample != other:
            parts["law"] = self._state("", before)
        return digest(parts)

    def _state(self, sample: str, attributes: Mapping[str, str]) -> str:
        held = {n: d for n, d in attributes.items() if n not in self._moving}
        law = {} if self.collate is None else {"collate": content_digest(self.collate)}
        return digest({"sample": sample, "set": held, "workers": self.workers, **law})

    def _digest(self, order: Tensor, seed: int) -> str:
        """Return the digest of the inputs of some rows, read under a seed."""
        rng = torch.Generator().manual_seed(seed)
        with preserve_rng(seed):
            parts = [
                {k: tensor_digest(t) for k, t in as_named_tensors(x).items()}
                for x in self.inputs(order, 1024, rng)
            ]
        return digest({"x": parts})


@dataclass(frozen=True)
class View:
    """Some rows of a data set, in an order; copies nothing."""

    data: Data
    rows: Tensor
    sealed_because: str = ""
    targets_hidden_because: str = ""
    """Why there is no target behind this view, where the data have them."""

    @classmethod
    def all(cls, data: Data) -> View:
        """Return the view of all rows, in order."""
        return cls(data, torch.arange(len(data)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def y(self) -> Tensor:
        """Return the targets of these rows ``(n, ...)``; rows without targets raise."""
        self._open()
        if not self.labelled:
            raise self._no_targets()
        return self.data.y[self.rows]

    @property
    def labelled(self) -> bool:
        """Return whether the rows have targets that may be read."""
        return labelled(self.data)

    def seal(self, why: str) -> View:
        """Return a view that raises when it is read."""
        return replace(self, sealed_because=why)

    def without_targets(self, why: str) -> View:
        """Return a view of the inputs alone, which raises when a target is read."""
        data = self.data.with_targets(no_targets(len(self.data)))
        return replace(self, data=data, targets_hidden_because=why)

    def pick(self, keep: Tensor) -> View:
        """Return the rows where a boolean ``(n,)`` is true, or at positions ``(k,)``."""
        return replace(self, rows=self.rows[keep])

    def sample(self, count: int, rt: Runtime, stream: str) -> View:
        """Return up to ``count`` of these rows, drawn without replacement from a stream."""
        self._open()
        if count >= len(self):
            return self
        return self.pick(torch.randperm(len(self), generator=rt.rng(stream))[:count])

    def batches(
        self, size: int, rt: Runtime, *, shuffle: str | None = None, sampler: Sampler | None = None
    ) -> Iterator[Batch]:
        """Yield the rows as batches on the runtime's device.

        Args:
            size: Rows in a batch; the last may be shorter. When shuffled, a last batch of one row
                joins the one before it, because batch normalisation cannot train on one row.
            rt: Where the batches go, where the order comes from, and who counts.
            shuffle: Name of the random stream that orders the rows; in order when None.
            sampler: As in ``order``.

        Yields:
            The batches; a sealed view raises instead. Without targets, all but to pick and to join
            rows of ``y`` raises.
        """
        self._open()
        rows = self.rows if shuffle is None else self.shuffled_rows(rt, shuffle, sampler)
        y, name = self.data.y, shuffle or "in order"
        hidden = None if self.labelled else self._no_targets()
        cut = len(rows) - (size + 1 if shuffle is not None and self._joins(size) else 0)
        for part, width in ((rows[:cut], size), (rows[cut:], size + 1)):
            if not len(part):
                continue
            inputs = self.data.inputs(part, width, rt.rng(f"{name}/loader"))
            for x, row in zip(inputs, torch.split(part, width), strict=True):
                own = y.index_select(0, row).to(rt.device)
                yield Batch(_to(x, rt), Hidden.of(own, hidden) if hidden else own, row, rt.cost)

    def shuffled_rows(self, rt: Runtime, shuffle: str, sampler: Sampler | None = None) -> Tensor:
        """Return these rows in the order that a stream gives them: ``(n,)``.

        Args:
            rt: Gives the stream.
            shuffle: Its name.
            sampler: From the rows' targets and the stream's generator to n positions, which may
                repeat; each row once when None.

        Returns:
            The rows.

        Raises:
            InputError: If the sampler returns anything else.
        """
        self._open()
        if sampler is None:
            return self.rows[torch.randperm(len(self), generator=rt.rng(shuffle))]
        places = torch.as_tensor(sampler(self.y, rt.rng(shuffle)))
        whole = places.shape == (len(self),) and not places.is_floating_point()
        if not whole or bool(((places < 0) | (places >= len(self))).any()):
            raise InputError(
                f"sampler: must return {len(self)} positions from 0 to {len(self) - 1}, got shape"
                f" {tuple(places.shape)} of {places.dtype}; give one a row, or train_model"
            )
        return self.rows[places.long().cpu()]

    def steps(self, size: int) -> int:
        """Return how many batches of a size make one shuffled pass over these rows."""
        self._open()
        return -(-len(self) // size) - self._joins(size)

    def endless_batches(self, size: int, rt: Runtime, *, shuffle: str) -> Iterator[Batch]:
        """Yield batches without end, in a new order each time round; keeps none of them."""
        turn = 0
        while True:
            yield from self.batches(size, rt, shuffle=f"{shuffle}/{turn}")
            turn += 1

    def key(self, data: str | None = None) -> str:
        """Return the content address of these rows in order; ``data`` is that of all rows."""
        data = self.data.key() if data is None else data
        return digest({"data": data, "rows": tensor_digest(self.rows)})

    def as_given(self) -> Any:
        """Return these rows, in their order, as the kind of object that the user gave."""
        self._open()
        return self.data.as_given().pick(self.rows).take()

    def _joins(self, size: int) -> bool:
        return 1 < size < len(self) and len(self) % size == 1

    def _open(self) -> None:
        if self.sealed_because:
            raise UndeclaredReadError(self.sealed_because)

    def _no_targets(self) -> UnlearnkitError:
        if self.targets_hidden_because:
            return UndeclaredReadError(self.targets_hidden_because)
        return NoTargetsError(
            "targets: these rows have none; give pairs (x, y) to use what needs y"
        )


def collate_inputs(collate: Callable[[list[Any]], Any] | None, items: list[Any]) -> Any:
    """Return the inputs of a batch of rows that are pairs ``(x, y)``."""
    return (
        default_collate([i[0] for i in items])
        if collate is None
        else collate([i[0] for i in items])
    )


def index_rows(x: Inputs, rows: Tensor) -> Inputs:
    """Return some rows of inputs, by position or by mask."""
    if isinstance(x, Tensor):
        return x[rows]
    return {k: t[rows] for k, t in x.items()}


def as_named_tensors(x: Inputs) -> dict[str, Tensor]:
    """Return inputs as a dict of tensors; a lone tensor is called ``x``."""
    return {"x": x} if isinstance(x, Tensor) else x


def as_inputs(x: Any) -> Inputs:
    """Return a tensor, array, mapping of names to such, or sequence of arguments as inputs."""
    if isinstance(x, Mapping):
        return {str(k): as_tensor(v, str(k)) for k, v in x.items()}
    if isinstance(x, tuple) or (isinstance(x, list) and x and isinstance(x[0], Tensor)):
        return {str(i): as_tensor(v, f"argument {i}") for i, v in enumerate(x)}
    return as_tensor(x, "x")


def as_tensor(x: Any, name: str) -> Tensor:
    """Return an array or nested numbers as a tensor, which shares memory where possible.

    Raises:
        InputError: If it cannot be one; ``name`` is what the message calls it.
    """
    if isinstance(x, Tensor):
        return _plain(x.detach(), name)
    if hasattr(x, "to_numpy"):
        x = _of_columns(x, name) if hasattr(x, "iloc") and hasattr(x, "columns") else x.to_numpy()
    if hasattr(x, "strides") and (not x.flags.writeable or min(x.strides, default=0) < 0):
        x = x.copy()
    try:
        return _plain(torch.as_tensor(x), name)
    except (TypeError, ValueError, RuntimeError) as e:
        text = getattr(getattr(x, "dtype", None), "kind", "") in "OSU" and hasattr(x, "dtype")
        got = f"dtype {x.dtype}" if text else f"{type(x).__name__}: {str(e).splitlines()[0]}"
        raise InputError(
            f"{name}: cannot be made a tensor, got {got}; encode text and categories as numbers"
            " first, such as pandas.factorize(y)[0]"
        ) from None


def _of_columns(frame: Any, name: str) -> Any:
    """Return a DataFrame as an array; truth values between numbers become 0 and 1."""
    kinds = zip(frame.columns, frame.dtypes, strict=True)
    wrong = [(column, kind) for column, kind in kinds if kind.kind not in "biuf"]
    if wrong:
        raise InputError(
            f"{name}: cannot be made a tensor: not numeric are {len(wrong)} of {frame.shape[1]}"
            f" columns, first {wrong[0][0]!r} ({wrong[0][1]}); leave them out, or encode"
            " them as numbers, such as by pandas.get_dummies"
        )
    array = frame.to_numpy()
    return frame.to_numpy("float32", na_value=float("nan")) if array.dtype == object else array


def _plain(t: Tensor, name: str) -> Tensor:
    """Refuse tensors that batches cannot be made of."""
    if t.layout != torch.strided:
        raise InputError(
            f"{name}: sparse tensors are not supported, got layout {t.layout}; give x.to_dense()"
        )
    if t.is_complex():
        raise InputError(
            f"{name}: complex numbers are not supported, got {t.dtype}; give real and imaginary"
            " parts as two columns: torch.view_as_real(x).flatten(1)"
        )
    if t.is_quantized:
        raise InputError(
            f"{name}: quantised tensors are not supported, got {t.dtype}; give x.dequantize()"
        )
    return t


def last_line(e: BaseException) -> str:
    """Return the last line of what an exception says, shortened; of a worker's, what it raised."""
    text = (str(e).strip().splitlines() or [type(e).__name__])[-1]
    return text if len(text) <= 160 else f"{text[:157]}..."


def check_finite(what: str, part: str, t: Tensor, rows: Tensor | None = None) -> None:
    """Refuse values ``(n, ...)`` that are not finite, or beyond float32, by the first bad row.

    Raises:
        InputError: If there are any; ``rows (n,)`` are positions in the set, 0 to n - 1 when None.
    """
    if not t.is_floating_point():
        return
    if bool(torch.isfinite(t).all()):
        _check_size(what, part, t, rows)
        return
    bad = (~torch.isfinite(t)).reshape(len(t), -1).any(1).nonzero()[:, 0].cpu()
    first = int(bad[0]) if rows is None else int(rows[bad[0]])
    raise InputError(
        f"{what}: {part} is not finite in {len(bad)} of {len(t)} rows, first row {first};"
        " remove or impute them"
    )


def _check_size(what: str, part: str, t: Tensor, rows: Tensor | None) -> None:
    """Refuse float64 numbers that become infinite where a model computes in float32."""
    most = torch.finfo(torch.float32).max
    if (
        t.dtype != torch.float64
        or not t.numel()
        or -most <= float(t.min()) <= float(t.max()) <= most
    ):
        return
    bad = (t.abs() > most).reshape(len(t), -1).any(1).nonzero()[:, 0].cpu()
    first = int(bad[0]) if rows is None else int(rows[bad[0]])
    raise InputError(
        f"{what}: {part} is beyond the range of float32 (3.4e38) in {len(bad)} of {len(t)} rows,"
        f" first row {first}; rescale or remove them"
    )


@contextmanager
def preserve_rng(seed: int = 0) -> Iterator[None]:
    """Read rows under a fixed seed; on leaving, the global generators are as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the global one
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002  # the global one
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002  # the global one


def _to(x: Inputs, rt: Runtime) -> Inputs:
    if isinstance(x, Tensor):
        return x.to(rt.device)
    return {k: t.to(rt.device) for k, t in x.items()}


def labelled(data: Data) -> bool:
    """Return whether rows have targets."""
    return data.y.shape[1:] != (0,)
