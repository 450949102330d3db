"""Training guard: a context in which starting a training is an error."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from unlearnkit.core.errors import UnlearnkitError

_FORBIDDEN: ContextVar[bool] = ContextVar("training_forbidden", default=False)


class TrainingForbiddenError(UnlearnkitError):
    """Something has to be trained where nothing may be."""


@contextmanager
def no_training() -> Iterator[None]:
    """Forbid training for a while; models that are in the cache can be read."""
    token = _FORBIDDEN.set(True)
    try:
        yield
    finally:
        _FORBIDDEN.reset(token)


def check_training_allowed() -> None:
    """Refuse to train within ``no_training``.

    Raises:
        TrainingForbiddenError: If training is forbidden here.
    """
    if _FORBIDDEN.get():
        raise TrainingForbiddenError(
            "training: not allowed here, and a model is not in the cache; run the study first"
        )
