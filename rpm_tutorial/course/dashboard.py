"""The training dashboard: a training to watch and to steer, while the kernel stays free for other cells.

The training runs in the event loop that answers the buttons, a twentieth of a second at a time: no thread of its own,
nothing left behind. JupyterLab answers widgets beside the cells, in another thread of the kernel: hence the lock.
"""

import asyncio
import dataclasses
import functools
import html
import math
import os
import threading
import time
import traceback
import weakref
from pathlib import Path

import ipywidgets
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from .. import probes
from .._checks import check_count, check_positive, seeded
from ..checkpoints import load_checkpoint, save_checkpoint
from ..labelled_evidence import label_evidence
from ..training import Trainer, encode
from ._page import Page
from ._stored import STORED
from ._twins import GRID, grid
from .figures import training
from .widgets import Accessibility, Plot, live_and_still

CHUNK, REST = 0.05, 0.03  # seconds of training, then for the page: Stop is answered after a chunk
REDRAW = 0.5  # seconds between two pictures, at the least
AGAIN = "Change a setting and press Reset, or Load a checkpoint."
KEPT = "The training is as it was: Resume continues it, and Stop saves it."
WIDE = {"width": "40em", "max_width": "100%"}
PICTURES = 12  # of the rest of a training, on a page without a kernel
PAGE_TIMEOUT = 90.0  # seconds without a sign of the page; a hidden one may speak once a minute only


def _alone(method):
    """A method that waits for the training to come to the end of its chunk, and that the next chunk waits for."""

    @functools.wraps(method)
    def locked(self, *args, **kwargs):
        with self._lock:
            return method(self, *args, **kwargs)

    return locked


