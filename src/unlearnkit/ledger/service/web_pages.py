"""Web pages of the service: the queue, and the description of its interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unlearnkit.ledger.register import Register, stamp
from unlearnkit.ledger.service.request_status import RequestStatus
from unlearnkit.report.templating import render_template

PAGE_ROWS = 100
"""Requests on one page of the queue."""


def queue_page(
    register: Register, rows: Sequence[RequestStatus], *, total: int, state: str | None, page: int
) -> str:
    """Return the page of the queue. It names no subject and no reason, and loads nothing.

    Args:
        register: The entries.
        rows: The requests of this page.
        total: How many requests of this state there are.
        state: Of the requests; all when None.
        page: Its number, from 1.

    Returns:
        HTML.
    """
    head = register.head()
    return render_template(
        "ledger/service/queue.html.jinja",
        counts=register.counts(),
        head=head,
        ledger=register.entry(1).body,
        now=stamp(register.clock())[:16].replace("T", " "),
        page=page,
        pages=max(1, -(-total // PAGE_ROWS)),
        rows=rows,
        state=state,
        worker=register.worker(),
    )


def interface_page(schema: Mapping[str, Any]) -> str:
    """Return the page that describes an OpenAPI schema."""
    calls = [
        {"method": method.upper(), "path": path, **call}
        for path, methods in schema["paths"].items()
        for method, call in methods.items()
    ]
    return render_template(
        "ledger/service/interface.html.jinja",
        info=schema["info"],
        calls=calls,
        models=schema["components"]["schemas"],
    )
