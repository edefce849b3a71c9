"""A training of `rpm-tutorial train`: its data and networks, and how it ends. Its checkpoint holds its settings too."""

import math
import signal
from pathlib import Path

import click
import torch
from torch import Tensor, nn
from tqdm import tqdm

from .. import checkpoints, critics, datasets, encoders
from .._checks import seeded
from ..training import Trainer, encoder_evidence

SETTINGS = {"data", "steps", "batch_size", "dim", "temperature", "learning_rate", "seed", "save_every"}
FLIP = {"fashion-mnist": True, "digits": False}  # a digit has a handedness
ENDS = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, kill, and a terminal that is closed


def images(data: str, split: str) -> Tensor:
    """Images to train on, or the held-out ones ("test"), shape (n, 1, H, W)."""
    try:
        return (datasets.digits(split) if data == "digits" else datasets.fashion_mnist(split)).x
    except OSError as error:
        raise click.ClickException(f"{error}; (4) --data digits needs no files") from error


def networks(settings: dict, x: Tensor, device) -> tuple[nn.Module, nn.Module]:
    """Encoder and critic of these images, as `settings` describe them."""
    torch.manual_seed(settings["seed"])
    encoder = encoders.for_images(x, settings["dim"])
    return encoder.to(device), critics.VonMisesFisher(settings["temperature"]).to(device)


def trainer(settings: dict, device) -> Trainer:
    """A training at its beginning."""
    x = images(settings["data"], "train")
    encoder, critic = networks(settings, x, device)
    batch_size, seed = settings["batch_size"], settings["seed"]
    pairs = datasets.view_pairs(x, batch_size, flip=FLIP[settings["data"]], seed=seed)
    return Trainer(encoder, critic, pairs, settings["steps"], learning_rate=settings["learning_rate"])


def is_training(path: Path) -> bool:
    """Whether the file is a checkpoint, and not one of embeddings."""
    if path.suffix not in ("", ".pt", ".pth", ".ckpt"):
        return False
    state = checkpoints.load_checkpoint(path)
    return isinstance(state, dict) and {"encoder", "critic"} <= set(state)


def load(checkpoint: Path, device) -> dict:
    """A `Trainer`'s state with these "settings" beside it; `ValueError` for a file without them."""
    state = checkpoints.load_checkpoint(checkpoint, device)
    settings = state.get("settings") if isinstance(state, dict) else None
    if not isinstance(settings, dict) or set(settings) != SETTINGS:
        raise ValueError(f"{checkpoint} holds no settings. Expected a file that rpm-tutorial train saved")
    return state


def evidence(checkpoint: Path, seed: int, device) -> str:
    """The held-out evidence of a training, in words."""
    state = load(checkpoint, device)
    settings = state["settings"]
    x = images(settings["data"], "test")
    encoder, critic = networks(settings, x, device)
    try:
        encoder.load_state_dict(state["encoder"])
        critic.load_state_dict(state["critic"])
    except (KeyError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"the checkpoint holds other networks than its settings say: {checkpoints.reason(error)}. Expected a file that "
            "rpm-tutorial train saved"
        ) from error
    views = datasets.two_views(x, flip=FLIP[settings["data"]], generator=seeded(seed))
    found = encoder_evidence(encoder, critic, *views)
    return (
        f"model         {checkpoint}, after step {state['step']} of {settings['steps']}\n"
        f"pairs         {found.n} of {settings['data']}, held out\n"
        f"InfoNCE       {found.infonce.item():.4f} nats per pair, at most log N = {math.log(found.n):.4f}\n"
        f"log evidence  {found.log_evidence.item():.4f} nats per pair = InfoNCE - 2 log N"
    )


def train(trainer: Trainer, settings: dict, checkpoint: Path) -> bool:
    """Train to the end with a progress bar; False if a signal asked to stop before. Whatever ends it, each step is saved."""
    asked, saved = [], None

    def stop(number, _frame) -> None:
        asked.append(number)
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)  # pressed twice, it ends at once

    def save() -> None:
        nonlocal saved
        checkpoints.save_checkpoint(trainer.state_dict() | {"settings": settings}, checkpoint)
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
