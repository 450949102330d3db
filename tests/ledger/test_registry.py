"""A real MLflow registry in a SQLite file: versions read, registered once, and found again."""

import multiprocessing
import os
import shutil

import pytest
import torch

import unlearnkit as uk
from tests.ledger.conftest import small_case, write_policy
from unlearnkit.core.errors import InputError

pytest.importorskip("cryptography")
pytest.importorskip("mlflow")

from unlearnkit.ledger import model_registry
from unlearnkit.ledger.carriers import find_carriers
from unlearnkit.ledger.model_registry import ModelRegistry, RegistryError
from unlearnkit.ledger.policy import RegistryPlace, read_policy

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
DOWN = "http://127.0.0.1:9"


def client_of(uri):
    model_registry.check_installed()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """The tables of MLflow, which take seconds to make."""
    place = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    client_of(f"sqlite:///{place}")
    return place


@pytest.fixture
def uri(empty_database, tmp_path):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def short_waits(monkeypatch):
    monkeypatch.setattr(model_registry, "WAITS", (0.01, 0.02))


def place(uri, **more):
    return {"tracking_uri": uri, "model": "small", **more}


def register_by_hand(uri, model, tmp_path, suffix=".safetensors"):
    """What a team does that keeps its models in MLflow: a version, and the alias on it."""
    client = client_of(uri)
    found = client.get_experiment_by_name("team")
    where = (tmp_path / "team").as_uri()
    experiment = found.experiment_id if found else client.create_experiment("team", where)
    run = client.create_run(experiment).info.run_id
    path = uk.save_weights(model, tmp_path / f"weights{suffix}")
    client.log_artifact(run, str(path), "files")
    if not client.search_registered_models("name = 'small'"):
        client.create_registered_model("small")
    version = client.create_model_version("small", f"runs:/{run}/files", run).version
    client.set_registered_model_alias("small", "champion", version)
    return str(version)


def digests(uri, version):
    """The weights of a version as another program reads them."""
    from mlflow.artifacts import download_artifacts
    from safetensors.torch import load_file

    where = client_of(uri).get_model_version_download_uri("small", version)
    root = download_artifacts(where, tracking_uri=uri)
    return load_file(f"{root}/model.safetensors")


def test_a_published_model_becomes_a_version_with_its_files_tags_and_alias(make, uri):
    ledger = make(registry=place(uri))
    ledger.request("rows=a0003", id="one")
    outcome = ledger.run()
    assert (outcome.state, outcome.registry) == ("done", "")
    client = client_of(uri)
    version = client.get_model_version_by_alias("small", "champion")
    (done,) = ledger.entries("certificate")
    (attempt,) = ledger.entries("attempt")
    want = {
        "batch": "batch-0001", "requests": "1", "method": "finetune", "evidence": "empirical",
        "tier": "fast", "verdict": attempt.body["verdict"], "supersedes": "",
        "certificate_sha256": done.body["certificate"], "ledger": ledger.entries()[0].body["id"],
        "model_digest": done.body["model"], "report": f"runs:/{version.run_id}/model/report.json",
    }  # fmt: skip
    assert version.tags == {f"unlearnkit.{k}": v for k, v in want.items()}
    files = {f.path.rpartition("/")[2] for f in client.list_artifacts(version.run_id, "model")}
    assert files == {"model.safetensors", "report.json", "certificate.json"}
    weights = digests(uri, version.version)
    original = uk.train_original(ledger.case, cache=ledger.cache).model
    gone = uk.unlearn(original, ledger.case, uk.Rows("a0003"), "finetune").model.state_dict()
    assert weights.keys() == gone.keys()
    assert all(torch.equal(weights[k], gone[k]) for k in gone)
    assert ledger.check() == []
    (entry,) = ledger.entries("registered")
    assert (entry.body["version"], entry.body["alias"]) == ("1", "champion")


