"""What methods add to fine-tuning: attacks of known arms, and rows beside their baseline."""

import json

import pytest
import torch

from experiments.over_finetuning import SETTINGS, attack, merged, schedule_of, wanted
from unlearnkit import catalog
from unlearnkit.auditing.strong.margin_store import MarginMatrix, ModelId
from unlearnkit.core.token_rows import TOKEN_TASKS
from unlearnkit.docs import over_finetuning

ATTACK = {"auc": 0.5, "shift": 0.0}


def row(method, setting, schedule, memory):
    return {
        "setting": setting,
        "method": method,
        "schedule": schedule,
        "memory": {"auc": memory, "shift": 1.0},
        "likeness": ATTACK,
        **dict.fromkeys(("forget", "retain", "test", "cost"), 0.25),
    }


def margins(shift, models=16, examples=40):
    g = torch.Generator().manual_seed(0)
    every = torch.randn(2 * models, examples, generator=g, dtype=torch.float64)
    every[:models] += shift
    members = tuple(ModelId(who, i) for who in ("unlearned", "oracle") for i in range(models))
    codes = torch.zeros(every.shape, dtype=torch.uint8)
    return MarginMatrix(every, codes, every.float(), members, {"forget": torch.arange(examples)})


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 0.45, 0.55), (3.0, 0.95, 1.0)])
def test_an_attack_tells_what_differs_and_nothing_else(shift, low, high):
    found = attack(margins(shift), "unlearned", "oracle")
    assert low <= found.auc <= high
    assert found.shift == pytest.approx(shift, abs=0.3 + 0.3 * shift)


def test_every_published_method_with_a_schedule_in_units_of_the_recipe_is_compared():
    own = {"warm_restart", "relabel_restart", "shrink_perturb", "finetune"}
    other = {"emmn"}  # no retained rows
    flat = {i: m for i, m in catalog.methods().items() if not m.info.tasks <= TOKEN_TASKS}
    known = {i for i, m in flat.items() if schedule_of(m())}
    assert known - own - other <= {name for s in SETTINGS for name in s.methods}


def test_each_method_stands_beside_fine_tuning_on_its_own_schedule():
    lines = [(s.name, how.id, tuple(schedule_of(how).items())) for s, how in wanted()]
    asked = {(setting, schedule) for setting, _, schedule in lines if schedule}
    assert asked == {(setting, s) for setting, method, s in lines if method == "finetune"}


def test_a_page_shows_a_row_beside_the_baseline_of_its_schedule():
    fast, slow = {"lr": 2.0, "share": 0.1}, {"lr": 1.0, "share": 0.1}
    rows = [
        row("finetune", "a", fast, 0.91),
        row("finetune", "a", slow, 0.92),
        row("scrub", "a", slow, 0.73),
        row("scrub", "b", slow, 0.74),
        row("ours", "a", {}, 0.55),
    ]
    text = over_finetuning("scrub", rows)
    assert [m in text for m in ("0.730", "0.920", "0.740", "0.910", "0.550")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert over_finetuning("retrain", rows) == ""
    assert "on a schedule of its own" in over_finetuning("ours", rows)


def test_a_method_on_a_schedule_of_its_own_stands_beside_the_fine_tuning_of_its_cost():
    slow, brief = {"lr": 1.0, "share": 0.1}, {"lr": 1.0, "share": 0.03}
    rows = [
        {**row("finetune", "a", slow, 0.91), "cost": 0.1},
        {**row("finetune", "a", brief, 0.92), "cost": 0.03},
        {**row("ours", "a", {}, 0.55), "cost": 0.02},
    ]
    text = over_finetuning("ours", rows)
    assert ("0.920" in text, "0.910" in text) == (True, False)


def test_a_row_that_is_measured_again_takes_the_place_of_its_older_self(tmp_path):
    path, pace = tmp_path / "x.json", {"lr": 2.0, "share": 0.15}
    old = [row("scrub", "digits, class", pace, 0.9), row("gone", "digits, class", pace, 0.8)]
    path.write_text(json.dumps({"rows": old}))
    found = merged(path, row("scrub", "digits, class", pace, 0.7))
    assert [(r["method"], r["memory"]["auc"]) for r in found] == [("scrub", 0.7)]
    first = merged(path, row("finetune", "digits, class", pace, 0.6))
    assert [r["method"] for r in first] == ["finetune", "scrub"]
