"""The leave-out estimate, against models trained one by one and counts made by hand."""

import numpy as np
import pytest
import torch

import unlearnkit as uk
from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import Runtime
from unlearnkit.difficulty.memorization import leave_out
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case
from unlearnkit.train.loop import fit
from unlearnkit.train.rng_guard import seeded_global_rngs

MODELS, SIZE = 12, 42


def tiny():
    case = toy_case(Classification(3))
    plain = case.fresh
    train = case.train.with_targets((case.train.y + (torch.arange(60) < 3)) % 3)
    return case.replace(
        train=train,
        fresh=lambda: plain().double(),
        recipe=case.recipe.model_copy(update={"epochs": 4}),
    )


def by_hand(case):
    """Train each model alone and take the difference of masked means."""
    right, inside = np.zeros((MODELS, 60)), np.zeros((MODELS, 60), dtype=bool)
    for seed in range(MODELS):
        rt = Runtime(seed=seed)
        rows = torch.randperm(60, generator=rt.rng("leave out/subset"))[:SIZE].sort().values
        with seeded_global_rngs(rt, "train/init"):
            model = case.fresh()
        fit(model, View(case.train, rows), case.task, case.recipe, rt, stream="leave out")
        with torch.inference_mode():
            answers = model(case.train.x.double()).argmax(1)
        right[seed] = (answers == case.train.y).numpy()
        inside[seed, rows.numpy()] = True
    return right, inside


def test_the_estimate_is_the_difference_of_masked_means(tmp_path):
    case = tiny()
    found = leave_out(case, models=MODELS, cache=uk.Cache(tmp_path))
    right, inside = by_hand(case)
    p = np.ma.masked_array(right, ~inside).mean(0).filled(np.nan)
    q = np.ma.masked_array(right, inside).mean(0).filled(np.nan)
    assert np.array_equal(found.trained, inside.sum(0))
    assert (found.trained + found.others).tolist() == [MODELS] * 60
    np.testing.assert_allclose(found.memorised, p - q, rtol=1e-12, atol=1e-15)
    error = np.sqrt(p * (1 - p) / inside.sum(0) + q * (1 - q) / (~inside).sum(0))
    np.testing.assert_allclose(found.error, error, rtol=1e-12, atol=1e-15)


def test_planted_wrong_labels_are_memorised_and_others_are_not(tmp_path):
    case = tiny()
    case = case.replace(recipe=case.recipe.model_copy(update={"epochs": 60, "lr": 0.2}))
    scores = leave_out(case, models=24, cache=uk.Cache(tmp_path)).memorised
    assert float(scores[:3].min()) > float(scores[3:].quantile(0.9))
    assert float(scores[3:].mean()) < 0.25


def test_a_longer_call_trains_only_what_a_shorter_one_did_not(tmp_path):
    case, cache = tiny(), uk.Cache(tmp_path)
    leave_out(case, models=4, cache=cache)
    short = {e.name for e in cache.entries()}
    leave_out(case, models=6, cache=cache)
    long = {e.name for e in cache.entries()}
    assert len(short) == 4
    assert short < long
    assert len(long) == 6


def test_an_interrupted_call_ends_as_an_uninterrupted_one(tmp_path):
    case = tiny()
    leave_out(case, models=3, cache=uk.Cache(tmp_path / "a"))
    resumed = leave_out(case, models=6, cache=uk.Cache(tmp_path / "a"))
    whole = leave_out(case, models=6, cache=uk.Cache(tmp_path / "b"))
    assert torch.equal(resumed.memorised.nan_to_num(9), whole.memorised.nan_to_num(9))


@pytest.mark.parametrize("asked", [{"models": 1}, {"share": 0.0}, {"share": 1.0}, {"share": 0.999}])
def test_too_few_models_or_no_row_left_out_is_refused(asked):
    with pytest.raises(InputError, match="two models or more and a share"):
        leave_out(tiny(), **asked)
