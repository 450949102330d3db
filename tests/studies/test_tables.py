"""A study's table against SciPy and hand computations."""

import csv
import json
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.studies.made import SCRIPT, chosen, filled, plan, results, study, values
from unlearnkit.auditing.metric_table import rule_of
from unlearnkit.catalog import metrics
from unlearnkit.core.errors import InputError, UnknownNameError, UnsupportedError
from unlearnkit.report.report import Report
from unlearnkit.report.schema import Estimate, MetricRow, OracleValue
from unlearnkit.report.store_rows import report_measurements
from unlearnkit.stats.oracle_gap import compare
from unlearnkit.store import Run, Store
from unlearnkit.studies import columns as c
from unlearnkit.studies.planning.expand import expand
from unlearnkit.studies.table.build_table import show, tabulate
from unlearnkit.studies.table.captions import (
    mean_text,
    pairs_with_best,
    shared_decimals,
    spread_text,
)
from unlearnkit.studies.table.load_results import Result, read
from unlearnkit.studies.table.study_table import FIELDS, Table
from unlearnkit.studies.table.study_text import render_text

CORE = [
    "accuracy_forget", "accuracy_retain", "accuracy_test", "js_forget", "closed_js_forget",
    "margin_auc", "cost_ratio",
]  # fmt: skip


def table(s=None, found=None, names=c.CORE, **more):
    s = s or study()
    return tabulate(s, found or results(s), *chosen(names), **more)


def made(metric, unlearned, oracles, original=None, s=None, label="ssd"):
    """The cell of one method whose numbers are given, one a seed and one an oracle."""
    s = s or study(methods=[label], requests=["class=3"], seeds=len(unlearned))
    found = []
    for i, p in enumerate(plan(s)):
        held = {(metric, f"oracle {k}"): v for k, v in enumerate(oracles)}
        held[metric, "unlearned"] = unlearned[i]
        if original is not None:
            held[metric, "original"] = original[i]
        found.append(Result(p, "done", values=held))
    names = [metric, *([f"closed_{metric}"] if original is not None else [])]
    return tabulate(s, found, *chosen(names)).blocks[0]


def of(metric, kind, p):
    return values(p)[metric, kind]


@pytest.fixture(scope="module")
def core():
    return table()


@pytest.mark.parametrize("metric", ["accuracy_test", "js_forget", "margin_auc", "cost_ratio"])
@pytest.mark.parametrize("label", ["ssd", "scrub"])
def test_a_mean_over_seeds_has_students_interval(core, metric, label):
    mine = [of(metric, "unlearned", p) for p in plan(study()) if p.label == label]
    x = np.array(mine[:5])
    want = stats.t.interval(0.95, 4, loc=x.mean(), scale=stats.sem(x))
    cell = core.blocks[0].line(label).cells[metric]
    np.testing.assert_allclose([cell.mean, cell.low, cell.high], [x.mean(), *want], rtol=1e-12)
    assert cell.count == 5
    np.testing.assert_allclose(cell.sd, x.std(ddof=1), rtol=1e-12)


@pytest.mark.parametrize(("rows", "judged"), [(20, "equivalent"), (1000, "different")])
def test_a_table_from_the_store_knows_how_many_rows_are_behind_a_report(tmp_path, rows, judged):
    s = study(methods=["ssd"], requests=["class=3"], seeds=3)
    estimate = Estimate(value=0.95, examples=rows)
    oracle = OracleValue(mean=0.9, sd=0.0, values=(0.9,) * 5)
    row = MetricRow.model_construct(metric="accuracy_test", estimate=estimate, oracle=oracle)
    report = Report.model_construct(rows=(row.model_copy(update={"original": None}),), strong=None)
    with Store(tmp_path / "s.sqlite") as store:
        for p in plan(s):
            run = Run(p.key, "study", p.case, p.request, p.method, p.seed, "done", "2030-01-01")
            store.save_run(run, report_measurements(report))
        found = read(plan(s), store, ["accuracy_test"])
    cell = tabulate(s, found, *chosen(["accuracy_test"])).blocks[0].line("ssd").cells
    alone = compare([0.95], [0.9] * 5, rule_of(metrics()["accuracy_test"]), examples=rows)
    assert (cell["accuracy_test"].judgement, alone.judgement) == (judged, judged)
    assert cell["accuracy_test"].margin == alone.margin == max(0.01, 2 / rows)