def test_the_next_model_is_the_next_version_and_says_which_it_supersedes(make, uri):
    ledger = make(registry=place(uri, alias="live"))
    for name in ("a0003", "a0007"):
        ledger.request(f"rows={name}")
        ledger.run()
    assert ledger.run() is None
    client = client_of(uri)
    assert client.get_registered_model("small").aliases == {"live": 2}
    assert client.get_model_version("small", "2").tags["unlearnkit.supersedes"] == "1"
    assert client.get_model_version("small", "1").tags["unlearnkit.superseded_by"] == "2"
    assert len(ledger.entries("registered")) == 2


@pytest.mark.parametrize(
    ("name", "suffix"), [("models:/small/1", ".pt"), ("models:/small@champion", ".safetensors")]
)
def test_a_ledger_begins_from_a_registered_version(make, uri, tmp_path, name, suffix):
    model = small_case().fresh()
    register_by_hand(uri, model, tmp_path, suffix)
    ledger = make(model=name, registry=place(uri))
    first = ledger.entries()[0].body
    from unlearnkit.core.digest import model_digest

    assert (first["model"], first["source"]) == (model_digest(model), "models:/small/1")
    ledger.request("rows=a0003")
    ledger.run()
    version = client_of(uri).get_model_version_by_alias("small", "champion")
    assert (version.version, version.tags["unlearnkit.supersedes"]) == (2, "1")


def test_old_versions_are_carriers_by_what_they_hold(make, uri, tmp_path):
    original = uk.train_original(small_case(), cache=None).model
    register_by_hand(uri, original, tmp_path)
    ledger = make(model="models:/small/1", registry=place(uri))
    ledger.request("rows=a0003")
    ledger.run()
    stranger = register_by_hand(uri, ledger.case.fresh(), tmp_path)
    ledger.request("rows=a0007")
    ledger.run()
    found = {
        c.place: c
        for c in find_carriers(ledger.folder, ledger.case, cache=ledger.cache)
        if c.kind == "registered version"
    }
    holds = {name: c.holds for name, c in found.items()}
    assert holds == {
        "models:/small/1": "yes",
        "models:/small/2": "yes",
        "models:/small/3": "possibly",
    }
    assert stranger == "3"
    assert (
        "delete the version and its run, then its files: mlflow gc"
        in found["models:/small/2"].action
    )
    assert not any(c.ours for c in found.values())
    shutil.rmtree(tmp_path / "team")
    found = {
        c.place: c.action for c in find_carriers(ledger.folder, ledger.case, cache=ledger.cache)
    }
    assert "its files cannot be read now" in found["models:/small/1"]


def test_a_registry_that_is_down_is_said_and_made_good_at_the_next_run(make, uri, short_waits):
    ledger = make()
    write_policy(ledger.folder, registry=place(DOWN))
    ledger.request("rows=a0003", id="one")
    outcome = ledger.run()
    assert outcome.state == "done"
    assert outcome.registry.startswith(f"registry: {DOWN} does not answer after 3 tries: ")
    assert "nothing is lost" in outcome.registry
    assert ledger.states() == {"one": "done"}
    with pytest.raises(RegistryError, match="does not answer"):
        ledger.run()
    write_policy(ledger.folder, registry=place(uri))
    assert ledger.run() is None
    assert client_of(uri).get_model_version_by_alias("small", "champion").version == 1
    assert ledger.run() is None
    assert len(ledger.entries("registered")) == 1
    assert ledger.check() == []


def test_carriers_say_that_the_registry_could_not_be_asked(make, short_waits):
    ledger = make()
    ledger.request("rows=a0003")
    ledger.run()
    write_policy(ledger.folder, registry=place(DOWN))
    found = find_carriers(ledger.folder, ledger.case, cache=ledger.cache)
    (one,) = [c for c in found if c.kind == "registered version"]
    assert (one.holds, one.place) == ("possibly", "small")
    assert one.action.startswith("look again: registry: ")


STOPS = ["create_model_version", "append"]
MORE_STOPS = [
    *("create_registered_model", "create_run", "log_artifact", "set_registered_model_alias"),
]


