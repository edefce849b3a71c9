# %% [markdown]
# # Annealed and energy-based bounds
#
# InfoNCE cannot report more than $\log K$ nats. Where the joint density is known, annealed importance sampling can: it walks from $p(z)$ to $p(z\mid x)$ in many small steps, and bounds the information from
# both sides.
#
# **The paper's claim**: with a known joint, multi-sample annealed importance sampling sandwiches an information that InfoNCE would need exponentially many samples for; with only $p(z)$ known, an energy-based
# bound does better than its importance-sampled kin (Brekelmans and others, *Improving mutual information estimation with annealed and energy-based bounds*, [arXiv 2303.06992](https://arxiv.org/abs/2303.06992)).
#
# **Afterwards you can** bound an information of 30 nats from both sides; say what a better proposal is worth in nats; train a critic whose negatives come from its own model; recognise $I_\infty$ in an energy-based bound.
#
# **You need** [lesson 6](../06_finite_batches.ipynb). **Time** 20 minutes, of which the computer takes less than one.

# %%
import math

import torch
from tqdm.auto import tqdm

import rpm_tutorial as rpm

rpm.setup()
seed = 0
seeds = (seed, seed + 1, seed + 2)
n, dim = 500, 10

# %% [markdown]
# ## A model whose information is known
#
# $z\sim N(0, 1)$ in ten dimensions and $x = g z + \varepsilon$ with unit noise: $I(x;z) = \frac{10}{2}\log(1+g^2)$. With the true $\log p(x\mid z)$ as the critic, nothing has to be learned, and InfoNCE over
# $K = 500$ candidates reads


# %% tags=["reproducible"]
def gain_for(nats):
    return math.sqrt(math.expm1(2 * nats / dim))


