"""The study: its rehearsal, its rows, and what the page reads from them."""

import csv
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import study as program
import torch
from needs import need_fashion_mnist

import rpm_tutorial as rpm

study = rpm.lessons.study


def rows(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "kind", [pytest.param("s", marks=pytest.mark.slow), pytest.param("", marks=pytest.mark.nightly)]
)
def test_a_rehearsal_trains_one_of_each_and_goes_on_where_it_was_stopped(kind, tmp_path):
    need_fashion_mnist()
    path = tmp_path / "rows.csv"
    rehearse = partial(program.main, ["--small", "--only", kind, "--rows", str(path)], standalone_mode=False)
    rehearse()
    found = rows(path)
    expected = [tuple(map(str, run)) for run in program.rehearsal() if run.kind.startswith(kind)]
    assert [tuple(row[name] for name in program.Run._fields) for row in found] == expected
    assert all(math.isfinite(float(row[name])) for row in found for name in ("infonce", "tuned", "beta"))
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[:-1]))
    rehearse()
    assert rows(path)[:-1] == found[:-1] and len(rows(path)) == len(found)


def test_the_stored_rows_are_those_of_all_trainings_and_where_the_program_goes_on():
    assert Path(study.__file__).with_name("study.csv") == program.ROWS
    stored = rows(program.ROWS)
    last = [tuple(row[name] for name in program.Run._fields) for row in stored if row["step"] == row["steps"]]
    assert sorted(last) == sorted(tuple(map(str, run)) for run in program.runs())


def test_no_stored_row_has_more_nats_than_there_can_be_nor_a_beta_at_an_end_of_the_search():
    for row in rows(program.ROWS):
        infonce, tuned = float(row["infonce"]), float(row["tuned"])
        assert infonce <= tuned + 0.1 and tuned < math.log(program.PAIRS - program.TUNE)
        assert 2e-4 < float(row["beta"]) < 7000
        for name, values in {"class": 10, **program.FACTORS}.items():
            nats = row.get(f"nats of {name}")
            assert not nats or float(nats) < math.log(values) + 0.01


def test_a_pair_of_sprites_shares_all_factors_but_the_angle(monkeypatch):
    x, x_prime, factors = program.sprite_pairs(200, torch.Generator().manual_seed(0))
    assert 0 <= x.min() <= x.max() <= 1
    column, row = factors[:, 2].double(), factors[:, 3].double()
    for side in (x, x_prime):
        ink = (side[:, 0].double() - 0.05).clamp(min=0)
        across = (ink.sum(1) * torch.arange(28)).sum(1) / ink.sum((1, 2))
        down = (ink.sum(2) * torch.arange(28)).sum(1) / ink.sum((1, 2))
        assert np.corrcoef(across, column)[0, 1] > 0.9 and np.corrcoef(down, row)[0, 1] > 0.9
    drawn, blank = [], torch.zeros(200, 1, 28, 28)
    monkeypatch.setattr(program, "sprite", lambda factors: drawn.append(factors) or blank)
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
