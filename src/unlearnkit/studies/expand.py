"""From a study to the list of its runs, each with the content address of all its inputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearnkit.catalog import method as make
from unlearnkit.catalog import methods
from unlearnkit.core.digest import digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.method import Method
from unlearnkit.core.metric import Tier
from unlearnkit.core.runtime import Precision
from unlearnkit.core.search import space
from unlearnkit.job import merged, put_nested
from unlearnkit.studies.apart import check_apart
from unlearnkit.studies.recipes import load_recipe, recipe_path
from unlearnkit.studies.spec import ALL, Chosen, Design, Study
from unlearnkit.studies.subject import Subject
from unlearnkit.unlearning import check_needs, fitting

TUNED = "tuned"
"""Behind a method's id, and in the place of a preset: with the settings that were found."""


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

    The untouched original and the oracles are measured beside every run, so they are no runs. A
    study that tunes runs each method with its own settings and with those that were found. The
    design plays no part in keys: runs that ``FULL`` and ``REUSE`` have in common are done once.
    What cannot run, such as a named method that does not serve a case's task, is refused here.

    Args:
        study: The study.

    Returns:
        The runs; equal studies give equal tuples.
    """
    if study.tune is not None:
        for case in study.cases:
            check_apart(study, case)
    return tuple(
        run for case in study.cases for request in study.requests[case]
        for run in _runs(study, case, request)
    )  # fmt: skip


def tunable(study: Study, case: str) -> tuple[str, ...]:
    """Return the methods of a study that are searched: those that stand at their own settings.

    Args:
        study: The study.
        case: One of its cases.

    Returns:
        Ids; a method without a declared space is left out.
    """
    subject = Subject.read(case, study.requests[case][0], study.device, study.precision)
    alone = _variants(study, subject)
    return tuple(label for label, (_, m) in alone.items() if label == m.id and space(type(m)))


def search_key(study: Study, case: str, method: str) -> str:
    """Return the digest of what a search is asked: on what, from where to where, how long."""
    tune = study.tune
    assert tune is not None
    where = (study.device, study.precision)
    sets = [Subject.read(case, r, *where).parts.forget for r in tune.requests[case]]
    asked = tune.model_dump(mode="json", include={"seeds", "trials", "budget", "seed"})
    found = space(methods()[method])
    return digest(
        {
            **asked,
            "rows": [None if s is None else s.key() for s in sets],
            "oracles": study.oracles,
            "method": method,
            "space": {k: [str(d.search), str(d.default)] for k, d in found.items()},
        }
    )


def _runs(study: Study, case: str, request: str) -> Iterator[Planned]:
    subject = Subject.read(case, request, study.device, study.precision)
    variants = _variants(study, subject)
    if study.tune is not None:
        variants = _with_tuned(study, case, variants)
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


_Variant = tuple[str | None, Method]
"""Preset and method."""


def _variants(study: Study, subject: Subject) -> dict[str, _Variant]:
    """Return the methods by label; ``all`` leaves out those that are named beside it."""
    found: dict[str, _Variant] = {}
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


def _with_tuned(study: Study, case: str, variants: Mapping[str, _Variant]) -> dict[str, _Variant]:
    """Return the methods, each with what was found for it behind it, where that is another."""
    assert study.tune is not None
    wanted = tunable(study, case)
    found: dict[str, _Variant] = {}
    for label, (preset, method) in variants.items():
        found[label] = (preset, method)
        if label not in wanted:
            continue
        path = recipe_path(study.tune.recipes, study.name, case, label)
        if not path.is_file():
            raise InputError(
                f"study: nothing is tuned for {label} on {case} yet, {str(path)!r} is missing; run"
                " unlearnkit study tune first"
            )
        kept = load_recipe(path)
        if kept.found.search != search_key(study, case, label):
            raise InputError(
                f"study: {str(path)!r} comes from another search; run unlearnkit study tune again"
            )
        if (tuned := kept.build()) != method:
            found[f"{label} {TUNED}"] = (TUNED, tuned)
    return found


def _grid(chosen: Chosen) -> Iterator[tuple[str, Method]]:
    base = _nested(chosen.settings, chosen.method)
    start: Mapping[str, Any] = {}
    named = [chosen.preset] if chosen.preset else []
    if chosen.recipe is not None:
        start, named = _recipe(chosen, chosen.recipe), [f"recipe {chosen.recipe.stem}"]
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
        words = [chosen.method, *named, *shown]
        yield " ".join(words), make(chosen.method, chosen.preset, **merged(start, settings))


def _recipe(chosen: Chosen, path: Path) -> Mapping[str, Any]:
    job = load_recipe(path).job
    if chosen.preset is not None or job.method != chosen.method:
        why = f"is of {job.method}" if job.method != chosen.method else "replaces a preset"
        raise InputError(
            f"study: methods: {chosen.method}: recipe {str(path)!r} {why}; keep one of the two"
        )
    return job.settings


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
