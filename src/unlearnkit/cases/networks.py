"""Networks for the built-in cases: the published ones for 32x32 images, and one for a CPU."""

from torch import Tensor, nn
from torch.nn import functional


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


def all_cnn(classes: int = 10, *, dropout: float = 0.0) -> nn.Module:
    """Return an untrained All-CNN, the variant that unlearning papers use.

    Convolution, batch normalisation and ReLU with 96, 96, 192 (stride 2), 192, 192, 192 (stride 2),
    192, 192 (1x1) filters, dropout after each strided layer, the mean over the 8x8 positions, a
    linear head. Springenberg et al., ICLR 2015 workshop, arXiv:1412.6806 (All-CNN-C), with the
    batch normalisation and the head of Golatkar et al., CVPR 2020, arXiv:1911.04933.

    Args:
        classes: Number of outputs C.
        dropout: Share of activations dropped in training; 0 for none.

    Returns:
        A module from images ``(B, 3, 32, 32)`` to logits ``(B, C)``.
    """
    return nn.Sequential(
        *_conv(3, 96),
        *_conv(96, 96),
        *_conv(96, 192, stride=2),
        nn.Dropout(dropout),
        *_conv(192, 192),
        *_conv(192, 192),
        *_conv(192, 192, stride=2),
        nn.Dropout(dropout),
        *_conv(192, 192),
        *_conv(192, 192, kernel=1, padding=0),
        nn.AvgPool2d(8),
        nn.Flatten(),
        nn.Linear(192, classes),
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


def resnet18(classes: int = 10) -> nn.Module:
    """Return an untrained ResNet-18 for 32x32 images.

    He et al., CVPR 2016, arXiv:1512.03385, with a 3x3 first convolution of stride 1 and no maximum
    pooling, as CIFAR papers use it.

    Args:
        classes: Number of outputs C.

    Returns:
        A module from images ``(B, 3, 32, 32)`` to logits ``(B, C)``: 11,168,832 + 513 C parameters.
    """
    blocks: list[nn.Module] = []
    channels = 64
    for filters, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [_Residual(channels, filters, stride), _Residual(filters, filters, 1)]
        channels = filters
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 1, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, classes),
    )
