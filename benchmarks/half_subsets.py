"""1,024 perceptrons on random halves of digits, as the datamodel back end trains them."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.measure import Fact, seconds
from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.attribution.datamodel import subset_plan
from unlearnkit.attribution.trained_outputs import TrainedOutputs
from unlearnkit.cache import Cache
from unlearnkit.cases.registry import CaseWithRequest
from unlearnkit.catalog import cases
from unlearnkit.core.runtime import Runtime
from unlearnkit.unlearning.run_method import fresh_model

MODELS, SHARE, GOAL = 1024, 0.5, 150.0


def run() -> Iterator[Fact]:
    """Yield the processor time on one core, outputs on all training rows included."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    asked = cases()["digits"].ask("random_tenth")
    try:
        with tempfile.TemporaryDirectory() as folder:
            spent = seconds(lambda: train(asked, Cache(Path(folder))), time.process_time)
    finally:
        torch.set_num_threads(threads)
    assert asked.case.recipe is not None
    yield Fact(
        f"{MODELS:,} perceptrons 64-128-10 on half of the rows of digits, trained together",
        spent,
        "seconds",
        goal=GOAL,
        how=f"{asked.case.recipe.epochs} epochs; processor time, one core, one run",
    )


def train(asked: CaseWithRequest, cache: Cache) -> None:
    """Train all of them and run them on the training rows."""
    assert asked.request is not None
    untrained = fresh_model(asked.case, Runtime())
    subject = AttributedModel.of_case(untrained, asked.case, asked.request)
    plan = subset_plan(len(subject.train), MODELS, SHARE)
    for _ in TrainedOutputs(subject, plan, subject.train, Runtime(), cache).blocks():
        pass
