import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from unlearnkit.checkpoint import load_weights, save_weights
from unlearnkit.methods.finetune import FineTune
from unlearnkit.store import Store
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case

FILES = {"model.safetensors", "original.safetensors", "run.json"}


def weights(folder, name="model.safetensors"):
    return load_weights(toy_case(Classification(3)).fresh(), folder / name).state_dict()


def equal(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("out", ["x", "with space/and ü ß/日本"])
def test_a_run_leaves_weights_and_a_record_and_nothing_else(run, small, tmp_path, out):
    said = run("unlearn", small, "--forget", "class=1", "--out", out)
    assert said.code == 0, said.err
    assert {p.name for p in (tmp_path / out).iterdir()} == FILES
    beside = {p.name for p in (tmp_path / out).parent.iterdir()} - {"small_case.py", "__pycache__"}
    assert beside == {(tmp_path / out).name, "unlearnkit.sqlite", ".unlearnkit.sqlite.lock"}


def test_json_on_stdout_is_the_record(run, small, tmp_path):
    said = run("unlearn", small, "--forget", "class=1", "--name", "a b", "--json", "--quiet")
    record = json.loads((tmp_path / "runs" / "a b" / "run.json").read_text())
    assert said.data == {"folder": "runs/a b", **record}
    assert said.err == ""
    assert record["job"]["forget"] == {"kind": "classes", "classes": [1]}
    assert record["job"]["settings"] == FineTune().model_dump(mode="json")


def test_a_record_runs_again_to_the_same_bits(run, small, tmp_path):
    words = ["--forget", "rows=0:5,9", "-p", "run.kind=tuning", "-p", "run.schedule=constant"]
    run("unlearn", small, *words, "--seed", 3, "--name", "a")
    assert run("unlearn", "--trust", "--config", "runs/a/run.json", "--name", "b").code == 0
    a, b = tmp_path / "runs/a", tmp_path / "runs/b"
    assert equal(weights(a), weights(b))
    assert not equal(weights(a), weights(a, "original.safetensors"))


def test_a_nested_setting_changes_that_one_and_no_other(run, small, tmp_path):
    default = run("unlearn", small, "--forget", "class=1", "--json", "--name", "a").data
    changed = run(
        "unlearn", small, "--forget", "class=1", "--json", "--name", "b", "-p", "run.lr=3"
    ).data
    want = default["job"]["settings"]["run"] | {"lr": 3.0}
    assert changed["job"]["settings"]["run"] == want


@pytest.mark.parametrize(
    ("word", "want"),
    [("run.share=0.5", {"share": 0.5}), ("run.recipe.epochs=2", {"recipe": {"epochs": 2}})],
)
def test_a_nested_setting_changes_one_value_of_a_preset(run, small, word, want):
    paper = FineTune.build("paper").model_dump(mode="json")["run"]
    recipe = paper["recipe"] | want.pop("recipe", {}) | {"augment": "none"}
    words = ["-p", word, "-p", "run.recipe.augment=none", "--preset", "paper", "--json"]
    record = run("unlearn", small, "--forget", "class=1", *words).data
    assert record["job"]["settings"]["run"] == paper | want | {"recipe": recipe}


def test_yaml_says_the_same_as_options_and_options_win(run, small, tmp_path):
    job = {"case": small, "forget": {"class": 1}, "settings": {"run": {"lr": 2, "share": 0.5}}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    record = run("unlearn", "--config", "job.yaml", "-p", "run.lr=3", "--seed", 4, "--json").data
    assert (
        record["job"]["settings"]["run"] | {"lr": 3.0, "share": 0.5}
        == (record["job"]["settings"]["run"])
    )
    assert (record["job"]["seed"], record["job"]["forget"]["classes"]) == (4, [1])


def test_rows_come_from_a_file_and_the_record_holds_them(run, small, tmp_path):
    (tmp_path / "rows ü.txt").write_text("3\n1\n")
    record = run("unlearn", small, "--forget", "rows=@rows ü.txt", "--json").data
    assert record["job"]["forget"]["rows"] == [3, 1]


def test_a_given_checkpoint_is_the_original(run, small, tmp_path):
    model = toy_case(Classification(3)).fresh()
    save_weights(model, tmp_path / "in.pt")
    assert run("unlearn", small, "--forget", "class=1", "--model", "in.pt", "--name", "a").code == 0
    assert equal(weights(tmp_path / "runs/a", "original.safetensors"), model.state_dict())


def test_a_taken_folder_is_refused_and_replaced_by_force(run, small, tmp_path):
    words = ["unlearn", small, "--forget", "class=1", "--name", "a"]
    run(*words)
    said = run(*words)
    assert said.code == 1
    assert "--force" in said.err
    before = weights(tmp_path / "runs/a")
    assert run(*words, "--force", "-p", "run.lr=3").code == 0
    assert not equal(weights(tmp_path / "runs/a"), before)
    assert len([p for p in (tmp_path / "runs").iterdir() if p.is_dir()]) == 1


def test_force_replaces_runs_only(run, small, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_text("x")
    said = run("unlearn", small, "--forget", "class=1", "--out", "photos", "--force")
    assert said.code == 1
    assert "is no run" in said.err
    assert (tmp_path / "photos" / "me.jpg").exists()


NOTHING = [
    (["--forget", "class=9"], "no row of class 9"),
    (["--forget", "class"], "expected class=3"),
    (["--forget", "class=0,1,2"], "all rows"),
    (["--forget", "rows="], "no row"),
    (["--forget", "rows=0,0"], "named twice"),
    (["--forget", "rows=100000"], "out of range"),
    (["--forget", "rows=@none.txt"], "cannot read 'none.txt'"),
    (["--forget", "klass=1"], "Did you mean 'class'"),
    (["--forget", "class=1", "--method", "finetun"], "Did you mean 'finetune'"),
    (["--forget", "class=1", "--preset", "nope"], "no preset of finetune 'nope'"),
    (["--forget", "class=1", "-p", "ran.lr=1"], "Did you mean 'run'"),
    (["--forget", "class=1", "-p", "run.lr=-1"], "lr: input should be greater than"),
    (["--forget", "class=1", "-p", "run.lrr=1"], "lrr"),
    (["--forget", "class=1", "-p", "run"], "expected key=value"),
    (["--forget", "class=1", "-p", "run.lr=1", "-p", "run.lr=2"], "given twice"),
    (["--forget", "class=1", "-p", "run.lr=["], "no YAML"),
    (["--forget", "class=1", "--model", "none.pt"], "cannot read 'none.pt'"),
    (["--forget", "class=1", "--device", "cuda:99"], "'cuda:99' is not available here"),
    (["--forget", "class=1", "--device", "gpu"], "no such device"),
    (["--forget", "class=1", "--name", "../../x"], "use --out for a path"),
    (["--forget", "class=1", "--name", ".."], "use --out for a path"),
    (["--forget", "class=1", "--name", "/tmp"], "use --out for a path"),
    (["--forget", "class=1", "--name", "a\\b"], "use --out for a path"),
    (["--config", "none.yaml"], "cannot read 'none.yaml'"),
]


@pytest.mark.parametrize(("words", "why"), NOTHING, ids=[" ".join(w) for w, _ in NOTHING])
def test_bad_input_is_one_line_and_nothing_is_written(run, small, tmp_path, words, why):
    before = {p.name for p in tmp_path.iterdir()} | {"__pycache__"}
    said = run("unlearn", small, *words)
    assert (said.code, said.out) == (1, "")
    assert why in said.err
    assert said.err.startswith("unlearnkit: ")
    assert said.err.count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} <= before


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("digit", "Did you mean 'digits'"),
        ("nowhere.to:find", "cannot import 'nowhere.to'"),
        ("small_case:none", "has no function 'none'"),
        ("small_case:wrong", "must return a Case, got int"),
    ],
)
def test_a_wrong_case_is_told(run, small, case, why):
    said = run("unlearn", case, "--forget", "class=1")
    assert said.code == 1
    assert why in said.err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("case: digits\nforgett: class=3\n", "Did you mean 'forget'"),
        ("forget: class=3\n", "name a case"),
        ("- 3\n", "got list"),
        ("a: [", "no YAML"),
        ("case: digits\nforget: class=3\nseed: -1\n", "seed: input should be greater"),
    ],
)
def test_a_wrong_job_file_is_told(run, tmp_path, text, why):
    (tmp_path / "job.yaml").write_text(text)
    said = run("unlearn", "--config", "job.yaml")
    assert said.code == 1
    assert why in said.err


