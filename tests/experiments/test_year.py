"""The year of requests: equal arrivals for every policy, and a page that counts what happened."""

import json
import re

import pytest
import yaml

from experiments.year import POLICIES, Arrival, arrivals, simulate, write_policy
from experiments.year_page import page, plot
from unlearnkit.cache import Cache
from unlearnkit.ledger.policy import read_policy


def test_requests_arrive_as_often_as_they_should_and_name_each_row_once():
    found = arrivals(5000, 1.0, 1.0, 365)
    assert abs(len(found) - 365) < 4 * 365**0.5
    rows = [row for one in found for row in one.rows]
    assert len(rows) == len(set(rows))
    assert [a.day for a in found] == sorted(a.day for a in found)
    named = [len(a.rows) for a in found if a.rows]
    assert sum(named) / len(named) == pytest.approx(2, abs=4 / len(named) ** 0.5)
    share = sum(not a.rows for a in found) / len(found)
    assert abs(share - 0.03) < 4 * (0.03 / len(found)) ** 0.5


def test_the_first_days_are_the_same_however_long_the_year_is():
    short, long = arrivals(5000, 1.0, 1.0, 50), arrivals(5000, 1.0, 1.0, 365)
    assert long[: len(short)] == short
    assert isinstance(short[0], Arrival)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_is_one_that_the_ledger_reads(name, tmp_path):
    write_policy(tmp_path / "l", POLICIES[name])
    policy = read_policy(tmp_path / "l")
    assert policy.methods == tuple(POLICIES[name]["methods"])
    assert policy.batch.longest_wait_days == POLICIES[name]["days"]
    assert yaml.safe_load((tmp_path / "l/policy.yaml").read_text())["page"] is False


@pytest.mark.slow
def test_forty_days_are_answered_verified_and_put_on_the_page(tmp_path):
    kept = {"digits/fine-tune, rule": simulate("digits", "fine-tune, rule", 40, Cache(tmp_path))}
    (one,) = kept.values()
    want = [a for a in arrivals(1437, 0.6, 0.3, 40) if a.day < one["batches"][-1]["day"]]
    done = sum(b["requests"] for b in one["batches"])
    assert one["states"]["done"] == done
    assert one["states"].get("not found", 0) == sum(not a.rows for a in want)
    assert one["wrong"] == []
    assert all(b["state"] == "done" and b["waited"] < 18 for b in one["batches"])
    assert json.loads(json.dumps(kept)) == kept
    line = next(x for x in page(kept).splitlines() if x.startswith("| digits | fine-tune, rule |"))
    cells = [c.strip() for c in line.split("|")[1:-1]]
    assert cells[2] == f"{done} of {one['requests']}"
    assert int(cells[4]) == len(one["batches"])
    assert re.fullmatch(r"0\.\d{3} ± 0\.\d{3}", cells[12])
    plot(kept, tmp_path / "year.svg")
    assert "deadline of most" in (tmp_path / "year.svg").read_text("utf-8")
