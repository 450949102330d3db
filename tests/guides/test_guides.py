"""Every guide runs as it stands, and shows what really comes out."""

import contextlib
import io
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from unlearnkit.cli import main

ROOT = Path(__file__).parents[2]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
NEAR = {"rel": 0.25, "abs": 0.1}
"""For decimals: another machine rounds otherwise, and training magnifies that."""


def blocks(text):
    return [(m[1], m[2]) for m in FENCE.finditer(text)]


def near(shown, real):
    if "." in shown or "e" in shown:
        return float(real) == pytest.approx(float(shown), **NEAR)
    return shown == real


def agree(shown, real):
    """Compare what a guide shows with what came: spaces are alike, ``…`` is any text."""
    number = f"({NUMBER.pattern})"
    pieces = [re.escape(p) for p in re.split(NUMBER, " ".join(shown.split()))]
    pattern = re.sub(r"(?:\\ )?…(?:\\ )?", ".*?", number.join(pieces))
    found = re.fullmatch(pattern, " ".join(real.split()), re.DOTALL)
    wanted = NUMBER.findall(" ".join(shown.split()))
    return bool(found) and all(near(a, b) for a, b in zip(wanted, found.groups(), strict=True))


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    """Return a function that runs lines after ``$`` in this process, and returns their output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")

    def call(commands):
        out = []
        for command in commands:
            words = shlex.split(command)
            assert words[0] == "unlearnkit", f"a guide's commands are ours, got {words[0]}"
            monkeypatch.setattr("sys.argv", words)
            capsys.readouterr()
            with pytest.raises(SystemExit) as end:
                main()
            said = capsys.readouterr()
            assert not end.value.code, said.err
            out.append(said.out)
        return "".join(out)

    yield call
    for file in tmp_path.glob("*.py"):  # the next guide has its own module of this name
        sys.modules.pop(file.stem, None)


def run(name, text, folder, call):
    """Run a guide's blocks in order: Python in one namespace, commands by ``call``."""
    names, printed = {"__name__": "guide"}, ""
    for kind, content in blocks(text):
        if kind == "python":
            held = io.StringIO()
            first = content.partition("\n")[0]
            if re.fullmatch(r"# \w+\.py", first):
                (folder / first[2:]).write_text(content, "utf-8")
            with contextlib.redirect_stdout(held):
                exec(compile(content, name, "exec"), names)  # the point of the test
            printed = held.getvalue()
        elif kind == "console":
            lines = content.splitlines(keepends=True)
            printed = call([x[2:] for x in lines if x.startswith("$ ")])
            shown = "".join(x for x in lines if not x.startswith("$ "))
            assert agree(shown or "…", printed), f"shown:\n{shown}\ncame:\n{printed}"
        elif kind == "text":
            assert agree(content, printed), f"shown:\n{content}\ncame:\n{printed}"
        else:
            pytest.fail(f"a block of kind {kind!r} is not run; use python, console or text")


LONG = {
    "document_must_go",
    "forecast_forget_a_group",
    "hard_forget_sets",
    "no_training_data",
    "patient_withdraws_consent",
    "your_own_training",
}
"""Guides that run for about ten seconds; that all they name exists is checked each time."""


@pytest.mark.slow
@pytest.mark.full_lessons
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT 0.21
@pytest.mark.parametrize(
    "guide",
    [
        pytest.param(p, id=p.stem, marks=[pytest.mark.exhaustive] if p.stem in LONG else [])
        for p in GUIDES
    ],
)
def test_a_guide_runs_and_shows_what_comes_out(guide, tmp_path, shell):
    pytest.importorskip("pandas", reason="pandas is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    if "from transformers import" in guide.read_text("utf-8"):
        pytest.importorskip("transformers", reason="transformers is not installed")
    if "unlearnkit ledger" in guide.read_text("utf-8"):
        pytest.importorskip("cryptography", reason="cryptography is not installed")
    run(guide.name, guide.read_text("utf-8"), tmp_path, shell)


def test_the_long_guides_are_there():
    assert {p.stem for p in GUIDES} > LONG


@pytest.mark.parametrize("guide", GUIDES, ids=lambda p: p.stem)
def test_links_of_a_guide_lead_somewhere(guide):
    links = re.findall(r"\]\(([^)#]+)\)", guide.read_text("utf-8"))
    local = [x for x in links if "://" not in x]
    assert [x for x in local if not (guide.parent / x).exists()] == []


@pytest.mark.parametrize("guide", GUIDES, ids=lambda p: p.stem)
def test_the_readme_leads_to_a_guide(guide):
    assert f"docs/guides/{guide.name}" in (ROOT / "README.md").read_text("utf-8")


def advised():
    text = (ROOT / "docs" / "guides" / "choose_a_method.md").read_text("utf-8")
    rows = re.findall(r"^\| ([a-z][\w,. ]+) \| ([-.\d |]+) \|$", text, re.MULTILINE)
    return {method: [float(x) for x in numbers.split(" | ")] for method, numbers in rows}


def test_the_guide_on_methods_advises():
    assert {"retrain", "finetune", "shrink_perturb, renew 0.7"} <= set(advised())


@pytest.mark.parametrize("method", advised())
def test_the_advice_on_methods_is_what_the_cards_found(method):
    kept = json.loads((ROOT / "docs" / "results" / "placebo.json").read_text("utf-8"))
    requests = ("class", "mislabelled tenth", "random tenth")
    cards = [kept[f"digits, {request}/64/{method}"] for request in requests]
    want = [card["arms"]["memory"]["auc"]["value"] for card in cards]
    lost = min(card["accuracy"]["test"] - card["retrained"]["test"] for card in cards)
    *memory, test, cost = advised()[method]
    assert memory == pytest.approx(want, abs=0.0051)
    assert test == pytest.approx(100 * lost, abs=0.051)
    assert cost == pytest.approx(max(card["cost"] for card in cards), abs=0.0051)


@pytest.mark.parametrize(
    ("shown", "real", "agrees"),
    [
        ("a 1.00 b\n", "a 1.02  b", True),
        ("a 1.00 b", "a 2.00 b", False),
        ("10 rows", "11 rows", False),
        ("MATCHES", "LEAKS", False),
        ("first …", "first\nsecond\n", True),
        ("first", "first second", False),
    ],
)
def test_what_is_shown_is_compared_word_by_word_and_number_by_number(shown, real, agrees):
    assert agree(shown, real) is agrees


def test_a_guide_that_shows_something_else_fails(tmp_path):
    with pytest.raises(AssertionError, match=r"shown:\s+2\s+came:\s+1"):
        run("x", "```python\nprint(1)\n```\n\n```text\n2\n```\n", tmp_path, None)
