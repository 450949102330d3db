"""What every test stands on: one thread, and a cache that is nobody else's."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNLEARNKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _short_lessons(request, monkeypatch):
    """Copies of models relearn for a few steps only, but where a test asks for the full length."""
    if request.node.get_closest_marker("full_lessons"):
        return
    from unlearnkit.metrics import relearn

    monkeypatch.setattr(relearn, "CAP", 5)
    monkeypatch.setattr(relearn, "ORDERS", 2)
    monkeypatch.setattr(relearn, "LESSONS", 1)
    monkeypatch.setattr(relearn, "PUBLISHED_ROWS", 100)
