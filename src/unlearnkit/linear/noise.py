"""Gaussian noise: from the operating system's entropy, or recorded from a seed."""

import hashlib
import os
from typing import Literal

import numpy as np
from scipy.special import ndtri

from unlearnkit.linear.losses import Array

NoiseSource = Literal["system"] | int
"""``system``: fresh entropy that nobody can repeat; a number: a seed, written into the state."""


def gaussian_noise(source: NoiseSource, use: str, shape: tuple[int, ...]) -> Array:
    """Return independent standard normal numbers.

    Each is the normal quantile of a 52-bit number, so that it is at most 8.2 in size. The bytes
    come from ``os.urandom``, or from SHAKE-256 over the seed and the use, the same on any machine.
    A seed hides nothing from whoever knows it: it is for tests and for audits that repeat a run.

    Args:
        source: ``system``, or a seed.
        use: What the numbers are for; each use of a seed has its own.
        shape: Shape of the result.

    Returns:
        The numbers, float64.
    """
    count = int(np.prod(shape))
    if source == "system":
        content = os.urandom(8 * count)
    else:
        content = hashlib.shake_256(f"{source}/{use}".encode()).digest(8 * count)
    bits = np.frombuffer(content, dtype="<u8") >> np.uint64(12)
    out: Array = ndtri((bits + 0.5) / 2.0**52).reshape(shape)
    return out
