"""The training dashboard, kernel side: states and buttons, settings, errors, and that nothing is left behind."""

import asyncio
import re
import statistics
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from budgets import HANG, exceeded
from dashboards import STEPS, enabled, in_a_loop, make, parameters, said, same, trains
from residuals import MEASURED

import rpm_tutorial as rpm
from rpm_tutorial import dashboard, encoders, probes
from rpm_tutorial.course import _twins
from rpm_tutorial.course._stored import STORED
from rpm_tutorial.course.dashboard import TrainingDashboard
from rpm_tutorial.course.figures import bundle

# States and buttons


@in_a_loop
async def test_a_state_decides_which_buttons_can_be_pressed(tmp_path):
    board, more = make(tmp_path / "kept.pt", steps=5000), {"start", "step", "stop", "reset"}
    assert board.state == "ready" and enabled(board) == {"start", "step", "reset"}
    assert board.buttons["start"].description == "Start"
    board.buttons["start"].click()
    assert board.state == "running" and enabled(board) == {"pause", "stop", "reset"}
    await trains(board)
    board.buttons["pause"].click()
    assert board.state == "paused" and enabled(board) == more
    assert board.buttons["start"].description == "Resume" and 0 < board.trainer.step < 5000
    step = board.trainer.step
    board.buttons["step"].click()
    assert board.trainer.step == step + 1 and f"Step {step + 1} of 5000" in board.count.value
    board.buttons["stop"].click()
    assert said(board) == f"Stopped. Saved to {tmp_path / 'kept.pt'}." and enabled(board) == {*more, "load"}
    board.buttons["reset"].click()
    assert board.state == "ready" and board.trainer.step == 0 and board.progress.value == 0
    assert board.history["step"] == [0] and board.buttons["start"].description == "Start"
    board.buttons["load"].click()
    assert board.trainer.step == step + 1 and board.state == "paused"


@in_a_loop
async def test_a_training_in_the_background_has_the_numbers_of_one_in_the_foreground(tmp_path, monkeypatch):
    monkeypatch.setattr(dashboard, "CHUNK", 0.001)  # or all steps are made before the pause
    whole, board = make(), make(tmp_path / "kept.pt")
    whole.advance(STEPS)
    board.start()
    await trains(board)
    board.pause()
    assert board.trainer.step < STEPS
    board.start()
    await board.task
    assert same(board, whole) and board.history["step"] == [0, 4, 8, 12]
    assert board.state == "finished" and enabled(board) == {"reset", "load"} and "Saved to" in said(board)
    assert rpm.load_checkpoint(tmp_path / "kept.pt", torch.device("cpu"))["history"] == board.history
    board.start()
    assert board.state == "finished"


def test_reset_gives_the_same_training_again():
    board, first = make(), make()
    first.advance(STEPS)
    for _ in range(2):
        board.advance(STEPS)
        assert same(board, first)
        board.settings["temperature"].value, board.settings["strength"].value = 1.0, 0.3
        board.reset()
        assert board.history["step"] == [0]
        assert board.settings["temperature"].value == pytest.approx(0.2) and board.settings["strength"].value == 1.0


def test_a_page_without_a_kernel_brings_the_rest_of_a_training_which_itself_stays_where_it_is(monkeypatch):
    board, whole = make(), make()
    board.advance(4)
    assert _twins.GRID not in board._repr_mimebundle_()
    monkeypatch.setenv(STORED, "1")
    made = _twins.unpacked(board._repr_mimebundle_()[_twins.GRID])
    whole.advance(STEPS)
    assert [control["values"] for control in made["controls"]] == [["4", "8", "12"]]
    assert [_twins.figure_at(made, [k])["alt"] for k in (0, 2)] == [board.figure.alt, whole.figure.alt]
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(board.trainer, "advance", lambda: 1 / 0)
        board._repr_mimebundle_()
    assert board.trainer.step == 4 and board.history["step"] == [0, 4]
    board.advance(STEPS)
    assert same(board, whole)


def test_without_a_checkpoint_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    board = make()
    board.stop()
    assert said(board) == "Stopped." and "load" not in enabled(board) and list(tmp_path.iterdir()) == []
    board.load()
    assert "there is no checkpoint; expected TrainingDashboard(..., checkpoint=a_file)" in said(board)
    with pytest.raises(RuntimeError, match=r"no event loop.*expected a notebook.*advance\(steps\)"):
        board.start()


# Settings and what is seen


def test_a_slider_changes_the_training():
    usual = make()
    usual.advance(1)
    for name, value in {"learning_rate": 0.1, "temperature": 1.0, "strength": 0.2}.items():
        board = make()
        board.settings[name].value = value
        assert f"temperature {board.trainer.critic.temperature:.3f}" in board.count.value
        board.advance(1)
        assert not torch.equal(parameters(board), parameters(usual))


