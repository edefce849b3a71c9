"""Nothing is made on the wrong device: all that is public, on a stand-in that refuses to mix (tests/stand_in_device.py)."""

import copy
import math

import pytest
import torch
from fuzz_calls import CALLS, Call, drawn
from stand_in_device import Generator, StandIn
from torch import Tensor, nn

import rpm_tutorial as rpm
from rpm_tutorial import _tiles, datasets, distributed, encoders, environment, gaussian
from rpm_tutorial.course.dashboard import TrainingDashboard
from rpm_tutorial.estimators import ESTIMATORS
from rpm_tutorial.training import LogRow

CRITICS = {
    "RandomWalk": rpm.RandomWalk,
    "LaplaceWalk": rpm.LaplaceWalk,
    "VonMisesFisher": rpm.VonMisesFisher,
    "LinearDynamics": lambda: rpm.LinearDynamics(3),
    "Universal": lambda: rpm.Universal(3),
}
pytestmark = pytest.mark.filterwarnings("ignore:at..frobenius_norm")  # PyTorch's own, where it meets MPS
each_device = pytest.mark.parametrize("kind", ["cuda", pytest.param("mps", marks=pytest.mark.slow)])
each_critic = pytest.mark.parametrize(
    "name",
    ["RandomWalk", "LaplaceWalk", *(pytest.param(name, marks=pytest.mark.nightly) for name in list(CRITICS)[2:])],
)


def moved(thing, device):
    """The same on the device: a tensor, a module, a generator, a world of tables, or a list of them."""
    if isinstance(thing, Tensor):
        return thing.detach().to(device).requires_grad_(thing.requires_grad)
    if isinstance(thing, nn.Module):
        return copy.deepcopy(thing).to(device)
    if isinstance(thing, torch._C.Generator):
        there = Generator(device)
        there.set_state(thing.get_state())
        return there
    if isinstance(thing, list | tuple):
        return type(thing)(moved(part, device) for part in thing)
    if type(thing).__module__.startswith("rpm_tutorial"):
        there = copy.copy(thing)
        vars(there).update({name: moved(part, device) for name, part in vars(thing).items()})
        return there
    return thing


def tensors_in(thing) -> list[Tensor]:
    if isinstance(thing, Tensor | nn.Module):
        return [thing] if isinstance(thing, Tensor) else [*thing.state_dict().values()]
    thing = thing if isinstance(thing, dict | list | tuple) else getattr(thing, "__dict__", ())
    parts = thing.values() if isinstance(thing, dict) else thing
    return [tensor for part in parts for tensor in tensors_in(part)]


def outcome(call: Call):
    """What the call returns, or the error that it raises."""
    try:
        return call.function(**call.arguments)
    except (ValueError, TypeError) as error:
        return error


def assert_same(found, expected, device) -> None:
    if isinstance(expected, Exception):
        assert type(found) is type(expected), found
    elif isinstance(expected, Tensor):
        assert isinstance(found, Tensor), found
        assert found.device == device, f"a result on {found.device}"
        rough = torch.finfo(expected.dtype).eps ** 0.5 if expected.is_floating_point() else 0
        torch.testing.assert_close(found.detach().cpu(), expected.detach(), rtol=rough, atol=rough, equal_nan=True)
    elif isinstance(expected, LogRow):
        assert found.value == expected.value
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), found
        for ours, theirs in zip(found, expected, strict=True):
            assert_same(ours, theirs, device)
    elif isinstance(expected, float):
        assert math.isclose(found, expected, rel_tol=1e-3, abs_tol=1e-3) or not math.isfinite(expected)


@pytest.mark.nightly
@each_device
@pytest.mark.parametrize("name", CALLS)
def test_every_public_function_gives_there_what_it_gives_here(name, kind):
    for seed in range(10):
        call = drawn(name, seed)
        given_tensors = tensors_in([*call.arguments.values()])
        if kind == "mps" and any(t.dtype == torch.float64 for t in given_tensors):
            continue
        here = {key: moved(value, torch.device("cpu")) for key, value in call.arguments.items()}
        expected = outcome(call._replace(arguments=here))
        with StandIn(kind) as device:
            place = device if given_tensors else torch.device("cpu")
            there = {key: moved(value, place) for key, value in call.arguments.items()}
            assert_same(outcome(call._replace(arguments=there)), expected, place)