def joint(nats, seed):
    """n pairs x, z with the given information."""
    z, noise = torch.randn(2, n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return gain_for(nats) * z + noise, z


def log_likelihood(x, z, gain):
    """log p(x|z) up to its constant, row by row."""
    return -(x - gain * z).square().sum(-1) / 2


infonce = {}
for nats in (2.0, 5.0, 10.0, 20.0, 30.0):
    x, z = joint(nats, seed)
    infonce[nats] = rpm.infonce(log_likelihood(x[:, None], z, gain_for(nats))).value.item()
    print(f"I = {nats:4.0f}: InfoNCE {infonce[nats]:.2f} nats, log K = {math.log(n):.2f}")
assert all(value < math.log(n) + 1e-9 for value in infonce.values()) and infonce[30.0] > math.log(n) - 0.01

# %% [markdown]
# **Predict**: how many candidates would InfoNCE need for 30 nats?
#
# <details><summary>Answer</summary>
#
# At least $e^{30}$, about ten million million. The partner has to be found among them: under the prior $p(z)$, a draw that explains $x$ as well as $z$ does has probability $e^{-30}$ or so.
# </details>
#
# ## A better proposal, and what it is worth
#
# Draw the candidates from a proposal $q(z\mid x)$ instead. Write the information as what $q$ explains and the rest, and bound the rest by the same contrast of $z_1\sim p(z\mid x)$ with $z_2\dots z_K\sim q$:
#
# $$I = \underbrace{\mathbb E\log\frac{q(z\mid x)}{p(z)}}_{\text{Barber–Agakov}} + \mathbb E\,\mathrm{KL}(p(z\mid x)\,\|\,q(z\mid x)), \qquad
# \mathrm{KL} \ge \mathbb E\log\frac{e^{T(x,z_1)}}{\frac1K\sum_k e^{T(x,z_k)}},$$
#
# which the paper calls GIWAE. (With all of them from $q$ the ratio on the right has mean one by symmetry; so the inequality is Donsker and Varadhan's.) $K$ candidates repair at most $\log K$ nats of what $q$ gets wrong; with $q = p(z)$ it is InfoNCE.
# Here $q$ has the posterior's mean and 1.6 times its width, and $T = \log p(x,z)/q(z\mid x)$.


# %%
def giwae(nats, k, seed, wide=1.6):
    (x, z), gain = joint(nats, seed), gain_for(nats)
    width = (1 + gain**2) ** -0.5  # the posterior's, with mean gain * width^2 * x
    mean, sd = gain * width**2 * x, wide * width
    noise = torch.randn(n, k - 1, dim, generator=torch.Generator().manual_seed(seed + 100), dtype=torch.float64)
    candidates = torch.cat([z[:, None], mean[:, None] + sd * noise], 1)
    log_q = -((candidates - mean[:, None]) / sd).square().sum(-1) / 2 - dim * math.log(sd)
    log_prior = -candidates.square().sum(-1) / 2
    T = log_likelihood(x[:, None], candidates, gain) + log_prior - log_q
    barber_agakov = (log_q - log_prior)[:, 0].mean()
    return torch.stack([barber_agakov, barber_agakov + (T.log_softmax(1)[:, 0] + math.log(k)).mean()])


# %% tags=["reproducible"]
for k in (1, 10, 100, 1000):
    runs = torch.stack([giwae(30.0, k, s) for s in seeds])
    print(
        f"K = {k:4}: Barber-Agakov {runs[:, 0].mean():.2f}, GIWAE {runs[:, 1].mean():.2f} ± {runs[:, 1].std():.2f} nats (true: 30)"
    )
assert (abs(runs[:, 1] - 30) < 0.5).all() and (runs[:, 1] > runs[:, 0] + 1).all()

# %% [markdown]
# ## Annealing: many small steps instead of many candidates
#
# Between $p(z)$ and $p(z\mid x)$ lie $\pi_\beta(z)\propto p(z)\,p(x\mid z)^\beta$. A chain moves from one to the next by a step of Hamiltonian Monte Carlo that leaves $\pi_\beta$ as it is, and adds up
# $w = \sum_t(\beta_t-\beta_{t-1})\log p(x\mid z_{t-1})$.
#
# - Forwards, from $z_0\sim p(z)$: $\mathbb E\,w \le \log p(x)$, so $\mathbb E\log p(x\mid z) - \mathbb E\,w$ is an **upper** bound of the information.
# - Backwards, from a sample of the posterior: $\mathbb E\,w \ge \log p(x)$, a **lower** bound. The sample costs nothing: it is the $z$ that came with $x$.
#
# Several chains for each $x$ tighten both: the average of $e^w$ over $M$ chains forwards for the one; over the chain backwards and $M-1$ forwards, the contrast of GIWAE with chains for candidates, for the other.
# The lower bound gains at most $\log M$ by it.
#
# The ± below is over three draws of 500 pairs. With few temperatures it is the chains' own noise; with many, mostly the pairs', which both bounds share.


# %%
def likelihood(gain):
    """The tilt of a chain: log p(x|z) up to its constant, and its slope in z."""
    return lambda x, z: (log_likelihood(x, z, gain), gain * (x - gain * z))


def hmc(tilt, x, z, beta, width, rng):
    # three leapfrogs, accepted or not: they leave p(z) exp(beta tilt) as it is
    speed = torch.randn(z.shape, generator=rng, dtype=z.dtype)
    new, (value, slope) = z, tilt(x, z)
    start = z.square().sum(1) / 2 - beta * value + speed.square().sum(1) / 2
    for _ in range(3):
        speed = speed + 0.35 * width * (beta * slope - new)
        new = new + 0.7 * width * speed
        value, slope = tilt(x, new)
        speed = speed + 0.35 * width * (beta * slope - new)
    end = new.square().sum(1) / 2 - beta * value + speed.square().sum(1) / 2
    accepted = torch.rand(len(z), generator=rng).log() < start - end
    return torch.where(accepted[:, None], new, z)


# %%
def annealed(tilt, x, z, temperatures, precision, rng, forwards=True):
    """w of one chain for each row, from z; precision: that of pi_1."""
    steps = torch.linspace(0, 1, temperatures + 1, dtype=z.dtype)
    betas = (precision**steps - 1) / (precision - 1)
    w, pairs = torch.zeros(len(x), dtype=z.dtype), list(zip(betas[:-1], betas[1:]))
    for low, high in pairs if forwards else reversed(pairs):
        width = (1 + high * (precision - 1)) ** -0.5
        if not forwards:
            z = hmc(tilt, x, z, high, width, rng)
        w += (high - low) * tilt(x, z)[0]
        if forwards:
            z = hmc(tilt, x, z, high, width, rng)
    return w


# %%
def sandwich(nats, temperatures, seed, chains=1):
    """The lower and the upper bound."""
    (x, z), gain = joint(nats, seed), gain_for(nats)
    rng, run = torch.Generator().manual_seed(seed + 200), (temperatures, 1 + gain**2)
    from_prior = torch.randn(chains * n, dim, generator=rng, dtype=torch.float64)
    forth = annealed(likelihood(gain), x.repeat(chains, 1), from_prior, *run, rng).view(chains, n)
    back = annealed(likelihood(gain), x, z, *run, rng, forwards=False)[None]
    means = [w.logsumexp(0) - math.log(chains) for w in (torch.cat([back, forth[1:]]), forth)]
    return torch.stack([(log_likelihood(x, z, gain) - w).mean() for w in means])


# %% tags=["reproducible"]
temperatures = (20, 80, 320, 1280)
bounds = {t: torch.stack([sandwich(30.0, t, s) for s in seeds]) for t in tqdm(temperatures)}
for t, found in bounds.items():
    (low, high), (low_sd, high_sd) = found.mean(0), found.std(0)
    print(f"{t:4} temperatures: from {low:.2f} ± {low_sd:.2f} to {high:.2f} ± {high_sd:.2f} nats (true: 30)")
assert all((found[:, 0] < found[:, 1]).all() for found in bounds.values())
assert (bounds[1280][:, 1] - bounds[1280][:, 0] < 0.6).all() and (abs(bounds[1280] - 30) < 0.8).all()
gap = {(t, 1): (found[:, 1] - found[:, 0]).mean().item() for t, found in bounds.items()}
for t, chains in ((20, 16), (80, 4)):
    several = torch.stack([sandwich(30.0, t, s, chains) for s in seeds])
    gap[t, chains] = (several[:, 1] - several[:, 0]).mean().item()
    print(f"{t} temperatures: {gap[t, 1]:.2f} nats apart, with {chains} chains {gap[t, chains]:.2f}")
assert gap[320, 1] < gap[80, 4] < gap[80, 1] and gap[80, 4] < gap[20, 16] < gap[20, 1]

# %% tags=["reproducible"]
rpm.figures.lines(
    temperatures,
    {
        "AIS, above": [found[:, 1].mean() for found in bounds.values()],
        "AIS, below": [found[:, 0].mean() for found in bounds.values()],
        "InfoNCE": [infonce[30.0]] * len(temperatures),
    },
    ceiling=("MI", 30.0),
    x_label="temperatures",
    y_label="nats",
    x_log=True,
    caption="30 nats, from both sides. Each fourfold number of temperatures closes the gap further; InfoNCE with 500 candidates stays at log 500.",
)

# %% [markdown]
# Four chains tighten the bounds; four times the temperatures, for as many steps of the chains forwards, tighten them more.
#
# ## When only the prior is known: train the critic
#
# The second half of the claim. Now $p(x\mid z)$ is hidden, and there are pairs and $p(z)$ alone. Three objectives are trained on the same pairs, at 10 nats, with the same network for $T$:
#
# - **InfoNCE**, with 49 candidates from $p(z)$ beside the partner.
# - **GIWAE**, with 49 candidates from a trained $q(z\mid x)$: a Gaussian with a mean linear in $x$, and one width a dimension.
# - **MINE-AIS**, with no candidates. The bound is $\mathbb E\,T - \mathbb E\log Z(x)$, $Z(x) = \mathbb E_{p(z)}e^T$, and its gradient needs no $Z$:
#
# $$\nabla = \mathbb E_{p(x,z)}\nabla T - \mathbb E_{\pi(z|x)}\nabla T, \qquad \pi(z\mid x) = p(z)\,e^{T(x,z)}/Z(x).$$
#
# The negatives are drawn from $\pi$ by Hamiltonian Monte Carlo, started at the $z$ that came with $x$. Afterwards annealing reads $\log Z$, from both sides.
#
# The posterior is correlated here, so no such $q$ is right: at best, with the true mean and the posterior's variances, it explains 8 of the 10 nats.
#
# **Predict**: InfoNCE can report no more than $\log 50 = 3.9$ nats. How many does the network that it trained contain, read by annealing?
#
# <details><summary>Answer</summary>
#
# About nine. The ceiling is one of the reading, and the network hardly knows it: it holds some half a nat less than that of MINE-AIS.
# </details>


# %%
each = torch.linspace(0.2, 1.8, dim)  # nats in ten directions, 10 in all
strength = torch.expm1(2 * each).sqrt()
turned = torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed)))[0]
variances = (turned.square() / (1 + strength**2)).sum(1)  # of p(z|x), in each dimension
at_best = -variances.log().sum().item() / 2
print(f"Barber-Agakov with the best such q: {at_best:.2f} of {each.sum():.2f} nats")
assert abs(at_best - 8) < 0.1


