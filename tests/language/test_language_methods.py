"""Language-model methods: they forget, hold what stays, and follow their formulas."""

import pytest
import torch

import unlearnkit as uk
from tests.language.tiny import gpt2, people_case, questions, tokenizer, trained
from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.method import Problem
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.token_rows import TOKEN_TASKS
from unlearnkit.language.answers import answers, preference_term, sampled_answer
from unlearnkit.language.language_method import ForgetStep, ReferenceModel, TokenModel
from unlearnkit.language.unlearning_losses import kl_to_reference, npo, preference, squared_distance
from unlearnkit.train.early_stopping import OFF
from unlearnkit.train.features import row_losses

ANNA = uk.Groups("anna")
LANGUAGE = sorted(i for i, m in uk.catalog.methods().items() if m.info.tasks <= TOKEN_TASKS)
GUARDED = [m for m in LANGUAGE if m not in {"msa", "whp"}]
"""Those that need the model alone and stop by rules; the others have files of their own."""
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def mean_loss(model, view, case):
    return row_losses(model, view, case.task, Runtime()).mean().item()


def test_there_are_the_published_methods():
    assert set(LANGUAGE) == {
        *("altpo", "ceu", "grad_diff", "idk_dpo", "npo", "pdu", "rmu", "satimp", "simnpo"),
        *("msa", "task_vector", "undial", "wga", "whp"),
    }


@pytest.mark.parametrize("method", GUARDED)
def test_a_method_forgets_and_holds_what_stays(method):
    case, model = trained()
    done = uk.unlearn(model, case, ANNA, method)
    parts = done.parts
    before, after = (mean_loss(m, parts.forget, case) for m in (model, done.model))
    assert after > before + 0.001
    kept, now = (mean_loss(m, parts.retain, case) for m in (model, done.model))
    assert now <= kept + 0.01 * case.task.never_seen + 1e-4


@pytest.mark.parametrize("method", GUARDED)
def test_the_published_settings_are_a_preset_without_a_stop_rule(method):
    how = uk.method(method, "paper")
    assert how.guard == OFF
    assert how.run.recipe.optimizer == "adamw"
    assert how.run.recipe.lr == (1e-4 if method == "undial" else 1e-5)
    assert how.run.recipe.epochs == 10


def test_published_constants_are_the_presets_own():
    assert uk.method("npo", "paper").beta == 0.1
    simnpo = uk.method("simnpo", "paper")
    assert (simnpo.beta, simnpo.delta, simnpo.forget_weight) == (4.5, 0.0, 0.125)
    rmu = uk.method("rmu", "paper")
    assert (rmu.layer, rmu.coefficient, rmu.retain_weight) == (7, 2.0, 1.0)
    satimp = uk.method("satimp", "paper")
    assert (satimp.saturation, satimp.importance, satimp.forget_weight) == (5.0, 1.0, 0.1)
    assert (uk.method("undial", "paper").beta, uk.method("undial", "paper").retain_weight) == (
        10,
        0,
    )
    assert uk.method("grad_diff", "kl").retain_loss == "kl"


def problem(model=None):
    """Return the problem of a method, as the driver makes it, on the trained model."""
    case, original = trained()
    parts = case.partition(ANNA)
    return Problem(
        model=original if model is None else model,
        original=original.eval(),
        task=case.task,
        forget=parts.forget,
        retain=parts.retain,
        validation=View.all(case.validation),
        recipe=case.recipe,
    )


def step_of(p, size=2):
    batch = next(p.forget.batches(size, Runtime()))
    seen = TokenModel(p.model, p.task, p.forget)(batch)
    return ForgetStep(seen, ReferenceModel(p, Runtime()), p.model, p, Runtime(), 0)


def another():
    torch.manual_seed(7)
    return gpt2().eval()


def plain_sums(model, batch):
    """Return each row's log-probability by the model's own labels loss, row by row."""
    sums = []
    for i in range(len(batch)):
        x = {n: t[i : i + 1] for n, t in batch.x.items()}
        y = batch.y[i : i + 1]
        sums.append(-model(**x, labels=y).loss * (y[:, 1:] != -100).sum())
    return torch.stack(sums)


