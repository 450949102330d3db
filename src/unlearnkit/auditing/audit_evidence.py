"""Evidence of an audit: the models at hand on the rows that are looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from unlearnkit.core.data import View
from unlearnkit.core.evidence import Evidence, Split
from unlearnkit.core.inference import first_rows
from unlearnkit.core.module_state import on_device
from unlearnkit.core.request import Rows
from unlearnkit.core.request_inference import infer_request
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.memory_format import to_channels_last_if_faster
from unlearnkit.unlearning.run_method import Unlearned, fresh_model


def evidence_of(
    done: Unlearned,
    views: Mapping[Split, View],
    rt: Runtime,
    *,
    oracles: Mapping[str, nn.Module] | None = None,
    found: Mapping[str, Any] | None = None,
) -> Evidence:
    """Return what metrics may ask about an unlearned model.

    Args:
        done: The model, with its original and its case.
        views: The rows of each split, the forget set among them.
        rt: Where to run.
        oracles: Retrained models by name; none when None.
        found: By name, what is known of them from earlier audits.
    """
    request = infer_request(done.request, done.parts)
    factory = None
    if done.case.fresh is not None:

        def factory(seed: int) -> nn.Module:
            return fresh_model(done.case, rt, f"audit/random/{seed}")

    few, task = first_rows(views[Split.FORGET], rt), done.case.task
    models = {"original": done.original, "unlearned": done.model, **(oracles or {})}
    return Evidence(
        {
            name: to_channels_last_if_faster(on_device(m, rt.device), few, task, rt)
            for name, m in models.items()
        },
        views,
        task,
        rt,
        random=factory,
        recipe=done.case.recipe,
        found=dict(found or {}),
        at_random=isinstance(request, Rows | None) and not done.parts.removed_classes,
    )
