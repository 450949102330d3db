"""Methods and masks: which method takes a mask or chooses its own."""

from torch import nn

from unlearnkit.core.auto_method import Auto
from unlearnkit.core.case import Partition
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.method import Method
from unlearnkit.core.runtime import Runtime
from unlearnkit.localize.localizer import Localizer
from unlearnkit.localize.mask import Mask


def check_maskable(how: Method, mask: Mask | Localizer, split: Partition) -> None:
    """Refuse a mask for a method that cannot keep to it, or that cannot be found."""
    if isinstance(how, Auto):
        raise UnsupportedError(
            "auto: chooses among methods without a mask; name a method to use the mask with"
        )
    check_held(how, not how.info.replaces)
    if isinstance(mask, Localizer):
        mask.check(split)


def check_held(how: Method, same: bool, by: str = "mask") -> None:
    """Refuse a mask, or a projection, for a method that returns another model."""
    if not same:
        raise UnsupportedError(
            f"{how.id} returns another model than it was given, which a {by} cannot hold; use a"
            " method that trains the model, such as finetune"
        )


def localizer_of_method(how: Method) -> Localizer | None:
    """Return how a method chooses by itself what may move; None where all of it may."""
    return next((v for v in vars(how).values() if isinstance(v, Localizer)), None)


def own_mask(how: Method, model: nn.Module, split: Partition, rt: Runtime) -> Mask | None:
    """Return the mask that a method chose by itself; None where every parameter could change."""
    own = localizer_of_method(how)
    return own.mask(rt.masks[0], model, split, rt) if own and rt.masks else None


def with_mask(how: Method, localizer: Localizer) -> Method:
    """Return a method that chooses by itself what may move, choosing in another way."""
    names = [n for n, v in vars(how).items() if isinstance(v, Localizer)]
    return how.model_copy(update=dict.fromkeys(names, localizer))