def hidden(count, rng):
    """Pairs x and z of a model that no method below may look into."""
    z, noise = torch.randn(2, count, dim, generator=rng)
    return strength * (z @ turned) + noise, z


# %%
class Critic(torch.nn.Module):  # T(x, z), row by row
    def __init__(self):
        super().__init__()
        self.net = rpm.encoders.mlp(2 * dim, 1, width=64)

    def forward(self, x, z):
        return self.net(torch.cat([x, z], -1).flatten(0, -2)).view(z.shape[:-1])

    def tilt(self, x, z):  # for a chain: T, and its slope in z
        z = z.detach().requires_grad_()
        value = self(x, z)
        return value.detach(), torch.autograd.grad(value.sum(), z)[0]


def negatives(T, x, z, moves, rng):  # samples of pi(z|x), moved from z
    for _ in range(moves):
        z = hmc(T.tilt, x, z, 1.0, 0.25, rng)
    return z


# %%
def contrast(T, x, z, rng, q=None, k=50):
    """Barber-Agakov of q, and GIWAE; with q the prior, 0 and InfoNCE."""
    mean, log_sd = (q(x), q.log_sd) if q else (0 * z, torch.zeros(dim))
    noise = torch.randn(k - 1, *z.shape, generator=rng)
    candidates = torch.cat([z[None], mean + log_sd.exp() * noise])
    squares = z.square() - ((z - mean) / log_sd.exp()).square()
    barber_agakov = (squares / 2 - log_sd).sum(1).mean()
    score = T(x.expand_as(candidates), candidates).log_softmax(0)[0] + math.log(k)
    return torch.stack([barber_agakov, barber_agakov + score.mean()])


