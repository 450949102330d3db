"""Model registry: versions in MLflow, read, registered and named by an alias."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.ledger.policy import RegistryPlace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

T = TypeVar("T")

WAITS = (1.0, 2.0, 4.0)
"""Seconds between tries where the registry does not answer."""

TAG = "unlearnkit."
OWNER, CERTIFICATE = f"{TAG}ledger", f"{TAG}certificate_sha256"
FOLDER = "model"
"""Of the artefacts, within a run."""

SUFFIXES = {".safetensors", ".pt", ".pth", ".bin", ".ckpt"}
_URI = re.compile(r"models:/(?P<model>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))")


class RegistryError(InputError):
    """The registry does not answer, or refuses."""


@dataclass(frozen=True)
class RegisteredName:
    """What ``models:/digits/3`` or ``models:/digits@champion`` names."""

    model: str
    version: str = ""
    alias: str = ""

    @classmethod
    def parse(cls, uri: str) -> RegisteredName:
        """Return the parts of a name; another form is an ``InputError``."""
        found = _URI.fullmatch(uri)
        if found is None:
            raise InputError(
                f"registry: expected models:/NAME/3 or models:/NAME@ALIAS, got {uri[:80]!r}"
            )
        return cls(**{k: v or "" for k, v in found.groupdict().items()})


@dataclass(frozen=True)
class PublishedModel:
    """What is registered: the files of a published model, and what is known of it."""

    certificate: str
    """SHA-256 of the certificate: the same certificate is one version, however often it is sent."""

    ledger: str
    files: tuple[Path, ...]
    tags: Mapping[str, str]
    description: str
    before: str
    """The version that the ledger knows as the one before; empty where there is none."""


class ModelRegistry:
    """The registered model that a policy names.

    Each call is tried again with growing waits where the registry does not answer, and is a
    ``RegistryError`` after the last one.
    """

    def __init__(self, ledger: Path, place: RegistryPlace) -> None:
        check_installed()
        self.place = place
        self._uri = _tracking_uri(ledger, place)
        self._held: MlflowClient | None = None

    @property
    def name(self) -> str:
        """Return the place without what could be a password."""
        return _without_password(self._uri)

    def claim(self, ledger: str = "") -> None:
        """Write which ledger the registered model belongs to, if it is there; refuse another's.

        Args:
            ledger: Its id; nothing is written when empty.
        """
        self._try(lambda client: self._claim(client, ledger))

    def version(self, uri: str) -> ModelVersion:
        """Return the version that a name stands for now; none is a ``RegistryError``."""
        named = RegisteredName.parse(uri)
        return self._try(
            lambda client: (
                client.get_model_version_by_alias(named.model, named.alias)
                if named.alias
                else client.get_model_version(named.model, named.version)
            )
        )

    def versions(self) -> list[ModelVersion]:
        """Return all versions of the registered model, the first one first."""
        found = self._try(lambda client: list(_all_versions(client, self.place.model)))
        return sorted(found, key=lambda v: int(v.version))

    @contextmanager
    def weights(self, version: ModelVersion) -> Iterator[list[Path]]:
        """Yield the files of weights of a version; they are gone afterwards."""
        from mlflow.artifacts import download_artifacts

        def fetch(client: MlflowClient) -> str:
            return download_artifacts(
                client.get_model_version_download_uri(version.name, version.version),
                dst_path=to, tracking_uri=self._uri, registry_uri=self._uri,
            )  # fmt: skip

        with tempfile.TemporaryDirectory(prefix="unlearnkit-") as to:
            root = Path(self._try(fetch))
            files = sorted(p for p in (root, *root.rglob("*")) if p.is_file())
            yield [p for p in files if p.suffix in SUFFIXES]

    def publish(self, model: PublishedModel) -> dict[str, str]:
        """Register a model unless it is there, and let the alias name it; safe to repeat.

        Args:
            model: What is registered.

        Returns:
            Model, version, alias, the version that it supersedes, and the run with its files.
            A model of another ledger is a ``RegistryError``.
        """
        return self._try(lambda client: self._publish(client, model))

    def _publish(self, client: MlflowClient, model: PublishedModel) -> dict[str, str]:
        name, alias = self.place.model, self.place.alias
        if _owner(client, name) is None:
            _ignore_conflict(lambda: client.create_registered_model(name))
        self._claim(client, model.ledger)
        version = self._find(client, model) or self._register(client, model)
        before = version.tags.get(f"{TAG}supersedes", "")
        number = str(version.version)  # some stores give an integer
        if str(client.get_registered_model(name).aliases.get(alias)) != number:
            client.set_registered_model_alias(name, alias, number)
        if any(str(v.version) == before for v in _all_versions(client, name)):
            client.set_model_version_tag(name, before, f"{TAG}superseded_by", number)
        return {
            "model": name, "version": number, "alias": alias, "supersedes": before,
            "run": str(version.run_id),
        }  # fmt: skip

    def _find(self, client: MlflowClient, model: PublishedModel) -> ModelVersion | None:
        """Return the version of this certificate, if an earlier call got so far."""
        found = client.search_model_versions(
            f"name = '{self.place.model}' and tags.`{CERTIFICATE}` = '{model.certificate}'"
        )
        return min(found, key=lambda v: int(v.version), default=None)

    def _register(self, client: MlflowClient, model: PublishedModel) -> ModelVersion:
        """Write the files into a run of this certificate, then the version with all its tags."""
        experiment = self._experiment(client)
        runs = client.search_runs([experiment], f"tags.`{CERTIFICATE}` = '{model.certificate}'")
        tags = {**model.tags, CERTIFICATE: model.certificate, OWNER: model.ledger}
        run = runs[0] if runs else client.create_run(experiment, tags=tags)
        for path in model.files:
            client.log_artifact(run.info.run_id, str(path), FOLDER)
        client.set_terminated(run.info.run_id)
        source = f"runs:/{run.info.run_id}/{FOLDER}"
        aliases = client.get_registered_model(self.place.model).aliases
        tags[f"{TAG}supersedes"] = str(aliases.get(self.place.alias, model.before))
        tags[f"{TAG}report"] = f"{source}/report.json"
        return client.create_model_version(
            self.place.model, source, run.info.run_id, tags=tags,
            description=f"{model.description} Report: {source}/report.json",
        )  # fmt: skip

    def _experiment(self, client: MlflowClient) -> str:
        """Return the experiment that the policy names; of a database its files lie next to it."""
        found = client.get_experiment_by_name(self.place.experiment)
        if found is not None:
            return str(found.experiment_id)
        file = _database(self._uri)
        place = None if file is None else (file.parent / "mlartifacts").as_uri()
        return client.create_experiment(self.place.experiment, artifact_location=place)

    def _claim(self, client: MlflowClient, ledger: str) -> None:
        name = self.place.model
        held = _owner(client, name)
        if held == "" and ledger:
            client.set_registered_model_tag(name, OWNER, ledger)
        elif held and held != ledger:
            raise RegistryError(
                f"registry: {name!r} belongs to the ledger {held}; send requests there, or remove"
                f" its tag {OWNER} if that ledger is no longer used"
            )

    def _try(self, do: Callable[[MlflowClient], T]) -> T:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        for wait in (*WAITS, None):
            try:
                return do(self._client())
            except (MlflowException, SQLAlchemyError, OSError) as e:
                lines = _without_password(str(e)).strip().splitlines()
                told = (lines or [type(e).__name__])[0][:300]
                if isinstance(e, FileNotFoundError) or _is_final(e):
                    raise RegistryError(f"registry: {self.name}: {told}") from None
                if wait is None:
                    raise RegistryError(
                        f"registry: {self.name} does not answer after {len(WAITS) + 1} tries:"
                        f" {told}; nothing is lost: do the same again when it is back"
                    ) from None
                time.sleep(wait)
        raise AssertionError

    def _client(self) -> MlflowClient:
        if self._held is None:
            file = _database(self._uri)
            if file is not None and not file.is_file():
                raise OSError(f"no database {str(file)!r}; make one once: mlflow db upgrade URI")
            from mlflow import MlflowClient

            self._held = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        return self._held


def check_installed() -> None:
    """Refuse a registry without MLflow; tell MLflow to send no statistics, and not to wait alone.

    Raises:
        UnsupportedError: If it is not installed.
    """
    absent = [m for m in ("mlflow", "sqlalchemy", "alembic", "sqlparse") if not find_spec(m)]
    if absent:
        raise UnsupportedError(
            f"registry: it needs {', '.join(absent)}: pip install 'unlearnkit[ledger]'"
        )
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def absolute_uri(uri: str, base: Path) -> str:
    """Return a tracking URI whose database file does not depend on where a program is started."""
    scheme, relative, file = uri.partition(":///")
    if not relative or not scheme.startswith("sqlite") or not file or file.startswith("/"):
        return uri
    return f"{scheme}:////{(base / file).resolve().as_posix().lstrip('/')}"


def _tracking_uri(ledger: Path, place: RegistryPlace) -> str:
    uri = place.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise InputError(
            "registry: name tracking_uri in policy.yaml, or set MLFLOW_TRACKING_URI, such as"
            " sqlite:////srv/mlflow.db or https://mlflow.example"
        )
    return absolute_uri(uri, ledger)


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)


def _database(uri: str) -> Path | None:
    """Return the file of a SQLite database; None for any other place."""
    return Path(urlsplit(uri).path[1:]) if uri.startswith("sqlite") else None


def _owner(client: MlflowClient, name: str) -> str | None:
    """Return the owner of a registered model: empty where it has none, None where it is absent."""
    found = client.search_registered_models(f"name = '{name}'")
    return str(found[0].tags.get(OWNER, "")) if found else None


def _all_versions(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    token: Any = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _is_final(error: Exception) -> bool:
    """Return whether MLflow refuses, in place of failing."""
    status: Callable[[], int] = getattr(error, "get_http_status_code", lambda: 500)
    return status() < 500


def _ignore_conflict(do: Callable[[], object]) -> None:
    """Do what another process may have done in the meantime."""
    from mlflow.exceptions import MlflowException

    try:
        do()
    except MlflowException as e:
        if e.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
