"""One nested setting changes that setting alone, wherever it is written."""

import pytest

import unlearnkit as uk
from unlearnkit.catalog import methods
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.core.settings import deep_merge
from unlearnkit.job import make_job, parse_settings

GROUPS = [
    pytest.param(name, preset, field, id=f"{name}-{preset}-{field}")
    for name, m in methods().items()
    for preset, given in m.info.presets.items()
    for field, value in given.items()
    if hasattr(value, "keys")
]


@pytest.mark.parametrize(("name", "preset", "group"), GROUPS)
def test_one_field_of_a_presets_group_leaves_the_others(name, preset, group):
    start = uk.method(name, preset)
    dumped = start.model_dump(mode="json")[group]
    inner = next(k for k, v in dumped.items() if k != "kind" and not isinstance(v, dict))
    same = uk.method(name, preset, **{group: {inner: dumped[inner]}})
    assert same == start


def test_the_noise_of_unsir_keeps_its_rows_and_steps():
    got = uk.method("unsir", "reference", noise={"penalty": 6.4}).noise
    assert (got.penalty, got.rows, got.steps, got.each) == (6.4, 256, 40, "class")


def test_the_command_line_keeps_the_rest_of_a_presets_group():
    job = make_job(
        {
            "case": "digits",
            "method": "unsir",
            "preset": "reference",
            "settings": parse_settings(["noise.penalty=6.4"]),
        }
    )
    assert job.build() == uk.method("unsir", "reference", noise={"penalty": 6.4})


def test_a_group_of_another_kind_replaces_the_group():
    assert deep_merge({"kind": "a", "x": 1}, {"kind": "b"}) == {"kind": "b"}
    assert deep_merge({"kind": "a", "x": 1}, {"kind": "a", "y": 2}) == {"kind": "a", "x": 1, "y": 2}
    assert deep_merge({"x": 1}, {"kind": "a"}) == {"x": 1, "kind": "a"}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: uk.method("finetune", lr=1), "'lr'; it is part of another: run.lr, run.recipe.lr"),
        (
            lambda: uk.method("finetune", run={"lrr": 1}),
            "run: no setting 'lrr' (did you mean 'run.lr'?). See: unlearnkit show finetune",
        ),
        (lambda: uk.Recipe(epoch=3), "no setting of Recipe 'epoch'. Did you mean 'epochs'?"),
    ],
    ids=["a part", "in a group", "recipe"],
)
def test_an_unknown_name_comes_with_the_nearest(make, told):
    with pytest.raises(InputError) as error:
        make()
    assert told in str(error.value)


def test_the_nearest_of_an_enumeration_is_its_value():
    assert "'stron'. Did you mean 'strong'? " in str(UnknownNameError("tier", "stron", AuditTier))
