"""What ``torchrun`` tells a process through its environment; read without torch."""

from __future__ import annotations

import os


def is_launched() -> bool:
    """Return whether ``torchrun`` started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def local_rank() -> int:
    """Return the number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def writes_files() -> bool:
    """Return whether this process writes and prints: of those of ``torchrun`` the first."""
    return not is_launched() or os.environ.get("RANK", "0") == "0"
