"""Records, reports and studies of a case whose rows and owners the user named."""

import json

import pytest

from unlearnkit.store import Store

MODULE = """
import unlearnkit as uk
from unlearnkit.testing import toy_case

EVIL = "=cmd()<script>alert(1)</script>\\x1b[2J"

def make():
    toy = toy_case(uk.Classification(3))
    count = len(toy.train)
    return uk.Case(
        train=(toy.train.x, toy.train.y), test=(toy.test.x, toy.test.y), task=toy.task,
        keys=[EVIL, *(f"a{i}" for i in range(1, count))],
        group=[EVIL, *(f"cust-{i % 12}" for i in range(1, count))],
        fresh=toy.fresh, recipe=toy.recipe,
    )

def later():
    return make().after_deletion("rows=a3,a1")
"""


@pytest.fixture
def keyed(tmp_path, monkeypatch):
    (tmp_path / "keyed_case.py").write_text(MODULE)
    (tmp_path / "withdrawn.csv").write_text("user,id\nx,a3\ny,a1\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "keyed_case:make"


def test_a_run_by_key_is_kept_audited_and_repeated(run, keyed, tmp_path):
    asked = run("unlearn", keyed, "--forget", "rows=@withdrawn.csv:id", "--name", "a", "-q")
    assert asked.code == 0, asked.err
    record = json.loads((tmp_path / "runs" / "a" / "run.json").read_text())
    assert record["job"]["forget"] == {"kind": "rows", "rows": ["a3", "a1"]}
    brief = run("audit", "--trust", "a", "--tier", "fast", "--json", "-q").data["provenance"]
    assert (brief["removed_rows"], brief["removed_by"]) == (None, "key")
    whole = run("audit", "--trust", "a", "--tier", "fast", "-q", "--full", "--list-rows")
    assert "keys a1, a3" in " ".join(whole.out.split())
    again = run("unlearn", "--trust", "--config", "runs/a/run.json", "--name", "b", "-q")
    assert again.code == 0, again.err
    other = json.loads((tmp_path / "runs" / "b" / "run.json").read_text())
    assert other["digests"]["unlearned"] == record["digests"]["unlearned"]


def test_a_later_request_for_a_deleted_key_is_one_line(run, keyed):
    said = run("unlearn", "keyed_case:later", "--forget", "rows=a1,a2", "-q")
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert "rows: 1 of 2 are already deleted: 'a1'; name only what is left" in said.err


def test_keys_are_text_from_strangers_in_terminal_page_and_store(run, keyed, tmp_path):
    (tmp_path / "evil.json").write_text(json.dumps(["=cmd()<script>alert(1)</script>\x1b[2J"]))
    for kind in ("rows", "group"):
        made = run("unlearn", keyed, "--forget", f"{kind}=@evil.json", "--name", kind, "-q")
        assert made.code == 0, made.err
        said = run("audit", "--trust", kind, "--tier", "fast", "--full", "--list-rows")
        assert "\x1b" not in made.out + said.out + said.err
        assert "=cmd()<script>" in said.out
        pytest.importorskip("jinja2")
        page = (tmp_path / "runs" / kind / "report.html").read_text("utf-8")
        assert "cmd()&lt;script&gt;" in page
        assert "<script>alert" not in page
        assert "\x1b" not in page
    with Store(tmp_path / "runs" / "unlearnkit.sqlite") as store:
        assert not any("\x1b" in r.request for r in store.runs())


def test_a_study_takes_requests_by_key(run, keyed, tmp_path):
    (tmp_path / "s.yaml").write_text(
        f"name: s\ncases: ['{keyed}']\nrequests: ['rows=a3,a1', 'group=cust-3']\n"
        "methods: [finetune]\nseeds: 1\noracles: 2\n"
    )
    said = run("study", "run", "s.yaml", "-q")
    assert said.code == 0, said.err
    shown = run("study", "show", "s.yaml")
    assert "rows=a3,a1" in shown.out
    assert "group=cust-3" in shown.out
