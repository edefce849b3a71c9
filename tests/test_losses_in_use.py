"""The field guide of lesson 15 beside the libraries' own losses, which tools/losses.py lists; values and gradients in float64."""

import math
import re
import subprocess

import losses
import others
import peers
import pytest
import tables
import torch
from losses import ALIKE, ROWS
from needs import need_library
from packaging.utils import canonicalize_name
from torch.nn import functional as F

LESSON = (tables.ROOT / "notebooks" / "15_the_losses_you_use.py").read_text(encoding="utf-8")
# Its losses import transformers and a hundred megabytes beside it.
MARKS = {"sentence-transformers": pytest.mark.nightly}
each_row = pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{row.library}: {row.call}", marks=MARKS.get(row.library, ())) for row in ROWS]
)


@each_row
@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")  # in lightly's DCLW
def test_a_librarys_loss_is_ours_in_value_and_gradient(row: losses.Row):
    need_library(row.library)
    assert max(max(losses.residuals(row, seed)) for seed in losses.SEEDS) < 1e-10


@pytest.mark.parametrize("case", ALIKE, ids=lambda case: case.loss)
def test_a_loss_without_strangers_pulls_as_a_score_does_and_gives_one_value_to_latents_of_other_nats(case):
    need_library("lightly")
    found = losses.alike(case)
    (one, other), (fewer, more) = found["losses"], found["nats"]
    assert found["residual"] < 1e-10 and abs(one - other) < 1e-8 and more - fewer > 0.5


@pytest.mark.nightly
def test_what_the_page_says_of_other_libraries_is_so():
    need_library("lightly")
    need_library("pytorch-metric-learning")
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss, SupConLoss
    from pytorch_metric_learning.reducers import AvgNonZeroReducer

    queue = others.lightly_module("ntx_ent_loss").NTXentLoss(memory_bank_size=(4, 2)).memory_bank.bank
    assert isinstance(SupConLoss().reducer, AvgNonZeroReducer) and queue.dtype == torch.float32
    features = torch.full((3, 2), 2.0)
    assert others.open_clip_module().ClipLoss().get_logits(features, features, 1.0)[0][0, 0] == 8, "not normalised"
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.1]], requires_grad=True)  # each the other's partner, but for the angle
    partners = F.normalize(z.detach().flip(0), dim=1)
    theirs = SelfSupervisedLoss(NTXentLoss(0.01), symmetric=False)(z, partners)
    assert theirs.item() == pytest.approx(-math.log(torch.finfo(torch.float32).tiny))
    assert torch.autograd.grad(theirs, z)[0].abs().max() == 0, "no slope far from the pair"


@pytest.mark.nightly
def test_in_float16_both_losses_are_nearer_to_the_exact_value_than_exponentials_are():
    need_library("pytorch-metric-learning")
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.losses import NTXentLoss

    labels, of_others = torch.tensor([0, 0, 1, 1]), torch.arange(3)
    pairs, away = labels[:, None] == of_others, {"by exponentials": 0.0, "theirs": 0.0, "ours": 0.0}
    for seed in range(5):
        rng = torch.Generator().manual_seed(seed)
        z, z_prime = (F.normalize(torch.randn(n, 32, generator=rng).half(), dim=1) for n in (4, 3))
        scores = -(z[:, None] - z_prime).square().sum(2).sqrt() / 0.1
        exact = losses.beside(-torch.cdist(z.double(), z_prime.double()) / 0.1, pairs, ~pairs).mean()
        by_exponentials = -(scores.exp()[pairs] / scores.exp().sum(1)).log().mean()
        theirs = NTXentLoss(0.1, distance=LpDistance())(z, labels, ref_emb=z_prime, ref_labels=of_others)
        found = by_exponentials, theirs, losses.beside(scores, pairs, ~pairs).mean()
        away = {name: max(worst, abs(one - exact).item()) for (name, worst), one in zip(away.items(), found)}
    assert max(away["theirs"], away["ours"]) < away["by exponentials"] / 4, away


def test_every_loss_of_the_lessons_table_is_tried():
    (table,) = re.findall(r"(?s)# \| your loss .+?\n#\n", LESSON)
    guide = [name.strip() for line in re.findall(r"(?m)^# \| ([^|]+) \|", table)[1:] for name in line.split(", ")]
    tried = {name for loss in (*ROWS, *ALIKE) for name in loss.loss.split(", ")}
    missing = [name for name in guide if not any(loss.startswith(name) for loss in tried)]
    assert len(guide) > 10 and not missing


def test_the_page_lists_these_losses_of_the_tested_releases_and_no_residual_above_rounding():
    remedy = "remedy: python tools/losses.py --write"
    rows, alike = (tables.read(name, losses.PAGE) for name in ("losses", "no model"))
    found = [(row["loss"], row["library"].split()[0], row["its call"].strip("`")) for row in rows]
    assert found == [(row.loss, row.library, row.call) for row in ROWS], remedy
    assert [row["loss"] for row in alike] == [case.loss for case in ALIKE], remedy
    residuals = [row[name] for row in rows for name in ("residual", "of the gradient")]
    assert all(float(residual) < 1e-10 for residual in residuals + [row["residual"] for row in alike])
    tested, named = tables.tested(), dict(row["library"].split() for row in rows)
    assert named == {name: tested.get(canonicalize_name(name), version) for name, version in named.items()}, remedy


def test_the_page_says_of_each_suite_how_much_passes_and_why_not_more():
    rows = tables.read("peers", losses.PAGE)
    assert [(row["tests"], row["of"].split()[0]) for row in rows] == [(peers.name(s), s.package) for s in peers.SUITES]
    failing = {row["of"].split()[0].replace("_", "-") for row in rows if row["on ours"] != row["of how many"]}
    assert failing == set(re.findall(r"(?m)^- \*([\w-]+), ", losses.PAGE.read_text(encoding="utf-8"))), "why they fail"


@pytest.mark.nightly
def test_the_libraries_own_tests_pass_on_ours_as_often_as_the_page_says():
    need_library("sentence-transformers")
    if subprocess.run(["git", "ls-remote", "-q", f"https://github.com/{peers.SUITES[0].repository}"]).returncode:
        pytest.skip("the libraries' repositories can't be reached")
    assert [line["on ours"] for line in peers.main(write=False)] == [
        row["on ours"] for row in tables.read("peers", losses.PAGE)
    ]
