"""Imported once by the server that forks processes for tests: they start with all of it loaded.

A first run of a study imports much that waits for its first use.
"""

import importlib
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.studies.conftest import words
from tests.studies.toys import work

with suppress(ImportError):
    importlib.import_module("optuna").create_study()

with tempfile.TemporaryDirectory() as folder:
    work(words(seeds=1), Path(folder) / "s.sqlite", Path(folder) / "cache")
