"""Studies whose audits are strong: methods judged by ensembles."""

import pytest

from unlearnkit.cache import Cache
from unlearnkit.core.errors import InputError
from unlearnkit.store import Store
from unlearnkit.studies.execution.run_study import run
from unlearnkit.studies.planning.expand import expand
from unlearnkit.studies.spec import make_study
from unlearnkit.studies.table.build_table import show

WORDS = {
    "name": "strong",
    "cases": ["tests.studies.toys:toy"],
    "requests": ["class=1"],
    "methods": ["finetune", "salun"],
    "seeds": 1,
    "oracles": 3,
    "tier": "strong",
    "models": 4,
}


def test_a_strong_study_shows_each_method_beside_originals_and_retrained_models(tmp_path):
    study = make_study(WORDS)
    with Store(tmp_path / "s.sqlite") as store:
        outcome = run(study, store, Cache(tmp_path / "cache"))
        assert (outcome.done, outcome.failed) == (2, 0)
        table = show(study, store)
    (block,) = table.blocks
    lines = {line.label: line for line in block.lines}
    assert list(lines) == ["oracle", "original", "finetune", "salun"]
    known = {k: line.cells["ensemble_accuracy_forget"].mean for k, line in lines.items()}
    assert known["original"] > 0.5 > known["oracle"]
    assert lines["finetune"].cells["permutation_p"].mean is not None
    assert "strong" in str(table)


def test_the_number_of_models_makes_another_run_of_a_strong_study_alone():
    def keys(**more):
        return [p.key for p in expand(make_study({**WORDS, **more}))]

    assert keys() != keys(models=5)
    assert keys(tier="reference") == keys(tier="reference", models=5)


def test_random_masks_do_not_run_beside_ensembles():
    labels = [p.label for p in expand(make_study(WORDS))]
    assert labels == ["finetune", "salun"]


def test_too_few_models_are_refused():
    with pytest.raises(InputError, match="models"):
        make_study({**WORDS, "models": 3})