def test_the_oracles_have_a_line_with_their_mean_and_spread(core):
    p = plan(study())[0]
    x = np.array([of("accuracy_test", f"oracle {k}", p) for k in range(5)])
    line = core.blocks[0].lines[0]
    cell = line.cells["accuracy_test"]
    assert (line.kind, line.count) == ("oracle", 5)
    np.testing.assert_allclose([cell.mean, cell.sd], [x.mean(), x.std(ddof=1)], rtol=1e-12)
    assert cell.low is None


def test_a_spread_of_rounding_errors_reads_as_zero():
    block = made("accuracy_test", [0.18, 0.18 + 1e-16, 0.18, 0.18 - 1e-16, 0.18], [0.2, 0.1])
    line = block.line("ssd")
    assert spread_text(line, line.cells["accuracy_test"], 3) == "± 0.000"


def test_the_untouched_original_is_a_line_over_training_seeds(core):
    x = np.array([of("margin_auc", "original", p) for p in plan(study())[:20:4]])
    line = core.blocks[0].line("original")
    want = stats.t.interval(0.95, 4, loc=x.mean(), scale=stats.sem(x))
    cell = line.cells["margin_auc"]
    assert line.count == 5
    np.testing.assert_allclose([cell.mean, cell.low, cell.high], [x.mean(), *want], rtol=1e-12)
    assert line.cells["cost_ratio"].mean is None


def test_under_reuse_the_original_is_one_model_without_interval():
    line = table(study(design="REUSE")).blocks[0].line("original")
    assert line.count == 1
    assert line.cells["accuracy_forget"].low is None
    assert line.cells["accuracy_forget"].judgement == "not judged"


def test_the_gap_has_the_two_sample_interval_against_the_oracles():
    u, r = [0.95, 0.97, 0.96, 0.955], [0.90, 0.91, 0.905, 0.92, 0.915]
    cell = made("accuracy_test", u, r).line("ssd").cells["accuracy_test"]
    want = stats.ttest_ind(u, r).confidence_interval(0.95)
    assert cell.gap == pytest.approx(np.mean(u) - np.mean(r), rel=1e-12)
    np.testing.assert_allclose([cell.gap_low, cell.gap_high], want, rtol=1e-10)


def test_equivalence_is_two_one_sided_t_tests():
    u, r = [0.951, 0.950, 0.952, 0.949], [0.950, 0.9515, 0.949, 0.9505, 0.951]
    cell = made("accuracy_test", u, r).line("ssd").cells["accuracy_test"]
    margin = 0.01  # two oracle deviations are less
    p = max(
        stats.ttest_ind(np.array(u) + margin, r, alternative="greater").pvalue,
        stats.ttest_ind(np.array(u) - margin, r, alternative="less").pvalue,
    )
    assert cell.margin == margin > 2 * np.std(r, ddof=1)
    assert cell.p == pytest.approx(p, rel=1e-9)
    assert cell.judgement == "equivalent"


@pytest.mark.parametrize(
    ("u", "judged"),
    [
        ([0.950, 0.951, 0.949], "equivalent"),
        ([0.90, 0.91, 0.89], "different"),
        ([0.95, 0.80, 0.99], "not shown"),
        ([1.0, 0.99, 1.0], "different"),
    ],
)
def test_not_being_different_is_not_being_equivalent(u, judged):
    r = [0.950, 0.9505, 0.9495, 0.950, 0.9502]
    assert made("accuracy_test", u, r).line("ssd").cells["accuracy_test"].judgement == judged


def test_the_margin_of_a_metric_without_its_own_is_two_oracle_deviations():
    r = [0.90, 0.94, 0.96, 0.93, 0.91]
    cell = made("accuracy_test", [0.93] * 3, r).line("ssd").cells["accuracy_test"]
    assert cell.margin == pytest.approx(2 * np.std(r, ddof=1), rel=1e-12)


def test_a_distance_is_judged_with_the_deviation_that_a_candidate_has():
    r = [0.004, 0.005, 0.006, 0.0045, 0.0055]
    cell = made("js_forget", [0.006, 0.0061, 0.0062], r).line("ssd").cells["js_forget"]
    wide = np.mean(r) + (np.array(r) - np.mean(r)) * 4 / 3
    want = stats.ttest_ind([0.006, 0.0061, 0.0062], wide).confidence_interval(0.95)
    assert cell.margin == pytest.approx(2 * np.std(wide, ddof=1), rel=1e-12)
    np.testing.assert_allclose([cell.gap_low, cell.gap_high], want, rtol=1e-9)


