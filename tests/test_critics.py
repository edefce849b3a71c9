"""(E18): each critic against its formula, written as a loop over pairs."""

import pytest
import torch
from residuals import agree
from torch import nn

import rpm_tutorial as rpm
from rpm_tutorial.critics import LinearCritic, LinearForm

DIM = 3


def gaussian(c, z, w):
    return -((z - w) / c.scale).square().sum() / 2


def laplace(c, z, w):
    return -((z - w) / c.scale).abs().sum()


FORMULAS = {
    "RandomWalk": (lambda: rpm.RandomWalk(0.7), gaussian),
    "RandomWalk, scales": (lambda: rpm.RandomWalk([0.7, 0.2, 3]), gaussian),
    "LaplaceWalk": (lambda: rpm.LaplaceWalk(0.4), laplace),
    "LaplaceWalk, scales": (lambda: rpm.LaplaceWalk([0.4, 2, 0.3]), laplace),
    "VonMisesFisher": (lambda: rpm.VonMisesFisher(0.2), lambda c, z, w: z @ w / (z.norm() * w.norm()) / c.temperature),
    "LinearDynamics": (
        lambda: rpm.LinearDynamics(DIM),
        lambda c, z, w: -((c.off_diagonal.triu(1) + c.log_diagonal.exp().diag()) @ (w - c.A @ z)).square().sum() / 2,
    ),
    "Bilinear": (lambda: rpm.Bilinear(DIM), lambda c, z, w: z @ c.W @ w),
    "Universal": (lambda: rpm.Universal(DIM, width=5, features=4), lambda c, z, w: c.a(z) @ c.b(w)),
}
each_critic = pytest.mark.parametrize("name", FORMULAS)


def made(name: str) -> nn.Module:
    """The critic in float64, with random parameters."""
    generator, critic = torch.Generator().manual_seed(5), FORMULAS[name][0]().double()
    for parameter in critic.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return critic


def latents(n: int = 5, m: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n + m, DIM, generator=torch.Generator().manual_seed(6), dtype=torch.float64).split([n, m])


@each_critic
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_a_critic_is_its_formula(name, offset):
    critic, (z, z_prime) = made(name), (t + offset for t in latents())
    expected = torch.stack([torch.stack([FORMULAS[name][1](critic, a, b) for b in z_prime]) for a in z])
    agree(f"(E18) {name}", critic(z, z_prime), expected)
    agree(f"(E18) {name}, one pair", critic(z[:1], z_prime[:1]), expected[:1, :1], expected)
    assert isinstance(critic, LinearCritic) == (not name.startswith("LaplaceWalk"))
    if not name.startswith(("LaplaceWalk", "VonMisesFisher")):  # so that the products stay small
        form = critic.linear_form(z, z_prime)
        agree("(E18) inner products are centred at z'", form.k.mean(0), torch.zeros(form.k.shape[1]))


def test_a_linear_form_may_leave_out_either_bias():
    q, k = latents()
    for a in (torch.zeros(5), q[:, 0]):
        for b in (torch.zeros(4), k[:, 1]):
            form = LinearForm(q, k, a if a.any() else None, b if b.any() else None)
            agree("a linear form's table", form.table(), q @ k.T + a[:, None] + b)


def test_matrices_start_as_identities_and_walks_where_they_are_told_to():
    z, z_prime = latents()
    agree("(E18) Bilinear starts as z.z'", rpm.Bilinear(DIM).double()(z, z_prime), z @ z_prime.T)
    narrow = rpm.Bilinear(DIM, 2).double()(z, z_prime[:, :2])
    agree("(E18) Bilinear of two widths starts as z.z'", narrow, z[:, :2] @ z_prime[:, :2].T)
    starts, walk, walks = rpm.LinearDynamics(DIM), rpm.RandomWalk(torch.tensor(1.0)), rpm.RandomWalk([1] * DIM)
    for other in (walk, walks):
        agree("(E18) LinearDynamics starts as a random walk", starts.double()(z, z_prime), other.double()(z, z_prime))
    assert walk.scale.shape == () and walks.scale.shape == (DIM,)
    scales, A = torch.tensor([0.1, 1.0, 5.0]), torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 0.5]])
    told = rpm.LinearDynamics(DIM, A=A, scale=scales).double()
    expected = -((z_prime - (z @ A.double().T)[:, None]) / scales).square().sum(2) / 2
    agree("(E18) LinearDynamics from a start of one's own", told(z, z_prime), expected, tolerance=1e-6)
    assert told.A.data_ptr() != A.data_ptr() and all(p.requires_grad for p in told.parameters())


@each_critic
def test_gradients_are_right_reach_all_and_are_finite_where_z_and_z_prime_coincide(name):
    critic, (z, z_prime) = made(name), (t.requires_grad_() for t in latents())
    parameters = dict(critic.named_parameters())
    inputs = (z, z_prime, *parameters.values())

    def scores(z, z_prime, *values):
        return torch.func.functional_call(critic, dict(zip(parameters, values, strict=True)), (z, z_prime))

    assert torch.autograd.gradcheck(scores, inputs)
    for gradient in torch.autograd.grad((critic(z, z_prime) * torch.arange(4)).sin().sum(), inputs):
        assert gradient.any()
    for gradient in torch.autograd.grad(critic(z, z.clone()).sum(), (z, *parameters.values())):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_a_row_of_zeros_has_no_direction_and_scores_zero(dtype):
    z, z_prime = (side.to(dtype).index_fill(0, torch.tensor([1]), 0) for side in latents())
    log_f = rpm.VonMisesFisher().to(dtype)(z.requires_grad_(), z_prime)
    assert not log_f[1].any() and not log_f[:, 1].any() and log_f[0, 0] != 0
    assert torch.autograd.grad(log_f[0].sum(), z)[0].isfinite().all()


