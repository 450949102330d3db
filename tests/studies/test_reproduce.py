"""Published tables are repeated, and every line says whether it came out the same."""

import json
import math

import numpy as np
import pytest
import yaml
from scipy import stats

import unlearnkit as uk
from tests.studies.conftest import words
from tests.studies.test_run import BROKEN, log_every_put, put
from unlearnkit.cli import main
from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.reproduction import published_table as published
from unlearnkit.reproduction.published_table import load, make_published, names
from unlearnkit.reproduction.reproduce import compare, last_outcome, reproduce, why_not_runnable
from unlearnkit.studies.planning.expand import expand
from unlearnkit.studies.spec import ALL
from unlearnkit.studies.table.study_table import Table
from unlearnkit.studies.table_schema import Failure, ForgetSetTable, TableCell
from unlearnkit.studies.table_schema import TableRow as Row

SOURCE = {"title": "A paper", "arxiv": "2001.00001", "place": "Table 1", "read": "from the table"}


def line(**changes):
    base = {
        "of": "ssd",
        "request": "class=1",
        "metric": "accuracy_test",
        "printed": "0.9",
        "value": 0.9,
        "tolerance": 0.05,
        "why": "half a tenth",
    }
    return base | changes


def table(*lines, **changes):
    study = {k: v for k, v in words(**changes).items() if k != "name"}
    given = {"source": SOURCE, "setting": "Three clouds.", "takes": "a second"}
    return make_published("toy", {**given, "study": study, "lines": list(lines) or [line()]})


def cell(values):
    values = np.asarray(values, dtype=np.float64)
    return TableCell(mean=values.mean(), sd=values.std(ddof=1), count=len(values))


def found(value, *, label="ssd", failures=(), **counts):
    """The table of a study with one row and one column."""
    counts = {"count": value.count if value else 0} | counts
    cells = {"accuracy_test": value} if value else {}
    row = Row(label=label, kind="method", method="ssd", cells=cells, **counts)
    block = ForgetSetTable(
        case="toy", request="class=1", columns=("accuracy_test",), lines=(row,), pairs=(), oracles=3
    )
    return Table(
        study="toy", about="", design="FULL", tier="reference", seeds=(0, 1, 2), planned_runs=3,
        done=3, columns=(), blocks=(block,), failures=failures,
    )  # fmt: skip


SPREAD = np.array([-0.01, 0.0, 0.01])


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (cell(0.9 + SPREAD), "reproduced"),
        (cell(0.949 + SPREAD), "reproduced"),
        (cell(0.851 + SPREAD), "reproduced"),
        (cell(0.951 + SPREAD), "not reproduced"),
        (cell(0.849 + SPREAD), "not reproduced"),
        (cell(0.9 + 9 * SPREAD), "not comparable"),
        (cell(0.3 + 9 * SPREAD), "not comparable"),
        (cell([0.9, 0.9]), "not comparable"),
        (cell([math.nan] * 3), "not comparable"),
        (None, "not comparable"),
    ],
)
def test_a_line_is_judged_by_its_tolerance_and_by_how_sure_we_are(value, verdict):
    (got,) = compare(table(), found(value))
    assert got.verdict == verdict


def test_the_interval_is_students():
    values = 0.9 + 0.3 * SPREAD
    (got,) = compare(table(), found(cell(values)))
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (got.ours, got.low, got.high) == pytest.approx((0.9, low, high), rel=1e-12)
    assert got.count == 3


def test_a_failed_run_is_no_reproduction_however_near_the_others_are():
    (got,) = compare(table(), found(cell(0.9 + SPREAD), failed=1))
    assert (got.verdict, got.reason) == ("not reproduced", "1 of 4 runs failed")


def test_seeds_that_gave_one_model_have_no_interval_and_reproduce_nothing():
    (got,) = compare(table(), found(cell([0.9, 0.9, 0.9]), same=True))
    assert (got.verdict, got.low, got.high) == ("not comparable", None, None)
    assert "one model" in got.reason


def test_a_method_whose_runs_all_failed_says_why():
    failure = Failure(
        case="toy", request="class=1", label="ssd", seed=0, status="failed", error="it broke"
    )
    (got,) = compare(table(), found(None, failed=2, failures=(failure,)))
    assert (got.ours, got.reason) == (None, "no number: all 2 runs failed: it broke")


def test_a_line_names_its_method_by_id_or_by_label():
    near = found(cell(0.9 + SPREAD), label="ssd selection=5")
    assert compare(table(), near)[0].verdict == "reproduced"
    assert compare(table(line(of="ssd selection=5")), near)[0].verdict == "reproduced"
    with pytest.raises(InputError, match="no 'scrub' in the study; there are: ssd selection=5"):
        compare(table(line(of="scrub")), near)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tolerance": None}, "give tolerance and why, or not_comparable"),
        ({"why": ""}, "give tolerance and why, or not_comparable"),
        ({"request": "class=2"}, "no request of the study 'class=2'"),
        ({"tolerance": 0}, "tolerance"),
        ({"vlaue": 1}, "vlaue"),
    ],
)
def test_a_table_with_a_mistake_is_refused(change, told):
    with pytest.raises(InputError, match=told):
        table(line(**change))


