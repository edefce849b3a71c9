"""(E18): each critic against its formula, written as a loop over pairs."""

import math

import pytest
import torch
from residuals import agree

import rpm_tutorial as rpm
from rpm_tutorial.critics import LinearForm

DIM = 3


def _cosine(z, w):
    return z @ w / (z.norm() * w.norm())


def _precision(critic):
    return critic.precision_root.T @ critic.precision_root


FORMULAS = {
    "RandomWalk": (lambda: rpm.RandomWalk(0.7), lambda c, z, w: -((z - w) ** 2).sum() / (2 * c.scale**2)),
    "LaplaceWalk": (lambda: rpm.LaplaceWalk(0.4), lambda c, z, w: -(z - w).abs().sum() / c.scale),
    "VonMisesFisher": (lambda: rpm.VonMisesFisher(0.2), lambda c, z, w: _cosine(z, w) / c.temperature),
    "LinearDynamics": (
        lambda: rpm.LinearDynamics(DIM),
        lambda c, z, w: -0.5 * (w - c.A @ z) @ _precision(c) @ (w - c.A @ z),
    ),
    "Bilinear": (lambda: rpm.Bilinear(DIM), lambda c, z, w: z @ c.W @ w),
    "Universal": (lambda: rpm.Universal(DIM, width=5, features=4), lambda c, z, w: c.a(z) @ c.b(w)),
}
each_critic = pytest.mark.parametrize("name", FORMULAS)


def made(name: str) -> torch.nn.Module:
    """The critic in float64, with random parameters."""
    generator, critic = torch.Generator().manual_seed(5), FORMULAS[name][0]().double()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return critic


def latents(n: int = 5, m: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n + m, DIM, generator=torch.Generator().manual_seed(6), dtype=torch.float64).split([n, m])


@each_critic
def test_a_critic_is_its_formula_pair_by_pair(name):
    critic, (z, z_prime) = made(name), latents()
    expected = torch.stack([torch.stack([FORMULAS[name][1](critic, a, b) for b in z_prime]) for a in z])
    agree(f"(E18) {name}", critic(z, z_prime), expected)


@pytest.mark.parametrize("name", [name for name in FORMULAS if name != "LaplaceWalk"])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_a_linear_form_is_the_formula_and_centred(name, offset):
    """Its inner products are what the engine works with: far from the origin they must stay small."""
    critic, (z, z_prime) = made(name), (t + offset for t in latents())
    form = critic.linear_form(z, z_prime)
    expected = torch.stack([torch.stack([FORMULAS[name][1](critic, a, b) for b in z_prime]) for a in z])
    agree(f"(E18) {name} as inner products", form.table(), expected)
    assert form.q.shape[0] == 5 and form.k.shape[0] == 4 and form.q.shape[1] == form.k.shape[1]
    for bias, length in ((form.row_bias, 5), (form.column_bias, 4)):
        assert bias is None or bias.shape == (length,)
    if name != "VonMisesFisher":
        agree("(E18) inner products are centred at z'", form.k.mean(0), torch.zeros(form.k.shape[1]))


def test_a_linear_form_may_leave_out_either_bias():
    q, k = latents()
    for a, b in ((None, None), (q[:, 0], None), (None, k[:, 1]), (q[:, 0], k[:, 1])):
        expected = [
            [q[i] @ k[j] + (0 if a is None else a[i]) + (0 if b is None else b[j]) for j in range(4)] for i in range(5)
        ]
        agree("a linear form's table", LinearForm(q, k, a, b).table(), torch.tensor(expected))


def test_the_laplace_walk_has_no_linear_form():
    assert not hasattr(rpm.LaplaceWalk(), "linear_form")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_a_row_of_zeros_has_no_direction_and_scores_zero_in_every_dtype(dtype):
    z, z_prime = (side.to(dtype).index_fill(0, torch.tensor([1]), 0) for side in latents())
    z.requires_grad_()
    log_f = rpm.VonMisesFisher().to(dtype)(z, z_prime)
    assert not log_f[1].any() and not log_f[:, 1].any() and log_f[0, 0] != 0
    assert torch.autograd.grad(log_f[0].sum(), z)[0].isfinite().all()


