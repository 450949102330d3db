"""Many models trained together are kept block by block."""

import pytest
import torch

from unlearnkit.cache import Cache
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import NullReporter, Runtime
from unlearnkit.oracles import oracle, train_originals
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case
from unlearnkit.train.ensemble import PLACES

TOY = toy_case(Classification(3))
TOY = TOY.replace(recipe=TOY.recipe.model_copy(update={"epochs": 2}))


class Killing(NullReporter):
    """Ends the process, as it were, in the middle of the second block's training."""

    def __init__(self):
        self.blocks = 0

    def progress(self, what, done, total):
        """Count the ends of blocks."""
        if "together" in what:
            if self.blocks:
                raise KeyboardInterrupt
            self.blocks += done == total


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_an_interrupt_on_an_accelerator_keeps_the_blocks_that_are_trained(tmp_path, monkeypatch):
    # There a block is as many models as half of the free memory holds: little, so that it is one.
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1, 1))
    cache = Cache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train_originals(TOY, seeds=3, rt=Runtime.on("cuda", reporter=Killing()), cache=cache)
    assert len(list(cache.entries())) == 1


@pytest.mark.parametrize("what", ["originals", "oracles"])
def test_an_interrupt_loses_no_more_than_the_block_in_training(tmp_path, what):
    cache = Cache(tmp_path)

    def train(rt):
        if what == "originals":
            return train_originals(TOY, seeds=40, rt=rt, cache=cache)
        return oracle(TOY, Rows(0, 1), seeds=40, rt=rt, cache=cache).runs

    with pytest.raises(KeyboardInterrupt):
        train(Runtime(reporter=Killing()))
    assert len(list(cache.entries())) == PLACES
    kept = train(Runtime())
    assert sum(run.cached for run in kept) == PLACES