def test_a_table_without_a_study_must_say_what_is_missing():
    given = {"source": SOURCE, "setting": "Faces.", "takes": "not known"}
    with pytest.raises(InputError, match="say in not_comparable what would be needed"):
        make_published("faces", {**given, "lines": [line()]})
    blocked = make_published("faces", {**given, "lines": [line(not_comparable="needs faces")]})
    assert why_not_runnable(blocked) == "there is nothing to run"


def test_an_unknown_table_is_told_with_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'digits_bench'"):
        load("digit_bench")


@pytest.mark.parametrize("name", names())
def test_what_a_packaged_table_asks_for_exists(name):
    """Without reading data: methods with their settings build, and metrics are known."""
    asked = load(name)
    if asked.study is None:
        assert all(n.not_comparable for n in asked.lines)
        return
    assert set(asked.study.cases) <= set(uk.catalog.cases())
    methods = {c.method for c in asked.study.methods}
    assert ALL not in methods
    for chosen in asked.study.methods:
        uk.method(chosen.method, chosen.preset, **chosen.settings)
    for n in asked.lines:
        if not n.not_comparable:
            assert n.metric in uk.catalog.metrics()
            assert n.of in {"original", "oracle", *methods}


RECORDED = ("digits_bench",)
"""Tables whose outcome is recorded with the package; the others need data from elsewhere."""


def test_it_is_known_which_tables_have_a_recorded_outcome():
    assert tuple(name for name in names() if last_outcome(name) is not None) == RECORDED


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_outcome_is_of_the_table_as_it_is(name):
    last = last_outcome(name)
    assert last is not None
    assert last.lines
    assert tuple(c.line for c in last.lines) == load(name).lines


def test_the_study_is_run_once_and_the_lines_are_its_numbers(store, cache):
    log_every_put(store.path)
    asked = table(line(tolerance=1.0), line(of="original"), line(of="oracle"), seeds=3, oracles=3)
    first = reproduce(asked, store, cache)
    assert sorted(put(store.path)) == sorted(r.key for r in expand(asked.study))
    assert reproduce(asked, store, cache) == first
    assert len(put(store.path)) == 6
    runs = [r.key for r in store.runs() if r.method == "ssd"]
    by_hand = [n.value for n in store.run_values(runs, ["accuracy_test"]) if n.who == "unlearned"]
    mine = first.lines[0]
    assert (mine.ours, mine.count) == (pytest.approx(np.mean(by_hand)), 3)
    assert [c.count for c in first.lines] == [3, 3, 3]


def test_failing_runs_leave_the_other_lines_alone(store, cache):
    asked = table(line(of="finetune"), line(tolerance=1.0), methods=[BROKEN, "ssd"], seeds=3)
    got = reproduce(asked, store, cache)
    assert [c.ours is None for c in got.lines] == [True, False]
    assert "all 3 runs failed: finetune: diverged" in got.lines[0].reason


def test_without_the_device_nothing_is_run_and_every_line_says_so(store, cache):
    asked = table(line(), line(not_comparable="no such metric"), device="cuda:77")
    got = reproduce(asked, store, cache)
    assert [c.verdict for c in got.lines] == ["not comparable"] * 2
    assert "'cuda:77'" in got.lines[0].reason
    assert got.lines[1].reason == "no such metric"
    assert store.runs() == []
    assert list(cache.entries()) == []


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Call the command in this process with two tables of our own."""
    toy = table(line(tolerance=1.0), seeds=3)
    given = {"source": SOURCE, "setting": "Clouds.", "takes": "a second"}
    study = {k: v for k, v in words(seeds=3).items() if k != "name"}
    made = {**given, "study": study, "lines": [n.model_dump() for n in toy.lines]}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(made))
    made["study"]["device"] = "cuda:77"
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(made))
    for function in (published.load, published.names, last_outcome):
        monkeypatch.setattr(function, "__defaults__", (tmp_path,))
    monkeypatch.setattr("unlearnkit.reproduction.tables_markdown.facts.__defaults__", (tmp_path,))
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path / "cache"))

    def call(*given):
        store = ["--store", str(tmp_path / "s.sqlite")]
        monkeypatch.setattr("sys.argv", ["unlearnkit", "reproduce", *given, *store])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, *capsys.readouterr()

    return call


def test_the_command_prints_each_line_and_ends_with_0(command):
    code, out, _ = command("toy")
    assert code == 0
    assert "Source: A paper, arXiv:2001.00001, Table 1." in out
    assert out.splitlines()[-1] == "1 reproduced"


def test_what_the_command_prints_as_json_is_what_is_recorded(command, tmp_path):
    code, out, _ = command("toy", "--json")
    (tmp_path / "toy.json").write_text(out)
    assert (code, json.loads(out)["lines"][0]["verdict"]) == (0, "reproduced")
    listed = json.loads(command("--json")[1])
    assert [(f["name"], f["outcome"]) for f in listed] == [
        ("far", "not run yet, so not comparable: 1 printed numbers"),
        ("toy", "1 reproduced"),
    ]


def test_a_table_that_cannot_be_run_here_is_printed_and_ends_with_1(command):
    code, out, err = command("far")
    assert code == 1
    assert out.splitlines()[-1] == "1 not comparable"
    assert err.startswith("unlearnkit: reproduce: far was not run here: device")
