"""Studies whose audits are strong: methods judged by ensembles."""

import pytest

from unlearnkit.cache import Cache
from unlearnkit.core.errors import InputError
from unlearnkit.store import Store
from unlearnkit.studies.expand import expand
from unlearnkit.studies.run import run
from unlearnkit.studies.spec import make_study
from unlearnkit.studies.tables import show

WORDS = {
    "name": "strong",
    "cases": ["tests.studies.toys:three_classes"],
    "requests": ["class=1"],
    "methods": ["finetune", "salun"],
    "seeds": 1,
    "oracles": 3,
    "tier": "strong",
    "models": 4,
}
