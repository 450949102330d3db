"""The service over HTTP: what comes in is kept once, and what goes out is what was recorded."""

import json
import socket
import sqlite3

import pytest

pytest.importorskip("cryptography")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from starlette.testclient import TestClient

from unlearnkit.core.errors import InputError
from unlearnkit.ledger.service.access import AccessRole, AccessTokens
from unlearnkit.ledger.service.http_api import make_app
from unlearnkit.ledger.service.server import is_loopback, serve

URL = "http://127.0.0.1:8470"


@pytest.fixture
def web(ledger):
    with TestClient(make_app(ledger.folder), base_url=URL) as opened:
        yield opened


def send(web, key="r1", token=None, **body):
    head = {"Idempotency-Key": key} if key else {}
    if token:
        head["Authorization"] = f"Bearer {token}"
    return web.post("/requests", json=body or {"rows": ["a0003"]}, headers=head)


def test_a_request_is_kept_as_the_command_line_keeps_it(web, ledger):
    said = send(web, groups=["owner-5"], reason="Art. 17(1)(b)", deadline="2126-01-01")
    assert said.status_code == 202
    (entry,) = ledger.entries("request")
    assert said.json() == {
        "id": "r1", "arrival": entry.time, "deadline": "2126-01-02T00:00:00.000000+00:00",
        "entry": 2, "digest": entry.digest, "status": "/requests/r1",
    }  # fmt: skip
    again, new = ledger.request(
        "group=owner-5", id="r1", reason="Art. 17(1)(b)", deadline="2126-01-01"
    )
    assert (again, new) == (entry, False)


def test_the_same_key_and_body_give_the_same_answer_at_any_later_time(web, ledger):
    first = send(web)
    ledger.run()
    assert ledger.states() == {"r1": "done"}
    again = send(web)
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert len(ledger.entries("request")) == 1


def test_the_same_answer_comes_after_the_deadline_too(web, ledger):
    from datetime import UTC, datetime, timedelta

    soon = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
    first = send(web, rows=["a0003"], deadline=soon)
    while datetime.now(UTC).isoformat() <= soon:
        pass
    assert send(web, rows=["a0003"], deadline=soon).json() == first.json()
    assert send(web, "r2", rows=["a0003"], deadline=soon).status_code == 422


def test_the_same_key_and_another_body_is_a_conflict(web, ledger):
    send(web)
    said = send(web, rows=["a0004"])
    assert said.status_code == 409
    assert "is that of another request" in said.json()["error"]
    assert len(ledger.entries("request")) == 1


def test_a_request_goes_from_arrival_to_files_that_are_those_of_the_ledger(web, ledger):
    send(web)
    assert web.get("/requests/r1").json()["state"] == "waiting"
    folder = ledger.folder / ledger.run().folder
    said = web.get("/requests/r1").json()
    assert (said["state"], said["batch"], said["late"]) == ("done", "batch-0001", False)
    assert web.get(said["certificate"]).content == (folder / "certificate.json").read_bytes()
    assert web.get(said["report"]).content == (folder / "report.json").read_bytes()
    assert said["page"] is None
    assert "has no page" in web.get(said["report"] + ".html").json()["error"]
    queue = web.get("/requests").json()
    assert (queue["counts"], queue["requests"]) == ({"done": 1}, [said])


def test_a_changed_certificate_is_not_sent(web, ledger):
    send(web)
    (ledger.folder / ledger.run().folder / "certificate.json").write_text("{}")
    said = web.get("/batches/batch-0001/certificate")
    assert said.status_code == 503
    assert "was changed after it was recorded; put back a copy" in said.json()["error"]


def test_a_rejected_batch_shows_why_and_its_last_report_and_no_certificate(make):
    ledger = make(accept=["MATCHES RETRAINING WITHIN LIMITS"])
    with TestClient(make_app(ledger.folder), base_url=URL) as web:
        send(web)
        ledger.run()
        said = web.get("/requests/r1").json()
        assert (said["state"], said["certificate"]) == ("rejected", None)
        assert "refused by the policy" in said["why"]
        assert web.get(said["report"]).json()["verdict"]
        assert web.get("/batches/batch-0001/certificate").status_code == 404


def test_a_subject_in_no_row_is_taken_in_and_said_when_the_batch_begins(web, ledger):
    assert send(web, rows=["nobody"]).status_code == 202
    ledger.run()
    said = web.get("/requests/r1").json()
    assert said["state"] == "not found"
    assert said["why"] == "not in the training data: 1 of 1 rows"


