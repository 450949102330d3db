"""Rules about our own source."""

import ast
import re
from pathlib import Path

from tests.house import trees

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


def broken(rule, paths):
    """Return what breaks a rule in each file where something does."""
    return {name(p): found for p in paths if (found := rule(p))}


def nodes(path, kind):
    return [n for n in trees.nodes(path) if isinstance(n, kind)]


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


def test_no_comparison_is_thrown_away():
    assert broken(thrown_away, TESTS) == {}


def test_the_rule_against_lost_comparisons_bites(tmp_path):
    (tmp_path / "x.py").write_text("import torch\ntorch.equal(1, 2)\nassert torch.equal(1, 2)\n")
    assert thrown_away(tmp_path / "x.py") == [2]


def test_methods_and_metrics_know_no_hardware():
    assert len(PURE) > 50
    assert broken(on_hardware, PURE) == {}


def test_the_rule_against_hardware_bites(tmp_path):
    (tmp_path / "x.py").write_text("m.cuda()\nm.half()\nm.to('cuda:0')\nm.to(y.dtype)\n")
    assert on_hardware(tmp_path / "x.py") == [1, 2, 3]


def prints(path):
    return [n.lineno for n in nodes(path, ast.Call) if called(n) == "print"]


def test_only_the_command_line_and_the_documents_print():
    assert broken(prints, (p for p in SOURCE if p not in TALKING)) == {}
    assert broken(prints, TALKING) != {}


def long(path):
    lines = len(path.read_text("utf-8").splitlines())
    return lines if lines >= 600 else 0


def test_a_file_stays_under_600_lines(tmp_path):
    assert broken(long, SOURCE) == {}
    (tmp_path / "x.py").write_text("a = 1\n" * 600)
    assert long(tmp_path / "x.py") == 600


def machines(path):
    parts = ("home", "work", "Users", "root")
    pattern = r"(?<![\w.])/(?:" + "|".join(parts) + r")/[\w.]"
    return re.findall(pattern, path.read_text("utf-8"))


def test_no_machine_is_named(tmp_path):
    assert broken(machines, TEXT) == {}
    (tmp_path / "x.md").write_text("see /" + "home/ada/notes\n")
    assert len(machines(tmp_path / "x.md")) == 1


NETS = ("core/border.py", "cli/__init__.py", "execution/worker.py")
"""The public borders, and the worker of a study, which records an error and goes on."""


def broad(path):
    return [
        n.lineno
        for n in nodes(path, ast.ExceptHandler)
        if n.type is None
        or (getattr(n.type, "id", "") in {"Exception", "BaseException"} and not _raises(n))
    ]


def test_a_broad_except_is_nowhere_but_at_the_public_borders():
    nets = [p for p in SOURCE if str(p).endswith(NETS)]
    assert broken(broad, (p for p in SOURCE if p not in nets)) == {}
    assert len(broken(broad, nets)) == len(NETS)


def _raises(handler):
    return isinstance(handler.body[-1], ast.Raise)
