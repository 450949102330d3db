"""Results: what the store holds of a study's runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from unlearnkit.store import Status, Store
from unlearnkit.studies.planning.run_spec import VERDICT, WEIGHTS, RunSpec


@dataclass(frozen=True)
class Result:
    """One planned run and what came of it."""

    spec: RunSpec
    status: Status | Literal["absent"] = "absent"
    """``absent``: it was not tried yet."""

    error: str = ""
    values: dict[tuple[str, str], float | None] = field(default_factory=dict)
    """By metric and model; None where it is undefined."""

    examples: dict[str, int] = field(default_factory=dict)
    """Rows behind a metric's values, where they are known."""

    verdict: str = ""
    """The headline of its audit, where it was kept."""

    weights: str = ""
    """Digest of the unlearned model, where it was kept."""


def read(plan: Sequence[RunSpec], store: Store, metrics: Iterable[str]) -> list[Result]:
    """Return what came of planned runs, in order; only these metrics are read from the store."""
    keys = [p.key for p in plan]
    ended = store.statuses_and_errors(keys)
    verdicts, weights = store.fact_by_run(keys, VERDICT), store.fact_by_run(keys, WEIGHTS)
    found = {
        p.key: Result(
            p,
            *ended.get(p.key, ("absent", "")),
            verdict=verdicts.get(p.key, ""),
            weights=weights.get(p.key, ""),
        )
        for p in plan
    }
    done = [key for key, r in found.items() if r.status == "done"]
    for number in store.run_values(done, metrics):
        found[number.run].values[number.metric, number.who] = number.value
        if number.examples:
            found[number.run].examples[number.metric] = number.examples
    return [found[key] for key in keys]
