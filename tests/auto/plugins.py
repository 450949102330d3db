"""Methods that go wrong in ways that an audit must see, as another package would bring them."""

from __future__ import annotations

import torch
from torch import nn

from unlearnkit.core.errors import DivergedError
from unlearnkit.core.method import METHODS, Info, Method, Need, Problem
from unlearnkit.core.runtime import Runtime

TASKS = frozenset({"classification", "regression", "multilabel"})


def _info(*needs: Need) -> Info:
    return Info(title="Toy", cite="", needs=frozenset(needs), tasks=TASKS)


class Idle(Method):
    """Runs the retained rows through the model and changes nothing."""

    info = _info(Need.RETAIN)

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        for batch in p.retain.batches(16, rt):
            p.task.outputs(p.model, batch)
        return p.model


class Speck(Method):
    """Changes one weight by next to nothing: rows stay as familiar as they were."""

    info = _info(Need.FORGET)

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        with torch.no_grad():
            next(p.model.parameters()).view(-1)[0].add_(1e-4)
        return p.model


class Wreck(Method):
    """Sets the last layer to nothing: accuracy is that of a guess."""

    info = _info(Need.FORGET)

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        with torch.no_grad():
            for w in p.model[-1].parameters():
                w.zero_()
        return p.model


class Scratch(Method):
    """Loses class 1, and most of class 2 along with it: less damage than ``Wreck``."""

    info = _info(Need.RETAIN, Need.LABELS)

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        out = torch.cat([p.task.outputs(p.original, b) for b in p.retain.batches(16, rt)])
        mine = out[p.retain.y == 2]
        with torch.no_grad():
            p.model[-1].bias[1] -= 50.0
            p.model[-1].bias[2] -= (mine[:, 2] - mine[:, 0]).quantile(0.8)
        return p.model


class Graze(Method):
    """Loses class 1, and of class 2 the one validation row that was least sure, and its copies."""

    info = _info(Need.VALIDATION, Need.LABELS)

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        out = torch.cat([p.task.outputs(p.original, b) for b in p.validation.batches(16, rt)])
        mine = out[p.validation.y == 2]
        with torch.no_grad():
            p.model[-1].bias[1] -= 50.0
            p.model[-1].bias[2] -= (mine[:, 2] - mine[:, 0]).min() + 1e-3
        return p.model


class Burst(Method):
    """Works through the retained rows, then diverges."""

    info = _info(Need.RETAIN)

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        for batch in p.retain.batches(16, rt):
            p.task.outputs(p.model, batch)
        raise DivergedError("burst: diverged")


class Blind(Method):
    """Needs no rows; shifts the last bias of a class away."""

    info = _info()

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        with torch.no_grad():
            p.model[-1].bias[list(p.removed_classes)] -= 50.0
        return p.model


PLUGINS = (Idle, Speck, Wreck, Scratch, Graze, Burst, Blind)


def install() -> None:
    """Put them on the list, as importing a plug-in does."""
    for kind in PLUGINS:
        kind.id = kind.__name__.lower()
        METHODS[kind.id] = kind


def remove() -> None:
    """Take them off again."""
    for kind in PLUGINS:
        METHODS.pop(kind.id, None)