def test_npo_with_kept_log_probabilities_is_the_two_model_step():
    p = problem(another())
    step = step_of(p)
    got = uk.method("npo").forget_term(p, Runtime())(step)
    batch = step.rows.batch
    ratio = plain_sums(p.model, batch) - plain_sums(p.original, batch)
    want = -2 / 0.1 * torch.nn.functional.logsigmoid(-0.1 * ratio).mean()
    torch.testing.assert_close(got, want, **CLOSE)
    s = step.rows
    two = npo(s.logits, s.labels, s.mask, plain_sums(p.original, batch).detach())
    torch.testing.assert_close(got, two, **CLOSE)


def test_log_probabilities_of_the_original_are_computed_once_a_row():
    p, rt = problem(), Runtime()
    reference = ReferenceModel(p, rt)
    batch = next(p.forget.batches(2, Runtime()))
    first = reference.log_probs(batch)
    seen = rt.cost.forward
    assert seen == len(p.forget)
    assert torch.equal(reference.log_probs(batch), first)
    assert rt.cost.forward == seen


def test_places_before_the_first_and_after_the_last_label_are_left_out_and_nothing_changes():
    case, _ = trained()
    p = problem(another())
    view = View.all(case.train)
    batch = next(view.batches(16, Runtime()))
    ends = torch.where(batch.y != -100, torch.arange(batch.y.shape[1]), 0).amax(1)
    short = batch.pick(ends == ends.min())
    cut = TokenModel(p.model, p.task, view)(short)
    want = p.task.losses(p.task.outputs(p.model, short), short)
    assert cut.labels.shape == cut.logits.shape[:2]
    assert cut.first > 1
    assert cut.batch.y.shape[1] < short.y.shape[1]
    torch.testing.assert_close(cut.nll("seq_mean"), want, **CLOSE)


def test_the_retain_term_is_the_loss_or_the_kl_to_the_original():
    p = problem(another())
    seen, reference = step_of(p).rows, ReferenceModel(p, Runtime())
    got = uk.method("npo").retain_term(seen, reference)
    torch.testing.assert_close(got, p.model(**seen.batch.x, labels=seen.batch.y).loss, **CLOSE)
    got = uk.method("npo", retain_loss="kl").retain_term(seen, reference)
    theirs = p.original(**seen.batch.x).logits[:, seen.first - 1 : -1]
    torch.testing.assert_close(got, kl_to_reference(seen.logits, theirs, seen.mask), **CLOSE)


def test_rmu_steers_the_block_s_output_and_holds_it_on_retained_rows():
    p = problem(another())
    step, how = step_of(p), uk.method("rmu", layer=1, coefficient=3.0)
    u = torch.rand(32, generator=Runtime().rng("rmu/direction"))
    with torch.no_grad():
        run = {m: m(**step.rows.batch.x, output_hidden_states=True) for m in (p.model, p.original)}
    hidden = {m: p_run.hidden_states[1][:, step.rows.first :] for m, p_run in run.items()}
    first = uk.method("rmu", layer=0, coefficient=3.0)
    got = first.forget_term(p, Runtime())(step)
    want = squared_distance(hidden[p.model], 3.0 * u / u.norm(), step.rows.mask)
    torch.testing.assert_close(got, want, **CLOSE)
    got = first.retain_term(step.rows, step.reference)
    want = squared_distance(hidden[p.model], hidden[p.original], step.rows.mask)
    torch.testing.assert_close(got, want, **CLOSE)
    upper = how.forget_term(p, Runtime())(step).item()
    assert upper != pytest.approx(want.item())


def test_rmu_needs_a_block_that_is_there():
    case, model = trained()
    with pytest.raises(InputError, match="the model has blocks 0 to 1, got 2"):
        uk.unlearn(model, case, ANNA, uk.method("rmu", layer=2))


def test_a_refusal_follows_the_prompt_of_each_forget_row():
    p = problem()
    reader = p.task.reader
    view, place = answers(p.forget, lambda prompt, own: reader.completion("no"), 32)
    ids, y = view.data.x["input_ids"], view.data.y
    assert len(view) == len(place) == 2
    assert [tokenizer().decode(t) for t in ids] == ["anna born no<eos>", "anna now no<eos><eos>"]
    assert (y != -100).sum(1).tolist() == [3, 3]


