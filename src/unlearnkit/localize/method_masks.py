"""Methods and masks: which take one, which find their own, and what chance would choose."""

from torch import nn

from unlearnkit.core.auto_method import Auto
from unlearnkit.core.case import Partition
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.method import Method
from unlearnkit.core.runtime import Runtime
from unlearnkit.localize.localizer import Localizer
from unlearnkit.localize.mask import Mask


def check_maskable(how: Method, mask: Mask | Localizer, split: Partition) -> None:
    """Refuse a mask for a method that it cannot hold, or that cannot be found.

    Args:
        how: The method.
        mask: The mask, or how to find it.
        split: The case's rows, by the request.

    Raises:
        UnsupportedError: If the method is ``auto``.
    """
    if isinstance(how, Auto):
        raise UnsupportedError(
            "auto: chooses among methods without a mask; name a method to use the mask with"
        )
    check_held(how, not how.info.replaces)
    if isinstance(mask, Localizer):
        mask.check(split)


def check_held(how: Method, same: bool) -> None:
    """Refuse what a mask cannot hold.

    Args:
        how: The method.
        same: Whether it returns the model that it was given.

    Raises:
        UnsupportedError: If it returns another.
    """
    if not same:
        raise UnsupportedError(
            f"{how.id} returns another model than it was given, which a mask cannot hold; use a"
            " method that trains the model, such as finetune"
        )


def own_localizer(how: Method) -> Localizer | None:
    """Return how a method chooses by itself what may move; None where all of it may."""
    return next((v for v in vars(how).values() if isinstance(v, Localizer)), None)


def own_mask(how: Method, model: nn.Module, split: Partition, rt: Runtime) -> Mask | None:
    """Return what a method that chooses by itself has let move.

    Args:
        how: The method.
        model: The trained model that it was given.
        split: The case's rows, by the request.
        rt: The run, over.

    Returns:
        The mask, on the CPU; None where everything might move.
    """
    own = own_localizer(how)
    return own.mask(rt.masks[0], model, split, rt) if own and rt.masks else None


def with_mask(how: Method, localizer: Localizer) -> Method:
    """Return a method that chooses by itself what may move, choosing in another way."""
    names = [n for n, v in vars(how).items() if isinstance(v, Localizer)]
    return how.model_copy(update=dict.fromkeys(names, localizer))