WAYS = {
    "called": lambda critic: critic,
    "vmapped": lambda critic: lambda z, z_prime: torch.func.vmap(critic)(z[None], z_prime[None])[0],
    "compiled": lambda critic: torch.compile(critic, fullgraph=True, backend="eager"),
}


@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # torch, of Python 3.13.0
@pytest.mark.parametrize("way", ["called", "vmapped", pytest.param("compiled", marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [rpm.RandomWalk, lambda scale: rpm.LinearDynamics(1, scale=scale)])
def test_a_spread_of_thousands_of_scales_keeps_its_digits(make, way):
    """The squares are 10^9 and more, of which a near pair is the difference: float32 alone gives a log f of +16."""
    z, step = torch.rand(2, 300, 1, generator=torch.Generator().manual_seed(0))
    z, z_prime = 1000 * z, 1000 * z + 0.1 * step
    critic, exact = make(0.03), make(0.03).double()(z.double(), z_prime.double())
    found, near = WAYS[way](critic)(z, z_prime), exact > -20
    assert found.dtype == torch.float32 and found.max() <= 1e-4
    agree("float32 walks over thousands of scales", found[near], exact[near], tolerance=1e-5)
    for block in (None, 64):
        evidence = rpm.dataset_evidence(z.requires_grad_(), z_prime, critic, block=block).infonce
        assert evidence.dtype == torch.float32 and torch.autograd.grad(evidence, z)[0].isfinite().all()
        agree("InfoNCE over thousands of scales", evidence, rpm.infonce(exact).value, tolerance=1e-5)


@pytest.mark.parametrize("scale", [0.01, [0.01, 0.02, 0.01, 0.03]])
def test_a_laplace_walk_keeps_its_digits_far_from_zero(scale):
    z, step = torch.randn(2, 64, 4, generator=torch.Generator().manual_seed(0))
    far, near = 1000 + z, 1000 + z + 0.01 * step
    exact = rpm.LaplaceWalk(scale).double()(far.double(), near.double())
    assert ((rpm.LaplaceWalk(scale)(far, near) - exact).abs() / (1 + exact.abs())).max() < 1e-5


@each_critic
def test_latents_of_inference_mode_train_the_critic(name):
    critic = FORMULAS[name][0]()
    with torch.inference_mode():
        z, z_prime = (t.float() for t in latents(4, 4))
    for value in (rpm.infonce(critic(z, z_prime)).value, rpm.dataset_evidence(z, z_prime, critic).infonce):
        assert all(slope.isfinite().all() for slope in torch.autograd.grad(value, list(critic.parameters())))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["RandomWalk", "LaplaceWalk", "LinearDynamics"])
def test_a_walk_in_half_precision_is_that_of_float32_rounded_once(name, dtype):
    critic, (z, z_prime) = FORMULAS[name][0]().to(dtype), (3 * t.to(dtype) for t in latents(40, 30))
    found = critic(z, z_prime)
    assert found.dtype == dtype
    agree("half walks", found.float(), critic.float()(z.float(), z_prime.float()), tolerance=2 * torch.finfo(dtype).eps)


POSITIVE = {rpm.RandomWalk: "scale", rpm.LaplaceWalk: "scale", rpm.VonMisesFisher: "temperature"}


@pytest.mark.parametrize("family", POSITIVE)
def test_what_a_constructor_names_is_positive_and_learnable_unless_fixed(family):
    free, fixed, positive = family(0.05), family(0.05, learnable=False), POSITIVE[family]
    assert getattr(fixed, positive).item() == pytest.approx(0.05, rel=1e-6)
    assert [p.requires_grad for p in (*free.parameters(), *fixed.parameters())] == [True, False]
    assert f"{family.__name__}({positive}=0.05, learnable=False)" == repr(fixed)
    nn.init.constant_(next(free.parameters()), -20)
    assert getattr(free, positive) > 0
    with pytest.raises(ValueError, match=f"{positive} is -1.0; expected a positive"):
        family(-1)


def test_the_root_of_a_precision_is_upper_triangular_with_a_positive_diagonal_whatever_it_learns():
    critic = rpm.LinearDynamics(DIM)
    for parameter in critic.parameters():
        nn.init.constant_(parameter, -20)
    root = critic.precision_root
    assert torch.equal(root, root.triu()) and root.diagonal().min() > 0 and root[0, 2] == -20


@each_critic
def test_a_critic_is_made_on_torch_s_default_device(name):
    with torch.device("meta"):
        assert all(parameter.is_meta for parameter in FORMULAS[name][0]().parameters())


def test_a_critic_shows_its_dimensions():
    shown = {
        "RandomWalk(dim=2, learnable=True)": rpm.RandomWalk([1, 2]),
        "LinearDynamics(dim=3)": rpm.LinearDynamics(3),
        "Bilinear(dim=3)": rpm.Bilinear(3),
        "Bilinear(dim=3, dim_prime=2)": rpm.Bilinear(3, 2),
    }
    assert [repr(critic) for critic in shown.values()] == list(shown)
    assert "dim=3, dim_prime=2" in repr(rpm.Universal(3, 2))
