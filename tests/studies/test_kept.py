"""A layout that is kept is the one that would be made now; all else is made anew."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.studies.conftest import ROOT
from tests.studies.made import filled
from tests.studies.toys import HERE
from unlearnkit.core.cache_folder import LAYOUTS
from unlearnkit.studies.fixed import is_fixed
from unlearnkit.studies.layout import lay_out
from unlearnkit.studies.planning.expand import expand
from unlearnkit.studies.planning.plan_cache import PACKAGE, installed, layout_of, proof
from unlearnkit.studies.spec import load, make_study

FILE = """
name: kept
cases: digits
requests: [class=3, random_tenth]
methods: [finetune, ssd]
seeds: 3
oracles: 3
"""
SHOW = """
import sys
from unlearnkit.cli import main

sys.argv = ["unlearnkit", *sys.argv[1:]]
try:
    main()
finally:
    print(*(m for m in ("torch", "sklearn") if m in sys.modules), file=sys.stderr)
"""


def asked(**changes):
    base = {
        "name": "kept",
        "cases": ["digits"],
        "requests": ["class=3"],
        "methods": ["finetune"],
        "seeds": 2,
    }
    return make_study(base | changes)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of kept layouts, in a cache of its own."""
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / LAYOUTS


def kept(folder):
    return sorted(folder.glob("*"))


def test_a_study_is_shown_again_without_torch_and_reads_the_same(tmp_path):
    file, store = tmp_path / "study.yaml", tmp_path / "s.sqlite"
    file.write_text(FILE)
    filled(store, expand(load(file))).close()
    place = {**os.environ, "UNLEARNKIT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", SHOW, "study", "show", str(file), "--store", str(store)]
    first, second = (
        subprocess.run(words, cwd=ROOT, env=place, capture_output=True, check=True)
        for _ in range(2)
    )
    assert b"12 of 12 runs done" in first.stdout
    assert second.stdout == first.stdout
    assert (first.stderr.split(), second.stderr.split()) == ([b"torch", b"sklearn"], [])


@pytest.mark.parametrize(
    "study",
    [
        asked(),
        asked(methods="all", requests=["class=3", "random_tenth"], tier="fast"),
        asked(methods=[{"finetune": {"masks": ["grad:0.3", "random:0.3:parameter"]}}, "salun"]),
        asked(methods=[{"ssd": {"preset": "paper", "grid": {"selection": [5, 10.5]}}}]),
        asked(cases=["digits", "demand"], requests={"digits": ["class=3"], "demand": ["range"]}),
        asked(tier="strong", models=8, design="REUSE", methods=["auto"]),
    ],
)
def test_what_is_read_is_what_was_written(study, folder):
    made = layout_of(study)
    assert len(kept(folder)) == 1
    assert layout_of(study) == made == lay_out(study)


def test_a_kept_layout_counts_as_used_when_it_is_read(folder):
    layout_of(asked())
    (path,) = kept(folder)
    os.utime(path, (0, 0))
    layout_of(asked())
    assert path.stat().st_mtime > 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda whole: whole[:-1],
        lambda whole: whole.replace(b'"class=3"', b'"class=5"'),
        lambda whole: whole.replace(b"\n", b""),
        lambda whole: whole + b"\n",
        lambda _: b"\xff\xfe\n{}",
        lambda _: b"[]",
    ],
)
def test_a_damaged_layout_is_made_anew(damage, folder):
    made = layout_of(asked())
    (path,) = kept(folder)
    good = path.read_bytes()
    bad = damage(good)
    assert bad != good
    path.write_bytes(bad)
    assert layout_of(asked()) == made
    assert path.read_bytes() == good


@pytest.mark.parametrize("place", ["a file", "a folder in the way"])
def test_where_nothing_can_be_kept_a_layout_is_made_each_time(place, folder):
    if place == "a file":
        folder.parent.write_text("")
    else:
        (folder / f"{proof(asked())}.json").mkdir(parents=True)
    assert layout_of(asked()) == lay_out(asked())


