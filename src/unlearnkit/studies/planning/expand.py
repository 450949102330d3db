"""Expansion: the runs of a study, each with the digest of all its inputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unlearnkit.catalog import method as make
from unlearnkit.catalog import methods
from unlearnkit.core.digest import digest
from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.core.method import Method
from unlearnkit.core.search_space import search_space
from unlearnkit.core.settings import deep_merge
from unlearnkit.job import set_dotted
from unlearnkit.localize.localizer import Localizer
from unlearnkit.localize.mask_spec import MaskSpec
from unlearnkit.localize.method_masks import check_maskable, localizer_of_method, with_mask
from unlearnkit.studies.planning.overlap import check_no_overlap
from unlearnkit.studies.planning.problem import StudyProblem, StudyProblems
from unlearnkit.studies.planning.run_spec import TUNED, RunSpec
from unlearnkit.studies.planning.tuned_settings import load_tuned_settings, tuned_settings_path
from unlearnkit.studies.spec import ALL, MethodEntry, Study
from unlearnkit.unlearning.requirements import applicable_methods, check_needs


def expand(study: Study, problems: StudyProblems | None = None) -> tuple[RunSpec, ...]:
    """Return every run of a study, in the order case, request, seed, method.

    Oracles and the untouched original are measured with every run, so they are no runs of their
    own. A method under a mask, its own or a given one, also runs under a random mask of the same
    size. With ``tune``, each method runs with its own and with the tuned settings.

    Args:
        study: Methods that do not serve a case's task are an error.
        problems: Problems of the study that were read before.

    Returns:
        The runs. Their keys do not depend on the design: ``FULL`` and ``REUSE`` share runs.
    """
    problems = problems or StudyProblems()
    if study.tune is not None:
        for case in study.cases:
            check_no_overlap(study, case, problems)
    return tuple(
        run for case in study.cases for request in study.requests[case]
        for run in runs_of(study, case, request, problems)
    )  # fmt: skip


def tunable(study: Study, case: str, problems: StudyProblems) -> tuple[str, ...]:
    """Return the ids of methods to tune: at default settings, with a search space."""
    subject = problems.get(case, study.requests[case][0], study.device, study.precision)
    alone = _variants(study, subject)
    return tuple(n for n, v in alone.items() if n == v.method.id and search_space(type(v.method)))


def search_key(study: Study, case: str, method: str, problems: StudyProblems) -> str:
    """Return the digest of all that decides a search: rows, space, trials, budget, seeds."""
    tune = study.tune
    assert tune is not None
    sets = [
        problems.get(case, r, study.device, study.precision).parts.forget
        for r in tune.requests[case]
    ]
    settings = tune.model_dump(mode="json", include={"seeds", "trials", "budget", "seed"})
    found = search_space(methods()[method])
    return digest(
        {
            **settings,
            "rows": [None if s is None else s.key() for s in sets],
            "oracles": study.oracles,
            "method": method,
            "space": {k: [str(d.search), str(d.default)] for k, d in found.items()},
        }
    )


def runs_of(study: Study, case: str, request: str, problems: StudyProblems) -> Iterator[RunSpec]:
    """Yield the runs of one case and request of a study, in the order seed, method."""
    subject = problems.get(case, request, study.device, study.precision)
    variants = _variants(study, subject)
    if study.tune is not None:
        variants = _with_tuned(study, case, variants, problems)
    # A mask is found on one original and does not fit those of a strong audit.
    if study.beside_chance and study.tier != "strong":
        variants = _beside_chance(variants)
    oracles = 0 if study.tier == "fast" else study.oracles
    models = study.models if study.tier == "strong" else 0
    for seed in study.seeds:
        original_seed = seed if study.design == "FULL" else 0
        for label, variant in variants.items():
            method = variant.method
            run = RunSpec(
                key="",
                case=case,
                request=request,
                label=label,
                method=method.id,
                preset=variant.preset,
                settings=method.model_dump(mode="json"),
                seed=seed,
                original_seed=original_seed,
                oracles=oracles,
                tier=study.tier,
                models=models,
                design=study.design,
                device=study.device,
                precision=study.precision,
                mask=variant.mask,
                chance=variant.chance,
            )
            yield replace(run, key=subject.run_key_of(run, method))


@dataclass(frozen=True)
class _Variant:
    """One way to unlearn."""

    preset: str | None
    method: Method
    mask: MaskSpec | None = None
    chance: str = ""

    def same(self, other: _Variant) -> bool:
        """Return whether two do the same, by whatever name."""
        return (self.method, self.mask) == (other.method, other.mask)

    def by_chance(self) -> tuple[str, _Variant] | None:
        """Return the same with its mask drawn at random, and what to call that mask."""
        own = localizer_of_method(self.method)
        chosen = self.mask or own
        if chosen is None or chosen.criterion == "random":
            return None
        drawn = chosen.by_chance()
        if self.mask is not None:
            return drawn.words, replace(self, mask=drawn)
        return drawn.words, replace(self, method=with_mask(self.method, Localizer.of(drawn)))


def _variants(study: Study, subject: StudyProblem) -> dict[str, _Variant]:
    """Return the methods by label; ``all`` leaves out those that are named, there or as well."""
    found: dict[str, _Variant] = {}
    named = {c.method for c in study.methods}
    for chosen in study.methods:
        if chosen.method == ALL:
            unknown = next((i for i in chosen.without if i not in methods()), None)
            if unknown is not None:
                raise UnknownNameError("method", unknown, methods())
            left_out = named | set(chosen.without)
            rest = [i for i in applicable_methods(subject.case, subject.parts) if i not in left_out]
            if chosen.masks:
                rest = [i for i in rest if not methods()[i].info.replaces]
            entries = [MethodEntry.model_construct(method=i, masks=chosen.masks) for i in rest]
        else:
            entries = [chosen]
        for entry in entries:
            for label, variant in _masked(entry):
                check_needs(variant.method, subject.case, subject.parts)
                if variant.mask is not None:
                    check_maskable(variant.method, Localizer.of(variant.mask), subject.parts)
                twin = _twin(found, variant)
                if label in found or twin is not None:
                    raise InputError(
                        f"study: methods: {label!r} is the same as {twin or label!r}; name each"
                        " once"
                    )
                found[label] = variant
    return found


def _twin(found: Mapping[str, _Variant], variant: _Variant) -> str | None:
    return next((n for n, v in found.items() if v.same(variant)), None)


def _masked(entry: MethodEntry) -> Iterator[tuple[str, _Variant]]:
    for label, method in _grid(entry):
        if not entry.masks:
            yield label, _Variant(entry.preset, method)
        for mask in entry.masks:
            yield f"{label} @ {mask.words}", _Variant(entry.preset, method, mask)


def _beside_chance(variants: Mapping[str, _Variant]) -> dict[str, _Variant]:
    """Return the methods, each that runs under a mask with a random one of its budget behind it."""
    found: dict[str, _Variant] = {}
    for label, variant in variants.items():
        made = variant.by_chance()
        if made is None:
            found[label] = variant
            continue
        words, other = made
        name = _twin(variants, other) or _twin(found, other)
        if name is None:
            name = f"{label.partition(' @ ')[0]} @ {words}"
            found |= {label: replace(variant, chance=name), name: other}
        else:
            found[label] = replace(variant, chance=name)
    return found


def _with_tuned(
    study: Study, case: str, variants: Mapping[str, _Variant], problems: StudyProblems
) -> dict[str, _Variant]:
    """Return the methods, each with what was found for it behind it, where that is another."""
    assert study.tune is not None
    wanted = tunable(study, case, problems)
    found: dict[str, _Variant] = {}
    for label, variant in variants.items():
        found[label] = variant
        if label not in wanted:
            continue
        path = tuned_settings_path(study.tune.folder, study.name, case, label)
        if not path.is_file():
            raise InputError(
                f"study: nothing is tuned for {label} on {case} yet, {str(path)!r} is missing; run"
                " unlearnkit study tune first"
            )
        kept = load_tuned_settings(path)
        if kept.found.search != search_key(study, case, label, problems):
            raise InputError(
                f"study: {str(path)!r} comes from another search; run unlearnkit study tune again"
            )
        if (tuned := kept.build()) != variant.method:
            found[f"{label} {TUNED}"] = _Variant(TUNED, tuned)
    return found


def _grid(chosen: MethodEntry) -> Iterator[tuple[str, Method]]:
    base = _nested(chosen.settings, chosen.method)
    start: Mapping[str, Any] = {}
    named = [chosen.preset] if chosen.preset else []
    if chosen.tuned is not None:
        start, named = _tuned_settings(chosen, chosen.tuned), [f"tuned {chosen.tuned.stem}"]
    fixed = dict(_flat(base))
    twice = sorted(set(fixed) & set(chosen.grid))
    if twice:
        raise InputError(
            f"study: methods: {chosen.method}: {twice[0]} is in settings and in grid; keep one"
        )
    for values in itertools.product(*chosen.grid.values()):
        changed = dict(zip(chosen.grid, values, strict=True))
        settings = deep_merge(base, _nested(changed, chosen.method))
        shown = [f"{k}={v}" for k, v in {**fixed, **changed}.items()]
        words = [chosen.method, *named, *shown]
        yield " ".join(words), make(chosen.method, chosen.preset, **deep_merge(start, settings))


def _tuned_settings(chosen: MethodEntry, path: Path) -> Mapping[str, Any]:
    job = load_tuned_settings(path).job
    if chosen.preset is not None or job.method != chosen.method:
        why = f"is of {job.method}" if job.method != chosen.method else "replaces a preset"
        raise InputError(
            f"study: methods: {chosen.method}: tuned: {str(path)!r} {why}; keep one of the two"
        )
    return job.settings


def _nested(given: Mapping[str, Any], who: str) -> dict[str, Any]:
    """Return settings with the dots of their names undone; mappings are put together."""
    found: dict[str, Any] = {}
    for name, value in _flat(given):
        set_dotted(found, name, value, who=f"study: methods: {who}")
    return found


def _flat(given: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
