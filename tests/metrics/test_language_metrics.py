"""Metrics of language models: the pure functions on what the models say, token by token."""

import copy
import json
import math
import zlib

import pytest
import torch

import unlearnkit as uk
from tests.language.tiny import gpt2, people_case, questions, tokenizer, trained
from unlearnkit.auditing.audit_evidence import evidence_of
from unlearnkit.auditing.splits import choose
from unlearnkit.catalog import metrics
from unlearnkit.core.canary import Canary
from unlearnkit.core.evidence import ModelRole
from unlearnkit.core.runtime import Runtime
from unlearnkit.language import (
    forget_quality,
    greedy_answers,
    model_utility,
    privacy_leak,
    rouge_l,
    truth_ratio,
)
from unlearnkit.stats.roc import auc
from unlearnkit.unlearning.outside_model import unlearned_outside

ANNA = uk.Groups("anna")
CLOSE = {"rel": 1e-4, "abs": 1e-6}
WRONG = ["paris", "minsk", "quito"]


def told(rows):
    """Return rows with the answer in other words and three wrong answers."""
    return [
        {
            **row,
            "paraphrased_answer": f"in {row['completion']}",
            "perturbed_answer": [f"in {w}" for w in WRONG],
        }
        for row in rows
    ]


def told_case():
    return people_case(train=told(questions()), test=told(questions(["otto", "paul", "quin"])))


def other_models():
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(gpt2().eval())
    return found


def evidence(case=None, request=ANNA):
    case, model = case or trained()[0], trained()[1]
    done = unlearned_outside(model, copy.deepcopy(model), case, request, Runtime())
    views = choose(case, done.parts, Runtime(), request).views
    models = {f"oracle/{k}": m for k, m in enumerate(other_models())}
    return evidence_of(done, views, Runtime(), oracles=models)


def score(name, e=None):
    return metrics()[name](evidence() if e is None else e)


def scores(model, rows):
    """Return what a model gives each answer and its end, read by itself."""
    out = []
    for row in rows:
        ids = torch.tensor([tokenizer()(row["prompt"] + row["completion"])["input_ids"] + [0]])
        start = len(row["prompt"])
        with torch.no_grad():
            logs = model(input_ids=ids).logits[0, start - 1 : -1].log_softmax(-1)
        p = logs.gather(1, ids[0, start:, None])[:, 0]
        mean = (logs.exp() * logs).sum(1)
        spread = ((logs.exp() * (logs - mean[:, None]) ** 2).sum(1)).sqrt()
        out.append((p, logs.argmax(1) == ids[0, start:], (p - mean) / spread))
    return out


def lowest(values, share=0.4):
    return values.sort().values[: max(1, int(share * len(values)))].mean()


def both(of):
    """Return a number of each forget row and of each never-seen row under the trained model."""
    _, model = trained()
    rows = questions(["anna"]), questions(["otto", "paul", "quin"])
    return [torch.stack([of(s, r) for s, r in zip(scores(model, x), x, strict=True)]) for x in rows]


def packed(row):
    return len(zlib.compress(row["completion"].encode()))


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("loss_attack_auc", lambda s, r: s[0].mean()),
        ("zlib_auc", lambda s, r: s[0].mean() / packed(r)),
        ("min_k_auc", lambda s, r: lowest(s[0])),
        ("min_k_plus_plus_auc", lambda s, r: lowest(s[2])),
    ],
)
def test_an_attack_s_auc_is_that_of_its_scores(name, of):
    assert score(name).value == pytest.approx(auc(*both(of)), **CLOSE)


def test_the_references_are_the_retrained_models():
    rows = questions(["anna"]), questions(["otto", "paul", "quin"])
    parts = []
    for x in rows:
        mine, *theirs = (
            torch.stack([s[0].mean() for s in scores(m, x)])
            for m in (trained()[1], *other_models())
        )
        parts.append(mine - torch.stack(theirs).mean(0))
    assert score("reference_auc").value == pytest.approx(auc(*parts), **CLOSE)


def test_privacy_leakage_is_the_mean_over_retrained_models_and_0_for_one_of_them():
    rows = questions(["anna"]), questions(["otto", "paul", "quin"])

    def pair(model):
        return tuple(torch.stack([lowest(s[0]) for s in scores(model, x)]) for x in rows)

    want = [privacy_leak(pair(trained()[1]), pair(m)) for m in other_models()]
    assert score("privacy_leakage").value == pytest.approx(sum(want) / 2, **CLOSE)
    e = evidence()
    e._models["oracle/1"] = e._models["oracle/0"]
    assert score("privacy_leakage", e.with_candidate(ModelRole.ORACLE, 0)).value == 0


def test_memorization_is_counted_on_the_tokens_of_answers():
    right = [s[1] for s in scores(trained()[1], questions(["anna"]))]
    exact = sum(r.double().mean().item() for r in right) / len(right)
    assert score("exact_memorization").value == pytest.approx(exact)
    runs = []
    for r in right:
        tail = len(r) - max([i + 1 for i, hit in enumerate(r.tolist()) if not hit], default=0)
        runs.append(tail / len(r))
    assert score("extraction_strength").value == pytest.approx(sum(runs) / len(runs))


def test_the_probability_of_answers_is_that_of_their_mean_token():
    for split, rows in (
        ("forget", questions(["anna"])),
        ("test", questions(["otto", "paul", "quin"])),
    ):
        want = [s[0].mean().exp().item() for s in scores(trained()[1], rows)]
        got = score(f"answer_probability_{split}").value
        assert got == pytest.approx(sum(want) / len(want), **CLOSE)


