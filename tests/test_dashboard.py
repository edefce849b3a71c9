"""The training dashboard, kernel side: states and buttons, settings, and that nothing is left behind."""

import asyncio
import copy
import statistics
import time

import pytest
import torch
from budgets import HANG, exceeded
from dashboards import STEPS, enabled, make, nothing_is_left_behind, others_done, parameters, said, same, trains, until
from residuals import MEASURED

import rpm_tutorial as rpm
from rpm_tutorial import dashboard, datasets, encoders, probes
from rpm_tutorial.course.dashboard import TrainingDashboard
from rpm_tutorial.course.figures import bundle

pytestmark = pytest.mark.usefixtures(nothing_is_left_behind.__name__)

FOR_MORE = {"start", "step", "stop", "reset"}

# States and buttons


def test_a_state_decides_which_buttons_can_be_pressed(tmp_path):
    async def run():
        board = make(tmp_path / "kept.pt", steps=5000)
        assert board.state == "ready" and enabled(board) == {"start", "step", "reset"}
        assert board.buttons["start"].description == "Start"
        board.buttons["start"].click()
        assert board.state == "running" and enabled(board) == {"pause", "stop", "reset"}
        await trains(board)
        board.buttons["pause"].click()
        assert board.state == "paused" and enabled(board) == FOR_MORE
        assert board.buttons["start"].description == "Resume" and 0 < board.trainer.step < 5000
        step = board.trainer.step
        board.buttons["step"].click()
        assert board.trainer.step == step + 1 and f"Step {step + 1} of 5000" in board.count.value
        board.buttons["stop"].click()
        assert said(board) == f"Stopped. Saved to {tmp_path / 'kept.pt'}." and enabled(board) == {*FOR_MORE, "load"}
        board.buttons["reset"].click()
        assert board.state == "ready" and board.trainer.step == 0 and board.progress.value == 0
        assert board.history["step"] == [0] and board.buttons["start"].description == "Start"
        board.buttons["load"].click()
        assert board.trainer.step == step + 1 and board.state == "paused"
        assert await others_done() == []

    asyncio.run(run())


def test_a_training_that_reaches_its_last_step_is_finished_and_saved(tmp_path):
    async def run():
        board = make(tmp_path / "kept.pt")
        board.start()
        await board.task
        assert board.state == "finished" and enabled(board) == {"reset", "load"}
        assert board.history["step"] == [0, 4, 8, 12] and "Saved to" in said(board)
        assert rpm.load_checkpoint(tmp_path / "kept.pt", torch.device("cpu"))["history"] == board.history
        board.start()
        assert board.state == "finished"

    asyncio.run(run())


def test_reset_gives_the_same_training_again():
    board = make()
    beginning = parameters(board)
    board.advance(STEPS)
    first = copy.deepcopy(board.history), parameters(board)
    board.settings["temperature"].value, board.settings["strength"].value = 1.0, 0.3
    board.reset()
    assert torch.equal(parameters(board), beginning) and board.settings["strength"].value == 1.0
    assert board.settings["temperature"].value == pytest.approx(0.2)
    board.advance(STEPS)
    assert board.history == first[0] and torch.equal(parameters(board), first[1])
    board.reset()
    assert torch.equal(parameters(board), beginning) and board.history["step"] == [0], "as often as it is asked for"


def test_without_a_checkpoint_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    board = make()
    board.advance(2)
    board.stop()
    assert said(board) == "Stopped." and "load" not in enabled(board) and list(tmp_path.iterdir()) == []


def test_start_outside_a_loop_says_what_to_call_instead():
    with pytest.raises(RuntimeError, match=r"no event loop.*expected a notebook.*advance\(steps\)"):
        make().start()


def test_sides_of_unequal_length_are_refused():
    board = make()
    with pytest.raises(ValueError, match="x has 60 rows, x_prime 59 and labels 60; expected"):
        TrainingDashboard(board.trainer, board.x, board.x_prime[:-1], board.labels)


# Settings


@pytest.mark.parametrize("name, value", [("learning_rate", 0.1), ("temperature", 1.0), ("strength", 0.2)])
def test_a_slider_changes_the_training(name, value):
    one, other = make(), make()
    one.advance(2), other.advance(2)
    assert same(one, other)
    other.settings[name].value = value
    assert other._setting(name) == pytest.approx(value)
    if name == "temperature":
        assert "temperature 1.000" in other.count.value
    one.advance(2), other.advance(2)
    assert not torch.equal(parameters(one), parameters(other))


def test_only_what_can_be_set_has_a_slider():
    torch.manual_seed(0)
    images, trained = datasets.digits(), make()
    batches = iter([next(trained.trainer.pairs) for _ in range(3)])
    trainer = rpm.Trainer(encoders.mlp(64, 4), rpm.RandomWalk(), batches, 3)
    board = TrainingDashboard(trainer, trained.x, trained.x_prime, images.labels[:60])
    beginning = parameters(board)
    board.advance(1)
    with pytest.warns(UserWarning, match="no state_dict: the training continues with the batches that come next"):
        board.reset()
    assert torch.equal(parameters(board), beginning)
    assert set(trained.settings) == {"learning_rate", "temperature", "strength"} and trained.progress.max == STEPS


def test_held_out_pairs_go_through_the_encoder_of_their_own_side():
    made = make()
    one = made.trainer
    other = rpm.Trainer(one.encoder, one.critic, one.pairs, 3, encoder_prime=encoders.mlp(64, 4))
    board = TrainingDashboard(other, made.x, made.x_prime, made.labels)
    z, z_prime = rpm.encode(one.encoder, made.x), rpm.encode(other.encoder_prime, made.x_prime)
    with torch.no_grad():
        assert board.history["held-out InfoNCE"] == [rpm.dataset_evidence(z, z_prime, one.critic).infonce.item()]


