"""Exercise of the neighbour N05: an objective as a code length."""

import math

import torch

from ..exercise import Exercise, normal


def _flows(seed: int) -> tuple:
    log_prediction, error = normal(seed, 2, 50 + 10 * seed)
    return (1 + log_prediction + 0.4 * error).exp(), (1 + log_prediction).exp()


def _bits_of_best_normal(error: torch.Tensor) -> torch.Tensor:
    """Bits per error of a normal density around zero, of the best scale."""
    return torch.log2(2 * math.pi * math.e * error.square().mean()) / 2


bits_of_logs = Exercise(
    prompt=(
        "Return the bits per observation of the MSE of logs, from y and prediction, both positive, of shape (n,): those of a "
        "normal density of log y - log prediction, of the best scale, brought back to y."
    ),
    case=_flows,
    solution=lambda y, prediction: _bits_of_best_normal(y.log() - prediction.log()) + torch.log2(y).mean(),
    hints=(
        "Two terms: the normal density of the error of logarithms, and the Jacobian.",
        "dv/dy = 1/y, and the bits are minus a log2: the Jacobian adds the mean of log2 y.",
        "(2 * math.pi * math.e * (y / prediction).log().square().mean()).log2() / 2 + y.log2().mean()",
    ),
    misconceptions={
        lambda y, prediction: _bits_of_best_normal(y.log() - prediction.log()): (
            "that describes log y. Without the Jacobian the number changes with the units of y."
        ),
        lambda y, prediction: _bits_of_best_normal(y.log() - prediction.log()) - torch.log2(y).mean(): (
            "the density gains the factor 1/y, so minus its logarithm gains + log2 y."
        ),
        lambda y, prediction: math.log(2) * (_bits_of_best_normal(y.log() - prediction.log()) + torch.log2(y).mean()): (
            "those are nats; a bit has log 2 of them."
        ),
        lambda y, prediction: _bits_of_best_normal((y.log() - prediction.log()).std()) + torch.log2(y).mean(): (
            "your density has its mean fitted too; that of the MSE is centred at the prediction."
        ),
        lambda y, prediction: _bits_of_best_normal(
            y - prediction
        ): "that is the plain MSE: the error is to be taken of logarithms.",
        lambda y, prediction: _bits_of_best_normal(y.log() - prediction.log()) + torch.log2(prediction).mean(): (
            "the derivative is taken at y, what is described; the prediction is given."
        ),
    },
)
