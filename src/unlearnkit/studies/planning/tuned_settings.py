"""Tuned settings: YAML files with the best settings of a search.

Such a file is a job without a case; this runs it:
``unlearnkit unlearn CASE --forget REQUEST --config FILE``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from unlearnkit.catalog import method as make
from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import read_yaml, write_text
from unlearnkit.core.method import Method, format_validation_error
from unlearnkit.studies.planning.objective import TrialScore


class MethodSettings(FrozenModel):
    """A method with every setting."""

    method: str
    settings: dict[str, Any]


class SettingChange(FrozenModel):
    """A hyper-parameter that was searched."""

    default: Any
    found: Any
    searched: str
    """Where."""


class TuningProvenance(FrozenModel):
    """Where settings come from."""

    study: str
    case: str
    requests: tuple[str, ...]
    seeds: tuple[int, ...]
    oracles: int
    trials: int
    failed: int
    """Trials with an error."""

    budget: float
    objective: str
    """In words."""

    reached: dict[str, float | None]
    """The objective of the method's own settings (``default``) and of these (``tuned``), on the
    forget sets of the search; None where they failed. The two are equal where nothing better was
    found."""

    default: TrialScore | None
    """The parts of the objective, with the method's own settings."""

    tuned: TrialScore | None
    """The same with these settings."""

    changes: dict[str, SettingChange]
    """What was searched, by dotted name."""

    shared_rows: dict[str, int]
    """Rows that forget sets of search and study have in common by chance, where there are any."""

    search: str
    """Digest of all that decides the search."""

    versions: dict[str, str]


class TunedSettings(FrozenModel):
    """The file."""

    job: MethodSettings
    found: TuningProvenance

    def build(self) -> Method:
        """Return the method with the found settings."""
        return make(self.job.method, None, **self.job.settings)

    def save(self, path: Path) -> Path:
        """Write it as YAML, whole or not at all."""
        content = self.model_dump(mode="json")
        return write_text(path, yaml.safe_dump(content, sort_keys=False, width=100))


def load_tuned_settings(path: Path) -> TunedSettings:
    """Return the tuned settings in a file that ``save`` wrote; another file is an error."""
    try:
        return TunedSettings.model_validate(read_yaml(path, "tuned", "job and found"))
    except ValidationError as e:
        raise InputError(f"tuned: {str(path)!r}: {format_validation_error(e)}") from None


def tuned_settings_path(folder: Path, study: str, case: str, method: str) -> Path:
    """Return the file of a method's found settings: study, case and method in its name."""
    words = (study, case, method)
    return folder / ("-".join(re.sub(r"\W+", "_", w).strip("_") for w in words) + ".yaml")
