"""(E18): each critic against its formula, written as a loop over pairs."""

import math

import pytest
import torch
from residuals import agree
from torch import nn

import rpm_tutorial as rpm
from rpm_tutorial.critics import LinearCritic, LinearForm

DIM = 3
FORMULAS = {
    "RandomWalk": (lambda: rpm.RandomWalk(0.7), lambda c, z, w: -((z - w) ** 2).sum() / (2 * c.scale**2)),
    "LaplaceWalk": (lambda: rpm.LaplaceWalk(0.4), lambda c, z, w: -(z - w).abs().sum() / c.scale),
    "VonMisesFisher": (lambda: rpm.VonMisesFisher(0.2), lambda c, z, w: z @ w / (z.norm() * w.norm()) / c.temperature),
    "LinearDynamics": (
        lambda: rpm.LinearDynamics(DIM),
        lambda c, z, w: -0.5 * (w - c.A @ z) @ c.precision_root.T @ c.precision_root @ (w - c.A @ z),
    ),
    "Bilinear": (lambda: rpm.Bilinear(DIM), lambda c, z, w: z @ c.W @ w),
    "Universal": (lambda: rpm.Universal(DIM, width=5, features=4), lambda c, z, w: c.a(z) @ c.b(w)),
    "RandomWalk, scales": (
        lambda: rpm.RandomWalk([0.7, 0.2, 3]),
        lambda c, z, w: -((z - w) / c.scale).square().sum() / 2,
    ),
    "LaplaceWalk, scales": (lambda: rpm.LaplaceWalk([0.4, 2, 0.3]), lambda c, z, w: -((z - w) / c.scale).abs().sum()),
}
each_critic = pytest.mark.parametrize("name", FORMULAS)


def made(name: str) -> nn.Module:
    """The critic in float64, with random parameters."""
    generator, critic = torch.Generator().manual_seed(5), FORMULAS[name][0]().double()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return critic


def latents(n: int = 5, m: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n + m, DIM, generator=torch.Generator().manual_seed(6), dtype=torch.float64).split([n, m])


@each_critic
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_a_critic_and_its_inner_products_are_its_formula(name, offset):
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
    for a, b in ((None, None), (q[:, 0], None), (None, k[:, 1]), (q[:, 0], k[:, 1])):
        expected = [
            [q[i] @ k[j] + (0 if a is None else a[i]) + (0 if b is None else b[j]) for j in range(4)] for i in range(5)
        ]
        agree("a linear form's table", LinearForm(q, k, a, b).table(), torch.tensor(expected))


def test_a_matrix_starts_as_the_identity():
    z, z_prime = latents()
    agree("(E18) Bilinear starts as z.z'", rpm.Bilinear(DIM).double()(z, z_prime), z @ z_prime.T)
    starts, walk = (critic.double()(z, z_prime) for critic in (rpm.LinearDynamics(DIM), rpm.RandomWalk(1.0)))
    agree("(E18) LinearDynamics starts as a random walk", starts, walk)


def test_a_walk_and_linear_dynamics_start_where_they_are_told_to():
    z, z_prime = latents()
    scales, A = torch.tensor([0.1, 1.0, 5.0]), torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 0.5]])
    told = rpm.LinearDynamics(DIM, A=A, scale=scales).double()
    expected = -((z_prime - (z @ A.double().T)[:, None]) / scales).square().sum(2) / 2
    agree("(E18) LinearDynamics from a start of one's own", told(z, z_prime), expected, tolerance=1e-6)
    A.zero_()
    assert told.A.any() and all(p.requires_grad for p in told.parameters())
    one, many = (rpm.RandomWalk(scale).double() for scale in (0.5, [0.5] * DIM))
    agree("equal scales are one", one(z, z_prime), many(z, z_prime))
    assert rpm.RandomWalk(torch.tensor(0.5)).scale.shape == () and many.scale.shape == (DIM,)
    assert repr(many) == "RandomWalk(dim=3, learnable=True)"


@pytest.mark.parametrize("family", [rpm.Bilinear, rpm.Universal])
def test_the_sides_may_be_of_two_widths(family):
    critic, (z, z_prime) = family(DIM, 2).double(), latents(4, 4)
    narrow = z_prime[:, :2].clone().requires_grad_()
    assert repr(critic).startswith(
        f"{family.__name__}(" + ("\n  " if family is rpm.Universal else "") + "dim=3, dim_prime=2"
    )
    agree("two widths: evidence", rpm.dataset_evidence(z, narrow, critic).value, rpm.infonce(critic(z, narrow)).value)
    if family is rpm.Bilinear:
        agree("(E18) Bilinear of two widths starts as z.z'", critic(z, narrow), z[:, :2] @ narrow.T)
    assert rpm.check_critic(critic, DIM, 2).ok


@each_critic
def test_gradients_reach_both_latents_and_every_parameter(name):
    critic, (z, z_prime) = made(name), latents()
    z, z_prime = z.requires_grad_(), z_prime.requires_grad_()
    parameters = dict(critic.named_parameters())

    def scores(z, z_prime, *values):
        return torch.func.functional_call(critic, dict(zip(parameters, values, strict=True)), (z, z_prime))

    inputs = (z, z_prime, *parameters.values())
    assert torch.autograd.gradcheck(scores, inputs)
    for gradient in torch.autograd.grad((critic(z, z_prime) * torch.arange(4)).sin().sum(), inputs):
        assert gradient.any()


