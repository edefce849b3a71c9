"""The study: its rehearsal, its rows, and what the page reads from them."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import study as program
import torch
from needs import need_fashion_mnist

import rpm_tutorial as rpm

ROOT = Path(__file__).parent.parent
study = rpm.lessons.study


def rows(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_rehearsal_trains_one_of_each_and_goes_on_where_it_was_stopped(tmp_path):
    need_fashion_mnist()
    path, command = tmp_path / "rows.csv", [sys.executable, ROOT / "tools" / "study.py", "--small", "--rows"]
    before = psutil.Process().cpu_times()
    subprocess.run([*command, path], check=True, capture_output=True, cwd=tmp_path)
    after = psutil.Process().cpu_times()
    assert after.children_user - before.children_user < 300
    found = rows(path)
    assert [tuple(row[name] for name in program.Run._fields) for row in found] == [
        tuple(map(str, run)) for run in program.rehearsal()
    ]
    assert all(math.isfinite(float(row[name])) for row in found for name in ("infonce", "tuned", "beta"))
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[:-1]))
    subprocess.run([*command, path], check=True, capture_output=True, cwd=tmp_path)
    assert rows(path)[:-1] == found[:-1] and len(rows(path)) == len(found)


def test_the_stored_rows_are_those_of_all_trainings_and_where_the_program_goes_on():
    assert Path(study.__file__).with_name("study.csv") == program.ROWS
    stored = rows(program.ROWS)
    last = [row for row in stored if row["step"] == row["steps"]]
    assert {tuple(row[name] for name in program.Run._fields) for row in last} == {
        tuple(map(str, run)) for run in program.runs()
    }
    assert len(last) == len(program.runs())


def test_no_beta_is_an_end_of_the_search():
    assert all(2e-4 < float(row["beta"]) < 7000 for row in rows(program.ROWS))


def test_no_row_has_more_nats_than_there_can_be():
    n = program.PAIRS - program.TUNE
    for row in rows(program.ROWS):
        assert float(row["infonce"]) <= float(row["tuned"]) + 0.1 and float(row["tuned"]) < math.log(n)
        for name, values in {"class": 10, **program.FACTORS}.items():
            if row.get(f"nats of {name}"):
                assert float(row[f"nats of {name}"]) < math.log(values) + 0.01


def test_a_pair_of_sprites_shares_all_factors_but_the_angle(monkeypatch):
    x, x_prime, factors = program.sprite_pairs(200, torch.Generator().manual_seed(0))
    assert 0 <= x.min() <= x.max() <= 1
    column, row = factors[:, 2].double(), factors[:, 3].double()
    for side in (x, x_prime):
        ink = (side[:, 0].double() - 0.05).clamp(min=0)
        across = (ink.sum(1) * torch.arange(28)).sum(1) / ink.sum((1, 2))
        down = (ink.sum(2) * torch.arange(28)).sum(1) / ink.sum((1, 2))
        assert np.corrcoef(across, column)[0, 1] > 0.9 and np.corrcoef(down, row)[0, 1] > 0.9
    drawn = []
    monkeypatch.setattr(
        program, "sprite", lambda factors: drawn.append(factors) or torch.zeros(len(factors), 1, 28, 28)
    )
    program.sprite_pairs(200, torch.Generator().manual_seed(0))
    of_x, of_x_prime = drawn
    assert torch.equal(of_x[:, :4], of_x_prime[:, :4]) and not torch.equal(of_x[:, 4], of_x_prime[:, 4])


def test_the_best_beta_is_a_stationary_point_of_the_evidence():
    z, noise = torch.randn(2, 300, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_f = rpm.RandomWalk(3.0)(z, z + 0.3 * noise)
    beta = program.best_beta(log_f)
    value = {factor: rpm.infonce(factor * beta * log_f).value.item() for factor in (0.97, 1, 1.03)}
    assert value[1] > max(value[0.97], value[1.03])


def test_the_page_chooses_and_ranks_as_it_says():
    one = {"a": np.array([1.0, 1.0]), "b": np.array([2.0, 0.0]), "c": np.array([3.0, -1.0])}
    other = {"a": np.array([1.0, 1.0]), "b": np.array([2.0, 2.0]), "c": np.array([3.0, 3.0])}
    assert study.rank_correlation(one, other).tolist() == pytest.approx([1, -1])
    tables = ({(k, dim): sign * v for dim, sign in ((2, 1), (4, -1)) for k, v in t.items()} for t in (one, other))
    assert study.rank_correlation(*tables, within=True).tolist() == pytest.approx([1, -1])
    assert study.same_choice(one, other, list("abc")).tolist() == [True, False]
    columns = {"nats": {("sphere", "x"): np.ones(2), ("walk", "x"): 2 * np.ones(2)}}
    assert study.better_critic(columns, by="nats") == {
        "read by": {"x": "walk"},
        "nats": {"x": pytest.approx(2 * np.ones(2))},
    }
