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


def score(report: rpm.Report, critic: str):
    return next(score for score in report.scores if score.critic == critic)


@pytest.fixture(scope="module")
def walk() -> rpm.Report:
    z, z_prime = pairs(gaussian)
    return rpm.report(z, z_prime, labels=z[:, 0] > 0)


def test_each_number_is_that_of_the_library_on_the_half_that_fitted_nothing(walk: rpm.Report):
    z, z_prime = pairs(gaussian)
    held_out = torch.randperm(N, generator=torch.Generator().manual_seed(0))[N // 2 :]
    for found in walk.scores:
        log_f = walk.critics[found.critic](z[held_out], z_prime[held_out])
        log_p = log_f.log_softmax(1).diagonal()
        place = (log_f >= log_f.diagonal()[:, None]).sum(1).float()
        assert found.infonce == pytest.approx(rpm.infonce(log_f).value.item(), abs=1e-4)
        assert found.log_evidence == pytest.approx(found.infonce - 2 * math.log(500), abs=1e-6)
        assert found.standard_error == pytest.approx(log_p.std().item() / math.sqrt(500), rel=1e-3)
        assert (found.top_1, found.median_rank) == ((place == 1).double().mean().item(), place.median().item())
    assert walk.n == walk.fitted == 500 and walk.ceiling == math.log(500)


@pytest.mark.parametrize(
    ("step", "critic", "setting"), [(gaussian, "Gaussian walk", "scale 0.3"), (laplace, "Laplace walk", "scale 0.15")]
)
def test_the_critic_that_made_the_pairs_has_the_most_evidence_at_its_own_scale(step, critic, setting):
    found = rpm.report(*pairs(step, n=3000, dim=2))
    name, value = found.best.setting.split()
    assert found.best.critic == critic and name == setting.split()[0]
    assert float(value) == pytest.approx(float(setting.split()[1]), rel=0.15)


def test_a_bilinear_critic_learns_a_map_between_the_sides_that_no_walk_knows():
    z, z_prime = pairs(gaussian, n=4000)
    found = rpm.report(z, -z_prime.roll(1, dims=1))
    assert found.best.critic == "bilinear"
    assert found.best.infonce > 0.5 + max(s.infonce for s in found.scores if s is not found.best)


def test_the_held_out_half_chooses_nothing():
    z, z_prime = pairs(gaussian)
    held_out = torch.randperm(N, generator=torch.Generator().manual_seed(0))[N // 2 :]
    z_prime_2 = z_prime.clone()
    z_prime_2[held_out] += 0.2
    first, other = rpm.report(z, z_prime), rpm.report(z, z_prime_2)
    assert [s.setting for s in first.scores] == [s.setting for s in other.scores]
    assert first.best.infonce != other.best.infonce


def test_label_and_instance_nats_add_up_to_the_best_critics_infonce(walk: rpm.Report):
    assert walk.label + walk.instance == pytest.approx(walk.best.infonce, abs=1e-5)
    assert 0.3 < walk.label < walk.label_entropy <= math.log(2)


def test_a_bilinear_critic_of_more_dimensions_than_pairs_says_little_and_nothing_absurd():
    found = score(rpm.report(*pairs(gaussian, n=400, dim=256)), "bilinear")
    assert 0 < found.infonce < math.log(200)


def test_where_zero_is_changes_neither_the_cosine_at_its_best_nor_the_bilinear_critic():
    z, z_prime = pairs(gaussian, n=600)
    near, far = rpm.report(z, z_prime), rpm.report(z + 10, z_prime + 10)
    assert score(far, "bilinear").infonce == pytest.approx(score(near, "bilinear").infonce, abs=0.02)
    assert score(far, "cosine").infonce > 2.5  # by directions alone, three of four dimensions


def test_labels_are_split_by_a_critic_that_scored_all_pairs(monkeypatch):
    monkeypatch.setattr(report_module, "WORK", 100_000)
    z, z_prime = pairs(laplace, n=4000)
    found = rpm.report(z, z_prime, z[:, 0] > 0)
    assert score(found, "Laplace walk").rows < found.n == score(found, found.split).rows
    assert found.label + found.instance == pytest.approx(score(found, found.split).infonce, abs=1e-4)


def test_the_ceiling_of_repeated_rows_is_the_one_that_no_critic_passes():
    z, z_prime = (side[torch.arange(N) // 2 * 2] for side in almost_equal(*pairs(gaussian)))
    found = rpm.report(z, z_prime)
    lost = float(
        next(re.findall(r"at least ([.\d]+) nats below", note) for note in found.notes if "more than once" in note)[0]
    )
    assert 0.2 < lost < math.log(2) and found.best.infonce == pytest.approx(found.ceiling - lost, abs=0.05)
    assert found.best.infonce < found.ceiling - lost


def test_rows_of_the_fitting_half_are_noted_among_those_that_are_scored():
    z, z_prime = pairs(gaussian)
    found = rpm.report(z.repeat(2, 1), torch.cat([z_prime, z_prime + 1e-3]))
    assert any("rows of z stand in the half that fitted" in note for note in found.notes)
    assert not any("rows of z_prime stand in the half" in note for note in found.notes)


def test_sides_of_two_dtypes_and_foreign_bytes_are_read(walk: rpm.Report):
    z, z_prime = pairs(gaussian)
    found = rpm.report(z.numpy().astype(">f4"), z_prime.double())
    assert found.best.infonce == pytest.approx(walk.best.infonce, abs=1e-3)


def test_arrays_half_precision_and_tensors_give_the_same_report(walk: rpm.Report):
    z, z_prime = pairs(gaussian)
    assert rpm.report(z.numpy(), z_prime.numpy(), (z[:, 0] > 0).numpy()) == walk
    half = rpm.report(z.half(), z_prime.half())
    assert half.best.infonce == pytest.approx(walk.best.infonce, abs=0.02)


def test_it_prints_every_critic_and_its_json_holds_every_number(walk: rpm.Report):
    said, numbers = str(walk), json.loads(json.dumps(walk.to_dict()))
    for found in walk.scores:
        assert f"{found.critic:<17} {found.setting}" in said and f"{found.infonce:.3f}" in said
    assert [s["infonce"] for s in numbers["scores"]] == [s.infonce for s in walk.scores]
    assert numbers["best"] == walk.best.critic and numbers["label"] == walk.label and numbers["notes"]
    figure = walk.plot()
    assert all(found.critic in figure.alt for found in walk.scores) and "log N" in figure.alt


def repeated(z, z_prime):
    return z, z_prime[torch.arange(N) // 2 * 2]


def of_unequal_length(z, z_prime):
    return z, z_prime


def of_equal_length(z, z_prime):
    return torch.nn.functional.normalize(z), torch.nn.functional.normalize(z_prime)


def collapsed(z, z_prime):
    return z * torch.tensor([1, 1e-4, 1e-4, 1e-4]), z_prime * torch.tensor([1, 1e-4, 1e-4, 1e-4])


def almost_equal(z, z_prime):
    return z, z + 0.01 * z_prime


def unrelated(z, z_prime):
    return z, z_prime.roll(1, dims=0)


@pytest.mark.parametrize(
    ("made", "words", "there"),
    [
        (repeated, "rows of z_prime stand more than once", True),
        (of_equal_length, "stand more than once", False),
        (of_unequal_length, "vary in length by", True),
        (of_equal_length, "vary in length by", False),
        (collapsed, "use 1.0 of 4 dimensions: they have nearly collapsed", True),
        (of_equal_length, "nearly collapsed", False),
        (almost_equal, "too few pairs for their nats", True),
        (of_equal_length, "too few pairs for their nats", False),
        (unrelated, "These pairs don't choose", True),
        (unrelated, "* stands at the end of the range", True),
        (of_equal_length, "* stands at the end of the range", False),
        (of_unequal_length, "These pairs don't choose", False),
        (of_equal_length, "trained on these pairs knows them", True),
    ],
)
def test_each_trap_is_noted_where_it_is_and_only_there(made, words, there):
    notes = rpm.report(*made(*pairs(gaussian))).notes
    assert any(words in note for note in notes) == there, notes


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda z: (z, z[:500]), r"\(1000, 4\) and z_prime \(500, 4\); expected the same"),
        (lambda z: (z, z[:, :2]), "Two widths: take the outputs of the projections"),
        (lambda z: (z[:100], z[:100]), "there are 100 pairs; expected at least 128"),
        (lambda z: (z, z), "z and z_prime are the same; expected the encodings"),
        (lambda z: (torch.full_like(z, 0.1), z), "rows of z are all alike"),
        (lambda z: (z, torch.ones_like(z)), "rows of z_prime are all alike"),
        (lambda z: (z, z + 1, [None, *range(999)]), "1 labels are missing"),
        (lambda z: (np.full((1000, 4), "a"), z), "expected numbers"),
        (lambda z: (z, (z + 1).index_fill(0, torch.tensor(7), math.nan)), "NaN"),
        (lambda z: (z, z + 1, range(5)), r"labels has shape \(5,\) for 1000 pairs"),
    ],
)
def test_bad_embeddings_are_refused_with_a_remedy(made, words):
    with pytest.raises(ValueError, match=words):
        rpm.report(*made(pairs(gaussian)[0]))


# Files, and the command


def written(folder: Path, kind: str) -> list[Path]:
    z, z_prime = (side.numpy() for side in pairs(gaussian))
    if kind == "npy":
        for name, side in (("z", z), ("z_prime", z_prime)):
            np.save(folder / f"{name}.npy", side)
        return [folder / "z.npy", folder / "z_prime.npy"]
    path = folder / f"pairs.{kind}"
    if kind == "npz":
        np.savez(path, a=z, b=z_prime, labels=z[:, 0] > 0)
    else:
        held = {"z_prime": torch.from_numpy(z_prime), "z": torch.from_numpy(z), "other": torch.ones(3, 3)}
        if kind == "pt":
            torch.save((held["z"], held["z_prime"]), path)
        else:
            pytest.importorskip("safetensors.torch").save_file(held, path)
    return [path]


@pytest.mark.parametrize("kind", ["npy", "npz", "pt", "safetensors"])
def test_each_format_gives_the_pairs_that_were_saved(kind, tmp_path: Path):
    z, z_prime, labels = _embeddings.read(tuple(written(tmp_path, kind)), None)
    for found, side in zip((z, z_prime), pairs(gaussian)):
        assert np.array_equal(np.asarray(found), side.numpy())
    assert (labels is None) == (kind != "npz")


def test_a_file_that_is_not_clear_says_what_it_holds(tmp_path: Path):
    path = tmp_path / "many.npz"
    np.savez(path, image=np.ones((5, 2)), text=np.ones((5, 2)), mask=np.ones((5, 5)))
    with pytest.raises(ValueError, match=r"holds 'image' \(5, 2\), 'text' \(5, 2\), 'mask' \(5, 5\).*--keys"):
        _embeddings.read((path,), None)
    assert _embeddings.read((path,), ("text", "image"))[2] is None
    with pytest.raises(ValueError, match="--keys"):
        _embeddings.read((path,), ("text", "sound"))


def test_no_file_runs_code_or_ends_in_a_traceback(tmp_path: Path):
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    (tmp_path / "text.parquet").write_text("z")
    for name, words in {
        "objects.npy": "no .npy file of arrays",
        "broken.npz": "or a damaged one",
        "text.parquet": "unknown ending; expected .npy, .npz, .safetensors or .pt",
    }.items():
        with pytest.raises(ValueError, match=words):
            _embeddings.arrays(tmp_path / name)


def test_the_command_prints_what_the_function_finds(tmp_path: Path, capsys, walk: rpm.Report):
    files = [str(path) for path in written(tmp_path, "npy")]
    (tmp_path / "labels.txt").write_text("".join(f"{bool(z > 0)}\n" for z in pairs(gaussian)[0][:, 0]))
    labels = ["--labels", str(tmp_path / "labels.txt")]
    main(["evidence", *files, *labels, "--json", "--device", "cpu"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(walk.to_dict()))
    page = tmp_path / "report.html"
    main(["evidence", *files, *labels, "--plot", str(page), "--device", "cpu"], standalone_mode=False)
    assert capsys.readouterr().out == f"{walk}\n"
    assert "InfoNCE in nats per pair" in page.read_text() and "<script src" not in page.read_text()
    assert html.unescape(page.read_text()).endswith(f"<pre>{walk}</pre>")


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


def test_too_little_memory_asks_for_fewer_pairs(tmp_path: Path, monkeypatch, capsys):
    def full(*arguments, **options):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")

    monkeypatch.setattr(report_module, "report", full)
    with pytest.raises(SystemExit):
        main(["evidence", *map(str, written(tmp_path, "npy"))], prog_name="rpm-tutorial")
    assert "Remedy: fewer pairs, or --device cpu" in capsys.readouterr().err
