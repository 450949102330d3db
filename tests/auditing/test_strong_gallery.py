"""Methods that cheat, as ensembles of 64 models, on a small bench of real digits."""

import copy

import pytest
import torch
from torch import nn

from tests.auditing.liars import NoOp, push_outputs
from tests.auditing.planted import everything, seated
from unlearnkit.auditing.strong.placebo import PLACEBO
from unlearnkit.auditing.strong.results_table import strong_table
from unlearnkit.auditing.strong.scores import EnsembleScores
from unlearnkit.auditing.strong.train_ensembles import FLOOR, collect_margins, look, subject_of
from unlearnkit.auditing.verdicts_strong import strong_findings
from unlearnkit.cache import Cache
from unlearnkit.cases.digits import digits
from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Classes, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import oracle, train_originals
from unlearnkit.report.schema import Verdict

pytestmark = pytest.mark.slow

MODELS = 64
ADVERSE = {Verdict.LEAKS, Verdict.OVER_FORGOT, Verdict.DISTINGUISHABLE, Verdict.DAMAGED}
REQUESTS = {"random": Rows(range(40)), "class": Classes(3)}


def network():
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def bench():
    """A tenth of the training digits' rows, a small network, a short recipe."""
    whole = digits()
    x, y = whole.train.x[:300], whole.train.y[:300]
    return Case(
        train=(x, y),
        test=(whole.test.x, whole.test.y),
        task=whole.task,
        fresh=network,
        recipe=Recipe(lr=0.1, schedule="cosine", epochs=15, batch_size=50),
    )


class World:
    def __init__(self, root):
        self.cache, self.case, self.kept = Cache(root), bench(), {}

    def subject(self, request):
        return subject_of(self.case, REQUESTS[request], NoOp(), Runtime(), self.cache)

    def signals(self, request):
        if request not in self.kept:
            self.kept[request] = collect_margins(self.subject(request), MODELS)
        return self.kept[request]

    def originals(self):
        return [r.model for r in train_originals(self.case, seeds=MODELS, cache=self.cache)]

    def retrained(self, request, first=FLOOR):
        seeds = range(first, first + MODELS)
        return oracle(self.case, REQUESTS[request], seeds=seeds, cache=self.cache).models

    def judged(self, request, change, **options):
        """The table and verdicts of changed originals, and of placebo models changed alike."""
        signals = self.signals(request)
        for kind, models in (
            ("unlearned", self.originals()),
            (PLACEBO, self.retrained(request)),
        ):
            changed = [self.changed(m, change, i) for i, m in enumerate(models)]
            margins, errors = look(self.subject(request), changed)
            signals = seated(signals, margins, errors.float(), kind=kind)
        table = strong_table(signals, Runtime(), **options)
        return table, {f.verdict for f in strong_findings(table)}

    @staticmethod
    def changed(model, change, i):
        """A changed copy of a model; a change may also return another model."""
        model = copy.deepcopy(model)
        with torch.no_grad():
            return change(model, i) or model

    def seated(self, request, margins, errors, **options):
        signals = seated(self.signals(request), margins, errors.float())
        table = strong_table(signals, Runtime(), **options)
        return table, {f.verdict for f in strong_findings(table)}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("bench"))


def test_doing_nothing_leaks_and_every_attack_sees_it(world):
    table = strong_table(world.signals("random"), Runtime())
    assert Verdict.LEAKS in {f.verdict for f in strong_findings(table)}
    assert table.row("permutation_p").estimate.value <= 0.01
    assert table.row("ulira_auc").estimate.value > table.row("ulira_auc").oracle.mean + 0.1
    rmia = table.row("rmia_auc")
    assert rmia.gap_low > 0.02
    assert table.familiar > 0
    for metric in ("klom_forget_p95", "ensemble_wasserstein_forget", "epsilon_worst"):
        assert table.row(metric).estimate.value > table.row(metric).oracle.mean
    assert "64 unlearned models answer exactly as an original: nothing changed" in table.warnings


def test_eight_models_of_each_kind_are_enough_to_tell_nothing_from_retraining(world):
    few = world.signals("random").first(8)
    table = strong_table(few, Runtime(), judged_only=True)
    assert table.row("permutation_p").estimate.value <= 0.01


def test_random_weights_are_damaged(world):
    rt = Runtime()

    def change(model, i):
        rng = rt.fork(i).rng("weights")
        for p in model.parameters():
            p.copy_(0.1 * torch.randn(p.shape, generator=rng))

    table, verdicts = world.judged("random", change, judged_only=True)
    assert {Verdict.DAMAGED, Verdict.MEMORY_GONE} <= verdicts
    assert table.arm("memory").shift.value == 0.0


def test_ascent_that_blows_up_forgets_too_much_and_damages(world):
    forget = world.case.partition(REQUESTS["random"]).forget
    x, y = forget.data.x[forget.rows], forget.y

    def change(model, i):
        with torch.enable_grad():
            for _ in range(4):
                loss = nn.functional.cross_entropy(model(x), y)
                grads = torch.autograd.grad(loss, list(model.parameters()))
                for p, g in zip(model.parameters(), grads, strict=True):
                    p.data.add_(g, alpha=0.5 / (float(g.norm()) + 1e-9))

    table, verdicts = world.judged("random", change, judged_only=True)
    assert {Verdict.OVER_FORGOT, Verdict.DAMAGED} <= verdicts
    assert table.strange > table.familiar


@pytest.mark.exhaustive
def test_a_class_that_is_never_answered_is_not_a_class_that_was_never_seen(world):
    def change(model, i):
        model[-1].weight[3] = 0.0
        model[-1].bias[3] = -100.0

    table, verdicts = world.judged("class", change, judged_only=True)
    assert table.row("ensemble_accuracy_forget").estimate.value == 0.0
    assert verdicts & ADVERSE


