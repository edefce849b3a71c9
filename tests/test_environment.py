"""The machine: device, self-check, source on show, and what the course needs."""

import os
import subprocess
import sys

import IPython.display
import pytest

from rpm_tutorial import environment


def test_the_identity_of_the_course_holds_on_this_machine():
    assert environment.identity_residual() < 1e-12


def test_a_device_that_this_machine_lacks_is_named():
    assert environment.pick_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="'cuda:99' was asked for, .* use \"cpu\""):
        environment.pick_device("cuda:99")


def test_show_source_displays_each_function_as_it_is_written(monkeypatch):
    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    environment.show_source(environment.pick_device, environment.setup)
    assert [code.data.splitlines()[0] for code in shown] == [
        "def pick_device(name: str | None = None) -> torch.device:",
        "def setup() -> torch.device:",
    ]


@pytest.mark.parametrize(
    ("chosen", "threads"),
    [pytest.param(None, 1, marks=pytest.mark.slow), pytest.param("2", 2, marks=pytest.mark.nightly)],
)
def test_a_lesson_runs_on_one_thread_unless_the_reader_decides(chosen, threads):
    """torch's, and those of numpy and of scipy, whose OpenBLAS may be loaded before or after."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    code = (
        "import rpm_tutorial as rpm, torch; rpm.setup(); import scipy.linalg, threadpoolctl; "
        "print(torch.get_num_threads(), *(p['num_threads'] for p in threadpoolctl.threadpool_info() if p['user_api'] == 'blas'))"
    )
    environment |= {"OMP_NUM_THREADS": chosen} if chosen else {}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert len(run.stdout.split()) > 2 and {*run.stdout.split()} == {str(threads)}


def test_a_missing_front_end_is_named_with_the_remedy():
    code = "import sys; sys.modules['plotly'] = None; import rpm_tutorial as rpm; rpm.lessons"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    said = 'ModuleNotFoundError: the course needs plotly. Remedy: pip install "rpm-tutorial[course]"\n'
    assert run.stderr.endswith(said)
