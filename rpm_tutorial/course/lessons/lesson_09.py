"""Exercises of lesson 9: three readings of the same table of scores, and a bug in a probe."""

import math

import torch
from torch.nn import functional as F

from ...objectives import infonce, symmetric_infonce
from ..exercise import Exercise, normal

top_one = Exercise(
    prompt="Return the fraction of rows of `log_f`, shape (n, n), whose largest score is on the diagonal.",
    case=lambda seed: (normal(seed, 6 + seed, 6 + seed) + torch.eye(6 + seed),),
    solution=lambda log_f: (log_f.argmax(1) == torch.arange(len(log_f))).double().mean(),
    hints=(
        "For each row, which column has the largest score? Which column should it be?",
        "log_f.argmax(1) against torch.arange(n).",
        "(log_f.argmax(1) == torch.arange(len(log_f))).double().mean()",
    ),
    misconceptions={
        lambda log_f: (log_f.argmax(0) == torch.arange(len(log_f))).double().mean(): (
            "that ranks the x for each x'; here each row, an x, looks for its x'."
        ),
        lambda log_f: log_f.softmax(1).diagonal().mean(): (
            "that is the mean probability of the partner; the question is how often it comes first."
        ),
        lambda log_f: (
            (log_f.argmax(1) == torch.arange(len(log_f))).double().sum()
        ): "that is their number; divide by n.",
    },
)

typical_probability = Exercise(
    prompt="Return the geometric mean over pairs of P(x'_i | x_i) among n candidates, from `infonce` = I_N, nats per pair (E14).",
    case=lambda seed: (2.0 + 0.5 * seed, 1000 * (seed + 1)),
    solution=lambda infonce, n: math.exp(infonce) / n,
    hints=(
        "The geometric mean is exp of the mean logarithm.",
        "P(x_i, x'_i) = P(x'_i | x_i) / n, so the mean log conditional is I_N - log n.",
        "math.exp(infonce - math.log(n))",
    ),
    misconceptions={
        lambda infonce, n: math.exp(infonce) / n**2: "that is the joint P(x, x'); given x, divide by P(x) = 1/n.",
        lambda infonce, n: math.exp(infonce) / (n - 1): "the partner is one of the n candidates itself.",
        lambda infonce, n: math.exp(infonce): "that is how many times more probable than chance; chance is 1/n.",
        lambda infonce, n: infonce / math.log(n): "that is the fraction of the ceiling, not a probability.",
        lambda infonce, n: math.exp(-infonce) / n: "more evidence means more probable: the sign.",
    },
)


def _on_the_sphere(seed: int) -> tuple:
    z, step = normal(seed, 2, 7, 4)
    return F.normalize(z, dim=1), F.normalize(z + step, dim=1), 0.2 + 0.3 * seed


infonce_at = Exercise(
    prompt=(
        "Return I_N in nats per pair of z and z_prime, shape (n, d), rows of length 1, under the von Mises-Fisher prior of that "
        "temperature. Source: (E7), (E18)."
    ),
    case=_on_the_sphere,
    solution=lambda z, z_prime, temperature: infonce(z @ z_prime.T / temperature).value,
    hints=(
        "First the table of scores, then rpm.infonce of it.",
        "log f = kappa z.z' with kappa = 1/temperature.",
        "rpm.infonce(z @ z_prime.T / temperature).value",
    ),
    misconceptions={
        lambda z, z_prime, temperature: infonce(z @ z_prime.T * temperature).value: (
            "a low temperature makes a sharp prior: kappa is 1/temperature."
        ),
        lambda z, z_prime, temperature: infonce((z @ z_prime.T / temperature).T).value: (
            "that normalises over z; InfoNCE's prior normalises over z' (rows are z)."
        ),
        lambda z, z_prime, temperature: (
            -infonce(z @ z_prime.T / temperature).value
        ): "that is the loss; I_N is maximised.",
        lambda z, z_prime, temperature: infonce(z @ z_prime.T / temperature).value - math.log(len(z)): (
            "that is minus the cross-entropy: log n was left out of I_N."
        ),
        lambda z, z_prime, temperature: symmetric_infonce(z @ z_prime.T / temperature).value: (
            "that is the mean of both directions (E12); here the prior normalises over z' alone."
        ),
    },
)


def _noisy_classes(seed: int) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    labels, labels_test = torch.randint(3, (2, 60), generator=generator)
    centres = torch.randn(3, 20, generator=generator, dtype=torch.float64)
    z, z_test = (0.4 * centres[k] + torch.randn(60, 20, generator=generator).double() for k in (labels, labels_test))
    return z, labels, z_test, labels_test


def _probe(z, labels, z_test, labels_test):
    targets = F.one_hot(labels).to(z)
    weights = torch.linalg.lstsq(z, targets).solution
    predicted = (z_test @ weights).argmax(1)
    return (predicted == labels_test).double().mean()


def _fitted_on_everything(z, labels, z_test, labels_test):
    everything = torch.cat([z, z_test])
    targets = F.one_hot(torch.cat([labels, labels_test])).to(z)
    weights = torch.linalg.lstsq(everything, targets).solution
    predicted = (z_test @ weights).argmax(1)
    return (predicted == labels_test).double().mean()


probe = Exercise(
    prompt="Return the test accuracy, in [0, 1], of a linear probe: one-hot labels regressed on z alone, the largest output wins.",
    case=_noisy_classes,
    solution=_probe,
    hints=(
        "Latents of noise know no label, yet the accuracy lies above chance. What did the probe learn from?",
        "Which of the four arguments may the fit see?",
        "Fit on z and labels alone; z_test and labels_test are for the score.",
    ),
    misconceptions={
        _fitted_on_everything: "on latents of pure noise, which know no label, the accuracy lies far above chance.",
        lambda z, labels, z_test, labels_test: _probe(z_test, labels_test, z_test, labels_test): (
            "on noise the accuracy is higher still: now the probe has seen nothing but the test."
        ),
        lambda z, labels, z_test, labels_test: _probe(z, labels, z, labels): (
            "that is the accuracy on what the probe was fitted on; the question is how it does on the test."
        ),
        lambda z, labels, z_test, labels_test: _probe(
            F.pad(z, (0, 1), value=1), labels, F.pad(z_test, (0, 1), value=1), labels_test
        ): "your probe has an intercept, a feature that is always 1; here the labels are regressed on z alone.",
        lambda z, labels, z_test, labels_test: 1 - _probe(z, labels, z_test, labels_test): "that is the error rate.",
    },
    with_bug=_fitted_on_everything,
)
