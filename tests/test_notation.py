"""The site's table of notation against the code: what it calls by a name has that name, that shape, and a lesson."""

import pytest
import site_pages
import torch

import rpm_tutorial as rpm

ROWS = {row["identifier"]: row for row in site_pages.notation()}
SIZES = {"X": 5, "X′": 6, "Z": 3, "Z′": 4, "N": 7, "d": 2}  # all different


def shape(text: str) -> tuple[int, ...]:
    return tuple(SIZES[size] for size in text.strip("()").replace(" ", "").split(",") if size)


@pytest.fixture(scope="module")
def computed() -> dict[str, torch.Tensor]:
    """Something of each name that the library computes."""
    world = rpm.FiniteRPM.random(*(SIZES[name] for name in ("X", "X′", "Z", "Z′")))
    log_f = torch.randn(SIZES["Z"], SIZES["Z′"], dtype=torch.float64)
    log_prior = rpm.priors.infonce(log_f, world.q_joint)
    objective = rpm.infonce(log_f, world.q_joint)
    z, z_prime = rpm.gaussian.sample(SIZES["N"], 0.5, SIZES["d"], generator=torch.Generator().manual_seed(0))
    found = {name: getattr(world, name) for name in ROWS if hasattr(world, name)}
    found |= {"z": z, "z_prime": z_prime, "log_f": log_f, "log_prior": log_prior, "infonce": objective.value}
    found |= {"score": objective.score, "log_normaliser": objective.log_normaliser}
    found |= {"elbo": world.elbo(log_prior).value, "log_evidence": world.log_evidence(log_prior)}
    return found | {"scale": rpm.RandomWalk(0.3).scale, "temperature": rpm.VonMisesFisher(0.1).temperature}


def test_each_identifier_is_in_the_library_and_in_a_lesson_and_stands_for_one_symbol():
    assert set(ROWS) <= site_pages.library()
    assert [name for name in ROWS if not site_pages.first_lesson(name)] == []
    assert len({row["symbol"] for row in ROWS.values()}) == len(ROWS) == len(site_pages.notation())


def test_each_shape_is_that_of_the_code(computed):
    assert {name: tuple(v.shape) for name, v in computed.items()} == {n: shape(ROWS[n]["shape"]) for n in computed}
    assert set(ROWS) - set(computed) == {"x", "x_prime", "n", "rho", "chi_squared"}


def test_probabilities_sum_to_one(computed):
    for name in (n for n, row in ROWS.items() if row["unit"] == "probability"):
        rows = computed[name].sum(1) if name.startswith("recognition") else computed[name].sum()
        assert torch.allclose(rows, torch.ones_like(rows)), name


def test_every_equation_that_a_lesson_states_can_be_linked():
    link = '<a href="../notebooks/03_infonce_is_the_elbo.html#E7">(E7)</a>'
    body = '<h2>(E7)</h2><p title="(E7)">(E7), (E99)</p><pre>(E7)</pre>'
    linked = site_pages.with_links(body, "notebooks/00_start_here")
    assert linked == f'<h2>(E7)</h2><p title="(E7)">{link}, (E99)</p><pre>(E7)</pre>'


# The map of the paper's neighbours


def test_each_neighbour_has_a_complete_row_and_its_link():
    rows, table = {row["number"]: row for row in site_pages.neighbours_map()}, site_pages.neighbours_table()
    assert [name[:3] for name in site_pages.neighbours()] == list(rows)
    for (name, prose), row in zip(site_pages.neighbours().items(), rows.values()):
        assert all(text and "|" not in text and text.count("$") % 2 == 0 for text in row.values()), name
        assert row["arxiv"] in prose, "the notebook names the paper"
        assert f"](notebooks/neighbours/{name}.ipynb) · " in table and f"arxiv.org/abs/{row['arxiv']})" in table
