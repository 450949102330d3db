"""Request status: where a request stands, for the service and its pages."""

from __future__ import annotations

from unlearnkit.core.checked import FrozenModel
from unlearnkit.ledger.deletion_run import PAGE
from unlearnkit.ledger.register import Register, RequestState, stamp

OPEN = {"waiting", "running", "rejected"}


class RequestStatus(FrozenModel):
    """Where a request stands; it names no subject."""

    id: str
    state: str
    """``waiting``, ``running``, ``done``, ``rejected`` or ``not found``."""

    arrival: str
    deadline: str
    late: bool
    """Whether the deadline has passed without an answer, or had when it was answered."""

    batch: str | None = None
    why: str | None = None
    """Why it was rejected, or not found."""

    certificate: str | None = None
    """Where it is, once the request is done."""

    report: str | None = None
    """Where the audit report is as JSON, once there is one."""

    page: str | None = None
    """Where it is as a page, if the policy of a published model had one drawn."""


def request_status(register: Register, request: RequestState) -> RequestStatus:
    """Return where a request stands, by the entry that gave it its state."""
    entry = register.entry(request.latest)
    batch = entry.body["id"] if entry.kind == "batch" else entry.body.get("batch")
    until = stamp(register.clock()) if request.state in OPEN else entry.time
    done, answered = request.state == "done", request.state in {"done", "rejected"}
    drawn = done and PAGE in register.entry(entry.body["attempt"]).body["files"]
    return RequestStatus(
        id=request.id,
        state=request.state,
        arrival=request.arrival,
        deadline=request.deadline,
        late=request.deadline < until,
        batch=batch,
        why=entry.body.get("why"),
        certificate=f"/batches/{batch}/certificate" if done else None,
        report=f"/batches/{batch}/report" if answered else None,
        page=f"/batches/{batch}/report.html" if drawn else None,
    )