def test_a_name_that_looks_like_a_file_is_a_name(web, ledger, tmp_path):
    (tmp_path / "names.txt").write_text("a0003\n")
    send(web, rows=[f"@{tmp_path / 'names.txt'}", "a0004,a0005"])
    assert len(ledger.entries("request")[0].body["subjects"]) == 2


def test_requests_are_listed_by_state_and_part_by_part(web, ledger):
    for i in range(5):
        send(web, f"r{i}", rows=[f"a{i:04}"])
    some = web.get("/requests", params={"state": "waiting", "limit": 2, "offset": 2}).json()
    assert [r["id"] for r in some["requests"]] == ["r2", "r3"]
    assert web.get("/requests", params={"state": "done"}).json()["requests"] == []


BAD = [
    ({"rows": []}, 422, "body.rows: list should have at least 1 item"),
    ({"rows": ["a"], "classes": [1]}, 422, "name one of rows, groups and classes"),
    ({"rows": [1.5]}, 422, "body.rows.0"),
    ({"rows": [True]}, 422, "body.rows.0"),
    ({"rows": "a0003"}, 422, "body.rows: input should be a valid list"),
    ({"rows": ["a", 1]}, 422, "strings and integers are mixed"),
    ({"rows": ["a0003"], "reason": "as a0003 wrote"}, 422, "holds the name of a subject"),
    ({"rows": ["a0003"], "deadline": "2020-01-01"}, 422, "deadline: 2020-01-01 has passed"),
    ({"rows": ["a0003"], "colour": "red"}, 422, "body.colour: extra inputs"),
]


@pytest.mark.parametrize(("body", "status", "error"), BAD, ids=[b[2] for b in BAD])
def test_a_wrong_body_is_one_line_and_nothing_is_written(web, ledger, body, status, error):
    said = send(web, **body)
    assert said.status_code == status
    assert error in said.json()["error"]
    assert list(said.json()) == ["error"]
    assert ledger.states() == {}


def test_an_error_does_not_repeat_what_was_sent(web):
    assert "ann" not in send(web, rows=["ann@example.org", 1.5]).json()["error"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b'{"rows":', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"rows": ["a0003"]}', "text/plain", 422),
        (b"[" * 100_000, "application/json", 400),
        (b"x" * (2**20 + 1), "application/json", 413),
    ],
)
def test_what_is_no_json_or_too_long_is_refused(web, ledger, content, kind, status):
    head = {"Idempotency-Key": "r1", "Content-Type": kind}
    said = web.post("/requests", content=content, headers=head)
    assert (said.status_code, list(said.json())) == (status, ["error"])
    assert ledger.states() == {}


def test_a_long_body_without_a_stated_length_is_refused(web):
    parts = (b"x" * 2**16 for _ in range(17))
    assert web.post("/requests", content=parts).status_code == 413


@pytest.mark.parametrize("key", [None, "two words", "x" * 201])
def test_a_request_needs_an_id_of_the_right_form(web, ledger, key):
    said = send(web, key)
    assert said.status_code == (400 if key is None else 422)
    assert "id" in said.json()["error"]
    assert ledger.states() == {}


def test_what_is_not_there_is_404_and_says_so(web):
    assert "no id 'lost'" in web.get("/requests/lost").json()["error"]
    for path in ("/requests/lost", "/batches/b/certificate", "/batches/b/report", "/nowhere"):
        assert web.get(path).status_code == 404
    said = web.delete("/requests/lost")
    assert (said.status_code, said.json()) == (
        405, {"error": "method: not that of this path; see /docs"},
    )  # fmt: skip


