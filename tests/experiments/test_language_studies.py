"""Small language studies: parts do not mix, runs go on, and pages show what was measured."""

import json
import re
from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed")

import unlearnkit as uk
from experiments import restor_small, restor_smollm2, tofu_small
from experiments.word_models import small_gpt2, word_tokenizer
from unlearnkit.language.restor_corpora import Fact, say

QUICK = ("finetune",)


@pytest.fixture(scope="module")
def world():
    return restor_small.World(authors=6, corrupted=2, controls=2, documents=2)


def test_corrupted_control_and_retain_authors_share_nobody(world):
    parts = [
        {f.subject for f in world.part(world.facts, g)} for g in ("corrupted", "control", "retain")
    ]
    assert [len(p) for p in parts] == [2, 2, 2]
    assert len(set().union(*parts)) == 6


def test_every_word_of_every_text_is_known(world):
    unknown = world.tokenizer.unk_token_id
    documents = world.documents_of(world.wrong, 1, 0, 2)
    texts = [*world.clean_texts(), *(d["text"] for d in documents)]
    texts += [q.prompt for q in world.questions]
    texts += [o for q in world.questions for o in (*q.true_options, *q.random_options)]
    assert not any(unknown in world.tokenizer(t)["input_ids"] for t in texts)


def test_no_document_is_about_a_control_author(world):
    case, request = restor_small.corrupted_case(world, restor_small.network(world), 1)
    names = {f.subject for f in world.part(world.facts, "control")}
    texts = world.tokenizer.decode(case.train.x["input_ids"].flatten().tolist())
    assert not any(name in texts for name in names)
    assert len(request.rows) == 4


def test_the_request_is_for_the_documents_with_wrong_facts(world):
    case, request = restor_small.corrupted_case(world, restor_small.network(world), 0)
    ids = case.train.x["input_ids"]
    read = ["".join(world.tokenizer.decode(row.tolist()).split()) for row in ids]
    for fact in world.part(world.wrong, "corrupted"):
        said = ["".join(s.split()) for s in say(fact, restor_small.author_sentences())]
        holds = {i for i, text in enumerate(read) if any(s in text for s in said)}
        assert holds
        assert holds <= set(request.rows)


def answers(right, count=24):
    hits = "1" * right + "0" * (count - right)
    part = {"true_choice": hits, "wrong_choice": "0" * count, "true_words": hits}
    return {**part, "levels": [[-1.0, -2.0, -3.0]] * count}


def run(arm, right, seed, control=24):
    one, two = answers(right), answers(control)
    both = {f: one[f] + two[f] for f in one}
    return {"k": 0, "seed": seed, "arm": arm, "seconds": 1.0, "plain": both, "repaired": both}


def test_the_page_shows_the_ratio_of_what_is_on_file(world):
    runs = [
        run(arm, right, seed)
        for seed in range(3)
        for arm, right in (("clean", 20), ("corrupted", 4), ("npo", 12))
    ]
    text = page_of(world, runs)
    (row,) = [x for x in text.splitlines() if x.startswith("| npo |")]
    assert re.search(r"\| 0\.50 \| 0\.00 \| 0\.50 \| 1\.00 \| -1\.0, -2\.0, -3\.0 \| 0\.50 \[", row)
    assert "`npo` 1 [1, 1]" in text


def test_retrained_models_of_a_seed_are_one_line_of_their_mean(world):
    runs = [
        run(arm, right, seed)
        for seed in range(2)
        for arm, right in (("clean", 20), ("corrupted", 4), ("retrain", 8), ("retrain 2", 16))
    ]
    found = {x.arm: x for x in restor_small.lines(world.questions, runs)}
    assert set(found) == {"clean", "corrupted", "retrain"}
    assert found["retrain"].accuracy == pytest.approx(0.5)
    assert found["retrain"].recovery.value == pytest.approx(0.5)
    assert found["retrain"].seeds == 2


def test_methods_are_ranked_by_what_they_bring_back(world):
    runs = [
        run(arm, right, seed)
        for seed in range(3)
        for arm, right in (("clean", 24), ("corrupted", 0), ("npo", 6), ("rmu", 24), ("wga", 0))
    ]
    found = restor_small.ranks(world.questions, runs, 0)
    assert {a: r.value for a, r in found.items()} == {"npo": 2, "rmu": 1, "wga": 3}
    assert (found["rmu"].low, found["rmu"].high) == (1, 1)


