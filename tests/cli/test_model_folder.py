"""Documents are forgotten by a language model in a folder."""

import json

import pytest

from tests.language.tiny import bert, gpt2, questions, t5, tokenizer, transformers


@pytest.fixture
def folder(tmp_path):
    model = tmp_path / "model"
    gpt2().save_pretrained(model)
    tokenizer().save_pretrained(model)
    (tmp_path / "docs").mkdir()
    for name, text in (
        ("a", "anna lives in rome and sings"),
        ("b", "bob is in oslo"),
        ("c", "carl"),
    ):
        (tmp_path / "docs" / f"{name}.txt").write_text(text * 2)
    return tmp_path


QUICK = ("-p", "guard.stop=never", "-p", "run.lr=10", "--quiet")


def test_documents_are_forgotten_and_the_folder_loads(run, folder):
    said = run(
        "unlearn", "model", "--task", "causal_lm", "--forget", "docs/a.txt", "docs/b.txt",
        "--retain", "docs/*.txt", "--method", "simnpo", "--out", "new", *QUICK,
    )  # fmt: skip
    assert said.code == 0, said.err
    record = json.loads((folder / "new" / "unlearning.json").read_text())
    assert record["forget"] == ["docs/a.txt", "docs/b.txt"]
    assert (record["method"], record["documents that stay"]) == ("simnpo", 1)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder / "new")
    given = transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
    assert any(not p.equal(q) for p, q in zip(loaded.parameters(), given.parameters(), strict=True))
    assert len(transformers.AutoTokenizer.from_pretrained(folder / "new")) == 97


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--forget", "docs/a.txt"], "--retain: name documents that stay"),
        (["--forget", "docs/*.txt", "--retain", "docs/*.txt"], "all of these documents are to be"),
        (["--forget", "no/*.txt", "--retain", "docs/*.txt"], "'no/*.txt' matches no file"),
    ],
)
def test_documents_that_do_not_fit_are_refused_in_one_line(run, folder, words, told):
    said = run("unlearn", "model", "--task", "causal_lm", *words, "--out", "new", "--quiet")
    assert said.code == 1
    assert told in said.err
    assert not (folder / "new").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("docs", "'docs' is no folder of a model: it has no config.json"),
        ("absent", "'absent': no such folder of a model"),
    ],
)
def test_a_folder_without_a_model_is_refused(run, folder, name, told):
    words = ["--forget", "docs/a.txt", "--retain", "docs/b.txt", "--out", "new"]
    said = run("unlearn", name, "--task", "causal_lm", *words)
    assert said.code == 1
    assert told in said.err


def test_extra_arguments_without_a_task_are_refused(run, folder):
    said = run("unlearn", "digits", "--forget", "class=3", "class=4")
    assert said.code == 2
    assert "got also class=4" in said.err


@pytest.mark.parametrize(("task", "make"), [("masked_lm", bert), ("seq2seq", t5)])
def test_rows_are_forgotten_by_a_model_of_another_kind(run, tmp_path, task, make):
    make().save_pretrained(tmp_path / "model")
    tokenizer(mask_token="~").save_pretrained(tmp_path / "model")
    for name, part in (("gone", questions()[:2]), ("kept", questions()[2:])):
        lines = [json.dumps(row) for row in part]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    said = run(
        "unlearn", "model", "--task", task, "--forget", "gone.jsonl", "--retain", "kept.jsonl",
        "--method", "simnpo", "--out", "new", "-p", "guard.stop=never", "--quiet",
    )  # fmt: skip
    assert said.code == 0, said.err
    loaded = type(make()).from_pretrained(tmp_path / "new")
    given = type(loaded).from_pretrained(tmp_path / "model")
    assert any(not p.equal(q) for p, q in zip(loaded.parameters(), given.parameters(), strict=True))


def test_lines_that_are_no_json_are_named(run, tmp_path):
    t5().save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"')
    (tmp_path / "b.jsonl").write_text("{}")
    said = run(
        "unlearn", "model", "--task", "seq2seq", "--forget", "a.jsonl", "--retain", "b.jsonl",
        "--out", "new", "--quiet",
    )  # fmt: skip
    assert said.code == 1
    assert "a.jsonl: line 1 is no JSON" in said.err
