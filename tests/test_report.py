"""What embeddings are worth: the report's numbers, its notes, the files that it reads, and the command."""

import html
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import rpm_tutorial as rpm
from rpm_tutorial.course import _embeddings, report as report_module
from rpm_tutorial.course.cli import main

N, DIM = 1000, 4


def pairs(step, n: int = N, dim: int = DIM) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents, and the same after a step that `step(n, dim)` draws."""
    torch.manual_seed(0)
    z = torch.randn(n, dim)
    return z, z + step(n, dim)


def gaussian(n: int, dim: int) -> torch.Tensor:
    return 0.3 * torch.randn(n, dim)


def laplace(n: int, dim: int) -> torch.Tensor:
    return torch.distributions.Laplace(0, 0.15).sample((n, dim))


def held_out(n: int = N) -> torch.Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))[n // 2 :]


def score(report: rpm.Report, critic: str):
    return next(score for score in report.scores if score.critic == critic)


@pytest.fixture(scope="module")
def walk() -> rpm.Report:
    z, z_prime = pairs(gaussian)
    return rpm.report(z, z_prime, labels=z[:, 0] > 0)


def test_each_number_is_that_of_the_library_on_the_half_that_fitted_nothing(walk: rpm.Report):
    z, z_prime = (side[held_out()] for side in pairs(gaussian))
    for found in walk.scores:
        log_f = walk.critics[found.critic](z, z_prime)
        log_p = log_f.log_softmax(1).diagonal()
        place = (log_f >= log_f.diagonal()[:, None]).sum(1).float()
        assert found.infonce == pytest.approx(rpm.infonce(log_f).value.item(), abs=1e-4)
        assert found.log_evidence == pytest.approx(found.infonce - 2 * math.log(500), abs=1e-6)
        assert found.standard_error == pytest.approx(log_p.std().item() / math.sqrt(500), rel=1e-3)
        assert (found.top_1, found.median_rank) == ((place == 1).double().mean().item(), place.median().item())
    assert walk.n == walk.fitted == 500 and walk.ceiling == math.log(500)
    assert walk.label + walk.instance == pytest.approx(walk.best.infonce, abs=1e-5)
    assert 0.3 < walk.label < walk.label_entropy <= math.log(2)


@pytest.mark.parametrize(
    ("step", "critic", "scale"), [(gaussian, "Gaussian walk", 0.3), (laplace, "Laplace walk", 0.15)]
)
def test_the_critic_that_made_the_pairs_has_the_most_evidence_at_its_own_scale(step, critic, scale):
    best = rpm.report(*pairs(step, n=1500, dim=2)).best
    assert best.critic == critic and best.setting.startswith("scale ")
    assert float(best.setting.split()[1]) == pytest.approx(scale, rel=0.15)


def test_a_bilinear_critic_learns_a_map_between_the_sides_that_no_walk_knows():
    z, z_prime = pairs(gaussian, n=4000)
    found = rpm.report(z, -z_prime.roll(1, dims=1))
    assert found.best.critic == "bilinear"
    assert found.best.infonce > 0.5 + max(s.infonce for s in found.scores if s is not found.best)


def test_the_held_out_half_chooses_nothing(walk: rpm.Report):
    z, z_prime = pairs(gaussian)
    other = rpm.report(z, z_prime.index_add(0, held_out(), torch.full((N // 2, DIM), 0.2)))
    assert [s.setting for s in walk.scores] == [s.setting for s in other.scores]
    assert walk.best.infonce != other.best.infonce


def test_a_bilinear_critic_of_more_dimensions_than_pairs_says_little_and_nothing_absurd():
    found = score(rpm.report(*pairs(gaussian, n=400, dim=256)), "bilinear")
    assert 0 < found.infonce < math.log(200)


def test_where_zero_is_changes_neither_the_cosine_at_its_best_nor_the_bilinear_critic(walk: rpm.Report):
    far = rpm.report(*(side + 10 for side in pairs(gaussian)))
    assert score(far, "bilinear").infonce == pytest.approx(score(walk, "bilinear").infonce, abs=0.02)
    assert score(far, "cosine").infonce > 2.5  # by directions alone, three of four dimensions


def test_labels_are_split_by_a_critic_that_scored_all_pairs(monkeypatch):
    monkeypatch.setattr(report_module, "WORK", 100_000)
    z, z_prime = pairs(laplace)
    found = rpm.report(z, z_prime, z[:, 0] > 0)
    some, whole = score(found, "Laplace walk"), score(found, found.split)
    assert some.rows < found.n == whole.rows
    ratio = whole.standard_error / some.standard_error
    assert ratio == pytest.approx(math.sqrt(some.rows / found.n), rel=0.5), "of the pairs that were scored"
    assert found.label + found.instance == pytest.approx(whole.infonce, abs=1e-4)


def test_the_ceiling_of_repeated_rows_is_the_one_that_no_critic_passes():
    found = rpm.report(*(side[torch.arange(N) // 2 * 2] for side in almost_equal(*pairs(gaussian))))
    (lost,) = (float(words) for note in found.notes for words in re.findall(r"at least ([.\d]+) nats below", note))
    assert 0.2 < lost < math.log(2) and found.best.infonce == pytest.approx(found.ceiling - lost, abs=0.05)
    assert found.best.infonce < found.ceiling - lost


def test_dtypes_byte_orders_and_arrays_give_the_same_report(walk: rpm.Report):
    z, z_prime = pairs(gaussian)
    assert rpm.report(z.numpy(), z_prime.numpy(), (z[:, 0] > 0).numpy()) == walk
    for sides, tolerance in (((z.numpy().astype(">f4"), z_prime.double()), 1e-3), ((z.half(), z_prime.half()), 0.02)):
        assert rpm.report(*sides).best.infonce == pytest.approx(walk.best.infonce, abs=tolerance)


def test_it_prints_every_critic_and_its_json_holds_every_number(walk: rpm.Report):
    said, numbers, figure = str(walk), json.loads(json.dumps(walk.to_dict())), walk.plot()
    for found in walk.scores:
        assert f"{found.critic:<17} {found.setting}" in said and f"{found.infonce:.3f}" in said
        assert found.critic in figure.alt
    assert [s["infonce"] for s in numbers["scores"]] == [s.infonce for s in walk.scores]
    assert numbers["best"] == walk.best.critic and numbers["label"] == walk.label and numbers["notes"]


def almost_equal(z, z_prime):
    return z, z + 0.01 * z_prime


def collapsed(z, z_prime):
    return z * torch.tensor([1, 1e-4, 1e-4, 1e-4]), z_prime * torch.tensor([1, 1e-4, 1e-4, 1e-4])


def of_both_halves(z, z_prime):
    return z.repeat(2, 1), torch.cat([z_prime, z_prime + 1e-3])


def normalised(z, z_prime):
    return torch.nn.functional.normalize(z), torch.nn.functional.normalize(z_prime)


REPEATED, LENGTHS, COLLAPSED = "rows of z_prime stand more than once", "vary in length by", "they have nearly collapsed"
FEW, LEVEL, END = "too few pairs for their nats", "These pairs don't choose", "* stands at the end of the range"
SEEN, SEEN_PRIME = "rows of z stand in the half that fitted", "rows of z_prime stand in the half"


@pytest.mark.parametrize(
    ("made", "there", "absent"),
    [
        (lambda z, z_prime: (z, z_prime), ["trained on these pairs knows them", LENGTHS], [LEVEL, SEEN]),
        (normalised, [], [REPEATED, LENGTHS, COLLAPSED, FEW, END]),
        (lambda z, z_prime: (z, z_prime[torch.arange(N) // 2 * 2]), [REPEATED], []),
        (collapsed, ["use 1.0 of 4 dimensions: " + COLLAPSED], []),
        (almost_equal, [FEW], []),
        (lambda z, z_prime: (z, z_prime.roll(1, dims=0)), [LEVEL, END], []),
        (of_both_halves, [SEEN], [SEEN_PRIME]),
    ],
)
def test_each_trap_is_noted_where_it_is_and_only_there(made, there, absent):
    notes = rpm.report(*made(*pairs(gaussian))).notes
    assert all(any(words in note for note in notes) for words in there), notes
    assert not any(words in note for note in notes for words in absent), notes


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda z: (z, z[:500]), r"\(1000, 4\) and z_prime \(500, 4\); expected the same"),
        (lambda z: (z[:100], z[:100]), "there are 100 pairs; expected at least 128"),
        (lambda z: (z, z), "z and z_prime are the same; expected the encodings"),
        (lambda z: (z, torch.ones_like(z)), "rows of z_prime are all alike"),
        (lambda z: (z, z[:, :2]), "Two widths: take the outputs of the projections"),
        (lambda z: (np.full((1000, 4), "a"), z), "expected numbers"),
        (lambda z: (z, (z + 1).index_fill(0, torch.tensor(7), math.nan)), "NaN"),
        (lambda z: (z, z + 1, range(5)), r"labels has shape \(5,\) for 1000 pairs"),
    ],
)
def test_bad_embeddings_are_refused_with_a_remedy(made, words):
    with pytest.raises(ValueError, match=words):
        rpm.report(*made(pairs(gaussian)[0]))


# Files, and the command


@pytest.mark.parametrize("kind", ["npy", "npz", "pt", "safetensors"])
def test_each_format_gives_the_pairs_that_were_saved(kind, tmp_path: Path):
    sides, path = pairs(gaussian), tmp_path / f"pairs.{kind}"
    held = dict(zip(("z", "z_prime"), sides), other=torch.ones(3, 3))
    if kind == "npy":
        for name, side in zip("ab", sides):
            np.save(tmp_path / f"{name}.npy", side)
    elif kind == "npz":
        np.savez(path, a=sides[0], b=sides[1], labels=np.ones(N))
    elif kind == "pt":
        torch.save(sides, path)
    else:
        pytest.importorskip("safetensors.torch").save_file(held, path)
    *found, labels = _embeddings.read(tuple(sorted(tmp_path.iterdir())), None)
    assert all(np.array_equal(np.asarray(one), side) for one, side in zip(found, sides))
    assert (labels is None) == (kind != "npz")


def test_a_file_that_is_not_clear_runs_code_or_is_damaged_is_refused(tmp_path: Path):
    many = tmp_path / "many.npz"
    np.savez(many, image=np.ones((5, 2)), text=np.ones((5, 2)), mask=np.ones((5, 5)))
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    (tmp_path / "text.parquet").write_text("z")
    for name, keys, words in (
        ("many.npz", None, r"holds 'image' \(5, 2\), 'text' \(5, 2\), 'mask' \(5, 5\).*--keys"),
        ("many.npz", ("text", "sound"), "--keys"),
        ("objects.npy", None, "no .npy file of arrays"),
        ("broken.npz", None, "or a damaged one"),
        ("text.parquet", None, "unknown ending; expected .npy, .npz, .safetensors or .pt"),
    ):
        with pytest.raises(ValueError, match=words):
            _embeddings.read((tmp_path / name,), keys)
    assert _embeddings.read((many,), ("text", "image"))[2] is None


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for name, side in zip(("z", "z_prime"), pairs(gaussian)):
        np.save(tmp_path / f"{name}.npy", side)
    return [str(tmp_path / "z.npy"), str(tmp_path / "z_prime.npy")]


def test_the_command_prints_what_the_function_finds(files, tmp_path: Path, capsys, monkeypatch, walk: rpm.Report):
    labels, page = tmp_path / "labels.txt", tmp_path / "report.html"
    labels.write_text("".join(f"{bool(z > 0)}\n" for z in pairs(gaussian)[0][:, 0]))
    given = ["evidence", *files, "--labels", str(labels), "--device", "cpu"]
    main([*given, "--plot", str(page)], standalone_mode=False)
    assert capsys.readouterr().out == f"{walk}\n"
    assert "InfoNCE in nats per pair" in page.read_text() and "<script src" not in page.read_text()
    assert html.unescape(page.read_text()).endswith(f"<pre>{walk}</pre>")
    monkeypatch.setattr(report_module, "report", lambda *arguments, **options: walk)
    main([*given, "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(walk.to_dict()))


def test_what_is_typed_wrong_is_told_before_the_work(tmp_path: Path, capsys):
    rpm.save_checkpoint({"encoder": {}, "critic": {}, "settings": {}}, tmp_path / "run.pt")
    for arguments, words in {
        f"{tmp_path / 'run.pt'} --json": "--json is for embeddings",
        f"{tmp_path / 'no.npy'}": "no.npy does not exist. Remedy",
        f"{tmp_path / 'run.pt'} --plot {tmp_path / 'no' / 'out.html'}": "does not exist. Remedy: make it first",
        f"{tmp_path / 'x.parquet'}": "unknown ending; expected .npy",
        f"{tmp_path / 'x.parquet'} {tmp_path / 'x.parquet'} --keys a b": "expected one file",
    }.items():
        (tmp_path / "x.parquet").touch()
        with pytest.raises(SystemExit):
            main(["evidence", *arguments.split()], prog_name="rpm-tutorial")
        assert words in capsys.readouterr().err


def test_too_little_memory_asks_for_fewer_pairs(files, monkeypatch, capsys):
    def full(*arguments, **options):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")

    monkeypatch.setattr(report_module, "report", full)
    with pytest.raises(SystemExit):
        main(["evidence", *files], prog_name="rpm-tutorial")
    assert "Remedy: fewer pairs, or --device cpu" in capsys.readouterr().err
