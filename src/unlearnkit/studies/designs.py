"""What the sampling designs allow, and when a result of theirs misleads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from unlearnkit.store import Store
from unlearnkit.studies.planning.run_spec import RunSpec
from unlearnkit.studies.table.load_results import WEIGHTS


def design_warnings(runs: Iterable[RunSpec], store: Store) -> list[str]:
    """Return what a reader of a study must know about its design.

    Under ``REUSE`` all seeds start from one original. A method that draws nothing then gives the
    same model for each of them: its spread is 0 by construction, whatever the method is worth, and
    no interval means anything. It is recognised by its results: equal weights from unequal seeds.

    Args:
        runs: The study's runs.
        store: Where their results are; runs that are not there play no part.

    Returns:
        Sentences, one for each method that draws nothing; none under ``FULL``.
    """
    reused = [run for run in runs if run.design == "REUSE"]
    models = store.named_facts([run.key for run in reused], WEIGHTS)
    seen: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for run in reused:
        if run.key in models:
            seen[run.label, run.case, run.request].append(models[run.key])
    alike: dict[str, list[str]] = defaultdict(list)
    for (label, case, request), weights in seen.items():
        if len(set(weights)) < len(weights):
            alike[label].append(f"{case} {request}")
    return [
        f"REUSE: {label} gave the same model for different seeds ({', '.join(where)}); it draws"
        " nothing, so its spread says nothing: use design FULL"
        for label, where in alike.items()
    ]
