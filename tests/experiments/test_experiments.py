"""Experiments: draws that were made are kept, and pages count what they say they count."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.__main__ import experiment_names
from experiments.false_alarms import Draws
from experiments.placebo_page import spread
from experiments.regression_audit import KIND, LIKE, REACH, matched, page

ROOT = Path(__file__).parents[2]


def test_only_modules_with_a_main_are_experiments():
    known = experiment_names()
    assert {"auto", "placebo", "regression_audit"} <= set(known)
    assert not {"placebo_page", "small_cases"} & set(known)


def test_options_after_the_name_go_to_the_experiment():
    told = subprocess.run(
        [sys.executable, "-m", "experiments", "false_alarms", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "python -m experiments false_alarms" in told
    assert "--draws" in told


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.stem)
def test_a_benchmark_loads_no_experiment(path):
    assert "experiments" not in path.read_text(encoding="utf-8")


def test_a_draw_that_was_kept_is_not_made_again(tmp_path):
    made = []

    def one(draw):
        made.append(draw)
        return ["even"] if draw % 2 == 0 else ["odd", "late"]

    path = tmp_path / "part.jsonl"
    assert Draws(path).rates("x", 2, one) == {"even": 0.5, "late": 0.5, "odd": 0.5}
    with path.open("a") as file:
        file.write('\n{"x/2": ["ev')  # cut off by a kill
    assert Draws(path).rates("x", 4, one) == {"even": 0.5, "late": 0.5, "odd": 0.5}
    assert made == [0, 1, 2, 3]
    assert Draws(path).rates("x", 4, one) == {"even": 0.5, "late": 0.5, "odd": 0.5}
    assert made == [0, 1, 2, 3]


def area(mean, error=0.01):
    far = (mean - 0.5) / error
    return {
        "oracles": mean,
        "standard error": error,
        "away in standard errors": far,
        "furthest oracle, over rows alone": far,
        "original": 0.8,
    }


def test_an_attack_is_judged_by_the_closest_match_of_a_request():
    every = {LIKE: area(0.9), KIND: area(0.5)}
    assert matched(every) == (KIND, every[KIND])
    assert matched({LIKE: every[LIKE]}) == (LIKE, every[LIKE])
    assert matched({}) is None


@pytest.mark.parametrize(
    ("mean", "told"),
    [
        (0.5 + 0.0099 * REACH, "on 1 of 1 requests; beyond: none; no match: none"),
        (0.5 + 0.0101 * REACH, "on 0 of 1 requests; beyond: c/r; no match: none"),
        (math.nan, "on 0 of 1 requests; beyond: none; no match: c/r"),
    ],
)
def test_the_page_counts_requests_within_reach_beyond_and_without_a_match(mean, told):
    found = {"c/r": {"rows": {"forget": 9}, "auc": {LIKE: area(mean)}}}
    assert told in page(found, 3)


@pytest.mark.parametrize(
    ("heights", "gap", "moved"),
    [
        ([0.1, 0.5, 0.9], 0.1, [0.1, 0.5, 0.9]),
        ([0.5, 0.5, 0.52], 0.1, [0.5, 0.6, 0.7]),
        ([0.95, 0.95, 1.0], 0.1, [0.8, 0.9, 1.0]),
        ([0.5] * 4, 0.5, [0.25, 0.5, 0.75, 1.0]),
        ([], 0.1, []),
    ],
)
def test_labels_of_a_plot_stand_apart(heights, gap, moved):
    assert spread(heights, gap) == pytest.approx(moved)
