"""A certificate is an in-toto statement in a DSSE envelope, verified by one small program alone."""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from unlearnkit.core.errors import InputError
from unlearnkit.ledger import verify
from unlearnkit.ledger.deletion_certificate import SigningKey
from unlearnkit.ledger.ledger_check import export
from unlearnkit.ledger.new_ledger import rotate_key


@pytest.fixture
def done(ledger):
    ledger.request("rows=a0003,a0004", id="one", reason="Art. 17(1)(b)")
    ledger.folder_of_model = ledger.folder / ledger.run().folder
    return ledger


def offline(*words):
    """Run the program alone: -I keeps our package and this folder out of its way."""
    program = Path(verify.__file__)
    code = (
        "import sys, runpy; sys.modules['unlearnkit'] = sys.modules['torch'] = None;"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-I", "-c", code, program, *map(str, words)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def predicate(path):
    envelope = json.loads(path.read_text())
    return json.loads(base64.b64decode(envelope["payload"]))["predicate"]


def test_the_signature_is_that_of_dsse_by_hand(done):
    envelope = json.loads((done.folder_of_model / "certificate.json").read_text())
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 " + b" ".join(
        [str(len(kind)).encode(), kind, str(len(payload)).encode(), payload]
    )
    key = load_pem_public_key((done.folder / "public.pem").read_bytes())
    key.verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)
    statement = json.loads(payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    for subject in statement["subject"]:
        content = (done.folder_of_model / subject["name"]).read_bytes()
        assert subject["digest"] == {"sha256": hashlib.sha256(content).hexdigest()}
    assert {s["name"] for s in statement["subject"]} == {"model.safetensors", "report.json"}


def test_a_certificate_says_all_that_an_auditor_asks(done):
    said = predicate(done.folder_of_model / "certificate.json")
    assert set(said) == {
        *("ledger", "batch", "issued", "requests", "rows", "data", "code", "environment"),
        *("model", "method", "evidence", "audit", "drift", "does_not_prove", "policy", "chain"),
    }
    (request,) = said["requests"]
    assert (request["id"], request["reason"], request["late"]) == ("one", "Art. 17(1)(b)", False)
    assert len(request["subjects"]) == 2
    assert said["rows"]["number"] == 2
    assert said["rows"]["committed"] < said["issued"]
    assert said["evidence"]["kind"] == "empirical"
    assert said["audit"]["verdict"] == "INCONCLUSIVE"
    assert set(said["audit"]["power"]) == {"memory", "likeness"}
    assert any("other copies" in line for line in said["does_not_prove"])
    batch = done.entries("batch")[0].body
    assert said["data"] == batch["data"]
    assert said["model"]["before"] != said["model"]["after"]


def test_the_program_verifies_without_the_library(done, tmp_path):
    key = done.folder / "public.pem"
    said = offline(done.folder_of_model / "certificate.json", "--key", key)
    assert said.returncode == 0, said.stderr
    assert said.stdout.endswith("files that match: model.safetensors, report.json\nverified\n")
    export(done.folder, tmp_path / "out")
    said = offline(tmp_path / "out", "--key", key)
    assert (said.returncode, said.stdout) == (0, "6 entries\nverified\n")


def test_the_exported_program_is_the_one_of_the_library(done, tmp_path):
    export(done.folder, tmp_path / "out")
    there = (tmp_path / "out" / "verify.py").read_text()
    assert there == Path(verify.__file__).read_text()
    assert "import unlearnkit" not in there
    assert "from unlearnkit" not in there


def test_a_wrong_key_is_refused(done, tmp_path):
    (tmp_path / "other.pem").write_bytes(SigningKey.create(tmp_path / "other.key").pem)
    said = offline(done.folder_of_model / "certificate.json", "--key", tmp_path / "other.pem")
    assert said.returncode == 1
    assert "WRONG: signature: not by key" in said.stdout


def test_a_certificate_of_another_content_under_the_same_signature_is_refused(done, tmp_path):
    path = done.folder_of_model / "certificate.json"
    envelope = json.loads(path.read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    statement["predicate"]["rows"]["number"] = 3
    envelope["payload"] = base64.b64encode(verify.canonical(statement)).decode()
    path.write_bytes(verify.canonical(envelope))
    said = offline(path, "--key", done.folder / "public.pem")
    assert "WRONG: signature: wrong; the content was changed" in said.stdout
    assert done.check() == ["certificate of batch batch-0001: missing or changed"]


def test_a_signature_by_a_key_that_is_not_the_ledgers_is_found(done, tmp_path):
    """Somebody with write access makes a certificate of his own and a chain that fits."""
    path = done.folder_of_model / "certificate.json"
    statement = json.loads(base64.b64decode(json.loads(path.read_text())["payload"]))
    forged = SigningKey.create(tmp_path / "x.key").envelope(statement)
    entries = [e.facts() for e in done.entries()]
    entries[-1]["body"] = {**entries[-1]["body"], "certificate": verify.sha256(forged)}
    entries[-1]["digest"] = verify.entry_digest(entries[-1])
    (line,) = verify.check_ledger(entries, {verify.sha256(forged): forged})
    assert "signature: not by key" in line


def test_a_rotated_key_signs_what_follows_and_the_old_one_what_was(done, tmp_path):
    rotate_key(done.folder, tmp_path / "second.key")
    done.request("rows=a0007", id="two")
    with pytest.raises(InputError, match="is not the key that signs for this ledger now"):
        done.run()
    policy = done.folder / "policy.yaml"
    line = f"name: data protection officer\n  key: {tmp_path / 'second.key'}"
    policy.write_text(policy.read_text().replace("name: data protection officer", line))
    second = done.folder / done.run().folder
    assert done.check() == []
    export(done.folder, tmp_path / "out")
    assert offline(tmp_path / "out", "--key", done.folder / "public.pem").returncode == 0
    old, new = done.folder / "public.pem", done.folder / "public-2.pem"
    assert offline(second / "certificate.json", "--key", new).returncode == 0
    assert offline(second / "certificate.json", "--key", old).returncode == 1
    assert offline(done.folder_of_model / "certificate.json", "--key", old).returncode == 0


def test_a_key_that_the_key_before_did_not_sign_is_found(done, tmp_path):
    with done.open() as register:
        new = SigningKey.create(tmp_path / "x.key")
        forged = new.name_successor(register.entry(1).body["id"], new)
        register.append("key", forged)
    assert done.check() == ["entry 7: a key that the key before did not sign"]


def test_a_key_of_another_kind_or_of_another_ledger_is_refused(done, tmp_path):
    (done.folder / "signing.key").unlink()
    SigningKey.create(done.folder / "signing.key")
    done.request("rows=a0007", id="two")
    with pytest.raises(InputError, match="is not the key that signs for this ledger now"):
        done.run()
    (done.folder / "signing.key").write_text("no key")
    with pytest.raises(InputError, match="is no Ed25519 key in PEM"):
        done.run()
    assert done.states()["two"] == "waiting"


def test_the_private_keys_are_for_their_owner_alone(done):
    secret = [done.folder / "signing.key", *(done.folder / "subjects").glob("*.key")]
    assert len(secret) == 2
    assert [oct(p.stat().st_mode & 0o777) for p in secret] == ["0o600", "0o600"]


def test_a_truncated_tail_is_found_by_a_head_that_was_kept(done, tmp_path):
    export(done.folder, tmp_path / "out")
    head = (tmp_path / "out" / "head.json").read_bytes()
    shutil.copy(tmp_path / "out" / "head.json", tmp_path / "kept.json")
    entries = [e.facts() for e in done.entries()]
    assert verify.check_ledger(entries[:-1], {}, head=head) == [
        "head: the last 1 entries that it had seen are missing"
    ]
    lines = (tmp_path / "out" / "entries.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out" / "entries.jsonl").write_text("".join(lines[:2]))
    (tmp_path / "out" / "head.json").unlink()
    (tmp_path / "out" / "certificate-batch-0001.json").unlink()
    words = (tmp_path / "out", "--key", done.folder / "public.pem")
    assert offline(*words).returncode == 0  # nothing in the folder itself can tell
    said = offline(*words, "--head", tmp_path / "kept.json")
    assert "WRONG: head: the last 4 entries that it had seen are missing" in said.stdout


def test_a_certificate_without_its_entry_is_found(done, tmp_path):
    export(done.folder, tmp_path / "out")
    lines = (tmp_path / "out" / "entries.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out" / "entries.jsonl").write_text("".join(lines[:-1]))
    (tmp_path / "out" / "head.json").unlink()
    said = offline(tmp_path / "out", "--key", done.folder / "public.pem")
    assert "no entry names it; entries are missing" in said.stdout


def test_equal_entries_give_an_equal_certificate(done):
    """A worker that was killed before the entry signs the same bytes again."""
    key = SigningKey.read(done.folder / "signing.key")
    path = done.folder_of_model / "certificate.json"
    statement = json.loads(base64.b64decode(json.loads(path.read_text())["payload"]))
    assert key.envelope(statement) == path.read_bytes()


def test_the_commitment_binds_to_the_rows_and_is_no_plain_digest(done):
    from unlearnkit.ledger.subjects import SubjectKeys

    (batch,) = done.entries("batch")
    train = done.case.train
    rows = train.pick(__import__("torch").tensor([3, 4])).key()
    key = SubjectKeys(done.folder).current()
    assert key.commit(rows.encode()) == batch.body["commitment"]
    assert rows != batch.body["commitment"]


def test_a_public_key_of_another_kind_is_refused(tmp_path):
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = (
        X25519PrivateKey.generate()
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(verify.VerificationError, match="another kind than Ed25519"):
        verify.read_public_key(pem)


def test_the_verifier_says_which_file_it_cannot_read(tmp_path, capsys):
    from unlearnkit.ledger.verify import main

    assert main([str(tmp_path), "--key", str(tmp_path / "lost.pem")]) == 1
    told = capsys.readouterr().out
    assert told.startswith("WRONG: cannot read ")
    assert "lost.pem: No such file or directory; name a file or folder of the export" in told