@each_critic
def test_gradients_are_finite_where_z_and_z_prime_coincide(name):
    z, z_prime = (latents()[0].clone().requires_grad_() for _ in range(2))
    made(name)(z, z_prime).sum().backward()
    assert z.grad.isfinite().all() and z_prime.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_a_row_of_zeros_has_no_direction_and_scores_zero(dtype):
    z, z_prime = (side.to(dtype).index_fill(0, torch.tensor([1]), 0) for side in latents())
    log_f = rpm.VonMisesFisher().to(dtype)(z.requires_grad_(), z_prime)
    assert not log_f[1].any() and not log_f[:, 1].any() and log_f[0, 0] != 0
    assert torch.autograd.grad(log_f[0].sum(), z)[0].isfinite().all()


class Around(nn.Module):
    """A critic of a reader's own that calls one of ours."""

    def __init__(self, critic):
        super().__init__()
        self.critic = critic

    def forward(self, z, z_prime):
        return self.critic(z, z_prime)


def narrow_dynamics():
    critic = rpm.LinearDynamics(1)
    nn.init.constant_(critic.log_diagonal, -math.log(0.03))
    return critic


WALKS = {
    "RandomWalk": lambda: rpm.RandomWalk(0.03),
    "LinearDynamics": narrow_dynamics,
    "around a walk": lambda: Around(rpm.RandomWalk(0.03)),
}


@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # torch, of Python 3.13.0
@pytest.mark.parametrize(
    "way", ["called", pytest.param("compiled", marks=pytest.mark.slow), "vmapped", "evidence", "evidence by tiles"]
)
@pytest.mark.parametrize("name", WALKS)
def test_a_spread_of_thousands_of_scales_keeps_its_digits(name, way):
    """The squares are 10^9 and more, of which a near pair is the difference: float32 alone gives a log f of +16."""
    draw = torch.Generator().manual_seed(0)
    z = 1000 * torch.rand(300, 1, generator=draw)
    z_prime = z + 0.03 * torch.randn(300, 1, generator=draw)
    critic = WALKS[name]()
    expected = WALKS[name]().double()(z.double(), z_prime.double())
    if way.startswith("evidence"):
        found = rpm.dataset_evidence(z.requires_grad_(), z_prime, critic, block=64 if "tiles" in way else None).infonce
        assert found.dtype == torch.float32 and torch.autograd.grad(found, z)[0].isfinite().all()
        agree("float32 walks over thousands of scales: InfoNCE", found, rpm.infonce(expected).value, tolerance=1e-5)
        return
    if way == "vmapped":
        found = torch.func.vmap(critic)(z[None], z_prime[None])[0]
    else:
        call = torch.compile(critic, fullgraph=True, backend="eager") if way == "compiled" else critic
        found = call(z, z_prime)
    near = expected > -20
    assert found.dtype == torch.float32 and found.max() <= 1e-4
    agree("float32 walks over thousands of scales", found[near], expected[near], tolerance=1e-5)


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


@each_critic
def test_what_must_be_positive_stays_positive_after_a_large_step(name):
    critic, (z, z_prime) = FORMULAS[name][0](), (t.float() for t in latents(4, 4))
    for sign in (1, -2):
        value = sign * critic(z, z_prime).mean().tanh()
        for p, slope in zip(critic.parameters(), torch.autograd.grad(value, list(critic.parameters()))):
            p.data -= 30 * slope
        root = getattr(critic, "precision_root", torch.eye(2))
        assert torch.equal(root, root.triu()) and root.diagonal().min() > 0
        assert all((torch.as_tensor(getattr(critic, name, 1.0)) > 0).all() for name in ("scale", "temperature"))


@pytest.mark.parametrize(
    "family, positive", [(rpm.RandomWalk, "scale"), (rpm.LaplaceWalk, "scale"), (rpm.VonMisesFisher, "temperature")]
)
def test_what_a_constructor_names_is_learnable_unless_fixed(family, positive):
    free, fixed = family(0.05), family(0.05, learnable=False)
    assert getattr(fixed, positive).item() == pytest.approx(0.05, rel=1e-6)
    assert [p.requires_grad for p in (*free.parameters(), *fixed.parameters())] == [True, False]
    assert f"{family.__name__}({positive}=0.05, learnable=False)" == repr(fixed)
    with pytest.raises(ValueError, match=f"{positive} is -1; expected a positive"):
        family(-1)


@pytest.mark.parametrize("scale", [0.01, [0.01, 0.02, 0.01, 0.03]])
def test_a_walk_keeps_its_digits_far_from_zero(scale):
    z, step = torch.randn(2, 64, 4, generator=torch.Generator().manual_seed(0))
    far, near = 1000 + z, 1000 + z + 0.01 * step
    exact = rpm.LaplaceWalk(scale).double()(far.double(), near.double())
    found = rpm.LaplaceWalk(scale)(far, near)
    assert ((found - exact).abs() / (1 + exact.abs())).max() < 1e-5
