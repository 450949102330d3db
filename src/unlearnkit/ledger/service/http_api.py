"""HTTP interface: requests, states, certificates and reports of one ledger."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPBearer
from pydantic import Field, StrictInt, StrictStr, model_validator
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as AnyHTTPException

from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import UnlearnkitError
from unlearnkit.core.request import Classes, ForgetRequest, Groups, Rows
from unlearnkit.core.version import __version__
from unlearnkit.ledger.deletion_request import receive
from unlearnkit.ledger.policy import FILE as POLICY
from unlearnkit.ledger.policy import LedgerPolicy, read_policy
from unlearnkit.ledger.register import (
    LedgerEntry,
    LedgerUnavailableError,
    Register,
    RequestConflictError,
    UnknownRequestError,
)
from unlearnkit.ledger.service.access import AccessRole, AccessTokens
from unlearnkit.ledger.service.http_guard import HttpGuard
from unlearnkit.ledger.service.published_files import certificate_bytes, report_bytes
from unlearnkit.ledger.service.request_status import RequestStatus, request_status
from unlearnkit.ledger.service.web_pages import PAGE_ROWS, interface_page, queue_page

LOCAL = {"localhost", "127.0.0.1", "::1"}
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-scripts"
)
STATUS: Mapping[type[Exception], int] = {
    RequestConflictError: 409,
    UnknownRequestError: 404,
    LedgerUnavailableError: 503,
}
"""HTTP status by error; every other error that a sender can mend is 422."""


class Refusal(FrozenModel):
    """The answer to a call that was not carried out."""

    error: str
    """What is wrong, and what to do."""


router = APIRouter(
    responses={"default": {"model": Refusal, "description": "What is wrong, and what to do."}}
)


class DeletionOrder(FrozenModel):
    """A request for deletion: subjects of one kind."""

    rows: list[StrictInt | StrictStr] | None = Field(None, min_length=1)
    """Keys of training rows."""

    groups: list[StrictInt | StrictStr] | None = Field(None, min_length=1)
    """Owners of training rows."""

    classes: list[StrictInt] | None = Field(None, min_length=1)
    """Classes, with all their rows."""

    reason: str = ""
    """Why; without names of persons. It stays in the ledger."""

    deadline: str | None = None
    """A date or a time, ISO 8601; from the policy when absent."""

    @model_validator(mode="after")
    def _names_one_kind(self) -> Self:
        if sum(v is not None for v in (self.rows, self.groups, self.classes)) != 1:
            raise ValueError("name one of rows, groups and classes")
        return self

    def request(self) -> ForgetRequest:
        """Return what must be forgotten."""
        if self.rows is not None:
            return Rows(self.rows)
        return Groups(self.groups) if self.groups is not None else Classes(self.classes or ())


class Receipt(FrozenModel):
    """Says that a request is in the ledger; the same whenever it is sent again."""

    id: str
    arrival: str
    deadline: str
    entry: int
    """Number of the entry that holds it."""

    digest: str
    """Of this entry; the chain and every later exported head cover it."""

    status: str
    """Where to ask what became of it."""


class Queue(FrozenModel):
    """Requests, those of the nearest deadline first."""

    counts: dict[str, int]
    worker: str | None
    """Host and process that is at work."""

    requests: list[RequestStatus]


def entries(request: Request) -> Register:
    """Return the ledger's entries, for one call."""
    return Register(request.app.state.folder)


BEARER = HTTPBearer(auto_error=False)
"""For the schema alone: ``check`` reads the header."""


def needs(*roles: AccessRole) -> Callable[..., Any]:
    """Return the check that a call has one of these roles."""

    async def check(
        request: Request, _: Annotated[Any, Depends(HTTPBearer(auto_error=False))]
    ) -> None:
        tokens: AccessTokens = request.app.state.tokens
        if not request.app.state.tokens_needed and not tokens.all():
            if request.url.hostname not in LOCAL:
                raise HTTPException(403, "host: without tokens this service answers localhost only")
            return
        held = tokens.roles(_secret(request))
        if not held:
            raise HTTPException(
                401,
                "token: none, or not known; send Authorization: Bearer TOKEN; the owner of the"
                " ledger makes one with: unlearnkit ledger token NAME",
                {"WWW-Authenticate": 'Basic realm="unlearnkit ledger", charset="UTF-8"'},
            )
        if not held & set(roles):
            raise HTTPException(
                403,
                f"token: it permits {' and '.join(sorted(held))}, and this needs"
                f" {' or '.join(roles)}; use another token",
            )

    return check


