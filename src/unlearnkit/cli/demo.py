"""The first minute: a class and a random tenth of real data, forgotten and audited."""

from __future__ import annotations

from pathlib import Path

import torch

from unlearnkit.cli.console import Console
from unlearnkit.cli.runs import carry_out, examine
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.job import Job
from unlearnkit.report.schema import Report

SHOWN = {"class": "relabel", "random_tenth": "relabel"}
"""Requests of the digits case, and the method that each is shown with."""


def demo(root: Path, talk: Console) -> dict[Path, Report]:
    """Forget, retrain, audit and report each shown request.

    Args:
        root: Where the run folders go.
        talk: Hears how it comes along.

    Returns:
        The reports, by run folder.
    """
    torch.set_num_threads(1)  # networks this small only lose by sharing a step over cores
    found = {}
    for request, method in SHOWN.items():
        talk.say(f"digits, forget {request} with {method}")
        out = root / request
        carry_out(Job(case="digits", forget=request, method=method), out, force=True, talk=talk)
        found[out] = examine(out, tier=AuditTier.REFERENCE, oracles=5, device=None, talk=talk)
    return found