class TrainingDashboard(ipywidgets.VBox):
    """A training with buttons, settings to change while it runs, and its curves and latents, live.

    Stop and the last step save to `checkpoint`; Load continues from there with the numbers of a training that was never
    stopped. An error ends the training, not the kernel, and is shown with its remedy. One dashboard trains at a time, and
    one whose page was closed pauses.

    Args:
        trainer: the `Trainer`; if its pairs have a `strength` and its critic a `temperature`, these can be set too.
        x, x_prime, labels: held-out pairs and their classes. The evidence is that of the pairs, with its label nats and
            instance nats (E24); the linear probe is fitted on one half of x and scored on the other half of x', with as
            many of each class in both.
        checkpoint: a file to save to; None for none.
        every: steps between two evaluations.
        page_timeout: seconds after which a page that is silent counts as closed.
    Raises:
        ValueError: x, x_prime and labels differ in length.
    """

    _all: "weakref.WeakSet[TrainingDashboard]" = weakref.WeakSet()

    def __init__(
        self,
        trainer: Trainer,
        x: Tensor,
        x_prime: Tensor,
        labels: Tensor,
        *,
        checkpoint: str | os.PathLike | None = None,
        every: int = 20,
        page_timeout: float = PAGE_TIMEOUT,
    ):
        if not len(x) == len(x_prime) == len(labels):
            found = f"x has {len(x)} rows, x_prime {len(x_prime)} and labels {len(labels)}"
            raise ValueError(f"{found}; expected one each per pair")
        for other in list(self._all):
            other.pause("Paused: another dashboard was made.")
        self.trainer, self.x, self.x_prime, self.labels = trainer, x, x_prime, labels
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.every, self.page_timeout = check_count("every", every), check_positive("page_timeout", page_timeout)
        self.state = "ready"
        self.task: asyncio.Task[None] | None = None
        self._lock, self._drawn, self._showing = threading.RLock(), 0.0, False
        self._recent: list[float] = []  # InfoNCE of the batches since the last evaluation
        names = ("step", "InfoNCE", "held-out InfoNCE", "label nats", "instance nats", "probe")
        self.history: dict[str, list] = {name: [] for name in names}
        self._evaluate()
        self._beginning = self._everything()
        self.figure = self._picture()
        self.plot = Plot(self.figure)
        self.settings, self.buttons = self._make_settings(), self._make_buttons()
        self.progress = ipywidgets.IntProgress(max=trainer.steps, description="step", layout=WIDE)
        self.count, self.message, self.summary, self.page = *(ipywidgets.HTML() for _ in range(3)), Page()
        super().__init__(
            [
                ipywidgets.VBox([*self.settings.values(), Accessibility()]),
                ipywidgets.HBox(list(self.buttons.values())),
                *(self.progress, self.count, self.message, self.plot, self.summary, self.page),
            ]
        )
        self.add_class("rpm-dashboard")
        self._all.add(self)
        self._say("ready", "Ready.")

    # What the buttons do

    def start(self) -> None:
        """Train in the background until the last step, a pause, or an error; `RuntimeError` outside a notebook."""
        if self.state == "running" or self.trainer.step == self.trainer.steps:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            remedy = "expected a notebook: elsewhere call advance(steps)"
            raise RuntimeError(f"there is no event loop to train in; {remedy}") from None
        for other in list(self._all):
            other.pause("Paused: another dashboard trains.")
        self._started, self.page.seen = (time.monotonic(), self.trainer.step), None
        self.task = loop.create_task(self._train())
        self._say("running", "Training.")

    @_alone
    def pause(self, why: str = "Paused.") -> None:
        """Stop training; everything stays in memory."""
        if self.state == "running":
            self._rest(why)

    @_alone
    def stop(self) -> None:
        """Pause, and save to the checkpoint. Errors of saving are shown; the training stays in memory."""
        self._rest("Stopped.", save=True)

    @_alone
    def advance(self, steps: int = 1) -> None:
        """Train some steps here and now, with a progress bar, then draw. Errors are shown, and raised."""
        self.pause()
        try:
            for _ in tqdm(range(min(steps, self.trainer.steps - self.trainer.step)), "training", delay=2, leave=False):
                self._one_step()
        except Exception as error:
            self._fail(error)
            raise
        self._rest()

    @_alone
    def reset(self) -> None:
        """Back to where the dashboard was made."""
        self.pause()
        self._restore(self._beginning)
        self._say("ready", "Ready, from the beginning.")

    @_alone
    def load(self) -> None:
        """Continue from the checkpoint. Errors are shown, and leave the training as it was."""
        self.pause()
        try:
            if self.checkpoint is None:
                raise ValueError("there is no checkpoint; expected TrainingDashboard(..., checkpoint=a_file)")
            self._restore(load_checkpoint(self.checkpoint, self.trainer.device))
        except (ValueError, OSError) as error:
            self._fail(error, "paused", KEPT)
        else:
            self._say("paused", f"Loaded from {self.checkpoint}.")

    # The training

    async def _train(self) -> None:
        """Chunk by chunk for as long as the state is running, and no later task took over."""
        mine = asyncio.current_task()
        while self._chunk(mine):
            await asyncio.sleep(REST)

    @_alone
    def _chunk(self, task: asyncio.Task) -> bool:
        if self.state != "running" or self.task is not task:
            return False
        try:
            end = time.monotonic() + CHUNK
            while time.monotonic() < end and self.trainer.step < self.trainer.steps:
                self._one_step()
            if self.trainer.step == self.trainer.steps:
                self._rest()
            elif self.page.silent_for() > self.page_timeout:
                self._rest("Paused: no page shows this dashboard any more.")
            elif time.monotonic() > self._drawn + REDRAW:
                self._draw()
            else:
                self._show_count()
        except KeyboardInterrupt:  # of the kernel; it would end the kernel's own loop
            self._rest("Paused: the kernel was interrupted.")
        except Exception as error:  # a reader sits before the page, not before a log
            self._fail(error)
        return self.state == "running"

    def _rest(self, why: str = "Paused.", *, save: bool = False) -> None:
        """Train no more. After the last step, or to `save`, write the checkpoint; if that fails, Stop tries again."""
        state = "paused"
        if self.trainer.step == self.trainer.steps:
            state, why, save = "finished", "Finished.", True
        try:
            if save and self.checkpoint is not None:
                save_checkpoint(self._everything(), self.checkpoint)
                why += f" Saved to {self.checkpoint}."
            self._say(state, why)
        except (OSError, RuntimeError, TypeError) as error:
            self._fail(error, "paused", KEPT)
        self._draw()

    def _one_step(self) -> None:
        if self._is_due():  # the evaluation before was interrupted
            self._evaluate()
        self._recent.append(self.trainer.advance().value)
        if self._is_due():
            self._evaluate()

    def _is_due(self) -> bool:
        step = self.trainer.step
        return step > self.history["step"][-1] and (step % self.every == 0 or step == self.trainer.steps)

    def _evaluate(self) -> None:
        z, z_prime = encode(self.trainer.encoder, self.x), encode(self.trainer.encoder_prime, self.x_prime)
        nats = label_evidence(z, z_prime, self.trainer.critic, self.labels)
        fit, score = _halves(self.labels)
        probe = probes.linear_probe(z[fit], self.labels[fit], z_prime[score], self.labels[score])
        mean = sum(self._recent) / len(self._recent) if self._recent else None
        row = (self.trainer.step, mean, nats.infonce.item(), nats.label.item(), nats.instance.item(), probe)
        history = {name: [*values, value] for (name, values), value in zip(self.history.items(), row, strict=True)}
        self.history, self._recent, self._latents = history, [], z

    def _everything(self) -> dict:
        """The trainer's state, and beside it that of the dashboard."""
        return self.trainer.state_dict() | {"history": self.history, "recent": [*self._recent]}

    def _restore(self, state: dict) -> None:
        """Go to a state of the trainer, and to the history beside it, if there is one."""
        history = state.get("history") or {name: [] for name in self.history}
        if [*history] != [*self.history]:
            raise ValueError(f"the history has the curves {', '.join(history)}; expected {', '.join(self.history)}")
        self.trainer.load_state_dict(state)
        self.history = dict(history)
        self._recent = [*state.get("recent", [])]
        self._latents = encode(self.trainer.encoder, self.x)
        if not self.history["step"]:
            self._evaluate()
        self._show_settings()
        self._draw()

    # The page

    def _picture(self):
        sphere = hasattr(self.trainer.critic, "temperature")
        latents = F.normalize(self._latents, dim=1) if sphere else self._latents
        return training(self.history, latents.cpu(), self.labels.cpu(), steps=self.trainer.steps)

    def _draw(self) -> None:
        self.figure = self._picture()
        self.plot.show(self.figure)
        self._drawn = time.monotonic()
        self._show_count()

    def _show_count(self) -> None:
        trainer = self.trainer
        self.progress.value = trainer.step
        said = [f"Step {trainer.step} of {trainer.steps} on {trainer.device}"]
        if self.state == "running":
            since, from_step = self._started
            rate = (trainer.step - from_step) / max(time.monotonic() - since, 1e-3)
            left = f"{(trainer.steps - trainer.step) / rate:.0f} s left" if rate else "time left unknown"
            said += [left, f"{2 * trainer.batch_size * rate:,.0f} images per second"]
        if hasattr(trainer.critic, "temperature"):
            said.append(f"temperature {self._setting('temperature'):.3f}")
        self.count.value = f"<p>{' · '.join(said)}</p>"
        self.summary.value = f"<p>{html.escape(self.figure.alt)}</p><p><em>{html.escape(self.figure.caption)}</em></p>"

    def _say(self, state: str, message: str) -> None:
        """The state and what is said of it; which buttons can be pressed follows from it."""
        self.state = state
        self.message.value = f"<p role='status'>{html.escape(message)}</p>"
        running, more = state == "running", self.trainer.step < self.trainer.steps
        can = {
            "start": more and not running and state != "failed",
            "pause": running,
            "step": more and not running and state != "failed",
            "stop": running or state == "paused",
            "reset": True,
            "load": not running and self.checkpoint is not None and self.checkpoint.exists(),
        }
        for name, button in self.buttons.items():
            button.disabled = not can[name]
        self.buttons["start"].description = "Resume" if self.trainer.step else "Start"
        self._show_count()

    def _fail(self, error: Exception, state: str = "failed", remedy: str = AGAIN) -> None:
        self._say(state, "")
        trace = html.escape("".join(traceback.format_exception(error)))
        self.message.value = (
            f"<div role='alert' style='border: 2px solid #D55E00; padding: 0 1em'><p><b>{type(error).__name__} after step "
            f"{self.trainer.step}.</b> {html.escape(str(error))}</p><p>{remedy}</p>"
            f"<details><summary>Where it happened</summary><pre>{trace}</pre></details></div>"
        )

    def _make_buttons(self) -> dict[str, ipywidgets.Button]:
        does = {
            "start": (self.start, "Train from here on"),
            "pause": (self.pause, "Stop for a while"),
            "step": (self.advance, "Train one step"),
            "stop": (self.stop, "Stop, and save to the checkpoint"),
            "reset": (self.reset, "Back to the beginning"),
            "load": (self.load, "Continue from the checkpoint"),
        }
        buttons = {}
        for name, (call, tooltip) in does.items():
            buttons[name] = ipywidgets.Button(description=name.title(), tooltip=tooltip, layout={"width": "7em"})
            buttons[name].on_click(lambda _button, call=call: call())
        return buttons

    def _make_settings(self) -> dict[str, ipywidgets.FloatSlider]:
        look = {"style": {"description_width": "16em"}, "layout": WIDE}
        log = look | {"step": 0.05, "readout_format": ".2g"}
        sliders = {"learning_rate": ipywidgets.FloatLogSlider(description="learning rate", min=-5, max=0, **log)}
        if hasattr(self.trainer.critic, "log_temperature"):
            sliders["temperature"] = ipywidgets.FloatLogSlider(description="temperature", min=-2, max=0.3, **log)
        if hasattr(self.trainer.pairs, "strength"):
            description = "strength of the views"
            sliders["strength"] = ipywidgets.FloatSlider(description=description, min=0, max=2, step=0.1, **look)
        for name, slider in sliders.items():
            slider.value = self._setting(name)
            slider.observe(lambda change, name=name: self._set(name, change.new), "value")
        return sliders

    def _show_settings(self) -> None:
        """Move the sliders to where the training is, which does not change it."""
        self._showing = True
        for name, slider in self.settings.items():
            slider.value = self._setting(name)
        self._showing = False

    def _setting(self, name: str) -> float:
        if name == "temperature":
            return getattr(self.trainer.critic, name).item()
        return getattr(self.trainer.pairs if name == "strength" else self.trainer, name)

    @_alone
    def _set(self, name: str, value: float) -> None:
        if self._showing:
            return
        if name == "temperature":
            with torch.no_grad():
                self.trainer.critic.get_parameter("log_temperature").fill_(math.log(value))
        else:
            setattr(self.trainer.pairs if name == "strength" else self.trainer, name, value)
        self._show_count()

    def _repr_mimebundle_(self, **kwargs):
        shown = live_and_still(self, self.figure)
        return shown | {GRID: self._to_the_end()} if STORED in os.environ else shown

    @_alone
    def _to_the_end(self) -> str:
        """For a page without a kernel: what Resume would draw up to the last step. The training itself stays where it is, if
        its pairs have a `state_dict`."""
        here, pictures = self._everything(), {self.trainer.step: self.figure}
        stride = self.every * -(-(self.trainer.steps - self.trainer.step) // (PICTURES * self.every))
        try:
            while self.trainer.step < self.trainer.steps:
                for _ in range(min(stride, self.trainer.steps - self.trainer.step)):
                    self._one_step()
                pictures[self.trainer.step] = self._picture()
        finally:
            self._restore(here)
        steps = {
            "values": [*pictures],
            "options": [(str(step), step) for step in pictures],
            "label": "step",
            "menu": False,
        }
        first = dataclasses.field(default=next(iter(pictures)), metadata=steps)
        return grid(lambda at: pictures[at.step], dataclasses.make_dataclass("At", [("step", int, first)], frozen=True))


def _halves(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows to fit a probe on, and to score it on: as many of each class, however they are sorted."""
    rows = torch.randperm(len(labels), generator=seeded(0))
    rows = rows[labels.cpu()[rows].argsort(stable=True)]
    return rows[::2], rows[1::2]