# ------------------------------------------------------------------ what decides


def test_the_study_decides():
    studies = [
        asked(),
        asked(name="other"),
        asked(seeds=3),
        asked(requests=["class=5"]),
        asked(methods=["ssd"]),
        asked(methods=[{"ssd": {"settings": {"selection": 1}}}]),
        asked(methods=[{"ssd": {"settings": {"selection": 1.0}}}]),
        asked(design="REUSE"),
        asked(precision="bf16"),
    ]
    assert len({proof(s, listing=[]) for s in studies}) == len(studies)
    assert proof(asked(), listing=[]) == proof(asked(), listing=[])


@pytest.mark.parametrize("kind", ["a recipe", "a request", "a tuned recipe"])
def test_a_file_that_the_study_names_decides(kind, tmp_path):
    named = tmp_path / "named.yaml"
    study = {
        "tuned settings": {"methods": [{"ssd": {"tuned": str(named)}}]},
        "a request": {"requests": [f"rows=@{named}"]},
        "a tuned recipe": {"tune": {"requests": ["class=5"], "recipes": str(tmp_path)}},
    }[kind]
    found = [proof(asked(**study), listing=[])]
    for text in ("1", "2"):
        named.write_text(text)
        found.append(proof(asked(**study), listing=[]))
    named.unlink()
    assert len(set(found)) == 3
    assert proof(asked(**study), listing=[]) == found[0]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of this package."""
    copy = tmp_path_factory.mktemp("copy") / "unlearnkit"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.mark.parametrize("file", ["methods/ssd.py", "auto/table.yaml", "cases/new.py"])
def test_every_file_of_the_package_decides(file, package):
    before = proof(asked(), package, listing=[])
    assert before == proof(asked(), listing=[])
    text = (package / file).read_text() if (package / file).exists() else None
    (package / file).write_text(f"{text}# another\n")
    assert proof(asked(), package, listing=[]) != before
    (package / file).unlink() if text is None else (package / file).write_text(text)
    assert proof(asked(), package, listing=[]) == before


def test_compiled_sources_do_not_decide(package):
    before = proof(asked(), package, listing=[])
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "store.pyc").write_bytes(b"1")
    assert proof(asked(), package, listing=[]) == before


def test_what_is_installed_decides(tmp_path, monkeypatch):
    assert proof(asked(), listing=["torch-2.6"]) != proof(asked(), listing=["torch-2.7"])
    before, found = installed(), proof(asked())
    monkeypatch.syspath_prepend(tmp_path)
    assert (installed(), proof(asked())) == (before, found)
    facts = tmp_path / "other-1.0.dist-info"
    facts.mkdir()
    assert set(installed()) - set(before) == {f"{facts} {facts.stat().st_mtime_ns}"}
    assert proof(asked()) != found


def test_the_environment_decides(monkeypatch):
    before = proof(asked(), listing=[])
    monkeypatch.setenv("UNLEARNKIT_DATA", "elsewhere")
    assert proof(asked(), listing=[]) != before


# ------------------------------------------------------------------ what is never kept


@pytest.mark.parametrize(
    "changes",
    [
        {"cases": [f"{HERE}:toy"]},
        {"cases": ["digits", f"{HERE}:toy"]},
        {"cases": ["cifar10"]},
        {"requests": ["class=3", "memorised_tenth"]},
        {"requests": ["class=3"], "tune": {"requests": ["memorised_tenth"]}},
        {"device": "auto"},
    ],
)
def test_what_can_change_behind_our_back_is_not_fixed(changes):
    assert is_fixed(asked())
    assert not is_fixed(asked(**changes))


def test_with_a_plug_in_nothing_is_fixed(tmp_path, monkeypatch):
    facts = tmp_path / "plug-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[unlearnkit.metrics]\nplug = plug\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_fixed(asked())


def test_a_layout_that_is_not_fixed_is_not_kept(folder):
    study = asked(cases=[f"{HERE}:toy"], requests=["class=1"])
    assert layout_of(study) == lay_out(study)
    assert kept(folder) == []
