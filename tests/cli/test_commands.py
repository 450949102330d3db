import shlex
import subprocess
import sys

import pytest
import torch
import typer

import unlearnkit
from tests.together import check_each
from unlearnkit import catalog, docs
from unlearnkit import describe as pages
from unlearnkit.auditing.strong.margin_store import MarginStore, ModelId, ModelRecord
from unlearnkit.cli.commands import app
from unlearnkit.core.cache_folder import SIGNALS
from unlearnkit.core.recipe import FineTuneSchedule

COMMANDS = dict(docs.helps())
LEAVES = [n for n in COMMANDS if n not in {"unlearnkit", "unlearnkit cache"}]


@pytest.mark.parametrize("words", [["--help"], ["unlearn", "--help"], ["--version"]])
def test_help_does_not_import_torch(words):
    code = f"""
import sys
sys.argv = ["unlearnkit", *{words!r}]
from unlearnkit.cli import main
try:
    main()
finally:
    heavy = {{"torch", "numpy", "scipy", "sklearn", "yaml"}} & set(sys.modules)
    assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name):
    assert "Example" in COMMANDS[name] or "Start here" in COMMANDS[name]


def _examples():
    for name in LEAVES:
        for line in COMMANDS[name].splitlines():
            if line.startswith("    unlearnkit "):
                yield pytest.param(line.strip(), id=line.strip())


@pytest.mark.parametrize("line", list(_examples()))
def test_every_example_is_a_command_line_that_parses(line):
    words, command, context = shlex.split(line)[1:], typer.main.get_command(app), None
    while hasattr(command, "commands"):
        context = command.make_context("unlearnkit", list(words), parent=context)
        words = context._protected_args + context.args
        _, command, words = command.resolve_command(context, words)
    assert command.make_context(command.name, list(words), parent=context).params


def test_the_version_is_the_packages(run):
    assert run("--version").out == f"unlearnkit {unlearnkit.__version__}\n"


@pytest.mark.parametrize("what", ["methods", "metrics", "cases"])
def test_a_list_names_everything_as_text_and_as_json(run, what):
    ids = list(getattr(catalog, what)())
    assert [line.split()[0] for line in run(what).out.splitlines()[1:]] == ids
    assert [f["id"] for f in run(what, "--json").data] == ids


@pytest.mark.parametrize("step", [12, pytest.param(1, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("kind", ["methods", "metrics", "cases"])
def test_show_prints_the_page_and_the_facts(run, kind, step):
    def shown(name):
        assert run("show", name).out == pages.find(name)[1]
        assert run("show", name, "--json").data["id"] == name

    check_each(list(getattr(catalog, kind)())[::step], shown)


@pytest.mark.parametrize("name", list(catalog.methods()))
def test_a_method_page_names_every_hyper_parameter_with_its_default(name):
    method = catalog.methods()[name]
    page = pages.method_page(method)
    for key in method.model_fields:
        assert f"| `{key}" in page
    for s in pages.settings(method):
        if s["default"] != "none" and "." not in s["key"]:
            held = getattr(method(), s["key"])
            assert str(list(held) if isinstance(held, tuple) else held) == str(s["default"])


def test_a_page_lists_each_kind_of_a_choice_with_its_own_defaults():
    found = pages.settings(catalog.methods()["shrink_perturb"])
    kinds = [s for s in found if s["key"] == "run.kind"]
    assert [(s["values"], s["default"]) for s in kinds] == [("restart | tuning", "restart")]
    by_kind = {
        s["doc"].partition(")")[0][1:]: s["default"] for s in found if s["key"] == "run.share"
    }
    default = catalog.methods()["shrink_perturb"]().run.share
    assert by_kind == {"restart": default, "tuning": FineTuneSchedule().share}


@pytest.mark.parametrize("name", ["nonsense", "accuracy", "digits_", "relearn", ""])
def test_an_unknown_name_gets_at_most_five_suggestions(run, name):
    said = run("show", name)
    assert said.code == 1
    hint = said.err.split("Did you mean")[1].split("?")[0] if "Did you mean" in said.err else ""
    assert hint.count("'") // 2 <= 5
    assert said.err.rstrip().endswith(
        "All names: unlearnkit methods, unlearnkit metrics, unlearnkit cases"
    )


def test_an_unknown_name_is_told_with_the_nearest(run):
    said = run("show", "finetun")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("unlearnkit: no method, metric or case 'finetun'. Did you mean")
    assert "'finetune'" in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["unlearn"],
        ["unlearn", "digits", "--seed", "-1"],
        ["unlearn", "digits", "--out", "a", "--name", "b"],
        ["audit", "x", "--tier", "deepest"],
        ["audit", "x", "--oracles", "0"],
        ["cache", "prune", "--days", "-1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(run, words):
    said = run(*words)
    assert said.code == 2
    assert "Traceback" not in said.err


def test_no_colour_when_not_a_terminal(run):
    assert "\x1b" not in run("show", "finetune").out + run("--help").out + run("nonsense").err


def test_the_cache_lists_and_prunes_what_was_trained(run, small, monkeypatch, tmp_path):
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path / "ein Lager ü"))
    run("unlearn", small, "--forget", "class=1", "-q")
    (entry,) = run("cache", "ls", "--json").data
    assert entry["kind"] == "original"
    assert run("cache", "prune", "--json").data["removed"] == 0
    assert run("cache", "prune", "--days", "0", "--json").data == {
        "removed": 1,
        "bytes": entry["bytes"],
        "in use": [],
    }
    assert run("cache", "ls", "--json").data == []


def test_the_cache_sizes_signals_and_leaves_those_that_are_in_use(run, monkeypatch, tmp_path):
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path))
    file = MarginStore(tmp_path / SIGNALS, {}, {"forget": torch.arange(3)})
    zero = torch.zeros(3, dtype=torch.float64)
    file.append([ModelRecord(ModelId("oracle", 1), zero, zero.byte(), zero.float())])
    (entry,) = run("cache", "ls", "--json").data
    assert entry["kind"] == "signals"
    assert entry["bytes"] == sum(p.stat().st_size for p in file.folder.iterdir())
    with file.lock():
        said = run("cache", "prune", "--days", "0")
    assert "removed 0, freed 0 bytes" in said.out
    assert f"left {file.folder.name}: another process is at work on it" in said.out
    assert run("cache", "prune", "--days", "0", "--json").data["bytes"] == entry["bytes"]
    assert not file.folder.exists()


def test_a_damaged_cache_entry_can_still_be_pruned(run, small, monkeypatch, tmp_path):
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path / "cache"))
    run("unlearn", small, "--forget", "class=1", "-q")
    (side,) = (tmp_path / "cache").glob("??/*.json")
    side.write_text("{")
    assert [e["kind"] for e in run("cache", "ls", "--json").data] == ["damaged"]
    assert run("cache", "prune", "--days", "0", "--json").data["removed"] == 1


def test_the_help_lists_commands_by_use_and_cuts_no_description(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = run("--help").out.split("Commands:\n")[1]
    listed = [line.split()[0] for line in text.split("\n\n")[0].splitlines()]
    assert listed == [
        "demo", "unlearn", "audit", "ledger", "study", "localize", "moments",
        "methods", "metrics", "cases", "show", "reproduce", "cache", "doctor",
    ]  # fmt: skip
    assert "..." not in text
