"""What a guide names exists: modules, functions, their arguments, methods, metrics, commands."""

import ast
import importlib
import inspect
import re
import shlex

import pytest
import typer

import unlearnkit as uk
from tests.guides.test_guides import GUIDES, blocks
from unlearnkit.cli.commands import app


def faults(text):
    """Yield what is not there of all that a guide's blocks name, without running them."""
    own = set(re.findall(r"^# (\w+)\.py$", text, re.MULTILINE))
    for kind, content in blocks(text):
        if kind == "python":
            for node in _outside_try(ast.parse(content)):
                yield from _of_node(node, own)
        elif kind == "console":
            for line in content.splitlines():
                if line.startswith("$ "):
                    yield from _of_command(line)


def _outside_try(node):
    """Yield nodes, but none of a ``try``: a guide shows an error with it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.Try):
            yield child
            yield from _outside_try(child)


def _of_node(node, own):
    if isinstance(node, ast.Import):
        names = [(a.name, None) for a in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [(node.module, a.name) for a in node.names]
    else:
        names = []
    yield from (f"{m}: {n}" for m, n in names if m not in own and not _importable(m, n))
    if isinstance(node, ast.Attribute) and _is_uk(node.value) and not hasattr(uk, node.attr):
        yield f"uk.{node.attr}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        yield from _of_call(node, node.func)


def _of_call(node, func):
    words = [a.value if isinstance(a, ast.Constant) else None for a in node.args]
    keywords = {k.arg for k in node.keywords if k.arg}
    if func.attr == "row" and words[:1] != [None]:
        yield from (f"metric {w}" for w in words if w not in uk.catalog.metrics())
    if not _is_uk(func.value) or not hasattr(uk, func.attr):
        return
    if func.attr == "method":
        yield from _of_method(words[0], keywords)
        return
    if func.attr == "unlearn" and isinstance(words[-1], str):
        yield from _of_method(words[-1], set())
    known = inspect.signature(getattr(uk, func.attr)).parameters
    if all(p.kind is not p.VAR_KEYWORD for p in known.values()):
        yield from (f"uk.{func.attr}({k}=)" for k in sorted(keywords - set(known)))


def _of_method(name, settings):
    found = {**uk.catalog.methods(), "auto": None}
    if name not in found:
        yield f"method {name}"
    elif found[name] is not None:
        yield from (f"{name}.{s}" for s in sorted(settings - set(found[name].model_fields)))


def _of_command(line):
    words, command, context = shlex.split(line)[2:], typer.main.get_command(app), None
    try:
        while hasattr(command, "commands"):
            context = command.make_context("unlearnkit", list(words), parent=context)
            words = context._protected_args + context.args
            _, command, words = command.resolve_command(context, words)
        command.make_context(command.name, list(words), parent=context)
    except Exception as error:  # noqa: BLE001  # click's own, of which typer keeps a copy
        yield f"{line}: {error}"


def _is_uk(node):
    return isinstance(node, ast.Name) and node.id == "uk"


def _importable(module, name):
    try:
        found = importlib.import_module(module)
        return (
            name is None
            or hasattr(found, name)
            or bool(importlib.import_module(f"{module}.{name}"))
        )
    except ImportError:
        return False


@pytest.mark.parametrize("guide", GUIDES, ids=lambda p: p.stem)
def test_all_that_a_guide_names_exists(guide):
    for needed in ("pandas", "transformers", "peft"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    assert list(faults(guide.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    ("kind", "line", "told"),
    [
        ("python", "from unlearnkit.extend import no_such", "unlearnkit.extend: no_such"),
        ("python", "import no_such", "no_such: None"),
        ("python", "uk.no_such(3)", "uk.no_such"),
        ("python", "uk.audit(done, orcale=truth)", "uk.audit(orcale=)"),
        ("python", "uk.Recipe(epohcs=3)", "uk.Recipe(epohcs=)"),
        ("python", "uk.method('finetun')", "method finetun"),
        ("python", "uk.method('scrub', passses=3)", "scrub.passses"),
        ("python", "uk.unlearn(model, case, request, 'finetun')", "method finetun"),
        ("python", "report.row('acuracy')", "metric acuracy"),
        ("console", "$ unlearnkit audit runs/a --orcales 5", "No such option"),
        ("console", "$ unlearnkit audti runs/a", "No such command"),
    ],
)
def test_a_name_that_is_not_there_is_told(kind, line, told):
    (found,) = faults(f"```{kind}\n{line}\n```\n")
    assert told in found


def test_a_block_that_does_not_parse_fails():
    with pytest.raises(SyntaxError):
        list(faults("```python\nfor x in\n```\n"))
