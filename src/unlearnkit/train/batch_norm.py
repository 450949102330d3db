"""Batch normalisation: running statistics that fit a model's weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unlearnkit.core.data import View
from unlearnkit.core.module_state import preserve_modes
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task

MOST_ROWS = 4096
"""Rows that statistics are measured on at most."""

LEAST_BATCH = 32
"""Rows in a batch at least: statistics of fewer rows are noise."""


def eval_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return by name the batch-normalisation layers in eval mode inside a model in train mode.

    The owner froze them. A model in eval mode gives none: nothing tells one from another.
    """
    if not model.training:
        return {}
    layers = model.named_modules()
    return {n: m for n, m in layers if isinstance(m, _BatchNorm) and not m.training}


def batch_norm_layers(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch-normalisation layers whose running statistics follow the data.

    Left out are layers without running statistics or with a momentum of 0, layers whose scale and
    shift are frozen, ``eval_norms``, and layers that stay in eval mode when the model goes to train
    mode.
    """
    still = set(eval_norms(model).values())
    with preserve_modes(model):
        model.train()
        return [
            m
            for m in model.modules()
            if isinstance(m, _BatchNorm)
            and m.training
            and m not in still
            and m.running_mean is not None
            and m.momentum != 0
            and all(p.requires_grad for p in m.parameters(recurse=False))
        ]


@torch.no_grad()
def recalibrate_batch_norm(
    model: nn.Module, view: View, task: Task, rt: Runtime, *, batch_size: int
) -> None:
    """Set running means and variances to those of some rows under the model's present weights.

    Each is the mean over batches, weighted by rows, of the batch's mean or unbiased variance (a
    cumulative average), over at most ``MOST_ROWS`` random rows in batches of ``LEAST_BATCH`` at
    least. Other layers are in eval mode, so that dropout draws nothing; no autocast.
    """
    layers = batch_norm_layers(model)
    if not layers or len(view) < 2:
        return
    some = view.sample(MOST_ROWS, rt, "batch_norm/rows")
    momenta = [m.momentum for m in layers]
    seen = 0
    with preserve_modes(model):
        model.eval()
        for m in layers:
            m.reset_running_stats()
            m.train()
        try:
            # in a random order: batches of one class each would have the statistics of no batch
            for batch in some.batches(max(batch_size, LEAST_BATCH), rt, shuffle="batch_norm/order"):
                seen += len(batch)
                for m in layers:
                    m.momentum = len(batch) / seen
                task.outputs(model, batch)
        finally:
            for m, momentum in zip(layers, momenta, strict=True):
                m.momentum = momentum