@each_critic
def test_a_score_depends_on_its_own_pair_alone(name):
    critic, (z, z_prime) = made(name), latents()
    whole = critic(z, z_prime)
    agree(
        "(E18) a table of some rows is some of the table",
        critic(z[[3, 1]], z_prime[2:]),
        whole[[3, 1]][:, 2:],
        whole,
    )
    agree("(E18) one pair", critic(z[:1], z_prime[:1]), whole[:1, :1], whole)


@each_critic
def test_gradients_reach_both_latents_and_every_parameter(name):
    critic, (z, z_prime) = made(name), latents()
    z, z_prime = z.requires_grad_(), z_prime.requires_grad_()
    parameters = dict(critic.named_parameters())

    def scores(z, z_prime, *values):
        return torch.func.functional_call(critic, dict(zip(parameters, values, strict=True)), (z, z_prime))

    assert torch.autograd.gradcheck(scores, (z, z_prime, *parameters.values()))
    for gradient in torch.autograd.grad(
        (critic(z, z_prime) * torch.arange(4)).sin().sum(), (z, z_prime, *parameters.values())
    ):
        assert gradient.abs().sum() > 0


@each_critic
def test_gradients_are_finite_where_z_and_z_prime_coincide(name):
    critic, (z, _) = made(name), latents()
    z, z_prime = z.clone().requires_grad_(), z.clone().requires_grad_()
    critic(z, z_prime).sum().backward()
    assert z.grad.isfinite().all() and z_prime.grad.isfinite().all()


@pytest.mark.parametrize("name", ["RandomWalk", "LaplaceWalk", "LinearDynamics"])
@pytest.mark.parametrize("offset", [10.0, 1000.0])
def test_a_walk_keeps_its_digits_in_float32_far_from_the_origin(name, offset):
    critic, (z, z_prime) = FORMULAS[name][0](), (t.float() + offset for t in latents(40, 30))
    agree(
        "float32 walks far from 0",
        critic(z, z_prime),
        critic.double()(z.double(), z_prime.double()),
        tolerance=1e-5,
    )


WALKS = {
    "RandomWalk": lambda: rpm.RandomWalk(0.03),
    "LinearDynamics": lambda: sharpened(rpm.LinearDynamics(1), 0.03),
    "around a walk": lambda: Around(rpm.RandomWalk(0.03)),
}


def sharpened(critic: rpm.LinearDynamics, scale: float) -> rpm.LinearDynamics:
    with torch.no_grad():
        critic.log_diagonal.fill_(-math.log(scale))
    return critic


class Around(torch.nn.Module):
    """A critic of a reader's own that calls one of ours."""

    def __init__(self, critic):
        super().__init__()
        self.critic = critic

    def forward(self, z, z_prime):
        return self.critic(z, z_prime)


@pytest.mark.parametrize("name", WALKS)
@pytest.mark.parametrize("world", ["a long line", "two clusters"])
def test_a_spread_of_thousands_of_scales_keeps_its_digits(name, world):
    """The squares are 10^9 and more, of which a near pair is the difference: float32 alone gives a log f of +16."""
    draw = torch.Generator().manual_seed(0)
    z = 1000 * torch.rand(600, 1, generator=draw)
    if world == "two clusters":
        z = z / 100 + 5000 * torch.randn(600, 1, generator=draw).sign()
    z_prime = z + 0.03 * torch.randn(600, 1, generator=draw)
    exact = WALKS[name]().double()
    table, expected = WALKS[name]()(z, z_prime), exact(z.double(), z_prime.double())
    assert table.dtype == torch.float32 and table.max() <= 1e-4
    near = expected > -20
    agree("float32 walks over thousands of scales", table[near], expected[near], tolerance=1e-5)
    value = rpm.infonce(expected).value
    assert value > 4
    agree("float32 walks over thousands of scales: InfoNCE", rpm.infonce(table).value, value, tolerance=1e-5)
    z.requires_grad_()
    for options in ({}, {"block": 64}, {"normalise": "columns"}):
        found = rpm.dataset_evidence(z, z_prime, WALKS[name](), **options).infonce
        high = rpm.dataset_evidence(z.detach().double(), z_prime.double(), exact, **options).infonce
        assert found.dtype == torch.float32 and torch.autograd.grad(found, z)[0].isfinite().all()
        agree("float32 walks over thousands of scales: evidence", found, high, tolerance=1e-5)


