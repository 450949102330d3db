"""Exported layer: weights for a device, as a NumPy file or a C header."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unlearnkit.core.errors import InputError


@dataclass(frozen=True)
class ExportedLayer:
    """A last layer: scores are ``weight x + bias``, and the largest names the class."""

    weight: NDArray[np.float32]
    """``(C, D)``."""

    bias: NDArray[np.float32]
    """``(C,)``."""

    labels: tuple[str, ...]
    """Of the classes, as text."""

    def save(self, path: Path | str) -> Path:
        """Write ``weight``, ``bias`` and ``labels`` as a NumPy ``.npz`` file, and return its path.

        Args:
            path: Ends in ``.npz``.

        Returns:
            The path.

        Raises:
            InputError: If the name does not end in ``.npz``.
        """
        path = Path(path)
        if path.suffix != ".npz":
            raise InputError(f"save: {path.name!r} does not end in .npz; name it so")
        np.savez(path, weight=self.weight, bias=self.bias, labels=np.array(self.labels, dtype=str))
        return path

    def c_header(self, name: str = "head") -> str:
        """Return a C header with the sizes, weights, biases and labels as constant arrays.

        Args:
            name: Prefix of what the header defines: a C identifier.

        Returns:
            The text; each number is written with the digits that give the same float32 again.

        Raises:
            InputError: If the name is no C identifier.
        """
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise InputError(f"c_header: {name!r} is no C identifier; use letters, digits and _")
        big, (classes, features) = name.upper(), self.weight.shape
        rows = ",\n".join("    {" + ", ".join(map(_number, r)) + "}" for r in self.weight)
        biases = ", ".join(map(_number, self.bias))
        texts = ", ".join('"' + _escape(label) + '"' for label in self.labels)
        return "\n".join([
            f"#ifndef {big}_H",
            f"#define {big}_H",
            f"#define {big}_CLASSES {classes}",
            f"#define {big}_FEATURES {features}",
            f"static const float {name}_weight[{big}_CLASSES][{big}_FEATURES] = {{",
            f"{rows}}};",
            f"static const float {name}_bias[{big}_CLASSES] = {{{biases}}};",
            f"static const char *const {name}_labels[{big}_CLASSES] = {{{texts}}};",
            "#endif",
            "",
        ])  # fmt: skip


def _number(value: np.float32) -> str:
    text = f"{float(value):.9g}"
    return f"{text if re.search(r'[.e]', text) else text + '.0'}f"


def _escape(text: str) -> str:
    kept = text.replace("\\", "\\\\").replace('"', '\\"').replace("?", "\\?")
    return "".join(
        c if 32 <= ord(c) < 127 else "".join(f"\\{b:03o}" for b in c.encode()) for c in kept
    )
