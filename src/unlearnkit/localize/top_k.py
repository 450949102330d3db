"""Top-k: the largest of very many scores, without sorting."""

from collections.abc import Mapping

import torch
from torch import Tensor

from unlearnkit.core.errors import DivergedError

CHUNK = 2**22
"""Scores looked at at once."""


def top_k(scores: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return which scalars have the largest scores of all; ties go to the first.

    The threshold is found digit by digit: float32 numbers from 0 upwards are ordered as their bits
    are, so two histograms of 16 bits each give it exactly, in time linear in the scores.

    Args:
        scores: Float32 scores, 0 or more, by parameter name.
        count: How many, in all.

    Returns:
        True where a scalar is among them, by name: exactly ``count`` times.
    """
    check_scores(scores)
    total = sum(s.numel() for s in scores.values())
    if count <= 0:
        return {n: torch.zeros_like(s, dtype=torch.bool) for n, s in scores.items()}
    if count >= total:
        return {n: torch.ones_like(s, dtype=torch.bool) for n, s in scores.items()}
    high, above = _digit(_counts(scores, None), count)
    low, more = _digit(_counts(scores, high), count - above)
    left = count - above - more
    edge = (high << 16) | low
    found: dict[str, Tensor] = {}
    for name, s in scores.items():
        bits = _bits(s)
        hit = bits > edge
        if left:
            ties = (bits == edge).nonzero()[:left, 0]
            hit[ties] = True
            left -= len(ties)
        found[name] = hit.view(s.shape)
    return found


def check_scores(scores: Mapping[str, Tensor]) -> None:
    """Refuse scores that are not a number."""
    for name, s in scores.items():
        if bool(s.isnan().any()):
            raise DivergedError(
                f"localize: the score of {name} is not a number: the model's loss or gradient on"
                " these rows is not finite; look at the model and its inputs"
            )


def _bits(s: Tensor) -> Tensor:
    return s.reshape(-1).contiguous().view(torch.int32)


def _counts(scores: Mapping[str, Tensor], high: int | None) -> Tensor:
    """Count the upper 16 bits of all scores, or the lower ones of those with these upper ones."""
    found = torch.zeros(2**16, dtype=torch.long)
    for s in scores.values():
        for bits in torch.split(_bits(s), CHUNK):
            digit = bits >> 16 if high is None else bits[(bits >> 16) == high] & 0xFFFF
            found += torch.bincount(digit, minlength=2**16).cpu()
    return found


def _digit(counts: Tensor, wanted: int) -> tuple[int, int]:
    """Return the digit at which the largest ``wanted`` end, and how many are above it."""
    down = counts.flip(0).cumsum(0)
    place = int((down >= wanted).nonzero()[0, 0])
    return len(counts) - 1 - place, int(down[place] - counts.flip(0)[place])