# %%
def fitted(kind, seed, steps=500):
    torch.manual_seed(seed)
    T, q = Critic(), torch.nn.Linear(dim, dim)
    q.log_sd = torch.nn.Parameter(torch.zeros(dim))
    rng = torch.Generator().manual_seed(seed + 400)
    optimiser = torch.optim.Adam([*T.parameters(), *q.parameters()], 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        x, z = hidden(64, rng)
        if kind == "MINE-AIS":
            gain = (T(x, z) - T(x, negatives(T, x, z, 3, rng))).mean()
        else:
            gain = contrast(T, x, z, rng, q if kind == "GIWAE" else None)[1]
        optimiser.zero_grad(), (-gain).backward(), optimiser.step(), schedule.step()
    return T.requires_grad_(False), q.requires_grad_(False)


# %%
kinds = ("InfoNCE", "GIWAE", "MINE-AIS")
trained = {kind: [fitted(kind, s) for s in seeds] for kind in tqdm(kinds)}
reads = {}
for kind in kinds[:2]:
    for s, (T, q) in zip(seeds, trained[kind]):
        rng, q = torch.Generator().manual_seed(s + 600), q if kind == "GIWAE" else None
        fresh = [contrast(T, *hidden(n, rng), rng, q) for _ in range(4)]
        reads[kind, s] = torch.stack(fresh).mean(0).tolist()
    own, bound = torch.tensor([reads[kind, s] for s in seeds]).T
    print(f"{kind:8} reads {bound.mean():.2f} ± {bound.std():.2f} nats,", end=" ")
    print(f"of which its q explains {own.mean():.2f}")
    assert (bound < own + math.log(50)).all() and (bound > own + 2).all()
assert bound.mean() > at_best and (bound < 10).all(), "GIWAE"

# %%
def by_annealing(T, seed, temperatures=320, chains=2):
    """The bound of T: with log Z read backwards, too high, and forwards, too low."""
    rng, run = torch.Generator().manual_seed(seed + 500), (temperatures, 36.0)
    x, z = hidden(n, rng)
    from_prior = torch.randn(chains * n, dim, generator=rng)
    forth = annealed(T.tilt, x.repeat(chains, 1), from_prior, *run, rng).view(chains, n)
    back = annealed(T.tilt, x, negatives(T, x, z, 60, rng), *run, rng, forwards=False)
    log_Z = torch.stack([back, forth.logsumexp(0) - math.log(chains)])
    return (T(x, z) - log_Z).mean(1)


by_kind = {k: [by_annealing(T, s) for s, (T, _) in zip(seeds, trained[k])] for k in kinds[::2]}
for kind, found in by_kind.items():
    (low, high), (low_sd, high_sd) = torch.stack(found).mean(0), torch.stack(found).std(0)
    print(f"{kind:8} by annealing: {low:.2f} ± {low_sd:.2f} to {high:.2f} ± {high_sd:.2f} nats")
    assert math.log(50) + 4 < low < high < 10.5
assert all(a[0] < b[0] for a, b in zip(*by_kind.values())), "MINE-AIS holds more"

# %% [markdown]
# MINE-AIS comes within a nat of the truth, and needs neither candidates nor a proposal. GIWAE passes what the best $q$ could explain alone, by a contrast that is worth no more than $\log 50$; trained for the sum of both, its own $q$ explains less than it could.
# So the order of the paper's claim holds here, where the truth is known. The paper's own figures are of VAEs and GANs of images, which we did not train.
#
# ## Seen from the RPM
#
# Tilt the proposal, $\pi(z\mid x) = q(z\mid x)\,e^{T(x,z)}/Z(x)$, and put it into Barber–Agakov. That is the paper's energy-based bound,
#
# $$\mathbb E\log\frac{\pi(z\mid x)}{p(z)} = \mathbb E\log\frac{q(z\mid x)}{p(z)} + \mathbb E\,T - \mathbb E\log Z(x), \qquad Z(x) = \mathbb E_{q(z\mid x)}e^{T}.$$
#
# With $q$ the marginal the first term vanishes, and what remains is $I_\infty$ (E7): $\pi$ is the InfoNCE prior $P(z'\mid z) = Q(z')f/Z(z)$. So a batch and an annealed chain are two estimates of
# the same normaliser, and $\log K$ is a property of the first. For a random walk on Gaussian latents (E20), $I_\infty$ has a closed form, which tells how far annealing is off. The chain goes
# forwards, so its $\log Z$ is too low on average, and the estimate of $I_\infty$ too high.

# %% tags=["reproducible"]
rho, scale = 0.98, 0.2
exact = rpm.gaussian.infonce_random_walk(rho, scale, dim)


def walk(z, z_prime):
    """log f of a random walk, and its slope in z'."""
    return log_likelihood(z, z_prime, 1.0) / scale**2, (z - z_prime) / scale**2


for s in seeds:
    rng = torch.Generator().manual_seed(s + 300)
    z, z_prime = rpm.gaussian.sample(n, rho, dim, generator=rng)
    start = torch.randn(n, dim, generator=rng, dtype=torch.float64)
    found = (walk(z, z_prime)[0] - annealed(walk, z, start, 320, 1 + scale**-2, rng)).mean().item()
    batch = rpm.infonce(rpm.RandomWalk(scale).double()(z, z_prime)).value.item()
    print(f"I_inf: closed form {exact:.2f}, annealed {found:.2f}, a batch of {n} {batch:.2f} nats")
    assert abs(found - exact) < 0.6 and batch < math.log(n)

# %% [markdown]
# ## Exercise
#
# On tables the energy-based bound is a finite sum. Return it from `T` and `q`, both of shape (X, Z), `q` holding $q(z\mid x)$, and the joint `p` of shape (X, Z).


# %% tags=["exercise"]
def energy_based(T, q, p):
    return ...


rpm.lessons.neighbour_04.energy_based.check(energy_based)

# %% [markdown]
# ## What we saw
#
# With 500 candidates InfoNCE stops at $\log 500$, whatever the information. A proposal lifts the bound to what it explains, plus at most $\log K$; annealing replaces candidates by steps, and closes on 30 nats from
# both sides. Where only $p(z)$ is known, a trained critic takes the likelihood's place. The normaliser that annealing computes is the one of (E7); it needs a density of $z$ that can be evaluated, which latents of an encoder don't have.
