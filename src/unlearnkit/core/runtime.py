"""Runtime: device, precision, randomness and cost of a run."""

import hashlib
import operator
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, Protocol, SupportsIndex

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.core.precision import Precision
from unlearnkit.core.torchrun_environment import is_launched, local_rank

SEEDS = 2**63
"""Seeds are below this."""


@dataclass
class Cost:
    """What a run spent, in units that do not depend on the machine."""

    forward: int = 0
    """Rows that went forward through a model."""

    backward: int = 0
    """Rows that a gradient was taken of."""

    peak_bytes: int = 0
    """Most accelerator memory held at once; 0 where the device does not count it."""

    precomputation: int = 0
    """Work, counted as in ``work``, of what is kept and serves other requests on the same rows too,
    such as models of random subsets. The same whether it was made now or read from the cache; not
    part of the numbers above."""

    pending: int = field(default=0, repr=False)

    @property
    def work(self) -> int:
        """Return rows forward plus twice rows backward, the usual count of multiplications."""
        return self.forward + 2 * self.backward

    def count_forward(self, rows: int, *, graph: bool) -> None:
        """Count rows forward; those with a graph wait for the next backward pass."""
        self.forward += rows
        if graph:
            self.pending += rows

    def count_backward(self) -> None:
        """Count a backward pass over all rows whose graph was built since the last."""
        self.backward += self.pending
        self.pending = 0


class Reporter(Protocol):
    """Receives the progress of a long computation, and notes."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` steps are over."""
        ...

    def note(self, text: str) -> None:
        """Report a sentence that the user should read."""
        ...


class ParameterConstraint(Protocol):
    """Keeps some scalars of a model unchanged while others are trained."""

    def project(self) -> None:
        """Set their gradients to zero."""
        ...

    def restore(self) -> None:
        """Set them back to their values."""
        ...


class NullReporter:
    """A reporter that drops everything."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Runtime:
    """One run's device, precision, seed and cost meter; nothing global."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "fp32"
    seed: int = 0
    cost: Cost = field(default_factory=Cost, compare=False)
    reporter: Reporter = field(default_factory=NullReporter, compare=False, repr=False)
    notes: list[str] = field(default_factory=list, compare=False)
    holds: tuple[ParameterConstraint, ...] = field(default=(), compare=False, repr=False)
    """What must not move, such as the scalars outside a mask."""

    channels_last: Literal["auto", "off"] = "auto"
    """Whether convolutions may lie channels last in memory where they run faster so."""

    masks: list[Mapping[str, Tensor]] = field(default_factory=list, compare=False, repr=False)
    """Which scalars each mask of the run let move, by parameter name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", check_seed(self.seed, "seed"))

    @classmethod
    def on(
        cls,
        device: str = "cpu",
        *,
        precision: Precision = "fp32",
        seed: int = 0,
        reporter: Reporter | None = None,
        channels_last: Literal["auto", "off"] = "auto",
    ) -> "Runtime":
        """Return a runtime on a named device.

        Args:
            device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or ``auto`` for the best there is.
            precision: ``fp32``, or ``bf16`` for autocast.
            seed: Root of every random stream of the run.
            reporter: Receives progress and notes; none by default.
            channels_last: ``auto`` lays convolutions out channels last, on a CPU in ``fp32``, where
                the network's outputs stay the same to rounding: three networks took 0.79 to 0.88
                of the time to train and 0.68 to 0.96 to read (``python -m benchmarks images``).
                ``off`` leaves every network as it was built.

        Returns:
            The runtime, with a fresh cost meter. A device that does not exist here is refused.
        """
        told = reporter or NullReporter()
        return cls(_device(device), precision, seed, Cost(), told, channels_last=channels_last)

    def fork(self, seed: int, *, quiet: bool = False) -> "Runtime":
        """Return the same place with another seed, a fresh cost meter and no notes."""
        told = NullReporter() if quiet else self.reporter
        layout = self.channels_last
        return Runtime(self.device, self.precision, seed, Cost(), told, channels_last=layout)

    def rng(self, stream: str) -> torch.Generator:
        """Return the generator of a named random stream; equal names, equal numbers."""
        raw = hashlib.sha256(f"{self.seed}/{stream}".encode()).digest()[:8]
        return torch.Generator().manual_seed(int.from_bytes(raw, "big") >> 1)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the mixed-precision context of this run.

        Weights are cast anew at each use: torch keeps its casts until the outermost autocast ends,
        which the guard of every verb is, so that kept ones would be those before the first step.
        """
        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Back-propagate a scalar, or the mean of a vector, and meter the rows behind it."""
        seed = torch.full_like(loss, 1 / loss.numel()) if loss.ndim else None
        loss.backward(seed)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.cost.count_backward()

    def project(self) -> None:
        """Set the gradients of what must not move to zero; to be called where norms are taken."""
        for hold in self.holds:
            hold.project()

    def restore(self) -> None:
        """Set what must not move back to where it was; to be called after each step."""
        for hold in self.holds:
            hold.restore()

    def note(self, text: str) -> None:
        """Report one thing that the result depends on, once."""
        if text not in self.notes:
            self.notes.append(text)
            self.reporter.note(text)


def check_seed(given: object, who: str) -> int:
    """Return a whole number of Python, NumPy or torch as a seed.

    Raises:
        InputError: If it is no whole number from 0 to 2^63 - 1; ``who`` is what the message calls
            it.
    """
    kind = type(given).__name__
    whole = isinstance(given, SupportsIndex) and not isinstance(given, bool) and kind != "bool_"
    try:
        seed = operator.index(given) if whole else -1  # type: ignore[arg-type]
    except TypeError:  # a tensor of several numbers, or of fractions
        seed = -1
    if not 0 <= seed < SEEDS:
        raise InputError(
            f"{who}: must be a whole number from 0 to 2^63 - 1, got {str(given)[:40]} ({kind});"
            " use one such as 0"
        )
    return seed


def _device(name: str) -> torch.device:
    if name == "auto":
        found = (
            torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        )
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(
            f"device: no such device, got {name!r}; use cpu, cuda, mps or auto"
        ) from None
    if device.type == "cpu":
        return device
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if here is None or here.type != device.type:
        have = "cpu" if here is None else f"cpu, {here.type}"
        raise InputError(f"device: {name!r} is not available here; there is: {have}")
    if device.index is None and is_launched():  # each process its own
        device = torch.device(device.type, local_rank())
    if device.index is not None and device.index >= torch.accelerator.device_count():
        count = torch.accelerator.device_count()
        raise InputError(
            f"device: {name!r} is not available here; there are {count} of {here.type}"
        )
    return device
