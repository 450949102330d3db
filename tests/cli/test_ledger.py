"""The ledger from a shell: one line for each error, data on stdout, one worker."""

import pytest
import yaml

from tests.ledger.conftest import POLICY

pytest.importorskip("cryptography")


@pytest.fixture
def made(run, small, tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path / "cache"))  # carriers list all of it
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "policy.yaml").write_text(yaml.safe_dump(POLICY))
    said = run("ledger", "init", small, "-q")
    assert said.code == 0, said.err
    return ("--case", small)


def test_a_request_goes_from_arrival_to_a_certificate_that_verifies(run, made, tmp_path):
    said = run("ledger", "request", "group=3", "--id", "r1", "--reason", "Art. 17(1)(b)", "--json")
    assert (said.code, said.data["new"], said.data["state"]) == (0, True, "waiting")
    assert (
        "r1" in run("ledger", "request", "group=3", "--id", "r1", "--reason", "Art. 17(1)(b)").out
    )
    (outcome,) = run("ledger", "run", *made, "-q", "--json").data
    assert (outcome["state"], outcome["requests"]) == ("done", ["r1"])
    assert run("ledger", "status", "--json").data["counts"] == {"done": 1}
    assert run("ledger", "verify").out == "verified\n"
    assert "the same, bit by bit" in run("ledger", "rerun", "batch-0001", *made, "-q").out
    shown = [e["kind"] for e in run("ledger", "show", "r1").data]
    assert shown == ["request", "batch", "certificate"]
    assert run("ledger", "show", "1").data[0]["kind"] == "ledger"
    listed = run("ledger", "carriers", *made, "--json").data
    assert {c["kind"] for c in listed} == {"cached model", "earlier model", "training data"}
    first = run("ledger", "carriers", *made).out.splitlines()[1].split()
    assert first[:4] == ["cached", "model", "yes", "yes"]
    said = run("ledger", "purge", *made)
    assert said.out.endswith(
        "left of ours 0\nleft to you: training data: 1; see unlearnkit ledger carriers\n"
    )
    assert set(run("ledger", "export", "--out", "out", "--json").data) == {
        *("entries.jsonl", "head.json", "verify.py", "public.pem", "certificate-batch-0001.json"),
    }
    said = run("ledger", "verify", "--head", "out/head.json", "--json")
    assert said.data == {"verified": True, "wrong": []}


def test_a_refused_verdict_exits_with_one_and_says_who_decides(run, made, tmp_path):
    text = yaml.safe_dump({**POLICY, "accept": []})
    (tmp_path / "ledger" / "policy.yaml").write_text(text)
    run("ledger", "request", "group=3", "--id", "r1")
    said = run("ledger", "run", *made, "-q")
    assert said.code == 1
    assert said.err.startswith("unlearnkit: ledger: batch-0001: not published: finetune: ")
    assert said.err.endswith("to decide: dpo; change the policy and run again with --retry\n")
    (tmp_path / "ledger" / "policy.yaml").write_text(yaml.safe_dump(POLICY))
    assert run("ledger", "run", *made, "--retry", "-q").code == 0
    assert run("ledger", "status", "--id", "r1", "--json").data["requests"][0]["state"] == "done"


def test_code_that_a_ledger_names_is_imported_with_leave_alone(run, made):
    said = run("ledger", "run", "-q")
    assert said.code == 1
    assert "names code that would be imported" in said.err
    assert run("ledger", "run", "--trust", "-q").code == 0


def test_a_change_is_one_line_on_stderr_and_exit_code_one(run, made, tmp_path):
    run("ledger", "request", "group=3")
    run("ledger", "run", *made, "-q")
    (tmp_path / "ledger" / "models" / "batch-0001-1" / "report.json").write_text("{}")
    said = run("ledger", "verify")
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        "unlearnkit: verify: models/batch-0001-1: file report.json: changed after the certificate;"
        " put back a copy of what was changed\n"
    )