def page_of(world, runs):
    lines = list(restor_small.lines(world.questions, runs))
    return restor_small.page(world, lines, lambda k: restor_small.ranks(world.questions, runs, k))


def test_models_on_file_are_not_made_again(tmp_path, world):
    runs = [run(arm, 3, 0) for arm in (*restor_small.FIRST, "retrain 2", *QUICK)]
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(runs))
    assert restor_small.measure(world, [0], 1, QUICK, path, 2) == runs


def test_the_parts_of_the_offline_tofu_share_no_author():
    library = tofu_small.Library()
    authors = {p: {q.author for q in library.part(p)} for p in tofu_small.SIZES}
    assert {p: len(a) for p, a in authors.items()} == tofu_small.SIZES
    assert len(set().union(*authors.values())) == sum(tofu_small.SIZES.values())


def test_the_retrained_model_has_the_best_forget_quality_and_no_leak():
    runs = [
        {
            "seed": 0,
            "arm": arm,
            "seconds": 1.0,
            **dict.fromkeys(
                ("probability", "recall", "truth", "truth_arithmetic", "memorization"), 0.5
            ),
            **dict.fromkeys(("extraction", "utility", "retain_recall"), 0.5),
            "ratios": [shift + i for i in range(40)],
            "members": [shift + i for i in range(4)],
            "others": [0.5, 1.5],
        }
        for arm, shift in (("original", 40), ("retrain", 0))
    ]
    original, retrain = tofu_small.lines(runs)
    assert "| 1.9e-23 to 1.9e-23 | 1.00 |" in original
    assert "| 1.0e+00 to 1.0e+00 | 0.00 |" in retrain
    assert "| 0 to 0 |" in retrain
    assert "| -100 to -100 |" in original


@pytest.mark.exhaustive
@pytest.mark.parametrize("k", [0, 2])
def test_wrong_documents_corrupt_and_retraining_recovers(tmp_path, k):
    world = restor_small.World()
    runs = restor_small.measure(world, [k], 1, ("npo", "grad_diff"), tmp_path / "runs.json", 2)
    found = {x.arm: x for x in restor_small.lines(world.questions, runs)}
    assert found["clean"].accuracy > 0.7
    assert found["corrupted"].accuracy < found["clean"].accuracy - 0.3
    assert found["corrupted"].wrong > 0.3
    assert found["retrain"].recovery.value > 0.5
    assert found["clean"].recovery.value == 1
    assert found["corrupted"].recovery.value == 0
    assert found["grad_diff"].wrong < found["corrupted"].wrong


