"""Whether the layout of a study can change while nothing that is installed does."""

from __future__ import annotations

from collections.abc import Iterable

from unlearnkit.cases.registry import ModelSelectedRequest
from unlearnkit.catalog import cases, has_plugins
from unlearnkit.studies.spec import Study


def is_fixed(study: Study) -> bool:
    """Return whether the study, the files that it names and what is installed decide its layout.

    They do not where rows are read from outside, where models that are trained here point them
    out, or where a case, method or metric comes from elsewhere. Other devices than the CPU are
    there or not, which is asked each time.

    Args:
        study: The study.

    Returns:
        Whether they do.
    """
    tuned = {} if study.tune is None else study.tune.requests
    asked = {case: (*study.requests[case], *tuned.get(case, ())) for case in study.cases}
    ours = all(_is_fixed_case(case, requests) for case, requests in asked.items())
    return ours and study.device == "cpu" and not has_plugins()


def _is_fixed_case(name: str, requests: Iterable[str]) -> bool:
    case = cases().get(name)
    if case is None or case.rows == "read":
        return False
    return not any(isinstance(case.requests.get(r), ModelSelectedRequest) for r in requests)