def test_being_nearer_to_the_oracles_than_they_are_is_no_fault():
    r = [0.0050, 0.0051, 0.0049, 0.0050, 0.0050]
    near = made("js_forget", [0.001, 0.0011, 0.0009], r).line("ssd").cells["js_forget"]
    far = made("js_forget", [0.009, 0.0091, 0.0089], r).line("ssd").cells["js_forget"]
    assert (near.judgement, far.judgement) == ("equivalent", "different")


def test_the_closed_share_is_taken_seed_by_seed_from_its_own_original():
    r = [0.010, 0.012, 0.011]
    u, o = [0.05, 0.06, 0.03], [0.5, 0.6, 0.4]
    cell = made("js_forget", u, r, original=o).line("ssd").cells["closed_js_forget"]
    each = [(b - a) / (b - 0.011) for a, b in zip(u, o, strict=True)]
    assert cell.mean == pytest.approx(np.mean(each), rel=1e-12)
    assert cell.sd == pytest.approx(np.std(each, ddof=1), rel=1e-12)


def test_the_closed_share_is_refused_where_the_original_is_as_near_as_an_oracle():
    r = [0.010, 0.014, 0.018]
    block = made("js_forget", [0.011] * 3, r, original=[0.015] * 3)
    assert block.line("ssd").cells["closed_js_forget"].mean is None


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_have_no_interval_and_no_judgement(seeds):
    found = table(study(seeds=seeds))
    cells = [x for b in found.blocks for n in b.lines for x in n.cells.values()]
    assert all(x.low is None and x.gap_low is None and x.judgement == "not judged" for x in cells)
    assert any("no intervals" in note for note in found.notes)
    assert "±" not in str(found).partition("HOW TO READ")[0]


@pytest.mark.parametrize(("oracles", "judged"), [(1, False), (2, False), (3, True), (5, True)])
def test_equivalence_needs_three_oracles(oracles, judged):
    found = table(study(oracles=oracles))
    cells = [x for b in found.blocks for n in b.lines for x in n.cells.values()]
    assert any(x.judgement != "not judged" for x in cells) is judged
    assert any("oracle" in note for note in found.notes) is (oracles < 5)


def test_methods_are_paired_by_seed():
    s = study(seeds=6, requests=["class=3"])
    block = table(s).blocks[0]
    pair = next(p for p in block.pairs if (p.first, p.second) == ("finetune", "neggrad_plus"))
    by = {
        label: np.array([of("js_forget", "unlearned", p) for p in plan(s) if p.label == label])
        for label in (pair.first, pair.second)
    }
    d = by["finetune"] - by["neggrad_plus"]
    want = stats.ttest_rel(by["finetune"], by["neggrad_plus"]).confidence_interval()
    assert pair.metric == "js_forget"
    np.testing.assert_allclose(
        [pair.difference, pair.low, pair.high], [d.mean(), *want], rtol=1e-10
    )
    assert (pair.count, pair.p, pair.least_p) == (6, 2 / 64, 2 / 64)


def test_accuracies_are_paired_by_how_far_they_are_from_the_oracles():
    s = study(methods=["ssd", "scrub"], requests=["class=3"], seeds=3)
    over, under = [0.98, 0.99, 0.97], [0.92, 0.93, 0.94]
    found = []
    for p in plan(s):
        mine = {"ssd": over, "scrub": under}[p.label][p.seed]
        held = {("accuracy_test", f"oracle {k}"): 0.95 for k in range(3)}
        found.append(Result(p, "done", values={**held, ("accuracy_test", "unlearned"): mine}))
    (pair,) = tabulate(s, found, *chosen(["accuracy_test"])).blocks[0].pairs
    each = [abs(a - 0.95) - abs(b - 0.95) for a, b in zip(over, under, strict=True)]
    assert pair.difference == pytest.approx(np.mean(each), rel=1e-9)


def test_a_seed_that_one_method_lacks_is_in_no_pair():
    found = results(study())
    found[1] = Result(found[1].spec, "failed", "no")
    block = table(found=found).blocks[0]
    counts = {p.count for p in block.pairs if "ssd" in (p.first, p.second)}
    assert counts == {4}


