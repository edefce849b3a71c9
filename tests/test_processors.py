"""Other arithmetic: that it is in force, and what the table of notebooks says of a run."""

import os
import subprocess
import sys

import processors
import pytest
import torch

TRAINING = """
import torch, rpm_tutorial as rpm
torch.manual_seed(0)
x, noise = torch.randn(2, 256, 64)
pairs = ((x, x + noise) for _ in range(20))
print([row.value for row in rpm.train(rpm.encoders.mlp(64, 16), rpm.VonMisesFisher(0.1), pairs, 20)])
"""
REPORT = """<testsuites><testsuite>
<testcase classname="notebooks.04_evidence.ipynb" name="Cell 0"/>
<testcase classname="notebooks.04_evidence.ipynb" name="Cell 3"><properties><property name="moved"/></properties></testcase>
<testcase classname="notebooks.neighbours.N10_views.ipynb" name="Cell 1"><failure/></testcase>
<testcase classname="notebooks.neighbours.N10_views.ipynb" name="Cell 2"><error/></testcase>
</testsuite></testsuites>"""


@pytest.mark.nightly
def test_an_arithmetic_reaches_a_trained_network():
    value = {}
    for kind in ("own", "plain", "ulp"):
        command, environment = [sys.executable, "-c", TRAINING], os.environ | processors.KINDS[kind]
        value[kind] = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert value["ulp"] != value["own"]
    assert value["plain"] != value["own"] or torch.backends.cpu.get_cpu_capability() == "DEFAULT"


def test_the_table_counts_moved_digits_and_names_failed_cells():
    assert processors.line("ulp", REPORT) == {"kind": "ulp", "04": "1", "N10": "✗ 1, 2"}
    assert {"kind", "00", "04", "N10"} < {*processors.HEADER} and {*processors.DEFAULT} <= {*processors.KINDS}
