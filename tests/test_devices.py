"""Nothing is made on the wrong device: all that is public, on a stand-in that refuses to mix (tests/stand_in_device.py)."""

import copy
import math

import pytest
import torch
from stand_in_device import Generator, StandIn
from test_fuzz import CALLS, call
from torch import Tensor, nn

import rpm_tutorial as rpm
from rpm_tutorial import _tiles, datasets, distributed, encoders, environment, gaussian
from rpm_tutorial.course.dashboard import TrainingDashboard

pytestmark = pytest.mark.filterwarnings("ignore:at..frobenius_norm")  # PyTorch's own, where it meets MPS
each_device = pytest.mark.parametrize("kind", ["cuda", pytest.param("mps", marks=pytest.mark.nightly)])


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
    if isinstance(thing, list):
        return [moved(part, device) for part in thing]
    there = copy.copy(thing)
    vars(there).update({name: moved(part, device) for name, part in vars(thing).items()})
    return there


def tensors_in(thing) -> list[Tensor]:
    if isinstance(thing, Tensor):
        return [thing]
    if isinstance(thing, nn.Module):
        return [*thing.state_dict().values()]
    thing = thing if isinstance(thing, dict | list | tuple) else getattr(thing, "__dict__", {})
    return [tensor for part in (thing.values() if isinstance(thing, dict) else thing) for tensor in tensors_in(part)]


def outcome(function, given):
    """What the call returns, and its gradients."""
    sides = [t.requires_grad_() for t in given if isinstance(t, Tensor) and t.is_floating_point()]
    found = function(*given)
    values = [t.sum() for t in tensors_in(found) if t.requires_grad]
    slopes = torch.autograd.grad(sum(values), sides, allow_unused=True) if values else []
    return [found, [slope for slope in slopes if slope is not None]]


def assert_same(found, expected, device) -> None:
    if isinstance(expected, Tensor):
        assert found.device == device, f"a result on {found.device}"
        rough = torch.finfo(expected.dtype).eps ** 0.5 if expected.is_floating_point() else 0
        torch.testing.assert_close(found.detach().cpu(), expected.detach(), rtol=rough, atol=rough)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), found
        for ours, theirs in zip(found, expected):
            assert_same(ours, theirs, device)
    elif isinstance(expected, float):
        assert math.isclose(found, expected, rel_tol=1e-3, abs_tol=1e-3)


@each_device
@pytest.mark.parametrize("name", CALLS)
def test_every_public_function_gives_there_what_it_gives_here(name, kind):
    for seed in (0, 2) if kind == "mps" else range(2):  # float32 alone has even seeds
        function, given = call(name, seed)
        expected = outcome(function, moved(given, torch.device("cpu")))
        with StandIn(kind) as device:
            assert_same(outcome(function, moved(given, device)), expected, device)


