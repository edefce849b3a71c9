"""A small training on digits for tests, and what they ask of it."""

import torch
from torch import nn

import rpm_tutorial as rpm
from rpm_tutorial import datasets, encoders


def model(seed: int = 0) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(seed)
    return encoders.mlp(64, 8, width=64), rpm.VonMisesFisher(0.2)


def digit_pairs(seed: int = 0):
    return datasets.view_pairs(datasets.digits().x, 128, flip=False, seed=seed)


def values(steps: int = 5, **options) -> list[float]:
    return [row.value for row in rpm.train(*model(), digit_pairs(), steps, **options)]


def trainer(seed: int = 0, *, width: int = 64, steps: int = 10) -> rpm.Trainer:
    torch.manual_seed(seed)
    return rpm.Trainer(encoders.mlp(64, 8, width=width), rpm.VonMisesFisher(0.2), digit_pairs(seed), steps)


def everything(found: rpm.Trainer) -> str:
    torch.set_printoptions(profile="full", precision=10)
    try:
        return str({key: value for key, value in found.state_dict().items() if key != "seconds"})
    finally:
        torch.set_printoptions(profile="default")