def test_only_what_can_be_set_has_a_slider_and_each_side_has_its_encoder():
    made = make()
    assert set(made.settings) == {"learning_rate", "temperature", "strength"}
    trainer = rpm.Trainer(
        encoders.mlp(64, 4), rpm.RandomWalk(), iter([next(made.trainer.pairs)]), 1, encoder_prime=encoders.mlp(64, 4)
    )
    board = TrainingDashboard(trainer, made.x, made.x_prime, made.labels)
    assert set(board.settings) == {"learning_rate"}
    z, z_prime = rpm.encode(trainer.encoder, made.x), rpm.encode(trainer.encoder_prime, made.x_prime)
    evidence = rpm.label_evidence(z, z_prime, trainer.critic, made.labels).infonce
    assert board.history["held-out InfoNCE"] == [evidence]
    with pytest.raises(ValueError, match="x has 60 rows, x_prime 60 and labels 59; expected"):
        TrainingDashboard(trainer, made.x, made.x_prime, made.labels[:-1])


def test_figure_words_and_data_follow_the_numbers_of_the_trainer():
    board, values = make(), [row.value for row in make().trainer]
    for step in (4, 8):
        board.advance(4)
        history, figure = board.history, board.figure
        assert history["step"][-1] == step and history["InfoNCE"][-1] == sum(values[step - 4 : step]) / 4
        assert list(figure.rows) == list(zip(*history.values())) and f"after step {step} of {STEPS}" in figure.alt
        assert board.plot.children[0].outputs[0]["data"] == bundle(figure)
        assert figure.alt in board.summary.value and f"Step {step} of" in board.count.value
    z, z_prime = rpm.encode(board.trainer.encoder, board.x), rpm.encode(board.trainer.encoder_prime, board.x_prime)
    nats = rpm.label_evidence(z, z_prime, board.trainer.critic, board.labels)
    found = [board.history[name][-1] for name in ("label nats", "instance nats", "held-out InfoNCE")]
    assert found == [nats.label, nats.instance, nats.infonce] and len(set(found)) == 3
    shown = board._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json"} <= set(shown)
    assert shown["text/plain"] == board.figure.alt