def test_the_stand_in_refuses_what_a_gpu_refuses():
    here, z = torch.zeros(3), torch.rand(3, 3)
    with StandIn() as device:
        there, matrix = here.to(device), z.to(device)
        for call in (
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: matrix @ z,
            lambda: here.add_(there[0]),
            lambda: z[there > 0],
            lambda: nn.Linear(3, 2)(there),
            lambda: torch.rand(3, device=device, generator=torch.Generator()),
            lambda: torch.multinomial(there + 1, 2, generator=torch.Generator()),
            lambda: there.numpy(),
        ):
            with pytest.raises(
                (RuntimeError, TypeError), match="(?i)one device|for generator|to numpy|same device|on cpu"
            ):
                call()
        assert (there + here[0] + 1).device == there[torch.tensor([0])].device == there.new_zeros(2).device == device
        assert there.copy_(here).device == device and here.copy_(there).device == here.device == there.cpu().device
    with StandIn("mps") as device, pytest.raises(TypeError, match="float64"):
        here.double().to(device)


def test_each_estimator_of_a_batch():
    table = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    with StandIn() as device:
        for function in [function for functions in ESTIMATORS.values() for function in functions]:
            here, there = table.clone().requires_grad_(), table.to(device).requires_grad_()
            (expected := function(here)).value.backward()
            (found := function(there)).value.backward()
            assert_same([*found, there.grad], [*expected, here.grad], device)


def pairs(n: int = 300) -> tuple[Tensor, Tensor]:
    z = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    return z, z + 0.3 * torch.randn(n, 3, generator=torch.Generator().manual_seed(1))


def evidence_and_gradients(critic, z, z_prime, **options):
    critic, sides = copy.deepcopy(critic), [side.detach().requires_grad_() for side in (z, z_prime)]
    found = rpm.dataset_evidence(*sides, critic, **options)
    found.value.mean().backward()
    return [found.value, found.log_evidence, *(t.grad for t in (*sides, *critic.parameters()))]


@each_device
@each_critic
def test_the_evidence_by_strips_and_by_tiles_with_its_gradients(name, kind, monkeypatch):
    monkeypatch.setitem(_tiles.STRIP_ROWS, "cuda", (128, 128))  # three strips; FREE cuts the tiles
    torch.manual_seed(0)
    critic, sides = CRITICS[name](), pairs()
    for options in ({"normalise": "both"}, {"reduction": "none"}, {"block": 70}):
        expected = evidence_and_gradients(critic, *sides, **options)
        stand_in = StandIn(kind)
        with stand_in as device:
            there = [side.to(device) for side in sides]
            assert_same(evidence_and_gradients(moved(critic, device), *there, **options), expected, device)
            assert set(stand_in.asked) <= {device}, "tiles are cut by the memory of the latents' device"


@each_device
@pytest.mark.parametrize("name", ["RandomWalk", "LaplaceWalk"])
def test_autocast_does_not_round_the_evidence_nor_its_gradient(name, kind):
    critic, sides = CRITICS[name](), pairs(60)
    for options in ({}, {"block": 20}):
        expected = evidence_and_gradients(critic, *sides, **options)
        with StandIn(kind) as device, torch.autocast(device.type):
            there = [side.to(device) for side in sides]
            assert not torch.equal((there[0] @ there[1].T).cpu(), sides[0] @ sides[1].T)
            assert_same(evidence_and_gradients(moved(critic, device), *there, **options), expected, device)


@each_device
@pytest.mark.parametrize("where", ["on the processor", "on the device"])
def test_a_training_there_gives_the_numbers_of_one_here_and_is_continued_on_either(where, kind, tmp_path):
    images = datasets.digits().x[:100]

    def trainer(device, data):
        torch.manual_seed(0)
        encoder = nn.Sequential(encoders.mlp(64, 4, width=8), nn.BatchNorm1d(4)).to(device)
        return rpm.Trainer(encoder, rpm.VonMisesFisher().to(device), datasets.tensor_pairs(data, 1 - data, 16), 6)

    here = trainer("cpu", images)
    expected = [here.advance().value for _ in range(3)]
    here.save(tmp_path / "here.pt")
    rest = [row.value for row in here]
    with StandIn(kind) as device:
        data = images if where == "on the processor" else images.to(device)
        there = trainer(device, data)
        assert [there.advance().value for _ in range(3)] == pytest.approx(expected, abs=1e-5)
        there.save(tmp_path / "there.pt")
        assert [row.value for row in there] == pytest.approx(rest, abs=1e-5)
        for file in ("here.pt", "there.pt"):
            assert {t.device for t in tensors_in(rpm.load_checkpoint(tmp_path / file, device))} == {device}
            again = trainer(device, data)
            again.load(tmp_path / file)
            moments = [m for state in again._optimiser.state.values() for key, m in state.items() if key != "step"]
            assert {t.device for t in (*again.encoder.state_dict().values(), *moments)} == {device}
            assert [row.value for row in again] == pytest.approx(rest, abs=1e-5)
        z = rpm.encode(there.encoder, images, batch_size=30)
        assert z.device == device and torch.allclose(z.cpu(), rpm.encode(here.encoder, images), atol=1e-5)
    again = trainer("cpu", images)
    again.load(tmp_path / "there.pt")
    assert [row.value for row in again] == pytest.approx(rest, abs=1e-5)


