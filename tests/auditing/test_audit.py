"""The verb as users call it: every task, every door, every number of oracles."""

import dataclasses
import re

import pytest
import torch

import unlearnkit as uk
from unlearnkit.auditing.audit_memory import AuditMemory
from unlearnkit.core.errors import InputError
from unlearnkit.report.report import Report
from unlearnkit.report.schema import Verdict
from unlearnkit.testing import toy_case

GO = uk.Rows(range(12))
BANNED = re.compile(r"certified|guaranteed|anonymous", re.IGNORECASE)
TASKS = {
    "classification": uk.Classification(3),
    "binary": uk.Classification(2),
    "multilabel": uk.MultiLabel(4),
    "regression": uk.Regression(2),
}


@pytest.fixture(scope="module", params=TASKS)
def problem(request):
    case = toy_case(TASKS[request.param])
    model = uk.train_original(case).model
    return case, uk.unlearn(model, case, GO, "finetune")


DISTANCES = ("js_forget", "divergence_forget", "margin_spread_forget")


@pytest.mark.parametrize("oracles", [0, 1, 2, 3, 5])
def test_every_task_and_number_of_oracles_gives_a_report(problem, oracles, tmp_path):
    case, done = problem
    truth = uk.oracle(case, GO, seeds=oracles) if oracles else None
    report = uk.audit(done, oracle=truth)
    assert report.tier == ("reference" if oracles else "fast")
    assert Report.load(report.save(tmp_path / "r.json")) == report
    assert not BANNED.search(report.full() + report.model_dump_json())
    compared = [r for r in report.rows if r.oracle is not None]
    assert bool(compared) == bool(oracles)
    if oracles < 3:
        assert all(r.gap_low is None and r.z is None for r in report.rows)
        assert Verdict.MATCHES not in {f.verdict for f in report.findings}
    if oracles in {1, 2}:
        one = "1 retrained model gives no intervals"
        assert (one if oracles == 1 else "2 retrained models give no intervals") in report.sentence
    distance = next(x for x in report.summary if x.metric in DISTANCES)
    assert (distance.name == "Distance to retrained") == bool(oracles), distance
    if oracles in {3, 4}:
        assert any("at least 5 are needed" in f.reason for f in report.findings)


def test_a_one_logit_head_is_audited_as_two_classes():
    case = toy_case(uk.Classification(2))

    def one_logit():
        return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))

    case = case.replace(fresh=one_logit)
    done = uk.unlearn(uk.train_original(case).model, case, GO, "finetune")
    report = uk.audit(done, oracle=uk.oracle(case, GO, seeds=3))
    assert report.row("js_forget").estimate.value is not None


def test_nothing_found_without_oracles_is_said_with_its_reservation():
    case = toy_case(TASKS["classification"])
    done = uk.unlearn(uk.train_original(case).model, case, GO, "finetune")
    report = uk.audit(done)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.reason == "Fast tests passed. They cannot detect single memorised records"


def test_parts_are_audited_as_the_whole_set_is():
    whole = toy_case(TASKS["classification"])
    x, y = whole.train.x, whole.train.y
    parts = uk.Case.from_parts(
        forget=(x[:12], y[:12]),
        retain=(x[12:], y[12:]),
        test=(whole.test.x, whole.test.y),
        validation=(whole.validation.x, whole.validation.y),
        task=whole.task,
        fresh=whole.fresh,
        recipe=whole.recipe,
    )
    model = uk.train_original(whole).model
    a = uk.audit(uk.unlearn(model, whole, GO, "ssd"))
    b = uk.audit(uk.unlearn(model, parts, None, "ssd"))
    assert a.row("margin_auc").estimate == b.row("margin_auc").estimate


def test_the_reference_tier_without_oracles_is_refused(problem):
    with pytest.raises(InputError, match="tier reference needs oracles"):
        uk.audit(problem[1], tier="reference")


def test_a_model_with_weights_that_are_not_finite_is_refused():
    case = toy_case(TASKS["classification"])
    done = uk.unlearn(uk.train_original(case).model, case, GO, "finetune")
    with torch.no_grad():
        done.model[0].weight[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"unlearned: 0\.weight has 1 of 96 values"):
        uk.audit(done)


def test_rows_that_stand_on_both_sides_are_counted():
    base = toy_case(TASKS["classification"])
    x, y = torch.cat([base.train.x, base.train.x[:4]]), torch.cat([base.train.y, base.train.y[:4]])
    case = uk.Case(train=(x, y), test=(base.test.x, base.test.y), task=base.task,
                   fresh=base.fresh, recipe=base.recipe)  # fmt: skip
    done = uk.unlearn(uk.train_original(case).model, case, uk.Rows(range(4)), "finetune")
    assert uk.audit(done).request_summary.duplicates == 4


def test_an_audit_changes_no_model_and_no_generator(problem):
    case, done = problem
    before = [p.detach().clone() for p in (*done.model.parameters(), *done.original.parameters())]
    state = torch.get_rng_state()
    uk.audit(done, oracle=uk.oracle(case, GO, seeds=3))
    after = [*done.model.parameters(), *done.original.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(state, torch.get_rng_state())


def test_what_was_found_out_about_oracles_is_not_found_out_again(problem):
    case, done = problem
    truth, again = uk.oracle(case, GO, seeds=3), uk.oracle(case, GO, seeds=3)
    memory = AuditMemory()
    report = uk.audit(done, oracle=truth, memory=memory)
    known = {name: dict(found) for name, found in memory.models.items()}
    assert len(known) == 3
    assert all(known.values())
    assert uk.audit(done, oracle=truth, memory=memory).rows == report.rows
    assert {n: {k: id(v) for k, v in f.items()} for n, f in memory.models.items()} == {
        n: {k: id(v) for k, v in f.items()} for n, f in known.items()
    }
    assert uk.audit(done, oracle=again, memory=memory).rows == report.rows
    assert len(memory.tables) == 1
    uk.audit(done, oracle=truth, rt=uk.Runtime(seed=1), memory=memory)
    assert len(memory.tables) == 2
    assert all(len(memory.models[n]) > len(found) for n, found in known.items())


def test_models_are_taught_again_where_what_is_to_be_reached_is_another(problem):
    case, done = problem
    truth, memory = uk.oracle(case, GO, seeds=3), AuditMemory()
    uk.audit(done, oracle=truth, memory=memory)
    worse = dataclasses.replace(done, original=case.fresh())
    mixed, alone = (
        uk.audit(worse, oracle=truth, memory=memory),
        uk.audit(worse, oracle=uk.oracle(case, GO, seeds=3)),
    )
    assert mixed.rows == alone.rows


def test_oracles_of_another_label_space_are_refused():
    case = toy_case(TASKS["classification"])
    done = uk.unlearn(uk.train_original(case).model, case, GO, "finetune")
    wide = torch.nn.Linear(16, 5)
    other = case.replace(
        task=uk.Classification(5),
        fresh=lambda: torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), wide),
    )
    with pytest.raises(InputError, match="oracle: trained for another task"):
        uk.audit(done, oracle=uk.oracle(other, GO, seeds=1))


def test_some_rows_of_a_single_class_are_audited_and_what_is_undefined_says_why():
    case = toy_case(TASKS["classification"])
    some = uk.Rows(range(0, 36, 3))
    done = uk.unlearn(uk.train_original(case).model, case, some, "finetune")
    report = uk.audit(done, oracle=uk.oracle(case, some, seeds=3))
    assert report.row("margin_auc").estimate.value is not None
    assert [r.metric for r in report.rows if r.estimate.value is None and not r.estimate.note] == []
