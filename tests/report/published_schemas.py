"""The JSON Schemas as they are published."""

import json
from pathlib import Path

import jsonschema

FOLDER = Path(__file__).parents[2] / "docs" / "schemas"


def checker(name):
    """What a reader outside this project would use: the published file."""
    text = (FOLDER / f"{name}.schema.json").read_text("utf-8")
    return jsonschema.Draft202012Validator(json.loads(text))