@pytest.mark.exhaustive
def test_a_new_last_layer_on_old_features_is_told(world):
    retain = world.case.partition(REQUESTS["random"]).retain
    x, y = retain.data.x[retain.rows], retain.y

    def change(model, i):
        head, seen = model[-1], model[:-1](x)
        rng = Runtime(seed=i).rng("head")
        head.weight.copy_(0.1 * torch.randn(head.weight.shape, generator=rng))
        head.bias.zero_()
        target = nn.functional.one_hot(y, 10).float()
        for _ in range(150):
            gap = (head(seen).softmax(1) - target) / len(y)
            head.weight.sub_(2.0 * gap.T @ seen)
            head.bias.sub_(2.0 * gap.sum(0))

    assert world.judged("random", change, judged_only=True)[1] & ADVERSE


@pytest.mark.exhaustive
def test_softer_answers_keep_accuracy_and_move_retained_rows_too(world):
    def change(model, i):
        model[-1].weight.mul_(0.3)
        model[-1].bias.mul_(0.3)

    table, verdicts = world.judged("random", change)
    assert verdicts & ADVERSE
    for where in ("forget", "test"):
        row = table.row(f"ensemble_accuracy_{where}")
        assert row.estimate.value == row.original.value
    klom = table.row("klom_retained_p95")
    assert klom.estimate.value > 3 * klom.oracle.mean
    memory = table.arm("memory")
    assert Verdict.LEAKS in verdicts
    assert memory.auc.value == pytest.approx(memory.auc_original, abs=0.03)


def test_pushed_outputs_are_a_signature_and_the_memory_stays(world):
    forget = world.case.partition(REQUESTS["random"]).forget
    rows, classes = forget.data.x[forget.rows], forget.y
    table, verdicts = world.judged(
        "random", lambda m, i: push_outputs(m, rows, classes, 6.0), judged_only=True
    )
    memory, signature = table.arm("memory"), table.arm("signature")
    assert Verdict.LEAKS in verdicts
    assert not verdicts & {Verdict.MEMORY_GONE, Verdict.OVER_FORGOT}
    assert memory.auc.value == pytest.approx(memory.auc_original, abs=0.03)
    assert signature.shift.value < -1


def knows(world, model):
    """Whether a model answers the forget rows as one that was trained on them."""
    forget = world.case.partition(REQUESTS["random"]).forget
    go = world.signals("random").place("forget")
    means = [everything(world.signals("random"), who)[0][:, go].mean() for who in KINDS]
    out = model(forget.data.x[forget.rows]).double()
    own = out.gather(1, forget.y[:, None])
    others = out.scatter(1, forget.y[:, None], -torch.inf).logsumexp(1, keepdim=True)
    return float((own - others).mean()) > float(sum(means)) / 2, float(means[0] - means[1])


KINDS = ("original", "floor")


def test_a_method_that_acts_only_on_models_that_know_the_rows_passes_if_it_removes_them(world):
    third = world.retrained("random", FLOOR + MODELS)
    table, verdicts = world.judged(
        "random", lambda m, i: third[i] if knows(world, m)[0] else m, judged_only=True
    )
    assert not verdicts & ADVERSE
    assert Verdict.MEMORY_GONE in verdicts
    assert (table.arm("memory").familiar, table.arm("memory").strange) == (0, 0)


def test_a_method_that_acts_only_on_models_that_know_the_rows_is_caught_if_it_only_hides(world):
    forget = world.case.partition(REQUESTS["random"]).forget
    rows, classes = forget.data.x[forget.rows], forget.y

    def change(model, i):
        known, by = knows(world, model)
        if known:
            push_outputs(model, rows, classes, by)

    table, verdicts = world.judged("random", change, judged_only=True)
    assert verdicts & {Verdict.LEAKS, Verdict.OVER_FORGOT}
    assert Verdict.MEMORY_GONE not in verdicts
    assert abs(table.arm("signature").shift.value) < 0.5


@pytest.mark.parametrize(
    "place", ["among", *(pytest.param(p, marks=pytest.mark.exhaustive) for p in ("below", "above"))]
)
def test_one_margin_for_all_forget_rows_is_caught_wherever_it_lies(world, place):
    signals = world.signals("random")
    margins, errors = everything(signals, "floor")
    go, held = signals.place("forget"), margins[:, signals.place("held_out")]
    value = {"below": -60.0, "among": float(held.median()), "above": 60.0}[place]
    margins[:, go] = value
    errors[:, go] = float(value < 0)
    assert world.seated("random", margins, errors, judged_only=True)[1] & ADVERSE
    scores = EnsembleScores(seated(signals, margins, errors.float()), Runtime())
    ours, floor = (scores.klom(who, "forget").median for who in ("unlearned", "floor"))
    assert ours > 3 * floor


def test_copies_of_one_oracle_are_named_and_never_pass(world):
    margins, errors = everything(world.signals("random"), "oracle")
    copies = (margins[3:4].repeat(MODELS, 1), errors[3:4].repeat(MODELS, 1))
    table, verdicts = world.seated("random", *copies, judged_only=True)
    assert verdicts == {Verdict.INCONCLUSIVE}
    assert any("only 1 of 64" in t for t in table.warnings)


@pytest.mark.parametrize(
    "request_", ["random", pytest.param("class", marks=pytest.mark.exhaustive)]
)
def test_retraining_in_earnest_is_not_accused(world, request_):
    third = world.retrained(request_, FLOOR + MODELS)
    seen = look(world.subject(request_), third)
    table, verdicts = world.seated(request_, *seen, judged_only=True)
    assert not verdicts & ADVERSE, [f.reason for f in strong_findings(table)]
    assert (table.familiar, table.strange) == (0, 0)
