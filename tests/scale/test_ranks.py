"""Two processes against one, on the same global batches."""

import math

import pytest
import torch

from tests.scale import rank_jobs as jobs
from unlearnkit import catalog

FLOAT32 = {"rtol": 2e-5, "atol": 2e-6}
"""Rounding of float32 in another order of sums, grown over the few steps of a toy run."""

FLOAT64 = {"rtol": 1e-11, "atol": 1e-12}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    found = jobs.run_on_two(folder, jobs.SAMPLE)
    found[0]["killed"] = torch.load(folder / "killed.pt")
    return found


@pytest.fixture(scope="module")
def alone():
    return jobs.methods(jobs.SAMPLE)


@pytest.mark.parametrize("which", jobs.SAMPLE, ids="-".join)
def test_a_method_on_two_ranks_equals_one_process(both, alone, which):
    first, second = (found["methods"][which] for found in both)
    assert not isinstance(first, str), first
    torch.testing.assert_close(first, alone[which], **FLOAT32)
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_batch_norm_and_dropout_are_those_of_the_whole_batch(both):
    (first, rows), (second, others) = (found["layers"] for found in both)
    want, whole = jobs.layers()
    torch.testing.assert_close(first, want, **FLOAT64)
    torch.testing.assert_close(second, want, **FLOAT64)
    assert rows + others == whole  # each row went through one process


def test_a_loss_that_couples_rows_has_the_gradient_of_the_whole_batch(both):
    want = jobs.coupled_loss()
    for found in both:
        torch.testing.assert_close(found["coupled_loss"], want, **FLOAT64)


def test_statistics_are_sums_over_all_ranks(both):
    want = jobs.statistics()
    for found in both:
        torch.testing.assert_close(found["statistics"], want, **FLOAT64)


def test_weights_that_torch_shards_are_trained_as_whole_ones(both):
    want = jobs.sharded_weights()
    for found in both:
        torch.testing.assert_close(found["sharded_weights"], want, **FLOAT64)


def test_an_audit_says_the_same(both):
    values, verdict = jobs.audited()
    assert values
    for found in both:
        got, other = found["audited"]
        assert other == verdict
        assert got.keys() == values.keys()
        for name, value in values.items():
            same = math.isnan(value) and math.isnan(got[name])
            assert same or got[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("other data", "rank 1 was given another set of train rows than rank 0"),
        ("other request", "rank 1 was given another request"),
        ("tiny batches", "2 processes cannot share batches of 1 rows"),
        ("drawing layer", "draws random numbers otherwise than by dropout"),
    ],
)
def test_a_mistake_is_told_on_every_rank(both, mistake, words):
    for found in both:
        assert words in found["mistakes"][mistake]


def test_an_error_on_one_rank_ends_the_other_with_its_words(both):
    first, second = (found["mistakes"]["error on one"] for found in both)
    assert "/only/on/rank0" in second
    assert "rank 1 failed" in first
    assert "No such file" in first


def test_a_run_after_a_failed_one_works(both):
    assert [found["mistakes"]["then"] for found in both] == ["nothing", "nothing"]


def test_a_killed_rank_ends_the_other(both):
    assert both[0]["killed"].startswith("RankLostError: unlearn: another process ended")


@pytest.mark.exhaustive
def test_every_method_on_two_ranks_equals_one_process(tmp_path):
    lines = list(jobs.table(tmp_path))
    named = {line.split("`")[1] for line in lines}
    assert named == set(catalog.methods())
    for line in lines:
        far, told = (cell.strip() for cell in line.split("|")[3:5])
        assert told == "equal on both", line
        assert float(far) < 1e-5, line  # float32 rounding, grown over a toy run
