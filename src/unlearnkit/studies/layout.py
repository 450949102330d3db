"""All that a study's table takes beside its results: the runs, and what the metrics are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unlearnkit.studies.columns import MetricColumn
from unlearnkit.studies.planning.run_spec import RunSpec
from unlearnkit.studies.spec import Study


@dataclass(frozen=True)
class Layout:
    """The runs of a study, and every metric."""

    runs: tuple[RunSpec, ...]
    """In the order case, request, seed, method."""

    measures: Mapping[str, MetricColumn]
    """By id."""

    fixed: bool
    """Whether it stays as it is while the study, the files that it names and what is installed
    do."""


def lay_out(study: Study) -> Layout:
    """Return the layout of a study: its cases are read, and methods and metrics are looked up."""
    from unlearnkit.studies.fixed import is_fixed
    from unlearnkit.studies.measures import measures
    from unlearnkit.studies.planning.expand import (
        expand,  # late: with a kept layout torch is not loaded
    )

    return Layout(expand(study), measures(), is_fixed(study))
