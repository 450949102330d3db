"""JSON Schemas of the files that the command line writes and reads."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from unlearnkit.cli.run_folder import RunFolderRecord
from unlearnkit.core.checked import FrozenModel
from unlearnkit.ledger.certificate_form import CertificateForm, EntryForm
from unlearnkit.ledger.policy import LedgerPolicy
from unlearnkit.report.report import Report
from unlearnkit.studies.spec import Study

DIALECT = "https://json-schema.org/draft/2020-12/schema"

FILES: dict[str, type[FrozenModel]] = {
    "report": Report,
    "run": RunFolderRecord,
    "study": Study,
    "certificate": CertificateForm,
    "entry": EntryForm,
    "policy": LedgerPolicy,
}
"""What has a schema, by name: ``report.json`` and ``run.json`` of a run folder; a study in its full
form, which ``Study.model_dump`` writes (study files may also use the short forms); the statement in
the payload of a ``certificate.json``; a line of ``entries.jsonl``; and ``policy.yaml``."""


class _Schema(GenerateJsonSchema):
    """Numbers may be infinite or undefined, and JSON has no such numbers: they are words."""

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        number = super().float_schema(schema)
        lowest, highest = schema.get("ge", schema.get("gt")), schema.get("le", schema.get("lt"))
        if schema.get("allow_inf_nan") is False or None not in (lowest, highest):
            return number
        return {"anyOf": [number, {"enum": ["Infinity", "-Infinity", "NaN"]}]}


def json_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one kind of file.

    Args:
        name: A key of ``FILES``.

    Returns:
        The schema. It describes files of this version; ``schema_version`` in a file says which one
        wrote it.
    """
    found = FILES[name].model_json_schema(schema_generator=_Schema)
    return {"$schema": DIALECT, "$id": f"urn:unlearnkit:{name}", **found}


def schema_documents() -> dict[str, str]:
    """Return the text of every schema by its path in the repository."""
    return {
        f"docs/schemas/{name}.schema.json": json.dumps(json_schema(name), indent=1) + "\n"
        for name in FILES
    }
