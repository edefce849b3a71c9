"""The training dashboard, kernel side: stopped and continued, and what it does with errors."""

import asyncio
import copy
import re
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from budgets import HANG
from dashboards import STEPS, enabled, make, nothing_is_left_behind, others_done, parameters, said, same, trains

from rpm_tutorial import dashboard

pytestmark = pytest.mark.usefixtures(nothing_is_left_behind.__name__)

# Continuing


CHANGES = {"as it was": {}, "with other settings": {"learning_rate": 0.02, "temperature": 0.5, "strength": 0.4}}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("stop_at", [6, 8])  # between two evaluations, and at one
def test_a_training_continued_by_new_modules_is_one_never_stopped_bit_for_bit(change, stop_at, tmp_path):
    def begin(board):
        board.advance(3)
        for name, value in CHANGES[change].items():
            board.settings[name].value = value
        board.advance(stop_at - 3)

    whole, part = make(), make(tmp_path / "kept.pt")
    begin(whole), begin(part)
    whole.advance(STEPS - stop_at)
    part.stop()
    fresh = make(tmp_path / "kept.pt", seed=7)
    fresh.load()
    assert fresh.trainer.step == stop_at and not same(fresh, whole)
    for name, value in CHANGES[change].items():
        assert fresh.settings[name].value == pytest.approx(value, rel=0.1 if name == "temperature" else 1e-6)
    fresh.advance(STEPS - stop_at)
    assert fresh.state == "finished" and fresh.history["step"] == [0, 4, 8, 12] and same(fresh, whole)


def test_a_training_in_the_background_gives_the_numbers_of_one_in_the_foreground(monkeypatch):
    monkeypatch.setattr(dashboard, "CHUNK", 0.001)  # or all steps are made before the pause
    whole = make(steps=30)
    whole.advance(30)

    async def run():
        board = make(steps=30)
        board.start()
        await trains(board)
        board.pause()
        assert board.trainer.step < 30
        board.start()
        await board.task
        return board

    assert same(asyncio.run(run()), whole)


# Errors


def broken(board) -> None:
    with torch.no_grad():
        board.trainer.encoder[1].weight.fill_(torch.nan)


def shown_error(board, state: str = "failed") -> str:
    assert board.state == state and "role='alert'" in board.message.value and "reset" in enabled(board)
    assert "Where it happened" in said(board) and "Traceback (most recent call last)" in said(board)
    if state == "failed":
        assert dashboard.AGAIN in said(board) and not enabled(board) & {"start", "step", "pause"}
    else:
        assert dashboard.KEPT in said(board) and {"start", "step"} <= enabled(board)
    return said(board)


def test_a_training_that_becomes_nan_says_so_and_can_be_reset():
    async def run():
        board = make(steps=5000)
        board.start()
        await trains(board)
        step = board.trainer.step
        broken(board)
        await board.task
        assert re.search(rf"ValueError after step {step}\..*NaN.*learning rate", shown_error(board))
        assert board.trainer.step == step
        board.reset()
        assert board.state == "ready" and parameters(board).isfinite().all()
        board.advance(1)
        assert board.trainer.step == 1 and await others_done() == []

    asyncio.run(run())


def test_an_error_of_a_step_here_and_now_is_shown_and_raised():
    board = make()
    broken(board)
    with pytest.raises(ValueError, match="NaN"):
        board.advance(1)
    assert "step 1" in shown_error(board)


def damaged(path):
    path.write_bytes(path.read_bytes()[:500])


def foreign(path):
    board = make(path, width=32)
    board.advance(1)
    board.stop()


def of_something_else(path):
    torch.save({"weights": torch.ones(3)}, path)


LOADS = {
    "damaged": (damaged, "no checkpoint, or a damaged one"),
    "of other shapes": (foreign, "not of this training"),
    "missing": (lambda path: path.unlink(), "No such file"),
    "of something else": (of_something_else, "not of this training"),
}


@pytest.mark.parametrize("kind", LOADS)
def test_a_checkpoint_that_cannot_be_used_is_named_and_leaves_the_training_as_it_was(kind, tmp_path):
    path = tmp_path / "kept.pt"
    board = make(path)
    board.advance(5)
    board.stop()
    board.advance(1)
    before, history, settings = parameters(board), copy.deepcopy(board.history), copy.deepcopy(board._everything())
    spoil, message = LOADS[kind]
    spoil(path)
    board.load()
    assert message in shown_error(board, "paused")
    assert board.trainer.step == 6 and board.history == history and torch.equal(parameters(board), before)
    assert str(board._everything()) == str(settings)


def test_a_pause_from_another_thread_waits_for_the_step_and_ends_the_training(monkeypatch):
    """As from a cell, in JupyterLab: widgets are answered in a thread of their own."""
    board, inside, entered = make(steps=100_000, every=1000), [], threading.Event()
    plain = board.trainer.advance

    def slow():
        inside.append(True)
        entered.set()
        time.sleep(0.3)  # in which a pause that did not wait would end
        row = plain()
        inside.clear()
        return row

    def pause_and_watch() -> tuple[bool, int]:
        entered.wait(HANG)
        board.pause()
        return bool(inside), board.trainer.step

    async def run():
        monkeypatch.setattr(board.trainer, "advance", slow)
        board.start()
        in_a_step, step = await asyncio.get_running_loop().run_in_executor(None, pause_and_watch)
        assert not in_a_step and board.state == "paused"
        assert await others_done() == [] and board.trainer.step == step

    asyncio.run(run())


def test_an_interrupted_kernel_pauses_the_training(monkeypatch):
    async def run():
        board = make(steps=5000)
        monkeypatch.setattr(board.trainer, "advance", interrupt)
        board.start()
        await board.task
        assert board.state == "paused" and said(board) == "Paused: the kernel was interrupted."
        assert "start" in enabled(board) and await others_done() == []

    def interrupt():
        raise KeyboardInterrupt

    asyncio.run(run())


def test_an_evaluation_that_is_interrupted_is_made_up_for(monkeypatch):
    whole, board = make(), make()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(dashboard.probes, "linear_probe", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        board.advance(STEPS)
    assert board.trainer.step == 4 and {len(values) for values in board.history.values()} == {1}
    board.advance(STEPS - 4), whole.advance(STEPS)
    assert same(board, whole) and board.history["step"] == [0, 4, 8, 12]


def test_numbers_of_any_kind_are_shown_and_saved(tmp_path):
    board = make(tmp_path / "kept.pt", steps=np.int64(4), every=np.int64(2))
    board.trainer.learning_rate, board.trainer.pairs.strength = np.float32(0.5), Fraction(1, 2)
    board.advance(np.int64(4))
    assert board.state == "finished" and "Saved" in said(board)
    board.load()
    assert board.settings["strength"].value == board.settings["learning_rate"].value == 0.5