@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # torch, of Python 3.13.0
@pytest.mark.parametrize("transform", ["compile", "vmap"])
@pytest.mark.parametrize("name", WALKS)
def test_a_walk_that_nobody_can_look_into_keeps_its_digits(name, transform):
    """Neither torch.compile nor vmap lets the latents decide whether float64 is needed."""
    z = 1000 * torch.rand(60, 1, generator=torch.Generator().manual_seed(0))
    z_prime = z + 0.03 * torch.randn(60, 1, generator=torch.Generator().manual_seed(1))
    critic = WALKS[name]()
    if transform == "compile":
        found = torch.compile(critic, fullgraph=True, backend="eager")(z, z_prime)
    else:
        found = torch.func.vmap(critic)(z[None], z_prime[None])[0]
    exact = WALKS[name]().double()(z.double(), z_prime.double())
    near = exact > -20
    assert found.dtype == torch.float32
    agree("float32 walks, compiled and vmapped", found[near], exact[near], tolerance=1e-5)


@each_critic
def test_latents_of_inference_mode_are_scored_and_train_the_critic(name):
    critic = FORMULAS[name][0]()
    with torch.inference_mode():
        z, z_prime = (t.float() for t in latents(4, 4))
        expected = [
            rpm.infonce(critic(z, z_prime)).value.item(),
            rpm.dataset_evidence(z, z_prime, critic).infonce.item(),
        ]
    for value, before in zip(
        (rpm.infonce(critic(z, z_prime)).value, rpm.dataset_evidence(z, z_prime, critic).infonce), expected, strict=True
    ):
        slopes = torch.autograd.grad(value, list(critic.parameters()))
        assert value.item() == pytest.approx(before, abs=1e-6) and all(slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize("name", ["RandomWalk", "LinearDynamics"])
def test_autocast_does_not_round_a_walk(name):
    critic, (z, z_prime) = FORMULAS[name][0](), (10 * t.float() for t in latents(40, 30))
    with torch.autocast("cpu", torch.bfloat16):
        cast = critic(z, z_prime)
    assert cast.dtype == torch.float32 and torch.equal(cast, critic(z, z_prime))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["RandomWalk", "LaplaceWalk", "LinearDynamics"])
def test_a_walk_in_half_precision_is_that_of_float32_rounded_once(name, dtype):
    critic, (z, z_prime) = FORMULAS[name][0]().to(dtype), (3 * t.to(dtype) for t in latents(40, 30))
    found = critic(z, z_prime)
    assert found.dtype == dtype
    agree("half walks", found.float(), critic.float()(z.float(), z_prime.float()), tolerance=2 * torch.finfo(dtype).eps)


@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # torch, of Python 3.13.0
@each_critic
def test_shapes_are_found_without_numbers(name):
    """On the meta device, and when torch.compile traces the whole call without a break."""
    critic, (z, z_prime) = FORMULAS[name][0](), (t.float() for t in latents())
    compiled = torch.compile(critic, fullgraph=True, backend="eager")
    agree(f"(E18) {name}, compiled", compiled(z, z_prime), critic(z, z_prime), tolerance=4 * torch.finfo(z.dtype).eps)
    meta = critic.to("meta")(z.to("meta"), z_prime.to("meta"))
    assert meta.is_meta and meta.shape == (5, 4)


