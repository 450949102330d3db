"""Networks for the built-in cases: the published ones for 32x32 images, and one for a CPU."""

from importlib import import_module

from torch import Tensor, nn
from torch.nn import functional

from unlearnkit.core.errors import UnsupportedError


def _conv(
    channels: int, filters: int, *, kernel: int = 3, stride: int = 1, padding: int = 1
) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, filters, kernel, stride, padding),
        nn.BatchNorm2d(filters),
        nn.ReLU(),
    ]


def small_conv(classes: int = 10) -> nn.Module:
    """Return an untrained convolutional network of a size that a CPU trains in minutes.

    Four times convolution 3x3, batch normalisation, ReLU, with 32 (stride 2), 64, 128, 128 filters
    and maximum pooling by 2 before the third and the fourth; then the mean over positions and a
    linear head.

    Args:
        classes: Number of outputs C.

    Returns:
        A module from images ``(B, 3, 32, 32)`` to logits ``(B, C)``: 241,536 + 129 C parameters.
    """
    return nn.Sequential(
        *_conv(3, 32, stride=2),
        *_conv(32, 64),
        nn.MaxPool2d(2),
        *_conv(64, 128),
        nn.MaxPool2d(2),
        *_conv(128, 128),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, classes),
    )


def all_cnn(classes: int = 10, *, dropout: float = 0.0, width: int = 96) -> nn.Module:
    """Return an untrained All-CNN, the variant that unlearning papers use.

    Convolution, batch normalisation and ReLU with W, W, 2W (stride 2), 2W, 2W, 2W (stride 2), 2W,
    2W (1x1) filters, where W is 96; dropout after each strided layer, the mean over the 8x8
    positions, a linear head. Springenberg et al., ICLR 2015 workshop, arXiv:1412.6806 (All-CNN-C),
    with the batch normalisation and the head of Golatkar et al., CVPR 2020, arXiv:1911.04933.

    Args:
        classes: Number of outputs C.
        dropout: Share of activations dropped in training; 0 for none.
        width: Filters W of the first layer; fewer than the published 96 for a thin one.

    Returns:
        A module from images ``(B, 3, 32, 32)`` to logits ``(B, C)``.
    """
    wide = 2 * width
    return nn.Sequential(
        *_conv(3, width),
        *_conv(width, width),
        *_conv(width, wide, stride=2),
        nn.Dropout(dropout),
        *_conv(wide, wide),
        *_conv(wide, wide),
        *_conv(wide, wide, stride=2),
        nn.Dropout(dropout),
        *_conv(wide, wide),
        *_conv(wide, wide, kernel=1, padding=0),
        nn.AvgPool2d(8),
        nn.Flatten(),
        nn.Linear(wide, classes),
    )


class _Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is 1x1 where the shape changes."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != filters:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        return functional.relu(out)


def resnet18(classes: int = 10, *, width: int = 64) -> nn.Module:
    """Return an untrained ResNet-18 for 32x32 images.

    He et al., CVPR 2016, arXiv:1512.03385, with a 3x3 first convolution of stride 1 and no maximum
    pooling, as CIFAR papers use it.

    Args:
        classes: Number of outputs C.
        width: Filters of the first stage; fewer than the published 64 for a thin one.

    Returns:
        A module from images ``(B, 3, 32, 32)`` to logits ``(B, C)``: 11,168,832 + 513 C parameters.
    """
    blocks: list[nn.Module] = []
    channels = width
    for filters, stride in ((width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)):
        blocks += [_Residual(channels, filters, stride), _Residual(filters, filters, 1)]
        channels = filters
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * width, classes),
    )


class _Bottleneck(nn.Module):
    """Widen by 1x1, filter each channel by 3x3, narrow by 1x1 without a bend; add the input if fit.

    An expansion of 1 leaves the widening out.
    """

    def __init__(self, channels: int, filters: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.body = nn.Sequential(
            *(_bent(channels, inner, kernel=1) if expansion > 1 else []),
            *_bent(inner, inner, stride=stride, groups=inner),
            nn.Conv2d(inner, filters, 1, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.adds = stride == 1 and channels == filters

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return x + out if self.adds else out


def _bent(
    channels: int, filters: int, *, kernel: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, filters, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(filters),
        nn.ReLU6(),
    ]


_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""MobileNet-v2, table 2: expansion, filters, blocks, stride of the first block."""


def mobilenet_v2(classes: int = 10, *, width: float = 1.0) -> nn.Module:
    """Return an untrained MobileNet-v2 for 32x32 images.

    Sandler et al., CVPR 2018, arXiv:1801.04381, table 2, without the head's dropout. The first
    convolution and the second stage have stride 1 instead of 2, so that 4x4 positions are left
    before the mean, as CIFAR papers do.

    Args:
        classes: Number of outputs C.
        width: Multiplies the filters of all layers but, below 1, the last; rounded to multiples of
            8, and up where rounding down would lose more than a tenth.

    Returns:
        A module from images ``(B, 3, 32, 32)`` to logits ``(B, C)``: 2,223,872 + 1281 C parameters
        at width 1.
    """

    def scaled(filters: int) -> int:
        near = max(8, int(filters * width + 4) // 8 * 8)
        return near if near >= 0.9 * filters * width else near + 8

    channels, last = scaled(32), max(1280, scaled(1280))
    blocks: list[nn.Module] = [*_bent(3, channels)]
    for expansion, filters, count, first in _STAGES:
        for i in range(count):
            stride = first if i == 0 else 1
            blocks.append(_Bottleneck(channels, scaled(filters), expansion, stride))
            channels = scaled(filters)
    return nn.Sequential(
        *blocks,
        *_bent(channels, last, kernel=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(last, classes),
    )


def vit(
    classes: int = 10, *, width: int = 192, depth: int = 6, heads: int = 3, patch: int = 4
) -> nn.Module:
    """Return an untrained vision transformer for 32x32 images, from Hugging Face transformers.

    Dosovitskiy et al., ICLR 2021, arXiv:2010.11929: patches, a class token, learned positions. Its
    output is an object with ``.logits (B, C)``. Nothing is read from the hub.

    Args:
        classes: Number of outputs C.
        width: Length of a token; a multiple of ``heads``. The inner layers are 4 times as wide.
        depth: Number of blocks.
        heads: Attention heads of each block.
        patch: Side of a patch in pixels: 4 gives 64 patches.

    Returns:
        A module from images ``(B, 3, 32, 32)``.

    Raises:
        UnsupportedError: If transformers is not installed.
    """
    try:
        library = import_module("transformers")
    except ImportError:
        raise UnsupportedError(
            "vit: transformers is not installed; pip install unlearnkit[hf]"
        ) from None
    settings = library.ViTConfig(
        image_size=32,
        patch_size=patch,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        num_labels=classes,
    )
    model: nn.Module = library.ViTForImageClassification(settings)
    return model