def test_the_stand_in_refuses_what_a_gpu_refuses():
    here, z = torch.zeros(3), torch.rand(3, 3)
    with StandIn() as device:
        there, matrix = here.to(device), z.to(device)
        for mixed in (
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
            with pytest.raises((RuntimeError, TypeError), match="(?i)one device|for gener|to numpy|same dev|on cpu"):
                mixed()
        assert (there + here[0] + 1).device == there[torch.tensor([0])].device == there.new_zeros(2).device == device
        assert there.copy_(here).device == device and here.copy_(there).device == here.device == there.cpu().device
    with StandIn("mps") as device, pytest.raises(TypeError, match="float64"):
        here.double().to(device)


def pairs(n: int = 300) -> list[Tensor]:
    z, step = torch.randn(2, n, 3, generator=torch.Generator().manual_seed(0))
    return [z, z + 0.3 * step]


def evidence_and_gradients(critic, sides, **options):
    critic, sides = copy.deepcopy(critic), [side.detach().requires_grad_() for side in sides]
    found = rpm.dataset_evidence(*sides, critic, **options)
    found.value.mean().backward()
    return [found.value, found.log_evidence, *(t.grad for t in (*sides, *critic.parameters()))]


OPTIONS = {"strips": {"normalise": "both"}, "pair by pair": {"reduction": "none"}, "tiles": {"block": 70}}
later = pytest.mark.nightly
FAMILIES = {
    rpm.RandomWalk: [],
    rpm.LaplaceWalk: [],
    rpm.VonMisesFisher: later,
    rpm.LinearDynamics: later,
    rpm.Universal: later,
}
each_family = pytest.mark.parametrize("family", [pytest.param(f, marks=m, id=f.__name__) for f, m in FAMILIES.items()])


def made(family: type) -> nn.Module:
    torch.manual_seed(0)
    return family(3) if family in (rpm.LinearDynamics, rpm.Universal) else family()


@each_device
@each_family
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_evidence_by_strips_and_by_tiles_with_its_gradients(family, kind, options, monkeypatch):
    monkeypatch.setitem(_tiles.STRIP_ROWS, "cuda", (128, 128))  # three strips; FREE cuts the tiles
    critic, sides = made(family), pairs()
    expected = evidence_and_gradients(critic, sides, **options)
    stand_in = StandIn(kind)
    with stand_in as device, torch.autocast(device.type):  # which rounds no score
        there = moved(sides, device)
        assert not torch.equal((there[0] @ there[1].T).cpu(), sides[0] @ sides[1].T)
        assert_same(evidence_and_gradients(moved(critic, device), there, **options), expected, device)
        assert set(stand_in.asked) <= {device}, "tiles are cut by the memory of the latents' device"


@pytest.mark.parametrize("family", [rpm.RandomWalk, rpm.LinearDynamics])
def test_a_spread_that_needs_float64_is_computed_on_the_processor_where_the_device_has_none(family):
    critic, sides = made(family), [1000 * side for side in pairs(50)]

    def found(critic, sides):
        return [critic(*sides), *(evidence_and_gradients(critic, sides, block=block) for block in (None, 20))]

    expected = found(critic, sides)
    with StandIn("mps") as device:
        assert_same(found(moved(critic, device), moved(sides, device)), expected, device)


def test_rows_gathered_from_processes_stay_on_the_device(tmp_path):
    sides, critic = pairs(40), rpm.RandomWalk()
    expected = evidence_and_gradients(critic, sides, block=16)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        with StandIn() as device:
            there, group = moved(sides, device), torch.distributed.group.WORLD
            assert distributed.gather(there[0], group)[0].device == device
            found = evidence_and_gradients(moved(critic, device), there, block=16, group=group)
            assert_same(found, expected, device)
    finally:
        torch.distributed.destroy_process_group()


@each_device
@pytest.mark.parametrize("where", ["on the processor", "on the device"])
def test_a_training_there_gives_the_numbers_of_one_here_and_is_continued_on_either(where, kind, tmp_path):
    images = datasets.digits().x[:100]

    def trainer(device, data):
        torch.manual_seed(0)
        encoder = nn.Sequential(encoders.mlp(64, 4, width=8), nn.BatchNorm1d(4)).to(device)
        return rpm.Trainer(encoder, rpm.VonMisesFisher().to(device), datasets.tensor_pairs(data, 1 - data, 16), 6)

    def rest(trainer, file=None):
        if file:
            trainer.load(tmp_path / file)
        return [row.value for row in trainer]

    here = trainer("cpu", images)
    first = [here.advance().value for _ in range(3)]
    here.save(tmp_path / "here.pt")
    expected = pytest.approx(rest(here), abs=1e-5)
    with StandIn(kind) as device:
        data = images if where == "on the processor" else images.to(device)
        there = trainer(device, data)
        assert [there.advance().value for _ in range(3)] == pytest.approx(first, abs=1e-5)
        there.save(tmp_path / "there.pt")
        assert rest(there) == expected
        for file in ("here.pt", "there.pt"):
            assert {t.device for t in tensors_in(rpm.load_checkpoint(tmp_path / file, device))} == {device}
            assert rest(again := trainer(device, data), file) == expected
            moments = [m for state in again._optimiser.state.values() for key, m in state.items() if key != "step"]
            assert {t.device for t in (*again.encoder.state_dict().values(), *moments)} == {device}
        z = rpm.encode(there.encoder, images, batch_size=30)
        assert z.device == device and torch.allclose(z.cpu(), rpm.encode(here.encoder, images), atol=1e-5)
    assert rest(trainer("cpu", images), "there.pt") == expected


@each_device
@each_family
def test_a_critic_there_passes_its_check(family, kind):
    with StandIn(kind) as device:
        assert (report := rpm.check_critic(made(family).to(device), 3)).ok, report


def test_a_dashboard_trains_and_draws_there(tmp_path):
    images = datasets.digits()
    with StandIn() as device:
        x, x_prime = images.x[:60].to(device), images.x[60:120].to(device)
        batches = datasets.view_pairs(images.x[60:].to(device), 32, flip=False)
        trainer = rpm.Trainer(encoders.mlp(64, 4).to(device), rpm.VonMisesFisher().to(device), batches, 4)
        labels = images.labels[:60].to(device)
        board = TrainingDashboard(trainer, x, x_prime, labels, checkpoint=tmp_path / "kept.pt", every=1)
        for press in (board.advance, board.stop, board.reset, board.load):
            press()
        assert board.trainer.step == 1 and f"on {device}" in board.count.value and len(board.history["step"]) == 2


def test_a_generator_of_another_device_is_refused_with_what_to_do():
    world, images = rpm.FiniteRPM.random(), torch.rand(2, 1, 8, 8)
    with StandIn() as device:
        here, there = torch.Generator(), torch.Generator(device)
        for draw in (
            lambda: gaussian.sample(3, 0.5, generator=there),
            lambda: datasets.moving_balls(3, generator=there),
            lambda: datasets.two_views(images, generator=there),
            lambda: world.sample(world.q_joint.log(), 3, generator=there),
        ):
            with pytest.raises(ValueError, match=r"is on cuda:0; expected one on cpu: torch.Generator\('cpu'\)"):
                draw()
        with pytest.raises(ValueError, match=r"is on cpu; expected one on cuda:0: torch.Generator\('cuda:0'\)"):
            datasets.two_views(images.to(device), generator=here)
        z, critic = pairs(64)[0].to(device), rpm.RandomWalk().to(device)
        for generator in (here, there):  # it chooses rows, which have no device
            rpm.sampled_evidence(z, z, critic, rows=64, negatives=8, generator=generator)


def test_the_device_of_a_machine_with_a_gpu_is_the_gpu_unless_another_is_named():
    with StandIn() as device:
        assert environment.pick_device().type == "cuda" and environment.pick_device("cuda:0") == device
        assert environment.pick_device("cpu").type == "cpu" and environment.setup().type == "cuda"
        assert "device    cuda (a stand-in)" in environment.self_check() and "right" in environment.self_check()
    with StandIn("mps") as device:
        assert environment.pick_device("mps:0") == device and environment.pick_device().type == "cpu"
