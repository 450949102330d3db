"""Rules about our own source."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PURE = [p for p in SOURCE if p.parent.name in {"methods", "metrics"}]
PACKAGE = ROOT / "src" / "unlearnkit"
TALKING = {*(PACKAGE / "cli").rglob("*.py"), PACKAGE / "docs.py"}
TEXT = [
    *SOURCE,
    *TESTS,
    *(ROOT / "docs").rglob("*.md"),
    *ROOT.glob("*.md"),
    *ROOT.glob("*.toml"),
    ROOT / "Makefile",
]

COMPARISONS = {"allclose", "equal", "isclose", "array_equal"}


def name(path):
    return path.relative_to(ROOT).as_posix()


def nodes(path, kind):
    return [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, kind)]


def called(node):
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def thrown_away(path):
    calls = (n.value for n in nodes(path, ast.Expr) if isinstance(n.value, ast.Call))
    return [c.lineno for c in calls if called(c) in COMPARISONS]


def on_hardware(path):
    calls = [n for n in nodes(path, ast.Call) if isinstance(n.func, ast.Attribute)]
    found = [n.lineno for n in calls if called(n) in {"cuda", "half", "pin_memory"}]
    for n in calls:
        said = [*n.args, *(k.value for k in n.keywords)]
        texts = {a.value for a in said if isinstance(a, ast.Constant) and isinstance(a.value, str)}
        if called(n) in {"to", "device"} and any(t.split(":")[0] in {"cuda", "mps"} for t in texts):
            found.append(n.lineno)
    return found


@pytest.mark.parametrize("path", TESTS, ids=name)
def test_no_comparison_is_thrown_away(path):
    assert thrown_away(path) == []


def test_the_rule_against_lost_comparisons_bites(tmp_path):
    (tmp_path / "x.py").write_text("import torch\ntorch.equal(1, 2)\nassert torch.equal(1, 2)\n")
    assert thrown_away(tmp_path / "x.py") == [2]


@pytest.mark.parametrize("path", PURE, ids=name)
def test_methods_and_metrics_know_no_hardware(path):
    assert on_hardware(path) == []


def test_the_rule_against_hardware_bites(tmp_path):
    (tmp_path / "x.py").write_text("m.cuda()\nm.half()\nm.to('cuda:0')\nm.to(y.dtype)\n")
    assert on_hardware(tmp_path / "x.py") == [1, 2, 3]


@pytest.mark.parametrize("path", [p for p in SOURCE if p not in TALKING], ids=name)
def test_only_the_command_line_and_the_documents_print(path):
    assert [n.lineno for n in nodes(path, ast.Call) if called(n) == "print"] == []


@pytest.mark.parametrize("path", SOURCE, ids=name)
def test_a_file_stays_under_600_lines(path):
    assert len(path.read_text("utf-8").splitlines()) < 600


@pytest.mark.parametrize("path", TEXT, ids=name)
def test_no_machine_is_named(path):
    parts = ("home", "work", "Users", "root")
    pattern = r"(?<![\w.])/(?:" + "|".join(parts) + r")/[\w.]"
    assert re.findall(pattern, path.read_text("utf-8")) == []


NETS = ("core/border.py", "cli/__init__.py", "execution/worker.py")
"""The public borders, and the worker of a study, which records an error and goes on."""


@pytest.mark.parametrize("path", [p for p in SOURCE if not str(p).endswith(NETS)], ids=name)
def test_a_broad_except_is_nowhere_but_at_the_public_borders(path):
    broad = [
        n.lineno
        for n in nodes(path, ast.ExceptHandler)
        if n.type is None
        or (getattr(n.type, "id", "") in {"Exception", "BaseException"} and not _raises(n))
    ]
    assert broad == []


def _raises(handler):
    return isinstance(handler.body[-1], ast.Raise)
