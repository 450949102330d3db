"""A small temporal fusion transformer: forecasts of several steps, in quantiles.

After Lim et al., 2021, *International Journal of Forecasting* 37, arXiv:1912.09363. Left out:
static covariates with their enrichment, categorical inputs, dropout; the attention is torch's own,
with a value matrix a head, and sees the past and the steps before. Answers are added to what the
target was as many steps ago as are forecast: the network learns what differs from then.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Gate(nn.Module):
    """Let part of an update through, add it to what it updates, normalise (paper: eq. 5)."""

    def __init__(self, width: int) -> None:
        """Build it for vectors of ``width``."""
        super().__init__()
        self.pass_on = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, update: Tensor, base: Tensor) -> Tensor:
        """Return the normalised sum of the base and the gated update, both ``(..., W)``."""
        added: Tensor = self.norm(base + functional.glu(self.pass_on(update)))
        return added


class GatedResidual(nn.Module):
    """Two layers behind a gate around a shortcut (paper: eq. 2 to 4, without context)."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        """Build it: the shortcut is linear where ``inputs`` and ``outputs`` differ."""
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(inputs, width), nn.ELU(), nn.Linear(width, outputs))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs)
        self.gate = Gate(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(..., outputs)`` from ``(..., inputs)``."""
        gated: Tensor = self.gate(self.inner(x), self.shortcut(x))
        return gated


class VariableSelection(nn.Module):
    """Weigh variables at each step by what all of them say (paper: eq. 6 to 8)."""

    def __init__(self, variables: int, width: int) -> None:
        """Build it for so many variables of one number each, each with a bent line of its own.

        The paper has a gated residual network for each in place of the bent line.
        """
        super().__init__()
        self.scale = nn.Parameter(torch.randn(variables, width))
        self.shift = nn.Parameter(torch.zeros(variables, width))
        self.weigh = GatedResidual(variables, width, variables)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, T, width)`` from ``(B, T, variables)``."""
        weight = self.weigh(x).softmax(-1)
        told = functional.elu(x[..., None] * self.scale + self.shift)
        chosen: Tensor = (weight[..., None] * told).sum(-2)
        return chosen


class TemporalFusion(nn.Module):
    """Select variables, read the past and then the known future, attend to both, answer."""

    def __init__(
        self, past: int, future: int, *, quantiles: int = 3, width: int = 16, heads: int = 2
    ) -> None:
        """Build it untrained.

        Args:
            past: Variables of each step that is over.
            future: Variables of each step to come that are known, such as the hour.
            quantiles: Answers for each step to come.
            width: Length of all vectors; a multiple of ``heads``.
            heads: Of the attention.
        """
        super().__init__()
        self.select_past = VariableSelection(past, width)
        self.select_future = VariableSelection(future, width)
        self.encoder = nn.LSTM(width, width, batch_first=True)
        self.decoder = nn.LSTM(width, width, batch_first=True)
        self.read = Gate(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.attended = Gate(width)
        self.think = GatedResidual(width, width, width)
        self.decided = Gate(width)
        self.answer = nn.Linear(width, quantiles)

    def forward(self, past: Tensor, future: Tensor) -> Tensor:
        """Forecast.

        Args:
            past: What was measured ``(B, P, past)``, the target first; ``P`` is at least ``F``.
            future: What is known of the steps to come ``(B, F, future)``.

        Returns:
            Quantiles of each step to come ``(B, F, Q)``.
        """
        before, after = self.select_past(past), self.select_future(future)
        coded, state = self.encoder(before)
        steps = torch.cat([coded, self.decoder(after, state)[0]], 1)
        steps = self.read(steps, torch.cat([before, after], 1))
        count, ahead = steps.shape[1], after.shape[1]
        later = torch.ones(count, count, dtype=torch.bool, device=steps.device).triu(1)[-ahead:]
        ours = steps[:, -ahead:]
        seen = self.attention(ours, steps, steps, attn_mask=later, need_weights=False)[0]
        out = self.decided(self.think(self.attended(seen, ours)), ours)
        answers: Tensor = past[:, -ahead:, :1] + self.answer(out)
        return answers