def _secret(request: Request) -> str:
    """Return the token of a call: a bearer, or the password of a browser that only reads."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scheme.lower() == "basic" and request.method in {"GET", "HEAD"}:
        try:
            return base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


SUBMIT = [Depends(needs(AccessRole.SUBMIT))]
EITHER = [Depends(needs(AccessRole.SUBMIT, AccessRole.READ))]
READ = [Depends(needs(AccessRole.READ))]


@router.post("/requests", status_code=202, dependencies=SUBMIT)
async def submit_request(
    request: Request,
    order: DeletionOrder,
    key: Annotated[
        str,
        Header(
            alias="Idempotency-Key",
            description="The id of the request: 1 to 200 letters, digits and .:-_. The same id"
            " with the same body gives the same answer; with another body, 409.",
        ),
    ],
) -> Receipt:
    """Put a request into the queue. Names are kept as keyed pseudonyms only."""
    state = request.app.state
    async with state.writing:  # one at a time, in order, so that reading never waits for them
        entry = await run_in_threadpool(_receive, state.folder, order, key)
    return Receipt(
        id=key, arrival=entry.time, deadline=entry.body["deadline"], entry=entry.sequence,
        digest=entry.digest, status=f"/requests/{key}",
    )  # fmt: skip


def _receive(folder: Path, order: DeletionOrder, key: str) -> LedgerEntry:
    file = (folder / POLICY).stat() if (folder / POLICY).exists() else None
    policy = _policy(folder, file and (file.st_ino, file.st_mtime_ns, file.st_size))
    with Register(folder) as register:
        entry, _ = receive(
            folder, register, policy, order.request(),
            id=key, reason=order.reason, deadline=order.deadline,
        )  # fmt: skip
    return entry


@lru_cache(maxsize=1)
def _policy(folder: Path, _: object) -> LedgerPolicy:
    """Return the policy; it is read again when its file has changed."""
    return read_policy(folder)


@router.get("/requests/{id}", dependencies=EITHER)
def show_status(request: Request, id: str) -> RequestStatus:  # noqa: A002  # as in certificates
    """Say where a request stands, and where its certificate and report are."""
    with entries(request) as register:
        return request_status(register, register.request(id))


State = Literal["waiting", "running", "done", "rejected", "not found"]


@router.get("/requests", dependencies=READ)
def list_requests(
    request: Request,
    state: Annotated[list[State] | None, Query(description="Of these states alone.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> Queue:
    """List requests, those of the nearest deadline first."""
    with entries(request) as register:
        some = register.requests(*(state or ()))[offset : offset + limit]
        return Queue(
            counts=register.counts(),
            worker=register.worker(),
            requests=[request_status(register, r) for r in some],
        )


@router.get("/batches/{batch}/certificate", dependencies=READ)
def show_certificate(request: Request, batch: str) -> Response:
    """Send the signed certificate of a batch, byte by byte as it was published."""
    with entries(request) as register:
        content = certificate_bytes(request.app.state.folder, register, batch)
    return Response(content, media_type="application/json")


@router.get("/batches/{batch}/report", dependencies=READ)
def show_report(request: Request, batch: str) -> Response:
    """Send the audit report of a batch as JSON: of the published model, else the last attempt."""
    with entries(request) as register:
        content = report_bytes(request.app.state.folder, register, batch, page=False)
    return Response(content, media_type="application/json")


@router.get("/batches/{batch}/report.html", dependencies=READ)
def show_report_page(request: Request, batch: str) -> HTMLResponse:
    """Send the audit report of a batch as a page, where the policy has pages drawn."""
    with entries(request) as register:
        content = report_bytes(request.app.state.folder, register, batch, page=True)
    return HTMLResponse(content, headers={"Content-Security-Policy": REPORT_POLICY})


@router.get("/health")
def show_health(request: Request) -> dict[str, str]:
    """Say whether the ledger can be read, and nothing else."""
    with entries(request) as register:
        register.counts()
    return {"status": "ok"}


@router.get("/", dependencies=READ, include_in_schema=False)
def show_queue(
    request: Request, state: State | None = None, page: Annotated[int, Query(ge=1)] = 1
) -> HTMLResponse:
    """Send the page of the queue."""
    parts = [[state]] if state else [["waiting", "running", "rejected"], ["done", "not found"]]
    with entries(request) as register:
        found = [r for part in parts for r in register.requests(*part)]
        some = found[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]
        rows = [request_status(register, r) for r in some]
        return HTMLResponse(queue_page(register, rows, total=len(found), state=state, page=page))


@router.get("/docs", include_in_schema=False)
def show_interface(request: Request) -> HTMLResponse:
    """Send the page that describes this interface; it loads nothing from elsewhere."""
    return HTMLResponse(interface_page(request.app.openapi()))


def make_app(folder: Path, *, tokens_needed: bool = False) -> FastAPI:
    """Return the application that serves a ledger.

    Args:
        folder: The ledger.
        tokens_needed: Whether calls need a token even where there is none. A ledger that has tokens
            needs them always.

    Returns:
        An ASGI application; each call reads the files as they are then.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with Register(folder):  # stays open, so that closing a call's one does not end the WAL
            yield

    app = FastAPI(
        title="unlearnkit ledger",
        description="Deletion requests for one model: send them, ask for them, fetch their"
        " certificates. Errors are JSON with the one field error.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.folder, app.state.tokens = folder, AccessTokens(folder)
    app.state.tokens_needed, app.state.writing = tokens_needed, asyncio.Lock()
    app.include_router(router)
    app.add_middleware(HttpGuard)

    app.add_exception_handler(UnlearnkitError, _told)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(Exception, _failed)
    return app


def _told(_: Request, error: Exception) -> JSONResponse:
    status = STATUS.get(type(error), 422)
    again = {"Retry-After": "5"} if status == 503 else None
    return JSONResponse({"error": str(error)}, status, again)


def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Say what is wrong without what was sent: it may name subjects."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return JSONResponse({"error": "body: is no JSON; send Content-Type: application/json"}, 400)
    where = ".".join(map(str, first["loc"])) or "body"
    if first["loc"] == ("header", "Idempotency-Key"):
        return JSONResponse(
            {"error": "Idempotency-Key: absent; send the id of your request in this header"}, 400
        )
    what = str(first["msg"])
    return JSONResponse({"error": f"{where}: {what[0].lower()}{what[1:]}; see /docs"}, 422)


def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AnyHTTPException)
    text = {404: "path: not known; see /docs", 405: "method: not that of this path; see /docs"}
    own = isinstance(error, HTTPException)
    said = error.detail if own else text.get(error.status_code, error.detail)
    return JSONResponse({"error": said}, error.status_code, error.headers)


def _failed(_: Request, __: Exception) -> JSONResponse:
    return JSONResponse(
        {"error": "service: it failed, and nothing was confirmed; its log says why; send the"
         " request again"}, 500,
    )  # fmt: skip
