"""Run checks: what a run's record says, compared with its files and its case."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from unlearnkit.auditing.request_summary import training_digest
from unlearnkit.checkpoint import load_weights
from unlearnkit.cli.run_folder import RunFolderRecord
from unlearnkit.core.case import Case
from unlearnkit.core.content import architecture_digest
from unlearnkit.core.digest import digest, model_digest, tensor_digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.request import ForgetRequest
from unlearnkit.core.runtime import Runtime
from unlearnkit.unlearning.run_method import fresh_model


def compare_case(
    record: RunFolderRecord, case: Case, request: ForgetRequest | None, who: str = "audit"
) -> list[str]:
    """Return warnings about a case that differs from the run's; changed rows are an error."""
    told: list[str] = []
    if record.schema_version == 1:
        told.append(
            "the run's record is of an older version and has no digests of test rows, owners,"
            " recipe and of itself: changes of these would not be noticed"
        )
    now = case_facts(case, request)
    known = {k: v for k, v in record.digests.items() if k in {*_WHAT, "architecture"}}
    names = known if record.schema_version == 1 else {*known, *now}
    changed = [k for k in names if now.get(k, "") != known.get(k, "")]
    wrong = [what for k, what in _WHAT.items() if k in changed]
    if wrong:
        raise InputError(
            f"{who}: {', '.join(wrong)} of {record.job.case} are no longer those of the run; run it"
            " again"
        )
    if "architecture" in changed:
        told.append(
            "the source of the model's classes or layers has changed since the run: the same"
            " weights may compute something else"
        )
    return told


def case_facts(case: Case, request: ForgetRequest | None) -> dict[str, str]:
    """Return the digests of all that a case gives to a run and to its audit, by name."""
    split = case.partition(request)
    rows = {"test": case.test, "validation": case.validation, "held_out": case.held_out}
    found = {"train": training_digest(case)} | {
        k: d.key() for k, d in rows.items() if d is not None
    }
    views = [v for v in (split.forget, split.retain) if v is not None]
    owners = [v.data.group for v in views if v.data.group is not None]
    if owners:
        names = {} if case.keys.owners is None else {"names": case.keys.owners}
        found["owners"] = digest({"owners": [tensor_digest(t) for t in owners], **names})
    if split.forget is not None:
        found["forget"] = tensor_digest(split.forget.rows)
    if case.recipe is not None:
        found["recipe"] = digest(case.recipe.model_dump(mode="json"))
    if case.train_model is not None:
        found["train_model"] = digest(case.train_model.spec())
    found["task"] = digest(dict(case.task.spec()))
    if case.fresh is not None:
        found["architecture"] = architecture_digest(fresh_model(case, Runtime()))
    return found


def recorded_weights(
    case: Case, rt: Runtime, path: Path, want: str, who: str = "audit"
) -> nn.Module:
    """Return the weights of a run folder; others than those that were recorded are an error."""
    model = load_weights(fresh_model(case, rt), path)
    if model_digest(model) != want:
        raise InputError(f"{who}: {str(path)!r} was changed after the run; run it again")
    return model


_WHAT = {
    "train": "training rows",
    "test": "test rows",
    "validation": "validation rows",
    "held_out": "held-out rows",
    "owners": "owners of the rows",
    "forget": "rows to forget",
    "recipe": "recipe",
    "train_model": "training loop",
    "task": "task",
}
"""Parts of a case whose change is an error, by name of their digest."""
