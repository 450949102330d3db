import math
from dataclasses import replace

import pytest
import torch

from experiments.word_models import small_gpt2, word_tokenizer
from unlearnkit.core.errors import InputError
from unlearnkit.language.answering import score_answers
from unlearnkit.language.fictitious_authors import author_questions, invent_authors
from unlearnkit.language.metric_results import read_metric_results, write_metric_results
from unlearnkit.language.question_scores import forget_results, score_questions
from unlearnkit.language.rouge import rouge_l


@pytest.fixture(scope="module")
def questions():
    return author_questions(invent_authors(4))[:12]


@pytest.fixture(scope="module")
def scored(questions):
    texts = [
        t for q in questions for t in (q.question, q.answer, q.paraphrased_answer, *q.wrong_answers)
    ]
    tokenizer = word_tokenizer(texts)
    torch.manual_seed(0)
    model = small_gpt2(len(tokenizer), width=16, layers=1)
    return model, tokenizer, score_questions(model, tokenizer, questions, max_new_tokens=6)


def test_each_answer_is_scored_at_its_place(questions, scored):
    model, tokenizer, found = scored
    for i, q in enumerate(questions):

        def level(answer, q=q):
            (s,) = score_answers(model, tokenizer, [q.question], [answer])
            return s.log_probs.mean().item()

        assert found.right[i].item() == pytest.approx(level(q.answer), abs=1e-5)
        assert found.paraphrases[i].item() == pytest.approx(level(q.paraphrased_answer), abs=1e-5)
        want = [level(w) for w in q.wrong_answers]
        assert found.wrong[i].tolist() == pytest.approx(want, abs=1e-5)
        assert found.answers[i].log_probs.mean().item() == pytest.approx(level(q.answer), abs=1e-5)
        assert found.recall[i].item() == rouge_l(found.texts[i], q.answer).recall


def test_utilities_are_means_over_questions(scored):
    found = scored[2]
    prob, recall, truth = found.utilities()
    assert prob == pytest.approx(sum(map(math.exp, found.right.tolist())) / 12, rel=1e-5)
    assert recall == pytest.approx(sum(found.recall.tolist()) / 12)
    ratios = [
        math.exp(sum(w) / 4 - p)
        for w, p in zip(found.wrong.tolist(), found.paraphrases.tolist(), strict=True)
    ]
    assert truth == pytest.approx(sum(max(0, 1 - r) for r in ratios) / 12, rel=1e-4)


def test_questions_from_elsewhere_compare_with_the_answers_own_words(scored):
    found = scored[2]
    chosen, _, truth = found.world_utilities()
    pairs = list(zip(found.right.tolist(), found.wrong.tolist(), strict=True))
    want = [math.exp(r) / (math.exp(r) + sum(map(math.exp, w))) for r, w in pairs]
    assert chosen == pytest.approx(sum(want) / 12, rel=1e-5)
    ratios = [math.exp(sum(w) / 4 - r) for r, w in pairs]
    assert truth == pytest.approx(sum(max(0, 1 - r) for r in ratios) / 12, rel=1e-4)


def test_results_are_written_as_the_benchmark_names_them(tmp_path, scored):
    path = write_metric_results(tmp_path / "TOFU_EVAL.json", forget_results(scored[2]))
    found = read_metric_results(path)
    assert set(found) == {"forget_Q_A_Prob", "forget_Q_A_ROUGE", "forget_truth_ratio"}
    values = [v["prob"] for v in found["forget_Q_A_Prob"].value_by_index.values()]
    assert values == pytest.approx(scored[2].right.exp().tolist())
    assert found["forget_Q_A_Prob"].agg_value == pytest.approx(sum(values) / 12)


def test_questions_need_equally_many_wrong_answers(questions, scored):
    model, tokenizer, _ = scored
    uneven = [questions[0], replace(questions[1], wrong_answers=())]
    for given in (uneven, uneven[1:], []):
        with pytest.raises(InputError, match="as many wrong answers"):
            score_questions(model, tokenizer, given)