def test_the_shown_pairs_are_with_the_nearest_method(core):
    shown = [p for p in pairs_with_best(core.blocks[0]) if p.metric == "js_forget"]
    assert len(shown) == 3
    assert len({p.second for p in shown}) == 1
    assert all(p.difference >= 0 for p in shown)


def test_failures_are_counted_and_listed():
    found = results(study())
    found[2] = Result(found[2].spec, "failed", "line\nDivergedError: nan")
    found[6] = Result(found[6].spec, "cancelled")
    found[10] = Result(found[10].spec)
    got = table(found=found)
    line = got.blocks[0].line("neggrad_plus")
    assert (line.count, line.failed, line.absent) == (2, 1, 2)
    assert [(f.status, f.seed) for f in got.failures] == [("failed", 0), ("cancelled", 1)]
    assert (got.planned_runs, got.done) == (40, 37)
    assert "neggrad_plus, seed 0: failed: DivergedError: nan" in str(got)


def test_undefined_numbers_are_left_out_and_counted():
    u = [0.5, None, 0.7, 0.6]
    cell = made("margin_auc", u, [0.6, 0.6, 0.61]).line("ssd").cells["margin_auc"]
    assert (cell.count, cell.mean) == (3, pytest.approx(0.6))


def test_an_infinite_number_has_no_interval_and_breaks_nothing():
    block = made("kl_forget", [1.0, float("inf"), 2.0], [0.1, 0.2, 0.1])
    cell = block.line("ssd").cells["kl_forget"]
    assert (cell.mean, cell.low, cell.judgement) == (float("inf"), None, "not judged")


def test_equal_models_under_reuse_are_one_point():
    s = study(design="REUSE")
    found = [
        replace(r, weights="same" if r.spec.label == "ssd" else r.spec.key) for r in results(s)
    ]
    got = table(s, found)
    assert [n.label for n in got.blocks[0].lines if n.same] == ["ssd"]
    assert got.blocks[0].line("ssd").cells["accuracy_test"].low is None
    assert got.blocks[0].line("scrub").cells["accuracy_test"].low is not None
    assert any("REUSE" in note and "ssd" in note for note in got.notes)


def test_a_forget_set_that_cannot_rank_methods_is_named():
    s = study(methods=["ssd"], requests=["class=3"])
    found = []
    for p in plan(s):
        near = 0.95 + 0.0005 * p.seed
        held = {("accuracy_test", who): near for who in ("unlearned", "original")}
        held |= {("accuracy_test", f"oracle {k}"): 0.951 + 0.0005 * k for k in range(5)}
        found.append(Result(p, "done", values=held))
    got = table(s, found, ["accuracy_test"])
    assert got.blocks[0].line("original").cells["accuracy_test"].judgement == "equivalent"
    assert any("cannot rank" in note for note in got.notes)
    assert not any("cannot rank" in note for note in table().notes)


@pytest.mark.parametrize("design", ["FULL", "REUSE"])
def test_the_design_is_printed_on_every_table(design):
    text = str(table(study(design=design)))
    assert text.count(f"(design {design})") == 2
    assert f"Design {design}:" in text


def test_each_column_says_which_direction_is_good_and_its_ideal(core):
    lines = str(core).splitlines()
    good = next(line for line in lines if line.startswith("good"))
    ideal = next(line for line in lines if line.startswith("ideal"))
    assert good.split()[1:] == ["oracle", "oracle", "oracle", "low", "high", "oracle", "low"]
    assert len(ideal.split()) == 7


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("names", [c.CORE, ["js_forget"], [*CORE, "kl_test", "js_test", "zrf"]])
@pytest.mark.parametrize("label", ["ssd", "ssd paper run.lr=0.1 selection=12.5 dampening=1.0 x=y"])
def test_text_fits_the_terminal_with_every_number_apart(names, label, width):
    s = study(methods=[label.split()[0], "scrub"])
    found = results(s, [label, "scrub"])
    found[0] = Result(found[0].spec, "failed", "x" * 900)
    made = table(s, found, names, keep_empty=True)
    text = render_text(made, width)
    assert max(map(len, text.splitlines())) <= width
    tokens = Counter(text.split())
    block = made.blocks[0]
    wanted = Counter(
        mean_text(n.cells[name], shared_decimals(block, name))
        for n in block.lines
        for name in block.columns
    )
    assert {x: n for x, n in wanted.items() if tokens[x] < n} == {}
    assert all(word in tokens for word in label.split())


