"""The few small encoders of the course: any `nn.Module` from (n, ...) to z of shape (n, d) is an encoder."""

from torch import Tensor, nn


def mlp(inputs: int, dim: int, *, width: int = 128) -> nn.Module:
    """Flatten, two hidden layers, and z of shape (n, dim). For images of a few hundred pixels."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim)
    )


def conv(dim: int, *, width: int = 8) -> nn.Module:
    """Three convolutions after a halving of the resolution, for 28 x 28 images: (n, 1, 28, 28) to z of shape (n, dim).

    `encoder[:-1]` gives the flattened features, 64 * width of them, which a probe reads better than z itself.
    """

    def block(inputs, outputs, stride):
        return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        nn.AvgPool2d(2),
        *block(1, width, 1),
        *block(width, 2 * width, 2),
        *block(2 * width, 4 * width, 2),
        nn.Flatten(),
        nn.Linear(64 * width, dim),
    )


def for_images(x: Tensor, dim: int) -> nn.Module:
    """The encoder of the course for such images: `conv` for those of 28 x 28 pixels, `mlp` for smaller ones."""
    return conv(dim) if x.shape[1:] == (1, 28, 28) else mlp(x[0].numel(), dim)
