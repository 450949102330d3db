"""Bound model: a model with some parameters replaced, for functional transforms."""

from collections.abc import Iterator
from functools import wraps

from torch import Tensor, nn
from torch.func import functional_call


class BoundModel(nn.Module):
    """A model with some parameters replaced; the model itself is not touched."""

    def __init__(self, model: nn.Module, params: dict[str, Tensor]) -> None:
        super().__init__()

        @wraps(model.forward)
        def forward(*args: Tensor, **kwargs: Tensor) -> object:
            return functional_call(model, params, args, kwargs)

        self.__dict__["inner"] = model
        self.__dict__["forward"] = forward
        self.training = model.training

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Yield the parameters of the model itself: their types matter, not their values."""
        inner: nn.Module = self.__dict__["inner"]
        return inner.parameters(recurse)