# One at a time, promptly, and only while somebody looks


@pytest.mark.slow
def test_stop_is_answered_within_a_chunk(tmp_path):
    async def run():
        board, seconds = make(tmp_path / "kept.pt", steps=100_000, every=20), []
        for k in range(1, 8):
            board.start()
            for _ in range(k):
                await trains(board)
            loop, pressed = asyncio.get_running_loop(), time.process_time()
            loop.call_soon(board.buttons["stop"].click)
            await until(lambda: board.state != "running")
            seconds.append(time.process_time() - pressed)
            step = board.trainer.step
            assert await others_done() == [] and board.task.done()
            assert board.trainer.step == step
        return seconds

    seconds = asyncio.run(run())
    median, worst = statistics.median(seconds), max(seconds)
    MEASURED.append(f"dashboard: Stop to saved, median {1e3 * median:.0f} ms, slowest of 7 {1e3 * worst:.0f} ms")
    assert exceeded("half of the answers to Stop", median, 0.25) + exceeded("an answer to Stop", worst, 0.5) == []


@pytest.mark.slow
def test_the_loop_is_free_for_others_while_it_trains():
    async def run():
        board, gaps = make(steps=100_000, every=20), []
        board.start()
        while len(board.history["step"]) < 10:
            start = time.process_time()
            await asyncio.sleep(0)
            gaps.append(time.process_time() - start)
        board.pause()
        return max(gaps)

    assert exceeded("a chunk, an evaluation and a picture", asyncio.run(run()), 0.5) == []


def test_a_dashboard_that_starts_or_is_made_pauses_the_others():
    async def run():
        one, other = make(steps=5000), make(steps=5000)
        one.start()
        await trains(one)
        other.start()
        assert (one.state, other.state) == ("paused", "running") and "another dashboard trains" in said(one)
        assert await others_done() == [other.task]
        make()
        assert other.state == "paused" and "another dashboard was made" in said(other)
        assert await others_done() == []

    asyncio.run(run())


def test_a_page_that_speaks_is_heard():
    page = make().page
    assert page.silent_for() == 0, "no page yet"
    page.told = 1.0
    assert 0 < page.silent_for() < 60


@pytest.mark.slow
def test_a_page_that_falls_silent_pauses_and_one_that_speaks_does_not():
    async def run():
        board = make(steps=100_000, every=1000, page_timeout=HANG)
        board.start()
        await trains(board)
        assert board.state == "running", "no page has spoken yet: a script"
        board.page.told = 1
        board.page.seen -= 0.9 * HANG
        board.page.told = 2
        board.page.seen -= 0.9 * HANG
        await trains(board)
        assert board.state == "running", "it has spoken in time"
        board.page.seen -= 0.2 * HANG
        await board.task
        assert board.state == "paused" and said(board) == "Paused: no page shows this dashboard any more."
        assert await others_done() == []
        board.start()
        await trains(board)
        assert board.state == "running", "silence before Start does not count"
        board.pause()

    asyncio.run(run())


# What is seen


def test_figure_words_and_data_follow_the_history():
    board = make()
    for steps in (4, 8):
        board.advance(steps)
        history = board.history
        for name in ("InfoNCE", "held-out InfoNCE", "probe"):
            (trace,) = (t for t in board.figure.plotly.data if t.name == name)
            assert list(trace.x) == history["step"] and list(trace.y)[1:] == history[name][1:]
        assert board.plot.children[0].outputs[0]["data"] == bundle(board.figure)
        assert list(board.figure.rows) == list(zip(*history.values()))
        assert f"after step {history['step'][-1]} of {STEPS}" in board.figure.alt
        assert f"probe accuracy {history['probe'][-1]:.3g}" in board.figure.alt
        assert board.figure.alt in board.summary.value and f"Step {board.trainer.step} of" in board.count.value
    shown = board._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json"} <= set(shown)
    assert shown["text/plain"] == board.figure.alt


def test_the_probe_is_scored_on_images_that_it_was_not_fitted_on(monkeypatch):
    """And each class is in both halves, even where labels are sorted by class."""
    asked, board = [], make()
    monkeypatch.setattr(probes, "linear_probe", lambda *arguments: asked.append(arguments) or 0.5)
    for labels in (board.labels, board.labels.sort().values, torch.arange(60) // 30):
        board.labels = labels
        board.x = board.x_prime = torch.arange(60.0)[:, None, None, None].expand(60, 1, 8, 8) / 60
        board._evaluate()
        z, fitted, z_prime, scored = asked.pop()
        assert len(z) == len(z_prime) == 30 and not {*map(tuple, z.tolist())} & {*map(tuple, z_prime.tolist())}
        counts = fitted.bincount(minlength=10) - scored.bincount(minlength=10)
        assert counts.abs().max() <= 1 and torch.equal(fitted.sort().values[[0, -1]], labels.sort().values[[0, -1]])


def test_the_history_is_what_the_trainer_gives():
    board, trainer = make(), make().trainer
    board.advance(STEPS)
    values = [row.value for row in trainer]
    means = [sum(values[k : k + 4]) / 4 for k in (0, 4, 8)]
    assert board.history["InfoNCE"] == [None, *means]
    assert same(board, board) and torch.equal(parameters(board)[:20], parameters_of(trainer)[:20])


def parameters_of(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.encoder.parameters()])


def test_the_constants_keep_stop_prompt():
    assert dashboard.CHUNK + dashboard.REST < 0.25 and dashboard.PAGE_TIMEOUT > 60
