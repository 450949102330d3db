"""Study problem: a case and a request, read once, with the keys of its models."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from unlearnkit.auditing.audit_memory import AuditMemory
from unlearnkit.auto.decision_table import PATH
from unlearnkit.cache import Cache
from unlearnkit.catalog import method as make
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.auto_method import Auto
from unlearnkit.core.case import Case, Partition
from unlearnkit.core.data import Data, View
from unlearnkit.core.digest import MEASURES, digest, source_code
from unlearnkit.core.method import Method
from unlearnkit.core.precision import Precision
from unlearnkit.core.request import ForgetRequest
from unlearnkit.core.runtime import Runtime
from unlearnkit.job import Job
from unlearnkit.localize.mask_spec import MaskSpec
from unlearnkit.oracles import (
    Oracles,
    TrainedModel,
    oracle,
    oracle_keys,
    original_key,
    train_original,
)
from unlearnkit.studies.planning.run_spec import RunSpec


@dataclass(frozen=True)
class StudyProblem:
    """A case, what must be forgotten, and where it is computed."""

    case: Case
    request: ForgetRequest | None
    rt: Runtime
    _keys: dict[tuple[str, int], list[dict[str, Any]]] = field(
        default_factory=dict, compare=False, repr=False
    )
    _digests: dict[tuple[str, int], list[str]] = field(
        default_factory=dict, compare=False, repr=False
    )
    """Of the keys: one original has runs of many methods."""

    memory: AuditMemory = field(default_factory=AuditMemory, compare=False, repr=False)
    """What audits of its runs found out about the oracles that are held."""

    _original: dict[int, TrainedModel] = field(default_factory=dict, compare=False, repr=False)
    _oracles: dict[int, Oracles] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def parts(self) -> Partition:
        """Return the forget set and the retain set."""
        return self.case.partition(self.request)

    def original_key(self, seed: int) -> dict[str, Any]:
        """Return the cache key of an original."""
        if ("original", seed) not in self._keys:
            self._keys["original", seed] = [original_key(self.case, seed, self.rt)]
        return self._keys["original", seed][0]

    def oracle_keys(self, count: int) -> list[dict[str, Any]]:
        """Return the cache keys of the first oracles."""
        if ("oracles", count) not in self._keys:
            wanted = oracle_keys(self.case, self.request, count, self.rt) if count else []
            self._keys["oracles", count] = wanted
        return self._keys["oracles", count]

    def run_key(
        self,
        method: Method,
        *,
        seed: int,
        original_seed: int,
        oracles: int,
        tier: AuditTier,
        models: int = 0,
        mask: MaskSpec | None = None,
    ) -> str:
        """Return the content address of a run: every input of training, unlearning and audit.

        Inputs are the source of plug-in methods and the decision table of ``auto``; methods of
        this package change with ``MEASURES``. Labels are no input.

        Returns:
            The digest.
        """
        masked = {} if mask is None else {"mask": mask.model_dump(mode="json")}
        return digest(
            {
                **masked,
                "measures": MEASURES,
                "original": self._digests_of("original", original_seed)[0],
                "oracles": self._digests_of("oracles", oracles),
                "rows": self._rows,
                "method": method.id,
                "settings": method.model_dump(mode="json"),
                "source": _foreign(type(method)),
                "seed": seed,
                "tier": tier,
                **({"models": models} if models else {}),
            }
        )

    def run_key_of(self, run: RunSpec, method: Method) -> str:
        """Return the content address of a planned run of this problem, by its method as built."""
        return self.run_key(
            method,
            seed=run.seed,
            original_seed=run.original_seed,
            oracles=run.oracles,
            tier=run.tier,
            models=run.models,
            mask=run.mask,
        )

    def _digests_of(self, kind: str, number: int) -> list[str]:
        if (kind, number) not in self._digests:
            original = kind == "original"
            keys = [self.original_key(number)] if original else self.oracle_keys(number)
            self._digests[kind, number] = [digest(k) for k in keys]
        return self._digests[kind, number]

    @cached_property
    def _rows(self) -> Mapping[str, str | None]:
        def key(rows: View | Data | None) -> str | None:
            return None if rows is None else rows.key()

        return {
            "forget": key(self.parts.forget),
            "retain": key(self.parts.retain),
            "test": key(self.case.test),
            "validation": key(self.case.validation),
            "held_out": key(self.case.held_out),
        }

    def drop_models(self) -> None:
        """Drop the trained models that are held in memory."""
        self._original.clear()
        self._oracles.clear()
        self.memory.clear()

    def original(self, seed: int, cache: Cache) -> TrainedModel:
        """Return an original, trained the first time; the last one is held in memory."""
        if seed not in self._original:
            self._original.clear()
            self._original[seed] = train_original(self.case, seed=seed, rt=self.rt, cache=cache)
        return self._original[seed]

    def oracles(self, count: int, cache: Cache) -> Oracles | None:
        """Return the oracles, trained the first time and held in memory; None for a count of 0."""
        if count and count not in self._oracles:
            self._oracles[count] = oracle(
                self.case, self.request, seeds=count, rt=self.rt, cache=cache
            )
        return self._oracles.get(count)


class StudyProblems:
    """The problems of a study: a process reads each of them once, and each case once.

    Rows that a study reads twice could differ; and reading can take longer than unlearning.
    """

    def __init__(self) -> None:
        self._problems: dict[tuple[str, str, str, str], StudyProblem] = {}
        self._cases: dict[str, Case] = {}
        self._held: StudyProblem | None = None

    def get(self, case: str, request: str, device: str, precision: Precision) -> StudyProblem:
        """Return the problem of a case and a request, read the first time."""
        name = (case, request, device, precision)
        if name not in self._problems:
            job = Job(case=case, forget=request, device=device, precision=precision)
            found = job.resolve(made=self._cases.get(case))
            if not job.has_named_request:
                self._cases[case] = found[0]
            rt = Runtime.on(device, precision=precision)
            self._problems[name] = StudyProblem(*found, rt)
        return self._problems[name]

    def of_run(self, run: RunSpec) -> StudyProblem:
        """Return the problem of a planned run."""
        return self.get(run.case, run.request, run.device, run.precision)

    def hold(self, run: RunSpec) -> StudyProblem:
        """Return the problem of a run that needs its models; those of another one are dropped."""
        found = self.of_run(run)
        if self._held is not None and self._held is not found:
            self._held.drop_models()
        self._held = found
        return found


def method_of(run: RunSpec) -> Method:
    """Return the method of a planned run."""
    return make(run.method, None, **run.settings)


def _foreign(kind: type[Method]) -> str | None:
    if kind is Auto:
        return digest({"table": PATH.read_text(encoding="utf-8")})
    if kind.__module__.startswith("unlearnkit."):
        return None
    return source_code(importlib.import_module(kind.__module__))
