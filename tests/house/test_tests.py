"""No test can pass without checking anything."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.house import trees

TESTS = Path(__file__).parents[1]


def faults(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield what can never fail in a file of tests: ``name: why``."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield from (f"{node.name}: {why}" for why in _of_test(node))


def _of_test(test: ast.FunctionDef) -> Iterator[str]:
    for n in ast.walk(test):
        if isinstance(n, ast.Assert) and _always_true(n.test):
            yield f"line {n.lineno} asserts a constant or a tuple"
    if not _any_check(test):
        return  # what it calls checks, or raises
    if not _checks(test.body):
        yield "all that it checks stands under a condition that may never hold"


def _always_true(test: ast.expr) -> bool:
    if isinstance(test, ast.Constant):
        return bool(test.value)
    if isinstance(test, ast.Tuple):
        return bool(test.elts)
    return (
        isinstance(test, ast.BoolOp)
        and isinstance(test.op, ast.Or)
        and any(_always_true(v) for v in test.values)
    )


def _any_check(node: ast.AST) -> bool:
    return any(_is_check(n) for n in ast.walk(node))


def _checks(body: list[ast.stmt]) -> bool:
    """Return whether something is checked whatever the conditions are."""
    return any(_surely_checks(s) for s in body)


def _surely_checks(s: ast.stmt) -> bool:
    if _is_check(s):
        return True
    if isinstance(s, ast.If):
        return _checks(s.body) and _checks(s.orelse)
    if isinstance(s, ast.For):
        return not _filtered(s.iter) and _checks(s.body)
    if isinstance(s, ast.With):
        return _checks(s.body)
    if isinstance(s, ast.Try):
        return _checks(s.body) or _checks(s.finalbody)
    return False


def _filtered(values: ast.expr) -> bool:
    """Return whether a loop goes over what a filter leaves, which may be nothing."""
    kinds = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)
    return any(isinstance(n, kinds) and any(g.ifs for g in n.generators) for n in ast.walk(values))


def _is_check(n: ast.AST) -> bool:
    if isinstance(n, ast.Assert):
        return True
    if isinstance(n, ast.With):
        words = [ast.unparse(i.context_expr) for i in n.items]
        return any(w.startswith(("pytest.raises", "pytest.warns")) for w in words)
    if isinstance(n, ast.Expr) and isinstance(n.value, ast.Call):
        return (
            ast.unparse(n.value.func).rpartition(".")[2].startswith(("assert", "check", "expect"))
        )
    return False


def test_every_test_checks_something_whatever_holds():
    found = {p: list(faults(trees.nodes(p))) for p in TESTS.rglob("test_*.py")}
    assert len(found) > 300
    assert {str(p.relative_to(TESTS)): lines for p, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "body",
    [
        "if x:\n        assert y",
        "for a in b:\n        if a in c:\n            assert a",
        "for a in (d for d in b if d):\n        assert a",
        "if x:\n        with pytest.raises(E):\n            f()",
        "if x:\n        assert y\n    else:\n        f()",
        "assert True",
        "assert x or True",
        "assert (x, 'message')",
    ],
)
def test_a_test_that_cannot_fail_is_found(body):
    source = f"def test_it(x):\n    {body}\n"
    assert len(list(faults(ast.walk(ast.parse(source))))) == 1


@pytest.mark.parametrize(
    "body",
    [
        "assert x",
        "if x:\n        assert y\n    else:\n        assert z",
        "for a in (1, 2):\n        assert a",
        "with pytest.raises(E):\n        f()",
        "if x:\n        assert y\n    assert z",
        "check_method(x)",
        "run(x)",
    ],
)
def test_a_test_that_can_fail_is_left_alone(body):
    source = f"def test_it(x):\n    {body}\n"
    assert list(faults(ast.walk(ast.parse(source)))) == []