@pytest.mark.parametrize(
    "step", [*STOPS, *(pytest.param(s, marks=pytest.mark.exhaustive) for s in MORE_STOPS)]
)
def test_a_kill_after_each_step_leaves_one_version_in_the_end(make, uri, step):
    ledger = make()  # the registry is named later, so that no connection is open at the fork
    ledger.request("rows=a0003")
    ledger.run()
    write_policy(ledger.folder, registry=place(uri))

    def stopped():
        from mlflow import MlflowClient

        from unlearnkit.ledger.register import Register

        kind = Register if step == "append" else MlflowClient
        whole = getattr(kind, step)

        def step_and_end(self, *args, **kwargs):
            if step == "append" and args[0] != "registered":
                return whole(self, *args, **kwargs)
            if step != "append":  # after the registry has done it, before the ledger knows
                whole(self, *args, **kwargs)
            os._exit(9)

        setattr(kind, step, step_and_end)
        ledger.run()

    child = multiprocessing.get_context("fork").Process(target=stopped)
    child.start()
    child.join(60)
    assert child.exitcode == 9
    assert ledger.run() is None
    client = client_of(uri)
    assert [v.version for v in client.search_model_versions("name = 'small'")] == [1]
    assert client.get_registered_model("small").aliases == {"champion": 1}
    experiment = client.get_experiment_by_name("unlearnkit").experiment_id
    assert len(client.search_runs([experiment])) == 1
    assert len(ledger.entries("registered")) == 1
    assert ledger.check() == []


def test_two_ledgers_on_one_registered_model_are_refused(make, uri, tmp_path):
    register_by_hand(uri, small_case().fresh(), tmp_path)
    first = make("first", model="models:/small/1", registry=place(uri))
    owner = first.entries()[0].body["id"]
    with pytest.raises(RegistryError, match=f"'small' belongs to the ledger {owner}; send"):
        make("second", model="models:/small/1", registry=place(uri))
    assert not (tmp_path / "second" / "ledger.sqlite").exists()


def test_a_ledger_that_comes_second_publishes_nothing_in_the_registry(make, uri):
    first, second = make("first"), make("second")
    for ledger in (first, second):
        write_policy(ledger.folder, registry=place(uri))
        ledger.request("rows=a0003")
    assert first.run().registry == ""
    assert "belongs to the ledger" in second.run().registry
    assert len(client_of(uri).search_model_versions("name = 'small'")) == 1


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("models:/small/7", "Model Version .*not found"),
        ("models:/small@nobody", "alias nobody not found"),
        ("models:/small", "expected models:/NAME/3 or models:/NAME@ALIAS"),
        ("models:/other/1", "must name the registered model of models:/other/1"),
    ],
)
def test_a_version_that_is_not_there_is_one_line(make, uri, tmp_path, name, error):
    register_by_hand(uri, small_case().fresh(), tmp_path)
    with pytest.raises(InputError, match=error):
        make(model=name, registry=place(uri))
    assert not (tmp_path / "ledger" / "ledger.sqlite").exists()


def test_a_database_that_is_not_there_is_not_made(tmp_path, short_waits):
    uri = f"sqlite:///{tmp_path / 'gone' / 'mlflow.db'}"
    with pytest.raises(RegistryError, match=r"no database .* make one once: mlflow db upgrade"):
        ModelRegistry(tmp_path, RegistryPlace(tracking_uri=uri, model="small")).versions()


def test_a_password_is_kept_out_of_the_policy_and_out_of_the_ledger(make, monkeypatch, short_waits):
    ledger = make()
    write_policy(ledger.folder, registry=place("http://me:secret@127.0.0.1:9"))
    with pytest.raises(InputError, match="holds a password; leave it out"):
        read_policy(ledger.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    write_policy(ledger.folder, registry={"model": "small"})
    ledger.request("rows=a0003")
    assert "secret" not in ledger.run().registry
    assert "secret" not in str([e.facts() for e in ledger.entries()])


def test_a_relative_database_is_found_wherever_a_program_starts(tmp_path):
    found = model_registry.absolute_uri("sqlite:///mlflow.db", tmp_path)
    assert found == f"sqlite:////{str(tmp_path)[1:]}/mlflow.db"
    for other in ("sqlite:////srv/m.db", "https://mlflow.example", "postgresql://h/db"):
        assert model_registry.absolute_uri(other, tmp_path) == other
