"""Row sets: which rows of a data set a training had, as a short text."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import torch
from torch import Tensor


def pack_rows(rows: Tensor, count: int) -> str:
    """Return a set of row numbers ``(k,)`` of ``count`` rows as text: a bit a row, compressed."""
    mask = torch.zeros(count, dtype=torch.bool)
    mask[rows] = True
    return base64.b64encode(zlib.compress(np.packbits(mask.numpy()).tobytes())).decode()


def unpack_rows(text: str, count: int) -> Tensor:
    """Return the mask ``(count,)`` of rows that ``pack_rows`` wrote.

    Raises:
        ValueError: If the text is no such set, or of fewer rows.
    """
    try:
        packed = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8)
    except zlib.error:
        raise ValueError("no set of rows") from None
    return torch.from_numpy(np.unpackbits(packed, count=count).astype(bool))
