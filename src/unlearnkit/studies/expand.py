"""From a study to the list of its runs, each with the content address of all its inputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unlearnkit.catalog import method as make
from unlearnkit.core.errors import InputError
from unlearnkit.core.method import Method
from unlearnkit.core.metric import Tier
from unlearnkit.core.runtime import Precision
from unlearnkit.job import merged, put_nested
from unlearnkit.studies.spec import ALL, Chosen, Design, Study
from unlearnkit.studies.subject import Subject
from unlearnkit.unlearning import check_needs, fitting


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

    def subject(self) -> Subject:
        """Return the run's case and request."""
        return Subject.read(self.case, self.request, self.device, self.precision)

    def build(self) -> Method:
        """Return the run's method."""
        return make(self.method, None, **self.settings)


def expand(study: Study) -> tuple[Planned, ...]:
    """Return every run of a study, in the order case, request, seed, method.

    The untouched original and the oracles are measured beside every run, so they are no runs. The
    design plays no part in keys: runs that ``FULL`` and ``REUSE`` have in common are done once.
    What cannot run, such as a named method that does not serve a case's task, is refused here.

    Args:
        study: The study.

    Returns:
        The runs; equal studies give equal tuples.
    """
    return tuple(
        run for case in study.cases for request in study.requests[case]
        for run in _runs(study, case, request)
    )  # fmt: skip


def _runs(study: Study, case: str, request: str) -> Iterator[Planned]:
    subject = Subject.read(case, request, study.device, study.precision)
    variants = _variants(study, subject)
    oracles = study.oracles if study.tier == "reference" else 0
    for seed in study.seeds:
        original_seed = seed if study.design == "FULL" else 0
        for label, (preset, method) in variants.items():
            key = subject.run_key(
                method, seed=seed, original_seed=original_seed, oracles=oracles, tier=study.tier
            )
            yield Planned(
                key=key,
                case=case,
                request=request,
                label=label,
                method=method.id,
                preset=preset,
                settings=method.model_dump(mode="json"),
                seed=seed,
                original_seed=original_seed,
                oracles=oracles,
                tier=study.tier,
                design=study.design,
                device=study.device,
                precision=study.precision,
            )


def _variants(study: Study, subject: Subject) -> dict[str, tuple[str | None, Method]]:
    """Return the methods by label; ``all`` leaves out those that are named beside it."""
    found: dict[str, tuple[str | None, Method]] = {}
    named = {c.method for c in study.methods}
    for chosen in study.methods:
        if chosen.method == ALL:
            rest = [Chosen(method=i) for i in fitting(subject.case, subject.parts)]
            entries = [c for c in rest if c.method not in named]
        else:
            entries = [chosen]
        for entry in entries:
            for label, method in _grid(entry):
                check_needs(method, subject.case, subject.parts)
                twin = next((n for n, (_, m) in found.items() if m == method), None)
                if label in found or twin is not None:
                    raise InputError(
                        f"study: methods: {label!r} is the same as {twin or label!r}; name each"
                        " once"
                    )
                found[label] = (entry.preset, method)
    return found


def _grid(chosen: Chosen) -> Iterator[tuple[str, Method]]:
    base = _nested(chosen.settings, chosen.method)
    fixed = dict(_flat(base))
    twice = sorted(set(fixed) & set(chosen.grid))
    if twice:
        raise InputError(
            f"study: methods: {chosen.method}: {twice[0]} is in settings and in grid; keep one"
        )
    for values in itertools.product(*chosen.grid.values()):
        changed = dict(zip(chosen.grid, values, strict=True))
        settings = merged(base, _nested(changed, chosen.method))
        shown = [f"{k}={v}" for k, v in {**fixed, **changed}.items()]
        words = [chosen.method, *([chosen.preset] if chosen.preset else []), *shown]
        yield " ".join(words), make(chosen.method, chosen.preset, **settings)


def _nested(given: Mapping[str, Any], who: str) -> dict[str, Any]:
    """Return settings with the dots of their names undone; mappings are put together."""
    found: dict[str, Any] = {}
    for name, value in _flat(given):
        put_nested(found, name, value, who=f"study: methods: {who}")
    return found


def _flat(given: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
