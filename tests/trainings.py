"""A small training on digits for tests, and what they ask of it."""

import torch
from dashboards import tensors
from torch import nn

import rpm_tutorial as rpm
from rpm_tutorial import datasets, encoders

DIGITS = ("--data", "digits", "--batch-size", "64")  # of the command line


def model(seed: int = 0, *, width: int = 64) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(seed)
    return encoders.mlp(64, 8, width=width), rpm.VonMisesFisher(0.2)


def digit_pairs(seed: int = 0):
    return datasets.view_pairs(datasets.digits().x, 128, flip=False, seed=seed)


def trainer(seed: int = 0, *, width: int = 64, steps: int = 10) -> rpm.Trainer:
    return rpm.Trainer(*model(seed, width=width), digit_pairs(seed), steps)


def everything(found: rpm.Trainer) -> dict:
    """The numbers of its state by their path, but for the seconds."""
    state = tensors(found.state_dict())
    return {name: v.to_dense().tolist() if isinstance(v, torch.Tensor) else v for name, v in state.items()}
