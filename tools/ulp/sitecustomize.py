"""Python runs this at its start if its folder is on PYTHONPATH: every random number of torch is then one ulp nearer to zero.

Starts of networks, noise and views all come from these, so that what a training makes of a difference in the last bit shows.
"""

import functools

import torch


def nudged(draw):
    @functools.wraps(draw)
    def drawn(*args, **kwargs):
        found = draw(*args, **kwargs)
        with torch.no_grad():
            return found.copy_(torch.nextafter(found, torch.zeros_like(found)))

    return drawn


for owner, names in ((torch, ("rand", "randn")), (torch.Tensor, ("uniform_", "normal_", "exponential_"))):
    for name in names:
        setattr(owner, name, nudged(getattr(owner, name)))
