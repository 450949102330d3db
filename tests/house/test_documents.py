"""The documents say what the code does."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit import docs
from unlearnkit.core.errors import InputError

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_generated_documents_are_up_to_date(capsys):
    assert docs.main(["--check"], ROOT) == 0, capsys.readouterr().err


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A folder with a readme and all generated documents."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "README.md").write_text(README)
    docs.main([], folder)
    return folder


def test_generating_twice_gives_the_same_and_checks_clean(generated):
    assert docs.main(["--check"], generated) == 0


def test_a_document_that_differs_or_is_left_over_is_named(generated, tmp_path, capsys):
    shutil.copytree(generated, tmp_path, dirs_exist_ok=True)
    (tmp_path / "docs" / "cli.md").write_text("old")
    (tmp_path / "docs" / "methods" / "gone.md").write_text("old")
    capsys.readouterr()
    assert docs.main(["--check"], tmp_path) == 1
    assert "docs/cli.md, docs/methods/gone.md" in capsys.readouterr().err
    docs.main([], tmp_path)
    assert not (tmp_path / "docs" / "methods" / "gone.md").exists()


def test_the_readme_stays_short_enough_to_be_read():
    assert len(README.splitlines()) <= 150


def test_links_of_the_readme_lead_somewhere():
    local = [x for x in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in x]
    assert [x for x in local if not (ROOT / x).exists()] == []


def test_a_readme_without_markers_is_refused():
    with pytest.raises(InputError, match=r"lacks the markers <!-- methods:begin -->"):
        docs.fill("nothing here", {"methods": "x"})


def test_the_readmes_own_model_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 4
    x = torch.randn(240, 6, generator=rng) + 3 * torch.eye(4, 6)[y]
    make_model = lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))  # noqa: E731  # as a user would
    case = uk.Case(
        train=(x[:160], y[:160]),
        task="classification",
        fresh=make_model,
        recipe=uk.Recipe(epochs=5),
    )
    names = {
        "x": x[:160],
        "y": y[:160],
        "x_test": x[160:],
        "y_test": y[160:],
        "make_model": make_model,
        "model": uk.train_original(case).model,
    }
    exec(compile(code, "README.md", "exec"), names)  # the point of the test
    assert isinstance(names["report"], uk.Report)
    assert (tmp_path / "report.html").stat().st_size > 0


@pytest.mark.parametrize("line", re.findall(r"^\$ unlearnkit (.*)$", README, flags=re.MULTILINE))
def test_the_readmes_commands_exist(line):
    assert f"unlearnkit {line.split()[0]}" in dict(docs.helps())
