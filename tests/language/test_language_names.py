import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unlearnkit import language

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", language._HOMES)
def test_each_name_is_the_one_that_its_module_defines(name):
    home = importlib.import_module(f"unlearnkit.language.{language._HOMES[name]}")
    assert getattr(language, name) is vars(home)[name]


def test_the_reference_and_type_checkers_have_the_same_names():
    names = set(language._HOMES)
    page = (ROOT / "docs" / "reference.md").read_text("utf-8")
    assert set(re.findall(r"^::: unlearnkit\.language\.(\w+)$", page, re.M)) == names
    source = Path(language.__file__).read_text("utf-8")
    assert set(re.findall(r" as (\w+)$", source, re.M)) == names


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = language.nonsense


def test_the_package_loads_nothing_until_a_name_is_read():
    code = "import sys, unlearnkit.language; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