def test_recall_and_knowledge_are_of_the_greedy_answers():
    rows, model = questions(["anna"]), trained()[1]
    said = [
        greedy_answers(model, tokenizer(), [r["prompt"]], max_new_tokens=len(r["completion"]) + 1)[
            0
        ]
        for r in rows
    ]
    pairs = [rouge_l(a, r["completion"]) for a, r in zip(said, rows, strict=True)]
    assert score("rouge_recall_forget").value == pytest.approx(sum(p.recall for p in pairs) / 2)
    assert score("knowledge_memory_forget").value == pytest.approx(sum(p.f1 for p in pairs) / 2)
    assert "every row has a prompt" in score("verbatim_memory_forget").note


def test_verbatim_memory_continues_the_first_half_of_a_text():
    texts = [
        {"text": f"{r['prompt']}{r['completion']}", "person": r["person"]} for r in questions()
    ]
    case = people_case(train=texts, test=texts[:2], validation=None)
    e, found = evidence(case), []
    for row in texts[:2]:
        half = (len(row["text"]) + 1) // 2
        tail = row["text"][half:]
        said = greedy_answers(
            trained()[1], tokenizer(), [row["text"][:half]], max_new_tokens=len(tail) + 1
        )[0]
        found.append(rouge_l(said, tail).f1)
    assert score("verbatim_memory_forget", e).value == pytest.approx(sum(found) / 2)
    assert "no row has a prompt" in score("rouge_recall_forget", e).note


def ratios(model, rows):
    def level(row, answer):
        (s,) = scores(model, [{**row, "completion": answer}])
        return s[0].mean()

    right = torch.stack([level(r, f"in {r['completion']}") for r in rows])
    wrong = torch.stack([torch.stack([level(r, f"in {w}") for w in WRONG]) for r in rows])
    return truth_ratio(right, wrong).double()


def test_truth_ratio_forget_quality_and_utility_are_those_of_tofu():
    e, model = evidence(told_case()), trained()[1]
    mine = ratios(model, questions(["anna"]))
    want = torch.minimum(mine, 1 / mine).mean().item()
    assert score("truth_ratio_forget", e).value == pytest.approx(want, **CLOSE)
    theirs = torch.cat([ratios(m, questions(["anna"])) for m in other_models()])
    quality = forget_quality(mine, theirs)
    assert score("forget_quality", e).value == pytest.approx(quality.p, **CLOSE)
    assert score("truth_ratio_distance", e).value == pytest.approx(quality.distance)
    parts = [
        score(f"{name}_{split}", e).value
        for split in ("retain", "test")
        for name in ("answer_probability", "rouge_recall", "truth_ratio")
    ]
    test = ratios(model, questions(["otto", "paul", "quin"]))
    assert parts[-1] == pytest.approx((1 - test).clamp(min=0).mean().item(), **CLOSE)
    assert score("model_utility", e).value == pytest.approx(model_utility(parts), **CLOSE)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("truth_ratio_forget", "give a column perturbed_answer"),
        ("forget_quality", "give a column perturbed_answer"),
        ("model_utility", "give a column perturbed_answer"),
        ("canary_exposure", "not the candidates of a canary|no candidates rows"),
        ("paraphrased_question_probability", "give a column paraphrased_question"),
    ],
)
def test_a_metric_without_its_inputs_says_what_it_needs(name, told):
    got = score(name)
    assert math.isnan(got.value)
    assert any(part in got.note for part in told.split("|"))


def test_the_exposure_of_a_canary_is_its_rank_among_all_strings():
    prefix, letters = tuple(tokenizer()("pin ")["input_ids"]), tuple(tokenizer()("01")["input_ids"])
    secret = (letters[1], letters[0], letters[1])
    case = people_case().replace(canary=Canary(prefix, secret, letters))
    e = evidence(case)
    levels = {}
    for a in letters:
        for b in letters:
            for c in letters:
                ids = torch.tensor([[*prefix, a, b, c]])
                with torch.no_grad():
                    logs = trained()[1](input_ids=ids).logits[0, 3:-1].log_softmax(-1)
                levels[a, b, c] = -float(logs.gather(1, ids[0, 4:, None]).sum())
    rank = 1 + sum(v < levels[secret] for v in levels.values())
    assert score("canary_exposure", e).value == pytest.approx(math.log2(8 / rank))
    assert score("canary_log_perplexity", e).value == pytest.approx(
        levels[secret] / math.log(2), rel=1e-4
    )


def test_a_fast_audit_lists_them_and_reads_no_retrained_model():
    case = told_case()
    done = uk.unlearn(trained()[1], case, ANNA, uk.method("npo", run={"share": 0.04}))
    rows = {r.metric: r for r in uk.audit(done, recipe_check=False).rows}
    for name in ("loss_attack_auc", "min_k_plus_plus_auc", "exact_memorization",
                 "answer_probability_forget", "truth_ratio_forget"):  # fmt: skip
        assert rows[name].estimate.value is not None, name
    assert not {"reference_auc", "privacy_leakage", "forget_quality", "rouge_recall_forget"} & set(
        rows
    )
    json.dumps([r.model_dump(mode="json") for r in rows.values()])


def test_masked_models_have_the_metrics_that_ask_for_no_next_token():
    serves = {i for i, m in metrics().items() if m.tasks and "masked_lm" in m.tasks}
    assert {"loss_attack_auc", "exact_memorization", "answer_probability_forget"} <= serves
    assert not {"extraction_strength", "rouge_recall_forget", "hinted_answer_probability"} & serves
