"""What users import: ``unlearnkit`` and ``unlearnkit.extend``, in every guide and example."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import unlearnkit as uk
from unlearnkit import extend

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PUBLIC = {
    *("unlearnkit", "unlearnkit.extend", "unlearnkit.federated", "unlearnkit.language"),
    *("unlearnkit.linear", "unlearnkit.online", "unlearnkit.retrieval", "unlearnkit.sisa"),
    "unlearnkit.testing",
}
"""``testing`` is the contract that a plug-in's own tests call."""


def imported(text):
    for code in re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                yield from ((a.name, None) for a in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((node.module, a.name) for a in node.names)


def own(text):
    return {(m, n) for m, n in imported(text) if m.split(".")[0] == "unlearnkit"}


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_examples_import_public_modules_only(path):
    found = own(path.read_text("utf-8"))
    assert [m for m, _ in found if m not in PUBLIC] == []
    for module, name in found - {("unlearnkit", None)}:
        assert hasattr(importlib.import_module(module), name), (module, name)


def test_the_rule_bites():
    text = "```python\nfrom unlearnkit.core.case import Case\nimport torch\n```\n"
    assert own(text) == {("unlearnkit.core.case", "Case")}


@pytest.mark.parametrize("name", dir(extend))
def test_each_name_of_the_extension_interface_is_the_one_that_its_module_defines(name):
    home = importlib.import_module(f"unlearnkit.{extend._HOMES[name]}")
    assert getattr(extend, name) is vars(home)[name]


def declared(module):
    """Return the names that type checkers see."""
    (block,) = [
        n for n in ast.parse(Path(module.__file__).read_text("utf-8")).body if isinstance(n, ast.If)
    ]
    return {(i.names[0].asname, i.module) for i in block.body if isinstance(i, ast.ImportFrom)}


@pytest.mark.parametrize("module", [uk, extend], ids=lambda m: m.__name__)
def test_type_checkers_and_python_see_the_same_names(module):
    whole = {"catalog", "linear"}
    want = {(n, f"unlearnkit.{home}") for n, home in module._HOMES.items() if n not in whole}
    assert {d for d in declared(module) if d[0] not in whole} == want


def test_a_name_that_both_have_is_one_object():
    both = set(dir(uk)) & set(dir(extend))
    assert {"Case", "Method", "Recipe", "Runtime"} <= both
    assert [n for n in both if getattr(uk, n) is not getattr(extend, n)] == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = extend.nonsense


def test_the_extension_interface_loads_nothing_until_a_name_is_read():
    code = "import sys, unlearnkit.extend; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_linear_models_load_without_torch():
    code = (
        "import sys, unlearnkit as uk; uk.linear.RemovableRidge; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_function_is_called_unlearn():
    found = [
        path.name
        for path in (ROOT / "src").rglob("*.py")
        if "cli" not in path.parts
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == "unlearn"
    ]
    assert found == ["chooser.py"]