@each_critic
def test_what_must_be_positive_stays_positive_after_a_large_step(name):
    critic, (z, z_prime) = FORMULAS[name][0](), (t.float() for t in latents(4, 4))
    optimiser = torch.optim.SGD(critic.parameters(), lr=30.0)
    for sign in (1, -2):
        optimiser.zero_grad()
        (sign * critic(z, z_prime).mean().tanh()).backward()
        optimiser.step()
        for positive in ("scale", "temperature"):
            assert getattr(critic, positive, torch.tensor(1.0)) > 0
        if name == "LinearDynamics":
            assert torch.linalg.eigvalsh(_precision(critic).double()).min() > 0


@pytest.mark.parametrize(
    "family, positive",
    [(rpm.RandomWalk, "scale"), (rpm.LaplaceWalk, "scale"), (rpm.VonMisesFisher, "temperature")],
)
def test_what_a_constructor_names_is_learnable_unless_fixed(family, positive):
    for value in (0.05, 3.0):
        free, fixed = family(value), family(value, learnable=False)
        assert getattr(fixed, positive).item() == pytest.approx(value, rel=1e-6)
        assert [p.requires_grad for p in free.parameters()] == [True]
        assert [p.requires_grad for p in fixed.parameters()] == [False]
        assert positive in "".join(free.state_dict()), "it is saved with the model"


def test_the_precision_of_linear_dynamics_has_a_root_with_a_positive_diagonal():
    critic = made("LinearDynamics")
    root = critic.precision_root
    assert torch.equal(root, root.triu()) and torch.equal(root.diagonal(), critic.log_diagonal.exp())
    assert (root.triu(1) != 0).sum() == DIM * (DIM - 1) / 2


def test_linear_dynamics_and_bilinear_start_at_the_identity():
    z, z_prime = latents()
    agree("(E18) Bilinear starts as z.z'", rpm.Bilinear(DIM).double()(z, z_prime), z @ z_prime.T)
    walk = rpm.RandomWalk(1.0).double()
    agree(
        "(E18) LinearDynamics starts as a random walk",
        rpm.LinearDynamics(DIM).double()(z, z_prime),
        walk(z, z_prime),
    )


def test_the_von_mises_fisher_critic_sees_directions_alone():
    critic, (z, z_prime) = rpm.VonMisesFisher(0.1).double(), latents()
    agree("(E18) cos is scale-free", critic(7 * z, 0.1 * z_prime), critic(z, z_prime))
    assert critic(z, z_prime).abs().max() <= 10 * (1 + 1e-6)


@pytest.mark.parametrize(
    "critic, shown",
    [
        (lambda: rpm.RandomWalk(0.3), "RandomWalk(scale=0.3, learnable=True)"),
        (lambda: rpm.LaplaceWalk(0.4, learnable=False), "LaplaceWalk(scale=0.4, learnable=False)"),
        (lambda: rpm.VonMisesFisher(0.05), "VonMisesFisher(temperature=0.05, learnable=True)"),
        (lambda: rpm.VonMisesFisher(0.05).to("meta"), "VonMisesFisher(temperature=?, learnable=True)"),
        (lambda: rpm.LinearDynamics(3), "LinearDynamics(dim=3)"),
        (lambda: rpm.Bilinear(4), "Bilinear(dim=4)"),
        (lambda: rpm.Universal(5), "dim=5"),
    ],
)
def test_a_critic_shows_what_it_was_made_of_and_what_it_learnt(critic, shown):
    assert shown in repr(critic())


@each_critic
def test_the_help_of_a_critic_is_its_own(name):
    family = type(FORMULAS[name][0]())
    for part in ("forward", "linear_form", "scale", "temperature"):
        if hasattr(family, part):
            assert "overridden" not in (vars(family)[part].__doc__ or "overridden")