@each_device
@each_critic
def test_a_critic_there_passes_its_check(name, kind):
    with StandIn(kind) as device:
        assert (report := rpm.check_critic(CRITICS[name]().to(device), 3)).ok, report


def test_a_dashboard_trains_and_draws_there(tmp_path):
    images = datasets.digits()
    with StandIn() as device:
        x, x_prime = images.x[:60].to(device), images.x[60:120].to(device)
        batches = datasets.view_pairs(images.x[60:].to(device), 32, flip=False)
        trainer = rpm.Trainer(encoders.mlp(64, 4).to(device), rpm.VonMisesFisher().to(device), batches, 4)
        labels = images.labels[:60].to(device)
        board = TrainingDashboard(trainer, x, x_prime, labels, checkpoint=tmp_path / "kept.pt", every=1)
        board.advance()
        board.stop()
        board.reset()
        board.load()
        assert board.trainer.step == 1 and f"on {device}" in board.count.value and len(board.history["step"]) == 2


def test_a_generator_of_another_device_is_refused_with_what_to_do():
    world, (z, z_prime) = rpm.FiniteRPM.random(), pairs(64)
    with StandIn() as device:
        here, there, images = torch.Generator(), torch.Generator(device), torch.rand(2, 1, 8, 8).to(device)
        for call in (
            lambda: gaussian.sample(3, 0.5, generator=there),
            lambda: datasets.moving_balls(3, generator=there),
            lambda: datasets.two_views(images.cpu(), generator=there),
            lambda: world.sample(world.q_joint.log(), 3, generator=there),
        ):
            with pytest.raises(
                ValueError, match=r"generator is on cuda:0; expected one on cpu: torch.Generator\('cpu'\)"
            ):
                call()
        with pytest.raises(
            ValueError, match=r"generator is on cpu; expected one on cuda:0: torch.Generator\('cuda:0'\)"
        ):
            datasets.two_views(images, generator=here)
        critic = rpm.RandomWalk().to(device)
        for generator in (here, there):  # it chooses rows, which have no device
            rpm.sampled_evidence(z.to(device), z_prime.to(device), critic, rows=64, negatives=8, generator=generator)


@pytest.mark.parametrize("name", ["RandomWalk", "LinearDynamics"])
def test_a_spread_that_needs_float64_is_computed_on_the_processor_where_the_device_has_none(name):
    critic, sides = CRITICS[name](), [1000 * side for side in pairs(50)]

    def found():
        by_tiles = evidence_and_gradients(critic, *sides, block=20)
        return [critic(*sides), *evidence_and_gradients(critic, *sides), *by_tiles]

    expected = found()
    with StandIn("mps") as device:
        critic, sides = critic.to(device), [side.to(device) for side in sides]
        assert_same(found(), expected, device)


def test_the_device_of_a_machine_with_a_gpu_is_the_gpu_unless_another_is_named():
    with StandIn() as device:
        assert environment.pick_device().type == "cuda" and environment.pick_device("cuda:0") == device
        assert environment.pick_device("cpu").type == "cpu" and environment.setup().type == "cuda"
        assert "device    cuda (a stand-in)" in environment.self_check() and "right" in environment.self_check()
    with StandIn("mps") as device:
        assert environment.pick_device("mps:0") == device and environment.pick_device().type == "cpu"


def test_rows_gathered_from_processes_stay_on_the_device(tmp_path):
    sides, critic = pairs(40), rpm.RandomWalk()
    expected = evidence_and_gradients(critic, *sides, block=16)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        with StandIn() as device:
            there = [side.to(device) for side in sides]
            group = torch.distributed.group.WORLD
            assert distributed.gather(there[0], group)[0].device == device
            found = evidence_and_gradients(rpm.RandomWalk().to(device), *there, block=16, group=group)
            assert_same(found, expected, device)
    finally:
        torch.distributed.destroy_process_group()