def test_a_locked_or_full_ledger_is_503_and_nothing_was_confirmed(web, ledger, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "timeout": 0.01}))
    held = connect(ledger.folder / "ledger.sqlite", isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
    said = send(web)
    assert (said.status_code, said.headers["retry-after"]) == (503, "5")
    assert "nothing was changed" in said.json()["error"]
    assert web.get("/health").json() == {"status": "ok"}
    held.close()
    assert send(web).status_code == 202


PATHS = ["/", "/requests", "/requests/r1", "/batches/b/report", "/batches/b/certificate"]


@pytest.fixture
def tokens(ledger):
    made = AccessTokens(ledger.folder)
    return {
        "submit": made.create("form", [AccessRole.SUBMIT]),
        "read": made.create("auditor", [AccessRole.READ]),
    }


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("head", [{}, {"Authorization": "Bearer guess"}, {"Authorization": "x"}])
def test_without_a_known_token_nothing_is_told(web, tokens, path, head):
    said = web.get(path, headers=head)
    assert said.status_code == 401
    assert said.headers["www-authenticate"].startswith("Basic")


def test_each_role_may_do_its_own_and_no_more(web, tokens):
    assert send(web, token=tokens["submit"]).status_code == 202
    assert send(web, "r2").status_code == 401
    refused = send(web, "r2", token=tokens["read"])
    assert refused.status_code == 403
    assert "it permits read, and this needs submit" in refused.json()["error"]
    head = {"Authorization": f"Bearer {tokens['submit']}"}
    assert web.get("/requests/r1", headers=head).status_code == 200
    assert [web.get(p, headers=head).status_code for p in ("/", "/requests")] == [403, 403]
    head = {"Authorization": f"Bearer {tokens['read']}"}
    assert [web.get(p, headers=head).status_code for p in PATHS[:3]] == [200] * 3


def test_a_browser_may_read_with_the_token_as_password_and_not_send(web, tokens):
    assert web.get("/", auth=("anyone", tokens["read"])).status_code == 200
    body = {"json": {"rows": ["a0003"]}, "headers": {"Idempotency-Key": "r1"}}
    assert web.post("/requests", auth=("anyone", tokens["submit"]), **body).status_code == 401


def test_a_removed_token_permits_nothing_from_then_on(web, ledger, tokens):
    AccessTokens(ledger.folder).remove("form")
    assert send(web, token=tokens["submit"]).status_code == 401


def test_a_service_that_began_with_tokens_stays_closed_without_them(ledger, tokens):
    with TestClient(make_app(ledger.folder, tokens_needed=True), base_url=URL) as web:
        (ledger.folder / "tokens.json").unlink()
        assert send(web).status_code == 401


def test_no_token_is_in_any_file(ledger, tokens):
    content = [p.read_bytes() for p in ledger.folder.rglob("*") if p.is_file()]
    assert not any(t.encode() in c for t in tokens.values() for c in content)


def test_without_tokens_another_host_name_is_refused(web):
    """A page elsewhere may point its own name at this machine."""
    assert web.get("/requests", headers={"Host": "evil.example:8470"}).status_code == 403
    assert web.get("/requests", headers={"Host": "localhost:8470"}).status_code == 200


@pytest.mark.parametrize(
    ("name", "roles", "error"),
    [("form", ["read"], "is there already"), ("a b", ["read"], "a name has"), ("x", [], "a role")],
)
def test_a_wrong_token_is_not_made(ledger, tokens, name, roles, error):
    with pytest.raises(InputError, match=error):
        AccessTokens(ledger.folder).create(name, [AccessRole(r) for r in roles])


def test_beyond_this_machine_nothing_listens_without_tokens(ledger):
    with pytest.raises(InputError, match=r"'0\.0\.0\.0' can be reached from other machines"):
        serve(ledger.folder, "0.0.0.0", 0, None)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.5", False), ("example.org", False), ("", False)],
)  # fmt: skip
def test_which_addresses_are_of_this_machine_alone(host, local):
    assert is_loopback(host) is local


def test_the_pages_need_nothing_from_elsewhere_and_name_no_subject(web, ledger):
    send(web, rows=["a0003"], reason="Art. 17(1)(b)")
    ledger.run()
    (subject,) = ledger.entries("request")[0].body["subjects"]
    for path in ("/", "/?state=done", "/docs"):
        page = web.get(path)
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        for word in ("http://", "https://", "<script", subject[:12], "Art. 17", "a0003"):
            assert word not in page.text
    assert "r1" in web.get("/").text
    assert "r1" not in web.get("/?state=waiting").text


def test_the_schema_and_its_page_have_every_path(web):
    paths = web.get("/openapi.json").json()["paths"]
    page = web.get("/docs").text
    assert {"/requests", "/requests/{id}", "/batches/{batch}/certificate", "/health"} <= set(paths)
    assert [p for p in paths if p not in page] == []
    assert json.dumps(paths["/requests"]["post"]).count("Idempotency-Key") > 0


def test_a_hostile_id_reaches_no_page_as_markup(ledger, web):
    """An id has letters alone; why a batch was rejected may hold what a method said."""
    from unlearnkit.ledger.service.request_status import RequestStatus
    from unlearnkit.ledger.service.web_pages import queue_page

    row = RequestStatus(
        id="<script>alert(1)</script>", state="rejected", arrival="2026-01-01T00:00:00",
        deadline="2026-01-02T00:00:00", late=True, why="<img src=x onerror=alert(2)>",
    )  # fmt: skip
    with ledger.open() as register:
        page = queue_page(register, [row], total=1, state=None, page=1)
    assert "<script" not in page
    assert "<img" not in page


def test_a_taken_place_is_one_line(ledger):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(InputError, match=f"serve: cannot listen on 127.0.0.1 port {port}"):
            serve(ledger.folder, "127.0.0.1", port, None)