def test_a_checkpoint_of_another_architecture_names_the_tensor(run, small, tmp_path):
    save_weights(torch.nn.Linear(2, 2), tmp_path / "in.safetensors")
    said = run("unlearn", small, "--forget", "class=1", "--model", "in.safetensors")
    assert said.code == 1
    assert "another architecture" in said.err
    assert not (tmp_path / "runs").exists()


def test_a_diverged_run_is_a_failed_row_and_leaves_no_folder(run, small, tmp_path):
    words = ["-p", "run.lr=1e30", "-p", "run.share=1"]
    said = run("unlearn", small, "--forget", "class=1", *words, "--name", "a")
    assert said.code == 1
    assert "diverged" in said.err
    assert [p.name for p in (tmp_path / "runs").iterdir() if p.is_dir()] == []
    with Store(tmp_path / "runs" / "unlearnkit.sqlite") as store:
        (row,) = store.runs()
    assert row.status == "failed"
    assert "diverged" in row.error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_place_is_told(run, small, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    said = run("unlearn", small, "--forget", "class=1", "--out", "locked/x")
    assert said.code == 1
    assert "cannot write" in said.err


def test_a_place_below_a_file_is_told(run, small, tmp_path):
    (tmp_path / "file").write_text("")
    said = run("unlearn", small, "--forget", "class=1", "--out", "file/x")
    assert said.code == 1
    assert "cannot write 'file/x'" in said.err


def endless(small, tmp_path):
    """Start a run that would train for days, in a process of its own."""
    words = [sys.executable, "-m", "unlearnkit", "unlearn", small, "--forget", "class=1"]
    words += ["-p", "run.kind=tuning", "-p", "run.recipe.epochs=10000000", "--out", "out/x"]
    path = os.pathsep.join([str(tmp_path), *sys.path])
    return subprocess.Popen(
        words,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  # no threads in the child yet
    )


def test_ctrl_c_removes_what_was_begun_and_exits_with_130(small, tmp_path):
    with endless(small, tmp_path) as process:
        for line in process.stderr:
            if line.startswith("unlearning with"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert [p.name for p in (tmp_path / "out").iterdir() if p.is_dir()] == []
    with Store(tmp_path / "out" / "unlearnkit.sqlite") as store:
        assert [r.status for r in store.runs()] == ["cancelled"]


def test_a_second_ctrl_c_exits_at_once(small, tmp_path):
    # What ends the run in order takes a minute here, and bears any exception.
    with (tmp_path / "small_case.py").open("a") as f:
        f.write(
            "import sys, time\nfrom unlearnkit.store import Store\n"
            "def slow(self, run):\n"
            "    print('recording', run.status, file=sys.stderr, flush=True)\n"
            "    end = time.time() + 60\n"
            "    while time.time() < end:\n"
            "        try:\n            time.sleep(1)\n"
            "        except KeyboardInterrupt:\n            pass\n"
            "Store.save_run = slow\n"
        )
    said = []
    with endless(small, tmp_path) as process:
        for line in process.stderr:
            said.append(line)
            if line.startswith("unlearning with"):
                process.send_signal(signal.SIGINT)
            if line.startswith("recording cancelled"):
                time.sleep(1)  # by then it waits
                start = time.perf_counter()
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert time.perf_counter() - start < 10
    assert process.returncode == 130
    assert any("trained models and finished runs are kept" in line for line in said)
    assert any("press Ctrl-C again to exit at once" in line for line in said)
    assert "Traceback" not in rest


@pytest.mark.parametrize("method", ["npo", "class_pruning", "rewind"])
def test_a_method_that_cannot_serve_the_case_is_refused_before_anything_is_trained(
    run, small, method
):
    said = run("unlearn", small, "--forget", "rows=0:3", "--method", method)
    assert said.code == 1
    assert "training the original" not in said.err
    assert "these do: " in said.err or "these work: " in said.err
