"""Outputs of models trained from scratch on chosen rows: trained once, kept in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.cache import Cache
from unlearnkit.core.data import View
from unlearnkit.core.digest import digest, model_digest, tensor_digest
from unlearnkit.core.errors import DivergedError, InputError, UnsupportedError
from unlearnkit.core.inference import predict
from unlearnkit.core.module_state import all_finite
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.train_function import TrainFunction
from unlearnkit.core.training import training_key
from unlearnkit.train.ensemble import EnsembleMember, fit_together

BLOCK = 64
"""Models in an entry of the cache; an interrupted run loses less than one."""

STREAM = "attribution"
"""Random stream that orders the rows of these trainings."""


@dataclass(frozen=True)
class PlannedTraining:
    """One model: its seed and its rows."""

    seed: int
    """Of initial weights and order."""

    rows: Tensor
    """Positions among the training rows ``(k,)``, in order."""


@dataclass(frozen=True)
class TrainedOutputs:
    """Outputs of models, block by block; small models of a block are trained together.

    Blocks are kept by content, in the cache: an interrupted training goes on where it stopped, and
    a longer plan uses what a shorter one left.
    """

    subject: AttributedModel
    plan: tuple[PlannedTraining, ...]
    read: View
    """The N rows whose outputs are kept."""

    rt: Runtime
    cache: Cache

    def blocks(self) -> Iterator[tuple[Tensor, int]]:
        """Yield outputs ``(B, N, K)`` of ``BLOCK`` models at a time, and the work of making them.

        Models that are missing are trained first. The work is the same whether they were trained
        now or before.

        Yields:
            Blocks in the order of the plan. A subject without a training or a model factory is an
            ``UnsupportedError``.
        """
        keys = self._keys()
        self.cache.fill(keys, self._made)
        for key in keys:
            kept = self.cache.get(key, _gone)
            yield kept.tensors["outputs"], int(kept.facts["work"])

    def address(self) -> str:
        """Return the digest of all that decides these outputs."""
        return digest({"blocks": self._keys()})

    def _parts(self) -> list[Sequence[PlannedTraining]]:
        return [self.plan[i : i + BLOCK] for i in range(0, len(self.plan), BLOCK)]

    def _keys(self) -> list[dict[str, Any]]:
        # A factory counts by what it builds from the first and the last seed of a block.
        subject, how = self.subject, self.subject.training
        if how is None or subject.build is None:
            raise UnsupportedError(
                "attribution: trains models from scratch; give Case(fresh=make_model,"
                " recipe=Recipe(...)) or train_model"
            )
        rows, read = subject.train.key(), self.read.key()
        if isinstance(how, TrainFunction) and (more := subject.train.data.extra_content()):
            rows = digest({"rows": rows, "extra": more})
        keys = []
        for part in self._parts():
            rt = self.rt.fork(part[0].seed, quiet=True)
            first = self._untrained(part[0])
            last = model_digest(first if len(part) == 1 else self._untrained(part[-1]))
            key = training_key("outputs of trained models", first, rows, subject.task, how, rt)
            plan = digest({str(i): [p.seed, tensor_digest(p.rows)] for i, p in enumerate(part)})
            keys.append({**key, "read": read, "plan": plan, "last": last})
        return keys

    def _untrained(self, one: PlannedTraining) -> nn.Module:
        assert self.subject.build is not None
        return self.subject.build(one.seed).to(self.rt.device)

    def _made(self, lacking: list[int]) -> Iterator[tuple[int, dict[str, Tensor], dict[str, Any]]]:
        subject, parts, done = self.subject, self._parts(), 0
        assert subject.training is not None
        total = sum(len(parts[i]) for i in lacking)
        for i in lacking:
            members = [
                EnsembleMember(
                    self._untrained(one),
                    subject.train.pick(one.rows),
                    self.rt.fork(one.seed, quiet=True),
                    STREAM,
                    place=k,
                )
                for k, one in enumerate(parts[i])
            ]
            for some in fit_together(members, subject.task, subject.training):
                done += len(some)
                self.rt.reporter.progress("models on parts of the rows", done, total)
            outs = [_finite(m, predict(m.model, self.read, subject.task, m.rt)) for m in members]
            yield i, {"outputs": torch.stack(outs)}, {"work": sum(m.rt.cost.work for m in members)}


def _finite(member: EnsembleMember, out: Tensor) -> Tensor:
    """Return outputs in float32; refuse a model that has diverged."""
    wrong = [n for n, t in member.model.state_dict().items() if not all_finite(t)]
    if not wrong and all_finite(out):
        return out.float()
    raise DivergedError(
        f"attribution: a model trained on part of the rows diverged: {(wrong or ['outputs'])[0]} is"
        " not finite; use a smaller learning rate, or a larger share"
    )


def _gone() -> tuple[dict[str, Tensor], dict[str, Any]]:
    raise InputError("cache: outputs were removed while they were used; run again")
