"""Imports make no circle, names mean one thing, and every number has a user."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "unlearnkit"
FILES = sorted(PACKAGE.rglob("*.py"))


def tree(path):
    return ast.parse(path.read_text("utf-8"))


def module(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source, known):
    """Return the modules that a file imports anywhere: in functions and for types as well."""
    found = set()
    for n in ast.walk(source):
        if isinstance(n, ast.Import):
            found |= {a.name for a in n.names}
        elif isinstance(n, ast.ImportFrom) and n.module:
            whole = [f"{n.module}.{a.name}" for a in n.names]
            found |= {w if w in known else n.module for w in whole}
    return found & known


def import_graph(trees):
    return {m: imports(t, set(trees)) - {m} for m, t in trees.items()}


def circle(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        return e.args[1]
    return []
