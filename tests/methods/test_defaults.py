"""What the defaults must reach on digits, through the public functions and the library's audit."""

import pytest
import torch

import unlearnkit as uk
from unlearnkit.cases.digits import a_mislabelled_tenth, one_class

GOALS = [
    pytest.param(one_class, 0.9, 4, id="class 3"),
    pytest.param(a_mislabelled_tenth, 0.6, 2, id="mislabelled tenth"),
]
TRAINING = ["amnesiac", "del_localized", "l1_sparse", "neggrad_plus", "relabel", "scrub"]
"""Published methods; ``finetune`` is what they are measured against."""

LAST = ["cf_k", "eu_k"]
"""Published methods that train the last layers alone: what earlier ones hold stays."""

OURS = ["relabel_restart", "shrink_perturb", "warm_restart"]
QUICK = ["gradient_ascent", "ssd"]


def closed(asked, method, model, reference):
    """Return the closed share of the Jensen-Shannon distance, having checked cost and accuracy."""
    done = uk.unlearn(model, asked.case, asked.request, method)
    report = uk.audit(done, oracle=reference, placebo=False, recipe_check=False)
    rows = {row.metric: row for row in report.rows}
    assert report.cost.ratio <= 0.2, method
    assert abs(rows["accuracy_retain"].gap) <= 0.02, method
    return rows["js_forget"].gap_closed


def test_defaults_keep_what_stays_for_a_fifth_of_retraining():
    asked = one_class()
    parts, model = asked.case.partition(asked.request), uk.train_original(asked.case).model
    whole = 3 * asked.case.recipe.epochs * len(parts.retain)
    x, y = parts.retain.data.x[parts.retain.rows], parts.retain.y
    kept = {}
    for name in (*TRAINING, *LAST, *OURS, *QUICK):
        done = uk.unlearn(model, asked.case, asked.request, name)
        assert done.cost.work <= 0.2 * whole, name
        with torch.no_grad():
            kept[name] = float((done.model.eval()(x).argmax(1) == y).float().mean())
    assert min(kept.values()) >= 0.98, kept


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize(("make", "share", "wanted"), GOALS)
def test_defaults_come_near_retraining_for_a_fifth_of_its_cost(make, share, wanted, tmp_path):
    asked, cache = make(), uk.Cache(tmp_path)
    model = uk.train_original(asked.case, cache=cache).model
    reference = uk.oracle(asked.case, asked.request, seeds=3, cache=cache)
    got = {m: closed(asked, m, model, reference) for m in [*TRAINING, *OURS, *QUICK]}
    assert sum(got[m] >= share for m in TRAINING) >= wanted, got
    # all nine do today; one that falls far behind is a defect of its own
    assert min(got[m] for m in [*TRAINING, *OURS]) >= share - 0.05, got
    assert min(got[m] for m in QUICK) >= 0, got