def test_a_key_is_rotated(run, made, tmp_path):
    said = run("ledger", "init", "--new-key", "second.key")
    assert said.code == 0
    assert "name second.key in policy.yaml now" in said.err
    assert (tmp_path / "ledger" / "public-2.pem").is_file()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("init",), 2, "give a case, or --new-key alone"),
        (("status", "--id", "x"), 1, "request: no id 'x'; unlearnkit ledger status lists them"),
        (("show", "x"), 1, "request: no id 'x'"),
        (("show", "99"), 1, "ledger: no entry 99"),
        (("status", "--ledger", "nowhere"), 1, "no ledger in 'nowhere'; unlearnkit ledger init"),
        (("request", "rows=1", "--deadline", "2020-01-01"), 1, "deadline: 2020-01-01 has passed"),
    ],
)
def test_an_error_is_one_line(run, made, words, code, message):
    said = run("ledger", *words)
    assert said.code == code
    assert message in " ".join(said.err.split())


def test_without_cryptography_the_remedy_is_said(run, monkeypatch):
    import importlib.util

    whole = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "cryptography" else whole(n, *a)
    )
    said = run("ledger", "status")
    assert said.err == (
        "unlearnkit: ledger: it needs cryptography: pip install 'unlearnkit[ledger]'\n"
    )


def test_status_needs_no_torch():
    import subprocess
    import sys

    code = (
        "import sys; import unlearnkit.cli.commands, unlearnkit.ledger.register,"
        " unlearnkit.ledger.subjects; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_token_is_printed_once_and_removed(run, made, tmp_path):
    said = run("ledger", "token", "form", "--role", "submit", "--role", "read")
    assert (said.code, len(said.out.strip())) == (0, 43)
    assert said.out.strip() not in (tmp_path / "ledger" / "tokens.json").read_text()
    assert "is there already" in run("ledger", "token", "form", "--role", "read").err
    said = run("ledger", "token", "other", "--role", "admin")
    assert (said.code, said.err) == (
        1, "unlearnkit: no role 'admin'. There are: read, submit\n",
    )  # fmt: skip
    assert run("ledger", "token", "form", "--remove").code == 0
    assert "no token 'form'" in run("ledger", "token", "form", "--remove").err


def test_nothing_listens_beyond_this_machine_without_tokens(run, made):
    pytest.importorskip("uvicorn")
    pytest.importorskip("fastapi")
    said = run("ledger", "serve", "--host", "0.0.0.0")
    assert said.code == 1
    assert "make one first: unlearnkit ledger token NAME --role submit" in said.err


def test_a_model_card_is_written_after_a_deletion(run, made, tmp_path):
    assert "no deletion is published yet" in run("ledger", "card", "--out", "model").err
    run("ledger", "request", "group=3")
    run("ledger", "run", *made, "-q")
    assert run("ledger", "card", "--out", "model").out.strip() == "model/README.md"
    assert "## Unlearning" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
def test_a_registry_that_is_down_exits_with_one_and_what_was_done_is_printed(
    run, made, tmp_path, monkeypatch
):
    pytest.importorskip("mlflow")
    monkeypatch.setattr("unlearnkit.ledger.model_registry.WAITS", (0.01,))
    place = {"tracking_uri": "http://127.0.0.1:9", "model": "small"}
    (tmp_path / "ledger" / "policy.yaml").write_text(yaml.safe_dump({**POLICY, "registry": place}))
    run("ledger", "request", "group=3", "--id", "r1")
    said = run("ledger", "run", *made, "-q", "--json")
    assert said.code == 1
    assert said.data[0]["state"] == "done"
    assert "registry: http://127.0.0.1:9 does not answer after 2 tries" in said.err
    assert run("ledger", "verify").out == "verified\n"


def test_the_next_command_names_a_ledger_that_is_elsewhere(run, small):
    said = run("ledger", "init", small, "--ledger", "other place")
    assert said.err.splitlines()[-2:] == [
        "edit other place/policy.yaml first",
        "next: unlearnkit ledger request rows=12,40 --ledger 'other place'",
    ]
    assert run("ledger", "request", "rows=12,40", "--ledger", "other place").code == 0


@pytest.mark.parametrize("group", ["ledger", "study", "cache"])
def test_a_list_of_commands_cuts_no_sentence(run, monkeypatch, group):
    monkeypatch.setenv("COLUMNS", "60")
    assert "..." not in run(group, "--help").out.replace("[ARGS]...", "")
