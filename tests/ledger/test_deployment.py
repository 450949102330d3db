"""The deployment guide: its backup, restore, rotation and upgrade are run as they stand."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.ledger.conftest import Made, small_case, write_policy
from unlearnkit.cache import Cache
from unlearnkit.cli.commands import app

pytest.importorskip("cryptography")

from unlearnkit.core.errors import InputError
from unlearnkit.ledger.new_ledger import create_ledger

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/deployment.md").read_text("utf-8")
CASE = "from tests.ledger.conftest import small_case as patients\n"
needs = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "sqlite3", "shred"))), reason="no bash, sqlite3 or shred"
)


def section(title):
    """Return the commands of a section, each with what it must print, which may be nothing."""
    body = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = "".join(re.findall(r"^```console\n(.*?)^```$", body, re.M | re.S)).splitlines()
    found = []
    for line in lines:
        if line.startswith("$ "):
            found.append([line[2:], []])
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(said)) for command, said in found]


@pytest.fixture
def place(tmp_path):
    """The folder of the guide: a ledger with one batch done and one request that waits."""
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/cases.py").write_text(CASE)
    (tmp_path / "secrets").mkdir()
    write_policy(tmp_path / "ledger", signer={"name": "dpo", "key": "signing.key"})
    made = Made(tmp_path / "ledger", small_case(), Cache(tmp_path / "cache"))
    create_ledger(made.folder, "my_package.cases:patients", made.case, cache=made.cache).close()
    made.request("rows=a0003", id="one")
    assert made.run().state == "done"
    made.request("rows=a0007", id="two")
    return made


def carry_out(made, title, monkeypatch):
    """Run the commands of a section; those of the library in this process, which is quicker."""
    root = made.folder.parent
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(root / "cache"))
    commands = section(title)
    assert len(commands) >= 5
    for command, said in commands:
        if command.startswith("unlearnkit "):
            done = CliRunner().invoke(app, shlex.split(command)[1:])
            code, out = done.exit_code, done.output
        else:
            ran = subprocess.run(["bash", "-ec", command], capture_output=True, check=False)
            code, out = ran.returncode, ran.stdout.decode()
        assert code == 0, (command, out)
        assert said in out, command


@needs
@pytest.mark.slow
def test_a_ledger_is_backed_up_lost_and_restored_and_goes_on(place, monkeypatch):
    carry_out(place, "Back up", monkeypatch)
    root = place.folder.parent
    held = b"".join(p.read_bytes() for p in (root / "backup").rglob("*") if p.is_file())
    assert b"PRIVATE KEY" not in held
    assert not (root / "backup/subjects").exists()
    (place.folder / "ledger.sqlite").write_bytes(b"damaged")
    carry_out(place, "Restore", monkeypatch)
    assert place.states() == {"one": "done", "two": "done"}
    assert place.check() == []


@needs
@pytest.mark.slow
def test_after_rotation_the_new_key_signs_and_old_certificates_stay_valid(place, monkeypatch):
    carry_out(place, "Rotate the signing key", monkeypatch)
    assert not (place.folder / "signing.key").exists()
    assert place.run().state == "done"
    assert place.check() == []
    carry_out(place, "Upgrade", monkeypatch)
    program = place.folder.parent / "heads/verify.py"
    for key, batch in (("public.pem", "1"), ("public-2.pem", "2")):
        (certificate,) = place.folder.glob(f"models/batch-000{batch}-1/certificate.json")
        words = [program, certificate, "--key", place.folder / key]
        done = subprocess.run([sys.executable, "-I", *words], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout


def test_without_the_keys_of_the_pseudonyms_requests_are_refused_and_the_rest_verifies(place):
    shutil.rmtree(place.folder / "subjects")
    assert place.check() == []
    with pytest.raises(InputError, match=r"no key of subjects in .*; put back a copy of it"):
        place.request("rows=a0009", id="three")
    with pytest.raises(InputError):
        place.run()
    assert place.states() == {"one": "done", "two": "waiting"}
