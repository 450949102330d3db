"""The doctor: what is there, what is missing with the command that brings it, and exit codes."""

import subprocess
import sys
from importlib import metadata

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from unlearnkit.cli import doctor

HEAVY = ("torch", "numpy", "scipy", "sklearn", "transformers", "datasets", "mlflow", "ray", "jax")


def by_name(said, part):
    return {c["name"]: c for c in said.data["checks"] if c["part"] == part}


def test_a_whole_installation_is_healthy_and_every_version_is_that_of_its_package(run):
    said = run("doctor", "--json")
    assert said.code == 0
    assert said.data["healthy"] is True
    packages = by_name(said, "packages")
    assert {"torch", "pydantic", "typer"} <= set(packages)
    assert {n: c["value"] for n, c in packages.items()} == {
        n: metadata.version(n) for n in packages
    }


def test_each_extra_is_listed_and_a_missing_one_has_its_command_and_is_not_wrong(run, monkeypatch):
    whole = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "peft" else whole(name))
    said = run("doctor", "--json")
    extras = by_name(said, "extras")
    assert set(extras) == set(metadata.metadata("unlearnkit").get_all("Provides-Extra"))
    assert extras["hf"]["state"] == "missing"
    assert extras["hf"]["value"] == "lacks peft"
    assert extras["hf"]["action"] == "pip install 'unlearnkit[hf]'"
    assert said.code == 0


@pytest.mark.parametrize(
    ("version", "value"), [(None, "not installed"), ("1.9", "1.9, needed: >=2.7")]
)
def test_a_needed_package_that_is_missing_or_too_old_is_wrong(run, monkeypatch, version, value):
    whole = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda n: version if n == "pydantic" else whole(n))
    said = run("doctor", "--json")
    assert said.code == 1
    found = by_name(said, "packages")["pydantic"]
    assert (found["state"], found["value"]) == ("wrong", value)
    assert found["action"] == "pip install 'pydantic>=2.7'"


def test_a_cache_that_cannot_be_written_is_wrong(run, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path / "file"))
    said = run("doctor", "--json")
    assert said.code == 1
    assert "set UNLEARNKIT_CACHE to another folder" in by_name(said, "cache")["folder"]["action"]


def test_the_size_of_the_cache_is_that_of_its_files(run, monkeypatch, tmp_path):
    (tmp_path / "c/models").mkdir(parents=True)
    (tmp_path / "c/models/a").write_bytes(b"12345")
    (tmp_path / "c/b").write_bytes(b"123")
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path / "c"))
    assert by_name(run("doctor", "--json"), "cache")["size"]["value"] == "8 bytes in 2 files"


@pytest.mark.parametrize(("name", "code"), [("data", 0), ("nothing", 1)])
def test_a_data_folder_that_is_none_is_wrong(run, monkeypatch, tmp_path, name, code):
    (tmp_path / "data/adult").mkdir(parents=True)
    monkeypatch.setenv("UNLEARNKIT_DATA", str(tmp_path / name))
    said = run("doctor", "--json")
    assert said.code == code
    assert said.data["healthy"] == (code == 0)
    if code == 0:
        assert by_name(said, "data")["UNLEARNKIT_DATA"]["value"].endswith("data: adult")


def test_the_table_has_a_line_for_each_check(run):
    lines = run("doctor").out.splitlines()
    assert len(lines) == 1 + len(run("doctor", "--json").data["checks"])
    assert lines[0].split() == ["part", "name", "state", "value", "action"]


def test_nothing_heavy_is_imported_only_to_look():
    code = (
        "import sys; sys.argv = ['unlearnkit', 'doctor', '--json']\n"
        "from unlearnkit.cli import main\n"
        "try:\n    main()\n"
        f"finally:\n    assert not set({HEAVY!r}) & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "bounds", [">=2.6", "<2,>=1.6", ">=4", "!=2.0", "==2.13", ">1,<=3.0.1", ""]
)
@pytest.mark.parametrize("version", ["2.6.0", "2.13.0+cpu", "1.6", "2", "3.0.1", "10.0"])
def test_bounds_are_read_as_packaging_reads_them(version, bounds):
    want = Version(Version(version).public) in SpecifierSet(bounds)
    assert doctor.fits(version, bounds) == want
