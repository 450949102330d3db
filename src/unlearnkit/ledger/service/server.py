"""Server: one process that answers HTTP for a ledger."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import uvicorn

from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import Reporter
from unlearnkit.ledger.register import Register
from unlearnkit.ledger.service.access import AccessTokens
from unlearnkit.ledger.service.http_api import make_app

MOST_CONNECTIONS = 512


def serve(folder: Path, host: str, port: int, reporter: Reporter | None = None) -> None:
    """Answer until the process is ended.

    Args:
        folder: The ledger.
        host: Where to listen; beyond this machine only where the ledger has tokens.
        port: 0 takes a free one.
        reporter: Hears the address, and what to be careful about.

    Raises:
        InputError: If the ledger is not there, the place is taken, or tokens are needed.
    """
    Register(folder).close()
    tokens = AccessTokens(folder).all()
    if not is_loopback(host) and not tokens:
        raise InputError(
            f"serve: {host!r} can be reached from other machines, and this ledger has no tokens;"
            " make one first: unlearnkit ledger token NAME --role submit"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
    except OSError as e:
        raise InputError(
            f"serve: cannot listen on {host} port {port}: {e.strerror or e}; choose another --port"
        ) from None
    with listener:
        if reporter is not None:
            _say(reporter, host, listener.getsockname()[1], bool(tokens))
        config = uvicorn.Config(
            make_app(folder, tokens_needed=bool(tokens)),
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=10,
        )
        uvicorn.Server(config).run(sockets=[listener])


def _say(reporter: Reporter, host: str, port: int, tokens: bool) -> None:
    where = f"[{host}]" if ":" in host else host
    reporter.note(f"listening on http://{where}:{port}")
    if not tokens:
        reporter.note("no tokens: every user of this machine may send and read; see ledger token")
    if not is_loopback(host):
        reporter.note("tokens go over the wire as they are: put a proxy with TLS before it")


def is_loopback(host: str) -> bool:
    """Return whether an address is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