def test_columns_without_any_number_are_left_out_unless_asked_for(core):
    assert list(core.blocks[0].columns) == CORE
    asked = table(names=["error_test", "accuracy_test"], keep_empty=True)
    assert asked.blocks[0].columns == ("error_test", "accuracy_test")


@pytest.mark.parametrize("name", ["js_forgot", "closed_accuracy_test", ""])
def test_an_unknown_column_is_told_with_the_nearest(name):
    with pytest.raises(UnknownNameError, match="column"):
        chosen([name])


@pytest.mark.parametrize("names", [None, ["js_forget", "cost_seconds"]])
def test_show_reads_what_is_in_the_store(tmp_path, names):
    s = study()
    runs = expand(s)
    with filled(tmp_path / "s.sqlite", runs, skip={7}, failed={5}) as store:
        got = show(s, store, names)
    want = [Result(p, "done", values=values(p)) for p in runs]
    want[7] = Result(want[7].spec)
    want[5] = Result(want[5].spec, "failed", f"DivergedError: {SCRIPT} is nan")
    assert got == table(s, want, names or c.CORE, keep_empty=names is not None)


def test_only_what_was_asked_for_is_read(tmp_path):
    s = study()
    with filled(tmp_path / "s.sqlite", plan(s)) as store:
        found = read(plan(s), store, ["js_forget"])
    assert {metric for r in found for metric, _ in r.values} == {"js_forget"}


def test_verdicts_are_counted_by_seed(tmp_path):
    s = study(methods=["ssd"], requests=["class=3"])
    told = ["LEAKS"] * 3 + ["DAMAGED"] * 2
    with filled(tmp_path / "s.sqlite", plan(s), verdicts=told) as store:
        found = read(plan(s), store, ["accuracy_test"])
    got = table(s, found, ["accuracy_test"])
    assert got.blocks[0].line("ssd").verdicts == {"LEAKS": 3, "DAMAGED": 2}
    assert "LEAKS 3/5" in str(got)


def test_json_comes_back_equal(core, tmp_path):
    path = core.save(tmp_path / "t.json")
    assert Table.model_validate_json(path.read_text("utf-8")) == core
    assert json.loads(path.read_text("utf-8"))["design"] == "FULL"


def test_csv_has_every_cell_of_the_table(core, tmp_path):
    with core.save(tmp_path / "t.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert list(rows[0]) == list(FIELDS)
    assert len(rows) == sum(len(n.cells) for b in core.blocks for n in b.lines)
    row = next(r for r in rows if r["label"] == "ssd" and r["metric"] == "accuracy_test")
    cell = core.blocks[0].line("ssd").cells["accuracy_test"]
    told = (float(row["mean"]), row["judged"], row["goal"])
    assert told == (cell.mean, "different", "match retraining")


def test_parquet_holds_what_the_csv_holds(core, tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    a = pd.read_parquet(core.save(tmp_path / "t.parquet"))
    b = pd.read_csv(core.save(tmp_path / "t.csv"), keep_default_na=False, na_values={"mean": ""})
    a, b = a[["label", "metric", "mean", "judged"]], b[["label", "metric", "mean", "judged"]]
    pd.testing.assert_frame_equal(a, b, check_dtype=False)


def test_parquet_without_its_packages_is_told(core, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnsupportedError, match=r"pip install pandas pyarrow"):
        core.save(tmp_path / "t.parquet")


def test_another_ending_is_refused(core, tmp_path):
    with pytest.raises(InputError, match=r"\.html, \.json"):
        core.save(tmp_path / "t.xlsx")


def test_a_study_that_never_ran_still_has_a_table():
    s = study()
    got = table(s, [Result(p) for p in plan(s)])
    assert (got.done, got.columns) == (0, ())
    assert "Nothing was measured yet." in str(got)


def test_before_anything_is_run_a_table_says_nothing_of_the_number_of_oracles():
    s = study()
    absent = table(s, [Result(p, "absent", values={}) for p in plan(s)])
    assert any("planned runs are not done" in note for note in absent.notes)
    assert not any("oracle" in note for note in absent.notes)
