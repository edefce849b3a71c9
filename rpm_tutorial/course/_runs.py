"""A training of `rpm-tutorial train`, which is kept in a file: its settings, data and networks, and how it ends."""

import signal
from pathlib import Path

import click
import torch
from tqdm import tqdm

from .. import checkpoints, critics, datasets, encoders
from ..training import Trainer

SETTINGS = {"data", "steps", "batch_size", "dim", "temperature", "learning_rate", "seed", "save_every"}  # in its file
SPLIT = 1297  # of the 1 797 digits; the others are held out
ENDS = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, kill, and a terminal that is closed


def images(data: str, split: str):
    """Images to train on, or the held-out ones, shape (n, 1, H, W)."""
    if data == "fashion-mnist":
        try:
            return datasets.fashion_mnist(split).x
        except OSError as error:
            raise click.ClickException(f"{error}; (4) --data digits needs no files") from error
    x = datasets.digits().x
    return x[:SPLIT] if split == "train" else x[SPLIT:]


def networks(settings: dict, device):
    """Encoder and critic, as `settings` describe them."""
    torch.manual_seed(settings["seed"])
    encoder = encoders.mlp(64, settings["dim"]) if settings["data"] == "digits" else encoders.conv(settings["dim"])
    return encoder.to(device), critics.VonMisesFisher(settings["temperature"]).to(device)


def load(checkpoint: Path, device) -> dict:
    """What such a file holds: "settings" and "trainer"; `ValueError` for another one."""
    state = checkpoints.load_checkpoint(checkpoint, device)
    expected = {"settings", "trainer"}
    if not isinstance(state, dict) or set(state) != expected or {*map(type, state.values())} != {dict}:
        state = {"settings": {}}
    if set(state["settings"]) != SETTINGS:
        raise ValueError(
            f"{checkpoint} is not a training of this command. Expected a file that rpm-tutorial train saved"
        )
    return state


def train(trainer: Trainer, settings: dict, checkpoint: Path) -> bool:
    """Train to the end with a progress bar; False if a signal asked to stop before. Whatever ends it, each step is saved."""
    asked, saved = [], None

    def stop(number, _frame) -> None:
        asked.append(number)
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)  # pressed twice, it ends at once

    def save() -> None:
        nonlocal saved
        checkpoints.save_checkpoint({"settings": settings, "trainer": trainer.state_dict()}, checkpoint)
        saved = trainer.step

    ends = [getattr(signal, name) for name in ENDS if hasattr(signal, name)]
    ends = [number for number in ends if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup has it
    before = {number: signal.signal(number, stop) for number in ends}
    try:
        save()  # if the file can't be written, say so before the work
        with tqdm(total=trainer.steps, initial=trainer.step, unit="step", disable=None) as bar:
            while trainer.step < trainer.steps and not asked:
                row = trainer.advance()
                bar.set_postfix_str(f"InfoNCE {row.value:.2f} nats", refresh=False)
                bar.update()
                if row.step % settings["save_every"] == 0 or row.step == trainer.steps:
                    save()
                    bar.write(f"step {row.step:5} of {trainer.steps}: InfoNCE {row.value:.3f} nats on its batch, saved")
    finally:
        try:
            if saved is not None and saved < trainer.step:
                save()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return trainer.step == trainer.steps
