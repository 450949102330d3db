"""Study plan: the runs of a study and the columns of its table, kept in the store.

``study run`` plans and keeps; what shows a study reads that, without torch and without its cases.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from unlearnkit.core.version import MEASURES, NUMERICS, __version__
from unlearnkit.localize.mask_spec import MaskSpec
from unlearnkit.store import Store
from unlearnkit.studies.columns import MetricColumn, metric_columns
from unlearnkit.studies.planning.run_spec import RunSpec
from unlearnkit.studies.spec import Study
from unlearnkit.studies.table_schema import Column

if TYPE_CHECKING:
    from unlearnkit.studies.planning.problem import StudyProblems  # it loads torch

_PER_RUN = ("key", "seed", "original_seed")
"""What differs between seeds of one method; everything else is written once."""


@dataclass(frozen=True)
class StudyPlan:
    """The runs of a study, and every metric that its table can show."""

    runs: tuple[RunSpec, ...]
    """In the order case, request, seed, method."""

    metrics: Mapping[str, MetricColumn]
    """By id."""


def make_plan(study: Study, problems: StudyProblems | None = None) -> StudyPlan:
    """Return the plan of a study: reads its cases and computes the key of each run."""
    from unlearnkit.studies.planning.expand import expand  # late: it loads torch

    return StudyPlan(expand(study, problems), metric_columns())


def load_or_make_plan(study: Study, store: Store) -> StudyPlan:
    """Return the plan in the store if nothing that decides it has changed, else a new one."""
    content = store.plan(study.name, plan_digest(study))
    return make_plan(study) if content is None else _from_json(content)


def keep_plan(study: Study, store: Store, plan: StudyPlan) -> None:
    """Keep the plan of a study in the store, in place of the one that it had."""
    store.save_plan(study.name, plan_digest(study), _to_json(plan))


def plan_digest(study: Study) -> str:
    """Return the digest of a study, of the files that it names and of the package's versions."""
    parts = {
        "study": repr(study),
        "files": [(str(p), _file_digest(p)) for p in _named_files(study)],
        "versions": [__version__, NUMERICS, MEASURES],
        "fields": [
            [f.name for f in fields(RunSpec)],
            [*MetricColumn.model_fields, *Column.model_fields],
        ],
    }
    return sha256(json.dumps(parts).encode()).hexdigest()


def _named_files(study: Study) -> Iterator[Path]:
    yield from (c.tuned for c in study.methods if c.tuned is not None)
    requests = [r for of_case in study.requests.values() for r in of_case]
    if study.tune is not None:
        yield from sorted(study.tune.folder.glob("*.yaml"))
        requests += [r for of_case in study.tune.requests.values() for r in of_case]
    for request in requests:
        values = request.partition("=")[2]
        if values.startswith("@"):
            yield Path(values[1:])


def _file_digest(path: Path) -> str | None:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _to_json(plan: StudyPlan) -> str:
    shared: dict[str, int] = {}
    runs = []
    for run in plan.runs:
        values = {f.name: getattr(run, f.name) for f in fields(RunSpec)}
        own = [values.pop(name) for name in _PER_RUN]
        values["mask"] = None if run.mask is None else run.mask.model_dump(mode="json")
        runs.append([shared.setdefault(json.dumps(values), len(shared)), *own])
    metrics = [m.model_dump(mode="json") for m in plan.metrics.values()]
    return json.dumps({"shared": [json.loads(s) for s in shared], "runs": runs, "metrics": metrics})


def _from_json(content: str) -> StudyPlan:
    held = json.loads(content)
    for values in held["shared"]:
        if values["mask"] is not None:
            values["mask"] = MaskSpec.model_validate(values["mask"])
    shared = held["shared"]
    runs = (
        RunSpec(**shared[i], **dict(zip(_PER_RUN, own, strict=True))) for i, *own in held["runs"]
    )
    metrics = [MetricColumn.model_validate(m) for m in held["metrics"]]
    return StudyPlan(tuple(runs), {m.column.id: m for m in metrics})
