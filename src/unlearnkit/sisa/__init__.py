"""Training in shards and slices (SISA): exact unlearning that retrains only what is touched."""

import importlib
from typing import TYPE_CHECKING

from unlearnkit.sisa.shard_plan import ShardPlan as ShardPlan
from unlearnkit.sisa.shard_plan import plan_at_random as plan_at_random
from unlearnkit.sisa.shard_plan import plan_by_expected_deletions as plan_by_expected_deletions
from unlearnkit.sisa.sharded_training import ShardRemoval as ShardRemoval

if TYPE_CHECKING:
    from unlearnkit.sisa.case_in_shards import sharded_case as sharded_case
    from unlearnkit.sisa.sharded_estimator import ShardedClassifier as ShardedClassifier
    from unlearnkit.sisa.sharded_estimator import ShardedRegressor as ShardedRegressor
    from unlearnkit.sisa.sharded_model import ShardedModel as ShardedModel

_HOMES = {
    "ShardedClassifier": "sharded_estimator",
    "ShardedModel": "sharded_model",
    "ShardedRegressor": "sharded_estimator",
    "sharded_case": "case_in_shards",
}
"""Where names live that load torch or scikit-learn."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
