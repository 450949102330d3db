"""The cache folder: where it is."""

import os
from pathlib import Path

from unlearnkit.core.errors import InputError

SIGNALS = "signals"
"""Folder of the margins that strong audits keep, a folder for each."""


def default_root() -> Path:
    """Return the cache folder: ``UNLEARNKIT_CACHE``, or the user's cache folder."""
    named = os.environ.get("UNLEARNKIT_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "unlearnkit"
    except RuntimeError:
        raise InputError(
            "cache: this user has no home folder (HOME is not set); set UNLEARNKIT_CACHE to a"
            " folder that can be written"
        ) from None
