"""From a study to the list of its runs, each with the content address of all its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unlearnkit.core.metric import Tier
from unlearnkit.core.runtime import Precision
from unlearnkit.studies.spec import Design, Study


@dataclass(frozen=True)
class Planned:
    """One run of a study: an original that is made to forget by one method, and audited."""

    key: str
    """Digest of every input; the run's key in the store."""

    case: str
    """As the study names it."""

    request: str
    """In words, or by the name that the case gives it."""

    label: str
    """The method with what the study sets on it: ``ssd``, ``ssd paper selection=5``."""

    method: str
    preset: str | None
    settings: Mapping[str, object]
    """Every hyper-parameter."""

    seed: int
    """Of the method."""

    original_seed: int
    oracles: int
    """How many; 0 where the tier needs none."""

    tier: Tier
    design: Design
    device: str
    precision: Precision


def expand(study: Study) -> tuple[Planned, ...]:
    """Return every run of a study, in the order case, request, seed, method.

    The untouched original and the oracles are measured beside every run, so they are no runs.
    """
    raise NotImplementedError
