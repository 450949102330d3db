"""What an audit computes once: the partition, each training key; no model only to hash it."""

from collections import Counter
from dataclasses import replace

import pytest

import unlearnkit as uk
from unlearnkit import oracles
from unlearnkit.core import training
from unlearnkit.core.case import Case
from unlearnkit.core.digest import digest, model_digest
from unlearnkit.studies.planning.problem import StudyProblems
from unlearnkit.testing import toy_case

GO = uk.Rows(range(12))


@pytest.fixture
def counts(monkeypatch):
    """Partitions by case and request, keys by content, and the models that were hashed."""
    parts, keys, hashed, held = Counter(), Counter(), [], []

    def partition(case, request, given=Case.partition):
        held.append(case)  # alive, so that no other case gets its id
        parts[id(case), str(request)] += 1
        return given(case, request)

    def key(*args, given=oracles.training_key):
        found = given(*args)
        keys[digest(found)] += 1
        return found

    def hash_start(model):
        hashed.append((model, model_digest(model)))
        return hashed[-1][1]

    monkeypatch.setattr(Case, "partition", partition)
    monkeypatch.setattr(oracles, "training_key", key)
    monkeypatch.setattr(training, "model_digest", hash_start)
    return parts, keys, hashed


@pytest.mark.parametrize("tier", ["fast", "reference", "strong"])
def test_an_audit_computes_partition_and_keys_once_and_hashes_no_model_in_vain(
    tier, counts, tmp_path
):
    parts, keys, hashed = counts
    case, cache = toy_case(uk.Classification(3)), uk.Cache(tmp_path)
    original = uk.train_original(case, cache=cache).model
    done = uk.unlearn(original, case, GO, "finetune")
    if tier == "fast":  # what it finds, it tests with control models
        done = replace(done, model=case.fresh())
    truth = uk.oracle(case, GO, seeds=3, cache=cache) if tier == "reference" else None
    for count in (parts, keys, hashed):
        count.clear()
    uk.audit(done, oracle=truth, tier=tier, models=4, cache=cache)
    assert parts[id(case), str(GO)] == 1
    assert set(parts.values()) == {1}
    assert set(keys.values()) <= {1}
    assert (tier == "reference") == (len(keys) == 1)  # the original's, for the recipe check
    assert [i for i, (model, start) in enumerate(hashed) if model_digest(model) == start] == []


def test_a_study_reads_a_case_and_a_problem_once_in_a_process(monkeypatch):
    made, known = [], uk.catalog.cases()

    def make():
        made.append("digits")
        return known["digits"].make()

    cases = {**known, "digits": replace(known["digits"], make=make)}
    monkeypatch.setattr(uk.catalog, "cases", lambda: cases)
    problems = StudyProblems()
    found = [problems.get("digits", f"class={k}", "cpu", "fp32") for k in (1, 2, 1)]
    assert found[0].case is found[1].case
    assert found[0] is found[2]
    assert found[0].parts is found[2].parts
    assert made == ["digits"]
