"""The contract of a built-in case, and the list of all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unlearnkit.core.case import Case
from unlearnkit.core.errors import UnknownNameError, UnlearnkitError
from unlearnkit.core.request import ForgetRequest
from unlearnkit.core.runtime import Runtime


@dataclass(frozen=True)
class CaseWithRequest:
    """A case with what must be forgotten from it."""

    case: Case
    request: ForgetRequest


@dataclass(frozen=True)
class ModelSelectedRequest:
    """A request for rows that models point out, which are trained first and kept."""

    doc: str
    """What it is, in a sentence."""

    find: Callable[[Runtime], CaseWithRequest]
    """Builds the case and the request; models are trained where the runtime says."""

    models: int = 1
    """How many models are trained to find the rows."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.doc)

    def __call__(self) -> CaseWithRequest:
        """Return the case and the request, from models trained on the CPU."""
        return self.find(Runtime())


@dataclass(frozen=True)
class CaseEntry:
    """A problem on real data that comes with the package or is read from a folder."""

    id: str
    """Its name on the command line."""

    make: Callable[[], Case]
    """Builds the case; under ``functools.cache`` where its requests call it, so that a process
    reads the rows once."""

    requests: Mapping[str, Callable[[], CaseWithRequest]] = field(default_factory=dict)
    """Named requests; one may come with its own training set, such as planted wrong labels."""

    doc: str = ""
    """What it is, in a sentence."""

    bundled: bool = True
    """Whether its rows come with the package; else they are read from a folder or the net."""

    def ask(self, name: str, place: Callable[[], Runtime] = Runtime) -> CaseWithRequest:
        """Return the case with one of its named requests.

        Args:
            name: The request's name.
            place: Gives the runtime of what is trained to find the rows; called only then.

        Returns:
            The case and the request.

        Raises:
            UnknownNameError: If there is none of this name.
        """
        if name not in self.requests:
            raise UnknownNameError(f"request of {self.id}", name, self.requests)
        found = self.requests[name]
        return found.find(place()) if isinstance(found, ModelSelectedRequest) else found()


CASES: dict[str, CaseEntry] = {}


def bundled_requests(known: Mapping[str, CaseEntry]) -> list[tuple[str, str]]:
    """Return case and request, by name, of all requests whose rows come with the package."""
    return [(c.id, name) for c in known.values() if c.bundled for name in c.requests]


def builtin(case: CaseEntry) -> CaseEntry:
    """Put a case on the list.

    Args:
        case: The case.

    Returns:
        The same case.

    Raises:
        UnlearnkitError: If its id is taken, or it says nothing of itself.
    """
    if not case.doc:
        raise UnlearnkitError(f"case {case.id}: say what it is")
    if CASES.setdefault(case.id, case).doc != case.doc:
        raise UnlearnkitError(f"two cases are called {case.id!r}")
    return case


def with_description(doc: str, ask: Callable[[], CaseWithRequest]) -> Callable[[], CaseWithRequest]:
    """Return a request that says what it is.

    Args:
        doc: In a sentence.
        ask: Builds the case and the request.

    Returns:
        A function that does the same and has the sentence as its docstring.
    """

    def asked() -> CaseWithRequest:
        return ask()

    asked.__doc__ = doc
    return asked


def random_indices(count: int, wanted: int, stream: str, seed: int = 0) -> list[int]:
    """Return ``wanted`` different numbers below ``count``, in order, drawn from a named stream."""
    order = torch.randperm(count, generator=Runtime(seed=seed).rng(stream))
    return sorted(order[:wanted].tolist())


def held_out(count: int, held: int, stream: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return which rows are trained on, tested on and validated on, each in order.

    Args:
        count: Rows in all.
        held: Rows that are not trained on, drawn from a named stream; every third of them, from the
            first, is for validation.
        stream: The stream.

    Returns:
        Positions ``(n,)`` of the three sets.
    """
    held_rows = torch.tensor(random_indices(count, held, stream))
    train = (~torch.isin(torch.arange(count), held_rows)).nonzero()[:, 0]
    third = torch.arange(held) % 3 == 0
    return train, held_rows[~third], held_rows[third]


def standardise(values: Tensor, train: Tensor) -> Tensor:
    """Return values ``(N, ...)`` less the mean of the training rows, over their deviation."""
    base = values[train]
    return ((values - base.mean(0)) / base.std(0, correction=0)).float()
