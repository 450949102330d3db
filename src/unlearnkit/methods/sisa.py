"""SISA: retrain the shards that held the forget set; keep all others."""

import torch
from torch import nn

from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.sisa.case_in_shards import ShardTraining, as_shard_network
from unlearnkit.sisa.sharded_training import ASSUMPTIONS
from unlearnkit.train.loop import fit


@register
class Sisa(Method):
    """Train the networks of touched shards from scratch on the rows that stay: exact."""

    info = Info(
        title="SISA",
        cite="Bourtoule et al., IEEE S&P 2021, arXiv:1912.03817",
        needs=frozenset({Need.RETAIN, Need.FORGET, Need.FRESH, Need.LABELS}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        may_damage=True,
        replaces=True,
        when=(
            "When deletion requests are expected before the model is trained: train it with"
            " `unlearnkit.sisa.sharded_case`, and a request for one row costs about one shard of"
            " retraining. `unlearnkit.sisa.ShardedModel` and `ShardedClassifier` keep the state on"
            " disk, restart from the last slice before the row, and serve sequences of requests."
        ),
        differs=(
            "each row's place is drawn by itself, from a seed and the row's key, where the paper"
            " cuts a random order into equal parts: a model trained without the rows then has the"
            " same shards. The paper's algorithm 1 is `plan_by_expected_deletions` with `deletions`"
            " as its balance",
            "as a method it has the networks alone and no checkpoints of slices, so that a touched"
            " shard is trained from its start; the classes of `unlearnkit.sisa` have them",
            "optimiser and learning-rate schedule start anew with each slice",
            "a model that was not trained in shards is one shard: it is retrained",
            "deletion inside single trees and forests (DaRE) is not built: a shard of trees is"
            " refitted",
        ),
        fails=(
            "requests that touch every shard cost a whole retraining: a class of which every shard"
            " has rows, or more random rows than shards",
            "each network sees a share of the rows, which costs accuracy: the more the fewer rows a"
            " shard has (docs/results/sisa.md)",
        ),
        exact=ASSUMPTIONS,
    )

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Copy the networks that never saw a forget row; train the others anew."""
        model = p.fresh()
        if not isinstance(p.training, ShardTraining):
            rt.note(
                "sisa: the model was not trained in shards, so that it was retrained as one shard;"
                " train it with unlearnkit.sisa.sharded_case to retrain a part only"
            )
            if p.train is not None:
                p.train(model, p.retain)
            else:
                fit(model, p.retain, p.task, p.recipe, rt, stream="retain")
            return model
        plan = p.training.plan
        new, given = as_shard_network(model, plan), as_shard_network(p.model, plan)
        touched = p.training.shards_of(p.forget.rows)
        with torch.no_grad():
            new.weight.copy_(given.weight)
        for k, network in enumerate(given.networks):
            if k not in touched:
                new.networks[k].load_state_dict(network.state_dict())
        p.training.train_shards(new, p.retain, rt, touched)
        return new
