"""Public borders: an unforeseen exception becomes one typed error."""

from __future__ import annotations

import inspect
import tempfile
import traceback
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec, TypeVar

import torch

from unlearnkit.core.errors import InputError, OutOfMemoryError, UnexpectedError, UnlearnkitError

P = ParamSpec("P")
R = TypeVar("R")


def border(step: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that lets only ``UnlearnkitError`` out of a public function.

    Interrupts, exits and warnings turned into errors pass, and so does Python's own ``TypeError``
    for a call whose arguments do not fit the signature. ``step`` says in messages what the function
    does, such as ``unlearn``.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            signature.bind(*args, **kwargs)
            try:
                return function(*args, **kwargs)
            except (UnlearnkitError, Warning):
                raise
            except Exception as e:  # noqa: BLE001  # the net: whatever it is, the user gets one typed line
                refuse(step, e)

        return guarded

    return decorate


def refuse(step: str, e: Exception) -> NoReturn:
    """Raise the typed error that stands for an exception of any other kind.

    Raises:
        OutOfMemoryError: If memory ran out.
        InputError: If a file or folder cannot be used.
        UnexpectedError: Otherwise; the message names a file that holds the traceback.
    """
    if _out_of_memory(e):
        raise OutOfMemoryError(
            f"{step}: out of memory ({first_line(e)}); use a smaller batch_size in the recipe or"
            " the method, fewer rows, or another device"
        ) from e
    if isinstance(e, OSError) and e.strerror and e.filename is not None:
        name = str(e.filename)
        shown = name if len(name) <= 80 else f"{name[:77]}..."
        raise InputError(
            f"{step}: cannot use {shown!r}: {e.strerror}; check the path and its permissions"
        ) from e
    where = _kept(e)
    raise UnexpectedError(
        f"{step}: unexpected {type(e).__name__}: {first_line(e)}; the traceback is in {where}"
    ) from e


def user_code_error(e: Exception, message: str) -> Exception:
    """Return the error to raise for one in user code: itself if typed, else an ``InputError``."""
    if isinstance(e, UnlearnkitError) or _out_of_memory(e):
        return e
    return InputError(message)


def first_line(e: BaseException, longest: int = 160) -> str:
    """Return the first line of what an exception says, or its name."""
    try:
        text = (str(e).strip().splitlines() or [type(e).__name__])[0]
    except Exception:  # noqa: BLE001  # a foreign exception whose __str__ fails must not hide itself
        text = type(e).__name__
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _out_of_memory(e: Exception) -> bool:
    message = str(e) if isinstance(e, RuntimeError) else ""
    return isinstance(e, MemoryError | torch.OutOfMemoryError) or (
        "can't allocate memory" in message or "out of memory" in message
    )


def _kept(e: Exception) -> str:
    """Write the traceback to a file; return its path, or why there is none."""
    text = "".join(traceback.format_exception(e))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="unlearnkit-", suffix=".traceback.txt", delete=False,
            encoding="utf-8", errors="backslashreplace",
        ) as f:  # fmt: skip
            f.write(text)
        return repr(f.name)
    except OSError as why:
        return f"no file ({why.strerror}); set TMPDIR to a folder that can be written"