@pytest.mark.parametrize("labels", [torch.arange(60) % 10, torch.arange(60) // 6, torch.arange(60) // 30])
def test_the_probe_is_scored_on_images_that_it_was_not_fitted_on(labels, monkeypatch):
    """And each class is in both halves, even where labels are sorted by class."""
    asked, board = [], make()
    monkeypatch.setattr(probes, "linear_probe", lambda *arguments: asked.append(arguments) or 0.5)
    board.x = board.x_prime = torch.arange(60.0)[:, None, None, None].expand(60, 1, 8, 8) / 60
    board.labels = labels
    board._evaluate()
    ((z, fitted, z_prime, scored),) = asked
    assert len(z) == len(z_prime) == 30 and not {*map(tuple, z.tolist())} & {*map(tuple, z_prime.tolist())}
    assert torch.equal(fitted.bincount(), labels.bincount() // 2) and torch.equal(fitted.bincount(), scored.bincount())


# One at a time, promptly, and only while somebody looks


@pytest.mark.slow
@in_a_loop
async def test_stop_is_answered_within_a_chunk(tmp_path):
    board, seconds = make(tmp_path / "kept.pt", steps=100_000, every=20), []
    for _ in range(7):
        board.start()
        await trains(board)
        pressed = time.process_time()
        asyncio.get_running_loop().call_soon(board.buttons["stop"].click)
        await board.task
        seconds.append(time.process_time() - pressed)
        assert "Saved" in said(board)
    median, worst = statistics.median(seconds), max(seconds)
    MEASURED.append(f"dashboard: Stop to saved, median {1e3 * median:.0f} ms, slowest of 7 {1e3 * worst:.0f} ms")
    assert exceeded("half of the answers to Stop", median, 0.25) + exceeded("an answer to Stop", worst, 0.5) == []


@in_a_loop
async def test_a_dashboard_that_starts_or_is_made_pauses_the_others():
    one, other = make(steps=5000), make(steps=5000)
    one.start()
    await trains(one)
    other.start()
    assert (one.state, other.state) == ("paused", "running") and "another dashboard trains" in said(one)
    await one.task
    make()
    assert other.state == "paused" and "another dashboard was made" in said(other)


@in_a_loop
async def test_a_page_that_falls_silent_pauses_and_one_that_speaks_does_not():
    board = make(steps=100_000, every=1000, page_timeout=HANG)
    board.start()
    await trains(board)
    assert board.state == "running", "no page has spoken yet: a script"
    for told in (1, 2):
        board.page.told = told
        board.page.seen -= 0.9 * HANG
    await trains(board)
    assert board.state == "running", "it has spoken in time"
    board.page.seen -= 0.2 * HANG
    await board.task
    assert board.state == "paused" and said(board) == "Paused: no page shows this dashboard any more."
    board.start()
    await trains(board)
    assert board.state == "running", "silence before Start does not count"


@in_a_loop
async def test_a_pause_from_another_thread_waits_for_the_step_and_ends_the_training(monkeypatch):
    """As from a cell, in JupyterLab: widgets are answered in a thread of their own."""
    board, inside, entered = make(steps=100_000, every=1000), [], threading.Event()
    plain = board.trainer.advance

    def slow():
        inside.append(True)
        entered.set()
        time.sleep(0.1)  # in which a pause that did not wait would end
        row = plain()
        inside.clear()
        return row

    def pause_and_watch() -> tuple[bool, int]:
        entered.wait(HANG)
        board.pause()
        return bool(inside), board.trainer.step

    monkeypatch.setattr(board.trainer, "advance", slow)
    board.start()
    in_a_step, step = await asyncio.get_running_loop().run_in_executor(None, pause_and_watch)
    assert not in_a_step and board.state == "paused"
    await board.task
    assert board.trainer.step == step


# Stopped and continued


@pytest.mark.parametrize(
    "stop_at, settings", [(8, {}), (6, {"learning_rate": 0.02, "temperature": 0.5, "strength": 0.4})]
)
def test_a_training_continued_by_new_modules_is_one_never_stopped_bit_for_bit(stop_at, settings, tmp_path):
    """Stopped at an evaluation, and between two after its settings were changed."""
    whole, part = make(), make(tmp_path / "kept.pt")
    for board in (whole, part):
        board.advance(3)
        for name, value in settings.items():
            board.settings[name].value = value
        board.advance(stop_at - 3)
    whole.advance(STEPS - stop_at)
    part.stop()
    fresh = make(tmp_path / "kept.pt", seed=7)
    fresh.load()
    assert fresh.trainer.step == stop_at and not same(fresh, whole)
    for name, value in settings.items():
        assert fresh.settings[name].value == pytest.approx(value, rel=0.1 if name == "temperature" else 1e-6)
    fresh.advance(STEPS - stop_at)
    assert fresh.state == "finished" and fresh.history["step"] == [0, 4, 8, 12] and same(fresh, whole)


def test_numbers_of_any_kind_are_shown_and_saved(tmp_path):
    board = make(tmp_path / "kept.pt", steps=np.int64(2), every=np.int64(1))
    board.trainer.learning_rate, board.trainer.pairs.strength = np.float32(0.5), Fraction(1, 2)
    board.advance(np.int64(2))
    assert board.state == "finished" and "Saved" in said(board)
    board.load()
    assert board.settings["strength"].value == board.settings["learning_rate"].value == 0.5


# Errors


def broken(board) -> None:
    with torch.no_grad():
        board.trainer.encoder[1].weight.fill_(torch.nan)


def shown_error(board) -> str:
    assert "role='alert'" in board.message.value and "reset" in enabled(board)
    assert "Where it happened" in said(board) and "Traceback (most recent call last)" in said(board)
    return said(board)


@in_a_loop
async def test_a_training_that_becomes_nan_says_so_and_can_be_reset():
    board = make(steps=5000)
    board.start()
    await trains(board)
    step = board.trainer.step
    broken(board)
    await board.task
    assert board.state == "failed" and enabled(board) == {"reset"} and dashboard.AGAIN in said(board)
    assert re.search(rf"ValueError after step {step}\..*NaN.*learning rate", shown_error(board))
    board.reset()
    assert board.state == "ready" and parameters(board).isfinite().all()
    broken(board)
    with pytest.raises(ValueError, match="NaN"):
        board.advance(1)
    assert board.state == "failed" and "step 1" in shown_error(board)


def damaged(path):
    path.write_bytes(path.read_bytes()[:500])


def of_other_shapes(path):
    make(path, width=32).stop()


def without_a_curve(path):
    state = rpm.load_checkpoint(path)
    del state["history"]["label nats"]
    rpm.save_checkpoint(state, path)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (damaged, "a damaged one"),
        (of_other_shapes, "not of this training"),
        (without_a_curve, "the history has the curves"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_named_and_leaves_the_training_as_it_was(spoil, message, tmp_path):
    board = make(tmp_path / "kept.pt")
    board.stop()
    board.advance(1)
    before = str(board._everything())
    spoil(tmp_path / "kept.pt")
    board.load()
    assert message in shown_error(board) and dashboard.KEPT in said(board)
    assert board.state == "paused" and {"start", "step"} <= enabled(board) and str(board._everything()) == before


@in_a_loop
async def test_an_interrupted_kernel_pauses_the_training_and_its_evaluation_is_made_up_for(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    whole, board = make(), make()
    with monkeypatch.context() as patched:
        patched.setattr(probes, "linear_probe", interrupt)
        board.start()
        await board.task
    assert (
        board.state == "paused" and said(board) == "Paused: the kernel was interrupted." and "start" in enabled(board)
    )
    assert board.trainer.step == 4 and {len(values) for values in board.history.values()} == {1}
    board.advance(STEPS)
    whole.advance(STEPS)
    assert same(board, whole) and board.history["step"] == [0, 4, 8, 12]
