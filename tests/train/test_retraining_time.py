"""Retraining time: the estimate is that of a retraining, and its rows are counted."""

import torch

from unlearnkit.cases.digits import digits
from unlearnkit.core.request import Classes
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.loop import fit
from unlearnkit.train.retraining_time import STEPS, processor_seconds, seconds_a_row_pass


def test_it_is_the_processor_time_of_training_by_the_row_pass():
    torch.set_num_threads(1)
    case = digits()
    view = case.partition(Classes(3)).retain
    recipe = case.recipe.model_copy(update={"epochs": 10})
    rt = Runtime()
    found = min(
        seconds_a_row_pass(case.fresh(), view, case.task, recipe, Runtime()) for _ in range(5)
    )
    start = processor_seconds(rt.device)
    fit(case.fresh(), view, case.task, recipe, rt, stream="x")
    taken = (processor_seconds(rt.device) - start) / rt.cost.work
    assert 0.25 * taken < found < 2 * taken


def test_the_rows_are_counted():
    case, rt = digits(), Runtime()
    view = case.partition(Classes(3)).retain
    seconds_a_row_pass(case.fresh(), view, case.task, case.recipe, rt)
    assert rt.cost.work == 3 * STEPS * case.recipe.batch_size
