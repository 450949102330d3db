"""Deletion request: arrives with keys, a reason and a deadline, and waits."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.request import Classes, ForgetRequest, Groups, Rows, parse_request
from unlearnkit.ledger.policy import LedgerPolicy
from unlearnkit.ledger.register import LedgerEntry, Register, RequestState, stamp
from unlearnkit.ledger.subjects import SubjectKeys
from unlearnkit.ledger.verify import canonical, sha256

LONGEST = 200
"""Most characters of a reason or an id."""

_ID = re.compile(r"[\w.:-]{1,200}")


def receive(
    folder: Path,
    register: Register,
    policy: LedgerPolicy,
    forget: str | ForgetRequest,
    *,
    id: str | None = None,  # noqa: A002  # the word of the certificate
    reason: str = "",
    deadline: str | None = None,
) -> tuple[LedgerEntry, bool]:
    """Put a request into the queue; the names of its subjects are not kept.

    The same request may be sent again under its id: it is there once. No data is read, so that a
    request takes milliseconds; whether its subjects have rows is found when a batch begins.

    Args:
        folder: The ledger.
        register: Its entries.
        policy: Its rules.
        forget: ``rows=a17,b03``, ``group=cust-12`` or ``class=3``; files as for ``unlearn``; or a
            request.
        id: Of the sender; a new one is made when None.
        reason: Why, without names of persons.
        deadline: A date or a time, ISO 8601; from the policy when None.

    Returns:
        The entry that received it, and whether it is new.

    Raises:
        InputError: If the deadline has passed, the id is that of another request, or id or reason
            hold the name of a subject.
        UnsupportedError: If the request names no subjects.
    """
    asked = parse_request(forget)
    if not isinstance(asked, Rows | Groups | Classes):
        raise UnsupportedError(
            f"request: a ledger deletes rows, groups or classes, got {asked.kind}; correct features"
            " and labels with unlearnkit unlearn"
        )
    kind = asked.kind
    names = getattr(asked, kind)
    if not names:
        raise InputError("request: names nobody; name rows, groups or classes")
    id_ = str(uuid.uuid4()) if id is None else id
    if not _ID.fullmatch(id_):
        raise InputError(f"request: an id has 1 to {LONGEST} letters, digits and .:-_, got {id_!r}")
    _check_words(id_, reason, [str(n) for n in names])
    key = SubjectKeys(folder).current()
    subjects = key.pseudonyms(kind, names)
    until = _deadline(deadline, policy, register.clock(), known=register.find_request(id_))
    content = {"kind": kind, "subjects": subjects, "reason": reason, "deadline": deadline}
    body = {
        "id": id_,
        "kind": kind,
        "subjects": subjects,
        "subject_key": key.id,
        "reason": reason,
        "content": sha256(canonical(content)),
    }
    return register.receive(body, until)


def _deadline(
    given: str | None, policy: LedgerPolicy, time: datetime, *, known: RequestState | None
) -> str:
    """Return the deadline as entries hold it; that of a request sent again may have passed."""
    if given is None:
        return stamp(time + timedelta(days=policy.answer_within_days))
    try:
        until = datetime.fromisoformat(given)
    except ValueError:
        raise InputError(
            f"deadline: expected a date such as 2026-12-24, got {given[:40]!r}"
        ) from None
    if len(given) == len("2026-12-24"):  # a date: its whole day counts
        until += timedelta(days=1)
    until = until.replace(tzinfo=UTC) if until.tzinfo is None else until
    if until <= time and known is None:
        raise InputError(
            f"deadline: {given} has passed; give the day by which you will answer now, and say in"
            " the reason that the request is late"
        )
    return stamp(until)


def _check_words(id_: str, reason: str, names: list[str]) -> None:
    """Refuse an id or a reason that would keep the name of a subject."""
    if len(reason) > LONGEST or not reason.isprintable():
        raise InputError(f"reason: at most {LONGEST} printable characters, got {len(reason)}")
    words = set(re.findall(r"[\w.@-]+", f"{id_} {reason}"))
    for name in names:
        if len(name) > 2 and (name in words or name in reason):
            raise InputError(
                "reason: id or reason holds the name of a subject, which would stay in the ledger"
                " for ever; leave it out"
            )
