"""Subject rows: which training rows stand behind pseudonyms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from unlearnkit.core.case import Case
from unlearnkit.core.digest import digest
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.keys import Keys
from unlearnkit.core.request import Classes, ForgetRequest, Groups, Key, Rows, parse_request
from unlearnkit.core.row_selection import rows_to_forget
from unlearnkit.ledger.register import LedgerEntry, Register
from unlearnkit.ledger.subjects import SubjectKey, SubjectKeys

KINDS = ("rows", "groups", "classes")
"""Kinds of subjects; each request names subjects of one kind."""


def with_keys(case: Case) -> Case:
    """Return a case whose rows have keys: their positions, where the user gave none.

    Raises:
        UnsupportedError: If it has no whole training set.
    """
    if case.train is None:
        raise UnsupportedError("ledger: the case has no whole training set; build it with train=")
    if case.keys.rows is not None:
        return case
    return case.replace(keys=replace(case.keys, rows=tuple(range(len(case.train)))))


def data_facts(case: Case, key: SubjectKey) -> dict[str, str]:
    """Return keyed digests of a case's training rows, and of their keys and owners in order.

    Plain digests before and after a deletion would tell everybody who has the whole list which
    row is missing.
    """
    assert case.train is not None
    group = case.train.group
    owners = None if group is None else _owners(case.keys, group)
    names = digest({"rows": list(case.keys.rows or ()), "owners": owners})
    return {"rows": key.commit(case.train.key().encode()), "names": key.commit(names.encode())}


def is_current(register: Register, keys: SubjectKeys, case: Case) -> bool:
    """Return whether a case has the training rows that the last batch left, and no others."""
    first, done, renewed = (
        register.entry(1),
        register.latest("certificate"),
        register.latest("subject_key"),
    )
    known = [(first, first.body["data"])]
    if done is not None:
        (batch,) = register.of_batch("batch", done.body["batch"])
        known.append((batch, batch.body["data"]["after"]))
    if renewed is not None:
        known.append((renewed, renewed.body["data"]))
    entry, want = max(known, key=lambda one: one[0].sequence)
    key = keys.find(entry.body["subject_key"])
    return key is not None and data_facts(case, key) == want


def _owners(keys: Keys, group: Tensor) -> list[Key]:
    numbers: list[int] = group.tolist()
    return list(numbers) if keys.owners is None else [keys.owners[i] for i in numbers]


def subject_names(case: Case, kind: str) -> list[Key]:
    """Return the names of all subjects of a kind that have rows in a case."""
    assert case.train is not None
    if kind == "rows":
        return list(case.keys.rows or ())
    if kind == "groups":
        return [] if case.train.group is None else sorted(set(_owners(case.keys, case.train.group)))
    if case.train.y.is_floating_point() or case.train.y.ndim != 1:
        return []
    return sorted(set(case.train.y.tolist()))


@dataclass
class SubjectIndex:
    """The subjects of a case by pseudonym; each kind is computed once."""

    case: Case
    key: SubjectKey
    _names: dict[str, dict[str, Key]] = field(default_factory=dict)

    def names(self, kind: str, pseudonyms: Iterable[str]) -> list[Key]:
        """Return the names behind the pseudonyms that stand for rows of the case."""
        if kind not in self._names:
            some = subject_names(self.case, kind)
            self._names[kind] = {self.key.pseudonym(kind, name): name for name in some}
        known = self._names[kind]
        return [known[p] for p in pseudonyms if p in known]


def _index(
    index: dict[str, SubjectIndex | None], keys: SubjectKeys, case: Case, name: str
) -> SubjectIndex | None:
    """Return the subjects under a key, kept for the next call; None where it is destroyed."""
    if name not in index:
        key = keys.find(name)
        index[name] = None if key is None else SubjectIndex(case, key)
    return index[name]


def merge(case: Case, found: Mapping[str, Sequence[Key]]) -> ForgetRequest | None:
    """Return one request for the rows of all subjects; None where there is none.

    Args:
        case: Whose rows they are.
        found: Names by kind.

    Returns:
        Classes where nothing else is named, for the methods that need whole classes; else rows by
        key, so that no report names an owner.
    """
    assert case.train is not None
    some = {kind: names for kind, names in found.items() if names}
    if not some:
        return None
    if set(some) == {"classes"}:
        return Classes([int(name) for name in some["classes"]])
    mask = torch.zeros(len(case.train), dtype=torch.bool)
    for kind, names in some.items():
        located = case.keys.locate(parse_request({kind: list(names)}))
        assert isinstance(located, Rows | Groups | Classes)
        mask |= rows_to_forget(located, case.train)
    return case.rows(mask.nonzero()[:, 0])


def removals(register: Register, keys: SubjectKeys, case: Case) -> dict[str, dict[str, list[Key]]]:
    """Return which subjects of a case each batch removed, by batch and kind.

    Args:
        register: The batches so far.
        keys: Of the subjects.
        case: With keys, as the user gives it today.

    Returns:
        Names that the case still has. Nothing of a batch whose key is destroyed.
    """
    index: dict[str, SubjectIndex | None] = {}
    found: dict[str, dict[str, list[Key]]] = {}
    for batch in _batches_done(register):
        names: dict[str, list[Key]] = {kind: [] for kind in KINDS}
        here = _index(index, keys, case, batch.body["subject_key"])
        if here is not None:
            for request in batch.body["requests"]:
                body = register.entry(register.request(request).entry).body
                names[body["kind"]] += here.names(body["kind"], body["subjects"])
        found[batch.body["id"]] = names
    return found


def case_now(register: Register, keys: SubjectKeys, case: Case) -> Case:
    """Return a case without the rows of all batches so far, after the check that it is right.

    The user may keep the case as it was on the first day, or take deleted rows out of it.

    Args:
        register: The batches so far.
        keys: Of the subjects.
        case: As the user gives it today.

    Returns:
        The training set that the model may hold.

    Raises:
        InputError: If its rows are others than the last batch left, or a key that would find rows
            is destroyed.
    """
    case = with_keys(case)
    index: dict[str, SubjectIndex | None] = {}
    gone: dict[str, dict[Key, None]] = {kind: {} for kind in KINDS}
    for body in register.arrivals("done"):
        here = _index(index, keys, case, body["subject_key"])
        if here is not None:
            gone[body["kind"]].update(dict.fromkeys(here.names(body["kind"], body["subjects"])))
    request = merge(case, {kind: list(names) for kind, names in gone.items()})
    left = case if request is None else case.after_deletion(request)
    if not is_current(register, keys, left):
        raise InputError(
            "ledger: the case has other training rows, keys or owners than the last batch left;"
            " give it as it was on the first day, or without the deleted rows and nothing else"
            " changed"
        )
    return left


def _batches_done(register: Register) -> list[LedgerEntry]:
    done = {e.body["batch"] for e in register.entries("certificate")}
    return [e for e in register.entries("batch") if e.body["id"] in done]


@dataclass(frozen=True)
class Search:
    """What the requests of a batch mean: found before anything is changed."""

    request: ForgetRequest | None
    """All rows of the requests that were found."""

    requests: tuple[str, ...]
    """Requests whose subjects were all found."""

    missing: Mapping[str, str]
    """Requests that were not, each with the reason."""


def search(register: Register, keys: SubjectKeys, case: Case, requests: Sequence[str]) -> Search:
    """Find the rows of every request, and change nothing.

    Args:
        register: The requests.
        keys: Of the subjects.
        case: The training set now.
        requests: Their ids.

    Returns:
        One request for all that was found, and what was not.
    """
    index: dict[str, SubjectIndex | None] = {}
    found: dict[str, list[Key]] = {kind: [] for kind in KINDS}
    whole, missing = [], {}
    for name in requests:
        body = register.entry(register.request(name).entry).body
        here = _index(index, keys, case, body["subject_key"])
        if here is None:
            missing[name] = "the key of its pseudonyms is destroyed; send the request again"
            continue
        names = here.names(body["kind"], body["subjects"])
        lost = len(body["subjects"]) - len(names)
        if lost:
            deleted = {p for other in register.arrivals("done") for p in other["subjects"]}
            gone = len(deleted & set(body["subjects"]))
            before = f"; deleted by an earlier batch: {gone}" if gone else ""
            of = f"{len(body['subjects'])} {body['kind']}"
            missing[name] = f"not in the training data: {lost} of {of}{before}"
            continue
        whole.append(name)
        found[body["kind"]] += names
    merged = merge(case, {kind: list(dict.fromkeys(names)) for kind, names in found.items()})
    return Search(merged, tuple(whole), missing)
