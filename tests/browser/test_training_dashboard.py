"""The training dashboard as its reader has it, in JupyterLab: by keyboard, beside other cells, until its page is closed."""

import jupyter_client
import keyboard
import lesson_browser
import psutil
import pytest
from budgets import HANG, exceeded, wait_until
from keyboard import ask, wait
from residuals import MEASURED

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LESSON = """\
# %% [markdown]
# # A training

# %%
import torch

import rpm_tutorial as rpm

rpm.setup()

# %%
torch.manual_seed(1)
digits = rpm.datasets.digits()
x, x_prime = rpm.datasets.two_views(digits.x[1297:], flip=False, generator=torch.Generator().manual_seed(1))
trainer = rpm.Trainer(
    rpm.encoders.mlp(inputs=64, dim=16),
    rpm.VonMisesFisher(temperature=0.2),
    rpm.datasets.view_pairs(digits.x[:1297], batch_size=256, flip=False, seed=1),
    steps=200_000,
)
dashboard = rpm.TrainingDashboard(
    trainer, x, x_prime, digits.labels[1297:], checkpoint="training.pt", every=100, page_timeout=600
)
dashboard.advance(10)
dashboard
"""
SAYS = "text => document.querySelector('.rpm-dashboard [role=status], .rpm-dashboard [role=alert]')?.textContent.includes(text)"
STEP = "Number(document.querySelector('.rpm-dashboard').textContent.match(/Step (\\d+) of/)[1])"
KERNEL = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.id"


@pytest.fixture(scope="module")
def opened(browser, server, tmp_path_factory):
    notebook = lesson_browser.write(LESSON, tmp_path_factory.mktemp("lesson") / "training.ipynb")
    with lesson_browser.lesson(browser, server, notebook) as (page, run):
        keyboard.listen(page)
        assert run.problems == [] and step(page) == 10
        resume(page)
        yield page, run


@pytest.fixture
def page(opened):
    """The page with the dashboard at its beginning; afterwards, nobody has complained."""
    page, run = opened
    press(page, "Reset")
    assert wait(page, SAYS, "Ready")
    yield page
    assert run.problems == []
    if not page.is_closed():
        assert keyboard.heard(page) == []


def processor_of(opened) -> float:
    """Seconds of the processor that the kernel has had so far."""
    times = psutil.Process(opened[1].pid).cpu_times()
    return times.user + times.system


def press(page, button: str) -> None:
    page.locator(keyboard.DASHBOARDS).get_by_role("button", name=button, exact=True).press("Enter")


def step(page) -> int:
    return page.evaluate(STEP)


def trains(page, beyond: int = 0) -> bool:
    return wait(page, f"beyond => {STEP} > beyond", beyond)


def resume(page) -> None:
    press(page, "Resume" if step(page) else "Start")
    assert wait(page, SAYS, "Training.") and trains(page, step(page))


def test_every_button_does_what_it_says(page, server):
    resume(page)
    press(page, "Pause")
    assert wait(page, SAYS, "Paused.")
    paused = step(page)
    assert int(ask(page, "print(dashboard.trainer.step)")) == paused
    press(page, "Step")
    assert wait(page, f"step => {STEP} === step", paused + 1)
    keyboard.settle(page)
    assert step(page) == paused + 1 == int(ask(page, "print(dashboard.trainer.step)"))
    resume(page)
    press(page, "Stop")
    assert wait(page, SAYS, "Stopped. Saved to training.pt") and (server.folder / "training.pt").exists()
    stopped = step(page)
    press(page, "Reset")
    assert wait(page, SAYS, "Ready") and step(page) == 0
    press(page, "Load")
    assert wait(page, SAYS, "Loaded from training.pt") and step(page) == stopped


def test_other_cells_and_sliders_work_while_it_trains(page, opened):
    resume(page)
    worked = processor_of(opened)
    assert ask(page, "print(6 * 7, dashboard.state)").split() == ["42", "running"]
    worked = processor_of(opened) - worked
    MEASURED.append(f"dashboard: another cell answers after {worked:.2f} s of the kernel while it trains")
    assert exceeded("the kernel, until another cell's answer,", worked, 2) == []
    board = page.locator(keyboard.DASHBOARDS)
    for name, key in (("learning rate", "Home"), ("temperature", "End"), ("strength of the views", "Home")):
        slider = board.get_by_role("slider", name=name)
        slider.press(key)
    assert wait(page, "text => /temperature (1.9|2.0)/.test(document.querySelector('.rpm-dashboard').textContent)")
    found = ask(page, "print(trainer.learning_rate, trainer.pairs.strength, trainer.critic.temperature.item() > 1.5)")
    assert found.split() == ["1e-05", "0.0", "True"]
    assert ask(page, "print(dashboard.state)").strip() == "running" and trains(page, step(page))


def test_an_error_is_shown_with_its_remedy_and_the_kernel_lives(page):
    resume(page)
    ask(page, "trainer.encoder[1].weight.data.fill_(float('nan'))")
    assert wait(page, SAYS, "NaN")
    alert = page.locator(keyboard.DASHBOARDS).get_by_role("alert")
    assert "learning rate" in alert.inner_text() and "press Reset, or Load" in alert.inner_text()
    assert ask(page, "print(6 * 7)").strip() == "42"
    press(page, "Reset")
    assert wait(page, SAYS, "Ready")
    resume(page)


def test_it_pauses_when_its_page_is_closed(page, server):
    resume(page)
    signs = {ask(page, "print(dashboard.page.told)")}
    wait_until(lambda: signs.add(ask(page, "print(dashboard.page.told)")) or len(signs) == 3)
    assert ask(page, "print(dashboard.state)").strip() == "running"
    kernel = page.evaluate(KERNEL)
    page.close()
    client = jupyter_client.BlockingKernelClient(connection_file=str(server.runtime / f"kernel-{kernel}.json"))
    client.load_connection_file()
    client.start_channels()
    try:
        assert asked(client, "dashboard.state") == "'running'"
        asked(client, "setattr(dashboard, 'page_timeout', 1)")
        wait_until(lambda: asked(client, "dashboard.task.done()") == "True")
        assert "no page shows this dashboard" in asked(client, "dashboard.message.value")
    finally:
        client.stop_channels()


def asked(client, expression: str) -> str:
    """What an expression is in the kernel, as repr."""
    reply = client.execute("", user_expressions={"it": expression}, reply=True, timeout=HANG)
    return reply["content"]["user_expressions"]["it"]["data"]["text/plain"]
