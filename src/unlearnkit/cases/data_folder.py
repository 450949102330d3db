"""Where cases find data that do not come with the package: a folder, or the net."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from unlearnkit.core.errors import InputError


def folder(name: str) -> Path | None:
    """Return the folder ``name`` in the one that ``UNLEARNKIT_DATA`` names; None if none is."""
    named = os.environ.get("UNLEARNKIT_DATA")
    return Path(named) / name if named else None


def optional(module: str, who: str) -> Any:
    """Return a module that reads data sets.

    Args:
        module: Its full name.
        who: The case's folder, for the error.

    Returns:
        The module.

    Raises:
        InputError: If it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise InputError(
            f"{who}: {module.partition('.')[0]} is not installed; pip install unlearnkit[hf], and"
            f" set UNLEARNKIT_DATA to a folder that holds {who} or read it from the hub"
        ) from None


def fetch(who: str, *args: Any, **how: Any) -> Any:
    """Return what the library ``datasets`` loads from the hub or the net.

    Args:
        who: The case's folder, for the error.
        *args: As ``load_dataset`` takes them.
        **how: As ``load_dataset`` takes them.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be loaded, whatever kind of error the libraries behind it raise.
    """
    load = optional("datasets", who).load_dataset
    try:
        return load(*args, **how)
    except FileNotFoundError:
        raise
    except Exception as e:  # of its HTTP client, of the hub, or an import that it makes only now
        raise OSError(first_line(e)) from e


def first_line(e: Exception) -> str:
    """Return the first line of what an exception says, or its name."""
    return (str(e).strip().splitlines() or [type(e).__name__])[0]


def lines(who: str, file: str, url: str) -> list[str]:
    """Return the lines of a text file of a case, without their ends.

    Args:
        who: The case's folder in the one that ``UNLEARNKIT_DATA`` names.
        file: Its name in there.
        url: Where it is read from by the library ``datasets`` when no folder is named.

    Returns:
        The lines.

    Raises:
        InputError: If it is not there, cannot be read or is empty.
    """
    place = folder(who)
    try:
        if place is None:
            found = fetch(who, "text", data_files=url, split="train")["text"]
        else:
            found = (place / file).read_text("utf-8").split("\n")
    except FileNotFoundError:
        raise InputError(
            f"{who}: no {file} in {str(place or url)!r}; put the file there ({url}), or unset"
            " UNLEARNKIT_DATA to have it fetched"
        ) from None
    except (OSError, ValueError) as e:
        raise InputError(
            f"{who}: cannot read {file} from {str(place or url)!r}: {first_line(e)}; set"
            f" UNLEARNKIT_DATA to the folder that holds {who}/{file}"
        ) from None
    told = [line.rstrip("\r") for line in found if line.strip()]
    if not told:
        raise InputError(f"{who}: {file} has no lines; fetch the data set again ({url})")
    return told
