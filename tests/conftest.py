"""What every test stands on: one thread, and a cache that is nobody else's."""

import os
import warnings

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNLEARNKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def cluster(_own_cache):
    """One local Ray, a processor wide, for all tests that ask for it."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        patch.setenv("UNLEARNKIT_TOY_HOME", str(os.getpid()))  # toys can tell a worker from here
        ray.init(
            address="local",
            num_cpus=1,
            include_dashboard=False,
            object_store_memory=80 * 2**20,
            log_to_driver=False,
            logging_level="error",
        )
        yield
        ray.shutdown()


@pytest.fixture(autouse=True)
def _short_lessons(request, monkeypatch):
    """Copies of models relearn for a few steps only, but where a test asks for the full length."""
    if request.node.get_closest_marker("full_lessons"):
        return
    from unlearnkit.metrics import relearning_speed as relearn

    monkeypatch.setattr(relearn, "CAP", 5)
    monkeypatch.setattr(relearn, "ORDERS", 2)
    monkeypatch.setattr(relearn, "LESSONS", 1)
    monkeypatch.setattr(relearn, "PUBLISHED_ROWS", 100)
