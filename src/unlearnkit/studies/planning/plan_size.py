"""Size of a study: an upper bound of its number of runs."""

from __future__ import annotations

import math

from unlearnkit.core.errors import InputError
from unlearnkit.studies.spec import ALL, Study

LARGE = 20_000
"""Runs of a study above which a command asks for ``--yes``; laying out so many takes a minute."""

_EVERY = 40
"""Methods that ``all`` stands for, about."""


def count_runs(study: Study) -> int:
    """Return how many runs a study has, or a little more: what coincides is not seen here."""
    sets = sum(len(sets) for sets in study.requests.values())
    variants = sum(
        (_EVERY if c.method == ALL else 1)
        * math.prod(len(values) for values in c.grid.values())
        * max(1, len(c.masks) * (2 if study.beside_chance else 1))
        for c in study.methods
    )
    return sets * variants * len(study.seeds) * (1 if study.tune is None else 2)


def check_size(study: Study, *, yes: bool) -> None:
    """Refuse a study of more than ``LARGE`` runs, unless ``yes``."""
    count = count_runs(study)
    if yes or count <= LARGE:
        return
    sets = sum(len(sets) for sets in study.requests.values())
    seeds = len(study.seeds)
    raise InputError(
        f"study: about {count:,} runs ({sets} forget sets x {seeds} seeds x"
        f" {count // (sets * seeds):,} methods with settings), and more than {LARGE:,} need --yes;"
        " shorten a grid, or add --yes"
    )
