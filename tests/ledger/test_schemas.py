"""The published schemas of certificate, entry and policy: real files fit, broken ones do not."""

import base64
import copy
import json

import pytest
import yaml

from tests.ledger.conftest import POLICY
from tests.report.published_schemas import checker

pytest.importorskip("cryptography")

from unlearnkit.ledger.ledger_check import export
from unlearnkit.ledger.policy import TEMPLATE


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Statements, entries and policy of a ledger with two batches and a lost request."""
    from tests.ledger.conftest import Made, small_case, write_policy
    from unlearnkit.cache import Cache
    from unlearnkit.ledger.new_ledger import create_ledger

    at = tmp_path_factory.mktemp("schemas")
    write_policy(at / "ledger", retrain_when={"batches": 1}, accept_exact=POLICY["accept"])
    made = Made(at / "ledger", small_case(), Cache(at / "cache"))
    create_ledger(made.folder, "small", made.case, cache=made.cache).close()
    for forget in ("rows=a0003,a0004", "group=owner-5"):
        made.request(forget, reason="Art. 17(1)(b)")
        made.request("rows=nobody")
        assert made.run().state == "done"
    export(made.folder, at / "out")
    envelopes = [json.loads(p.read_text()) for p in sorted((at / "out").glob("cert*.json"))]
    return {
        "certificate": [json.loads(base64.b64decode(e["payload"])) for e in envelopes],
        "entry": [json.loads(line) for line in (at / "out/entries.jsonl").read_text().splitlines()],
        "policy": [
            yaml.safe_load((made.folder / "policy.yaml").read_text()),
            yaml.safe_load(TEMPLATE.format(signer="owner")),
        ],
    }


NAMES = ["certificate", "entry", "policy"]


@pytest.mark.parametrize("name", NAMES)
def test_real_files_fit(files, name):
    assert len(files[name]) >= 2
    for content in files[name]:
        checker(name).validate(content)


def paths(value, at=()):
    """Yield the place of every value within a file."""
    yield at
    if isinstance(value, dict):
        items = list(value.items())
    else:
        items = list(enumerate(value)) if isinstance(value, list) else []
    for key, inner in items:
        yield from paths(inner, (*at, key))


def value_at(content, at):
    for key in at:
        content = content[key]
    return content


def changed(content, at, edit):
    content = copy.deepcopy(content)
    edit(value_at(content, at[:-1]), at[-1])
    return content


FREE = {
    "certificate": {("predicate", "method", "settings"), ("predicate", "audit", "power")},
    "entry": {("body",)},
    "policy": {("settings",)},
}
"""Mappings with names of their own."""


def below_free(name, at):
    return any(at[: len(free)] == free and len(at) > len(free) for free in FREE[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_value_of_another_type_does_not_fit_wherever_it_is(files, name):
    content = files[name][0]
    wrong = [at for at in paths(content) if at and not below_free(name, at)]
    assert len(wrong) > 5

    def replace(place, key):
        place[key] = ["neither"] if isinstance(place[key], str | int | float | None) else 3.5

    check = checker(name)
    assert [at for at in wrong if check.is_valid(changed(content, at, replace))] == []


@pytest.mark.parametrize("name", ["certificate", "entry"])
def test_a_field_that_is_gone_does_not_fit(files, name):
    content = files[name][0]
    fields = [at for at in paths(content) if at and isinstance(at[-1], str)]
    check = checker(name)
    fits = [
        at
        for at in fields
        if not below_free(name, at)
        and check.is_valid(changed(content, at, lambda place, key: place.pop(key)))
    ]
    assert fits == []


@pytest.mark.parametrize("name", NAMES)
def test_a_field_too_many_does_not_fit(files, name):
    content = files[name][0]
    mappings = [
        at
        for at in paths(content)
        if not below_free(name, at)
        and at not in FREE[name]
        and isinstance(value_at(content, at), dict)
    ]
    assert () in mappings

    def more(at):
        wrong = copy.deepcopy(content)
        value_at(wrong, at)["surprise"] = 1
        return wrong

    check = checker(name)
    assert [at for at in mappings if check.is_valid(more(at))] == []


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("predicate", "rows", "commitment"), "A" * 64),
        (("predicate", "issued"), "yesterday"),
        (("predicate", "evidence", "kind"), "certain"),
        (("predicate", "requests"), []),
        (("predicateType",), "urn:other"),
        (("subject", 0, "digest", "sha256"), "abc"),
    ],
)
def test_a_wrong_value_does_not_fit(files, at, value):
    wrong = changed(files["certificate"][0], at, lambda place, key: place.__setitem__(key, value))
    assert not checker("certificate").is_valid(wrong)
