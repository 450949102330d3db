"""Sample register: which of the latest samples were learned, and which are forgotten."""

from __future__ import annotations

from zlib import crc32

import numpy as np

from unlearnkit.core.errors import InputError
from unlearnkit.online.online_learner import Array


class SampleRegister:
    """A 4-byte checksum of each of the latest samples; 0 where it was forgotten.

    Args:
        size: How many of the latest samples are registered.
    """

    def __init__(self, size: int) -> None:
        self.array = np.zeros(size, dtype=np.uint32)
        self.size, self.count = size, 0

    def add(self, x: Array, label: int) -> int:
        """Register a sample, its label given by its checksum, and return its number."""
        number = self.count
        if self.size:
            self.array[number % self.size] = crc32(x, label) or 1  # type: ignore[arg-type]  # a buffer
        self.count = number + 1
        return number

    def check(self, number: int, x: Array | None, label: int) -> None:
        """Refuse a sample that was never learned, is forgotten, is too old, or is another one.

        Args:
            number: As ``add`` returned it.
            x: Its features; None if they need not be compared.
            label: Checksum of its label.

        Raises:
            InputError: If it cannot be forgotten.
        """
        if not 0 <= number < self.count:
            raise InputError(
                f"forget: sample {number} was never learned; {self.count} were, from 0"
            )
        if number < self.count - self.size:
            raise InputError(
                f"forget: sample {number} is older than the register of the {self.size}"
                " latest samples; build the head with a larger register"
            )
        entry = int(self.array[number % self.size])
        if not entry:
            raise InputError(f"forget: sample {number} is forgotten already; name it once")
        if x is not None and entry != (crc32(x, label) or 1):  # type: ignore[arg-type]
            raise InputError(
                f"forget: features or label are not those that were learned as sample {number};"
                " give them as they were"
            )

    def strike(self, number: int) -> None:
        """Mark a sample as forgotten; its checksum goes."""
        self.array[number % self.size] = 0


def label_checksum(label: object) -> int:
    """Return the checksum of a label."""
    return crc32(repr(label).encode())
