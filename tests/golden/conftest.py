"""Numbers kept beside the tests; written again with ``--regenerate-golden``."""

import json
from pathlib import Path

import numpy as np
import pytest

KEPT = Path(__file__).parent / "kept.json"
REMINDER = (
    "the arithmetic changed. If that was meant: raise NUMERICS in unlearnkit/core/version.py, run"
    " pytest tests/golden --regenerate-golden, and say in the changelog by how much"
)


def pytest_addoption(parser):
    parser.addoption(
        "--regenerate-golden", action="store_true", help="write the numbers of tests/golden again"
    )


@pytest.fixture
def golden(request):
    """Compare named numbers with the kept ones, or keep them."""

    def check(numbers):
        kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
        name = request.node.name
        if request.config.getoption("--regenerate-golden", default=False):
            kept[name] = numbers
            text = json.dumps(kept, indent=2, sort_keys=True) + "\n"
            KEPT.write_text(text, encoding="utf-8")
            return
        assert name in kept, f"{name}: nothing is kept; run with --regenerate-golden"
        assert numbers.keys() == kept[name].keys()
        for key, value in numbers.items():
            np.testing.assert_allclose(
                value, kept[name][key], rtol=1e-6, err_msg=f"{key}: {REMINDER}"
            )

    return check
