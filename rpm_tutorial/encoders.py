"""The few small encoders of the course: any `nn.Module` from (n, ...) to z of shape (n, d) is an encoder."""

from torch import nn

from ._checks import check_count


def mlp(inputs: int, dim: int, *, width: int = 128) -> nn.Module:
    """Flatten, two hidden layers, and z of shape (n, dim). For images of a few hundred pixels."""
    for name, value in (("inputs", inputs), ("dim", dim), ("width", width)):
        check_count(name, value)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim)
    )


def conv(dim: int, *, width: int = 8) -> nn.Module:
    """Three convolutions after a halving of the resolution, for 28 x 28 images: (n, 1, 28, 28) to z of shape (n, dim).

    `encoder[:-1]` gives the flattened features, 64 * width of them, which a probe reads better than z itself.
    """
    for name, value in (("dim", dim), ("width", width)):
        check_count(name, value)

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
