"""The examples of CONTRIBUTING run as they stand, in a package of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
FILES = (
    "my_package/shrink_perturb.py", "test_shrink_perturb.py", "my_package/sureness.py",
    "test_sureness.py", "my_package/wine.py",
)  # fmt: skip
KIND = re.compile(r"isinstance\([^)]*\b(?:Rows|Classes|Groups|Targets|Features|Labels)\b")
LAST = """
from my_package.wine import one_grower
def test_the_request_of_the_case_has_rows():
    asked = one_grower()
    assert len(asked.case.partition(asked.request).forget) > 10
"""


def test_the_examples_pass_their_own_tests(tmp_path):
    (tmp_path / "my_package").mkdir()
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
    for name, block in zip(FILES, blocks, strict=True):
        (tmp_path / name).write_text(block, "utf-8")
    (tmp_path / "test_wine.py").write_text(LAST, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


def test_the_files_that_ask_for_the_kind_of_a_request_are_listed():
    source = ROOT / "src" / "unlearnkit"
    found = {
        p.relative_to(source).as_posix()
        for p in source.rglob("*.py")
        if p.parent.name != "linalg" and KIND.search(p.read_text("utf-8"))
    }
    section = TEXT.partition("## Add a kind of request")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| `(\S+)` \|", section, flags=re.MULTILINE))
    assert listed == found - {"core/request.py"}
