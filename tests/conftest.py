"""What every test stands on: one thread, and a cache that is nobody else's."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNLEARNKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