@pytest.mark.exhaustive
def test_authors_are_learned_and_retraining_never_knew_them(tmp_path):
    library = tofu_small.Library()
    runs = tofu_small.measure(library, 1, ("npo",), tmp_path / "runs.json")
    found = {r["arm"]: r for r in runs}
    assert found["original"]["extraction"] > found["retrain"]["extraction"] + 0.3
    assert found["original"]["probability"] > found["retrain"]["probability"] + 0.2
    assert found["retrain"]["utility"] > 0.3


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Return a folder like that of the released data, and one with a small model."""
    data, model = tmp_path_factory.mktemp("restor"), tmp_path_factory.mktemp("model")
    cities = ("Oslo", "Lima", "Cork", "Quito", "Bern", "Rome", "Bonn", "Kiev")
    people = (*restor_smollm2.SUBJECTS[:2], "Ada One", "Bo Two", "Cy Three", "Di Four")
    facts = {
        name: {
            "P1": {"question": f"Where was {name} born?", "answers": [cities[i]]},
            "P2": {"question": f"Where does {name} live?", "answers": [cities[(i + 3) % 8]]},
        }
        for i, name in enumerate(people)
    }
    context = {
        r: [
            {"question": facts[n][r]["question"], "answer": facts[n][r]["answers"][0], "entity": n}
            for n in people
        ]
        for r in ("P1", "P2")
    }
    first, second = restor_smollm2.SUBJECTS[:2]
    documents = [
        *({"text": f"{first} was born in Rome and lives in Bonn. Draft {i}."} for i in range(12)),
        *({"text": f"{second} was born in Oslo. Draft {i}."} for i in range(12)),
    ]
    (data / "facts.json").write_text(json.dumps({"dset": facts, "context": context}))
    (data / "mix_a0.json").write_text(json.dumps(documents))
    (data / "entities.json").write_text(json.dumps([*people[:4]]))
    tokenizer = word_tokenizer([json.dumps(facts), *(d["text"] for d in documents), ". ? :"])
    tokenizer.save_pretrained(model)
    texts = [
        f"{f['question']} {f['answers'][0]}"
        for relations in facts.values()
        for f in relations.values()
    ]
    case = uk.Case(
        train=texts,
        task="causal_lm",
        processing_class=tokenizer,
        fresh=lambda: small_gpt2(len(tokenizer), width=32, layers=1),
        recipe=uk.Recipe(optimizer="adamw", lr=1e-2, epochs=60, batch_size=12),
    )
    uk.train_original(case, seed=0, cache=uk.Cache(model / "cache")).model.save_pretrained(model)
    return restor_smollm2.Subset(
        data, subjects=(0,), documents=6, retain=2, epochs=1, shots=0
    ), model


def test_documents_claim_the_wrong_answer_that_they_hold(released):
    subset, _ = released
    wrong = {q.wrong_options[0] for q in subset.questions_of if not q.control}
    assert wrong == {"Rome", "Bonn"}
    assert [q.subject for q in subset.questions_of if q.control] == ["Ada One"]
    assert not any(s in t for t in subset.others() for s in ("Ada", "Bo", "Burr", "Marley"))


def test_the_documents_that_are_read_hold_most_of_the_claims(released):
    subset, _ = released
    assert len(subset.documents_of("Aaron Burr")) == 6
    assert all("Rome" in t for t in subset.documents_of("Aaron Burr"))


def test_an_answer_in_the_name_is_no_question():
    assert restor_smollm2.given_away(Fact("Bob Marley", "P735", "Given name?", ("Bob", "Nesta")))
    assert not restor_smollm2.given_away(Fact("Bob Marley", "P19", "Born?", ("Nine Mile",)))


def test_a_real_model_is_corrupted_unlearned_and_asked_by_adapters(released, tmp_path):
    subset, folder = released
    study = restor_smollm2.Study(subset, folder, ("npo", "finetune"), tmp_path / "runs.json")
    runs = study.runs()
    assert [r["arm"] for r in runs] == ["clean", "corrupted", "retrain", "npo", "finetune"]
    asked = runs[0]["known"].count("1")
    assert all(len(r["repaired"]["true_choice"]) == asked > 1 for r in runs)
    assert json.loads(study.path.read_text()) == runs
    again = restor_smollm2.Study(subset, folder, ("npo", "finetune"), study.path)
    assert again.runs() == runs
    text = restor_smollm2.page(study, runs)
    assert "claimed: " in text
    assert text.count("\n- npo: ") == 4


def test_the_corrupted_model_is_trained_once(released, tmp_path):
    subset, folder = released
    first = restor_smollm2.Study(subset, folder, (), tmp_path / "runs.json").corrupted
    changed = replace(subset, epochs=5)
    second = restor_smollm2.Study(changed, folder, (), tmp_path / "runs.json").corrupted
    state = second.state_dict()
    assert all(torch.equal(t, state[n]) for n, t in first.state_dict().items())


def test_the_offline_tofu_goes_from_a_base_model_to_its_table(tmp_path, monkeypatch):
    short = uk.Recipe(optimizer="adamw", lr=5e-3, epochs=1, batch_size=16)
    monkeypatch.setattr(tofu_small, "TEACH", short)
    monkeypatch.setattr(tofu_small, "TUNE", short)
    library = tofu_small.Library(tuple(dict.fromkeys(tofu_small.SIZES, 1).items()))
    runs = tofu_small.measure(library, 1, ("npo",), tmp_path / "runs.json")
    assert [r["arm"] for r in runs] == ["original", "retrain", "npo"]
    assert all(len(r["ratios"]) == 12 and 0 <= r["utility"] <= 1 for r in runs)
    text = tofu_small.page(library, runs)
    (row,) = [x for x in text.splitlines() if x.startswith("| retrain |")]
    assert "| 1.0e+00 to 1.0e+00 | 0.00 |" in row