def test_the_preference_term_is_dpo_of_both_answers_against_the_original():
    p = problem(another())
    step = step_of(p)
    refusal = p.task.reader.completion("no")
    got = preference_term(p, Runtime(), lambda prompt, own: refusal, 0.1)(step)
    view, place = answers(p.forget, lambda prompt, own: refusal, 32)
    rows = torch.tensor([place[int(i)] for i in step.rows.batch.row])
    other = next(view.pick(rows).batches(2, Runtime()))
    sums = [plain_sums(m, b) for m in (p.model, p.original) for b in (other, step.rows.batch)]
    torch.testing.assert_close(got, preference(*sums, beta=0.1), **CLOSE)


def test_a_sampled_answer_is_as_long_and_starts_with_another_token():
    p = problem()
    draw = sampled_answer(p.original, p, Runtime(), "t")
    prompt, own = [5, 6, 7], [40, 41, 42]
    said = [draw(prompt, own) for _ in range(8)]
    assert all(len(s) == 3 and s[0] != 40 for s in said)
    assert said == [sampled_answer(p.original, p, Runtime(), "t")(prompt, own), *said[1:]]


def test_an_answer_without_room_is_refused():
    case = people_case(
        train=questions(), task=uk.CausalLM(processing_class=tokenizer(), max_length=12),
        processing_class=None,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"refused|no room for another answer"):
        answers(case.partition(ANNA).forget, lambda prompt, own: [3], 5)


def test_a_task_vector_of_nothing_changes_nothing_and_of_one_is_the_difference():
    case, model = trained()
    run = {"share": 0.1}
    same = uk.unlearn(model, case, ANNA, uk.method("task_vector", alpha=0.0, run=run))
    assert all(torch.equal(t, same.model.state_dict()[n]) for n, t in model.state_dict().items())
    # theta - (theta_ft - theta) and theta - 3 (theta_ft - theta), on one line through theta
    one, three = (
        uk.unlearn(model, case, ANNA, uk.method("task_vector", alpha=a, run=run, guard=OFF)).model
        for a in (1.0, 3.0)
    )
    moved = 0.0
    for (n, t), a, b in zip(
        model.state_dict().items(),
        one.state_dict().values(),
        three.state_dict().values(),
        strict=True,
    ):
        torch.testing.assert_close(b - t, 3 * (a - t), rtol=1e-4, atol=1e-6, msg=n)
        moved += float((a - t).abs().sum())
    assert moved > 0


def test_pdu_raises_the_weight_of_a_retain_loss_above_its_bound():
    p, how = problem(), uk.method("pdu", warmup=0.5, slack=0.0, dual_step=2.0, retain_weight=1.0)
    weigh = how.weighing(p, Runtime())
    bound = float(weigh(torch.tensor(0.0), torch.tensor(0.0), 0.0)) * -1
    some = p.retain
    batch = next(some.batches(len(some), Runtime()))
    assert bound == pytest.approx(p.original(**batch.x, labels=batch.y).loss.item(), rel=1e-5)
    retain = torch.tensor(bound + 0.5)
    values = [float(weigh(torch.tensor(0.0), retain, t)) for t in (0.0, 0.4, 0.5, 0.6)]
    assert values == pytest.approx([0.5, 0.5, 0.5, 1.0], rel=1e-4)
    assert float(weigh(torch.tensor(0.0), torch.tensor(bound - 9), 0.9)) < 0
    assert float(weigh(torch.tensor(0.0), torch.tensor(bound - 9), 0.9)) == 0.0


@pytest.mark.parametrize("method", ["npo", "task_vector"])
def test_without_validation_rows_a_run_goes_to_its_end_and_says_so(method):
    case, model = trained()
    done = uk.unlearn(
        model, case.replace(validation=None), ANNA, uk.method(method, run={"share": 0.1})
    )
    assert any("no validation rows" in n for n in done.notes)


def test_methods_of_other_tasks_are_refused_with_those_that_serve():
    case, model = trained()
    with pytest.raises(UnsupportedError, match=r"not causal_lm; these do: altpo, ceu, finetune"):
        uk.unlearn(model, case, ANNA, "ssd")
