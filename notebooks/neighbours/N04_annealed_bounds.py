# %% [markdown]
# # Annealed and energy-based bounds
#
# InfoNCE cannot report more than $\log K$ nats. Where the joint density is known, annealed importance sampling can: it walks from $p(z)$ to $p(z\mid x)$ in many small steps, and bounds the information from
# both sides.
#
# **The paper's claim**: with a known joint, multi-sample annealed importance sampling sandwiches an information that InfoNCE would need exponentially many samples for; with only $p(z)$ known, an energy-based
# bound does better than its importance-sampled kin (Brekelmans and others, *Improving mutual information estimation with annealed and energy-based bounds*, [arXiv 2303.06992](https://arxiv.org/abs/2303.06992)).
#
# **Afterwards you can** bound an information of 30 nats from both sides; say what a better proposal is worth in nats; recognise $I_\infty$ in an energy-based bound.
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
# (One chain for each $x$; the paper averages several, which tightens both.) The ± below is over three draws of 500 pairs. With few temperatures it is the chains' own noise; with many, mostly the pairs', which both bounds
# share.


# %%
def hmc(x, z, beta, gain, rng, scale=1.0, epsilon=0.7):
    """A trajectory of three leapfrogs, accepted or not: it leaves p(z) exp(-beta |x - gain z|^2 / (2 scale^2)) as it is."""
    width = (1 + beta * (gain / scale) ** 2) ** -0.5

    def energy(z):
        return z.square().sum(1) / 2 - beta * log_likelihood(x, z, gain) / scale**2

    def slope(z):
        return z - beta * gain * (x - gain * z) / scale**2

    speed = torch.randn(z.shape, generator=rng, dtype=z.dtype)
    start, new = energy(z) + speed.square().sum(1) / 2, z
    for _ in range(3):
        speed = speed - epsilon * width * slope(new) / 2
        new = new + epsilon * width * speed
        speed = speed - epsilon * width * slope(new) / 2
    accepted = torch.rand(len(z), generator=rng).log() < start - energy(new) - speed.square().sum(1) / 2
    return torch.where(accepted[:, None], new, z)


# %%
def annealed(x, z, gain, temperatures, rng, scale=1.0, forwards=True):
    """w of one chain for each x, from z: from the prior forwards, or from the posterior backwards."""
    precision = 1 + (gain / scale) ** 2
    betas = (precision ** torch.linspace(0, 1, temperatures + 1, dtype=torch.float64) - 1) / (precision - 1)
    steps = list(zip(betas[:-1], betas[1:]))
    w = torch.zeros(len(x), dtype=torch.float64)
    for low, high in steps if forwards else reversed(steps):
        if not forwards:
            z = hmc(x, z, high, gain, rng, scale)
        w += (high - low) * log_likelihood(x, z, gain) / scale**2
        if forwards:
            z = hmc(x, z, high, gain, rng, scale)
    return w


# %%
def sandwich(nats, temperatures, seed):
    (x, z), gain, rng = joint(nats, seed), gain_for(nats), torch.Generator().manual_seed(seed + 200)
    z_prior = torch.randn(n, dim, generator=rng, dtype=torch.float64)
    below = annealed(x, z, gain, temperatures, rng, forwards=False)
    above = annealed(x, z_prior, gain, temperatures, rng)
    return torch.stack([(log_likelihood(x, z, gain) - w).mean() for w in (below, above)])


# %% tags=["reproducible"]
temperatures = (20, 80, 320, 1280)
bounds = {t: torch.stack([sandwich(30.0, t, s) for s in seeds]) for t in tqdm(temperatures)}
for t, found in bounds.items():
    (low, high), (low_sd, high_sd) = found.mean(0), found.std(0)
    print(f"{t:4} temperatures: from {low:.2f} ± {low_sd:.2f} to {high:.2f} ± {high_sd:.2f} nats (true: 30)")
assert all((found[:, 0] < found[:, 1]).all() for found in bounds.values())
assert (bounds[1280][:, 1] - bounds[1280][:, 0] < 0.6).all() and (abs(bounds[1280] - 30) < 0.8).all()

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
# ## Seen from the RPM
#
# Tilt the proposal, $\pi(z\mid x) = q(z\mid x)\,e^{T(x,z)}/Z(x)$, and put it into Barber–Agakov. That is the paper's energy-based bound,
#
# $$\mathbb E\log\frac{\pi(z\mid x)}{p(z)} = \mathbb E\log\frac{q(z\mid x)}{p(z)} + \mathbb E\,T - \mathbb E\log Z(x), \qquad Z(x) = \mathbb E_{q(z\mid x)}e^{T}.$$
#
# With $q$ the marginal the first term vanishes, and what remains is $I_\infty$ (E7): $\pi$ is the InfoNCE prior $P(z'\mid z) = Q(z')f/Z(z)$. So a batch and an annealed chain are two estimates of
# the same normaliser, and $\log K$ is a property of the first. The paper trains $T$ as well (MINE-AIS). We take one that is given, a random walk on Gaussian latents (E20), whose $I_\infty$ has a closed form. The chain goes
# forwards, so its $\log Z$ is too low on average, and the estimate of $I_\infty$ too high.

# %% tags=["reproducible"]
rho, scale = 0.98, 0.2
exact = rpm.gaussian.infonce_random_walk(rho, scale, dim)
found = []
for s in seeds:
    rng = torch.Generator().manual_seed(s + 300)
    z, z_prime = rpm.gaussian.sample(n, rho, dim, generator=rng)
    score = log_likelihood(z, z_prime, 1.0) / scale**2  # log f of the walk
    log_Z = annealed(z, torch.randn(n, dim, generator=rng, dtype=torch.float64), 1.0, 320, rng, scale)
    batch = rpm.infonce(rpm.RandomWalk(scale).double()(z, z_prime)).value.item()
    found.append((score - log_Z).mean().item())
    print(f"I_inf: closed form {exact:.2f}, annealed {found[-1]:.2f}, a batch of {n} {batch:.2f} nats")
    assert abs(found[-1] - exact) < 0.6 and batch < math.log(n)

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
# both sides. It needs densities that can be evaluated, which latents of an encoder don't have; the normaliser that it computes is the one of (E7). The second half of the claim, a trained $T$ with only $p(z)$ known, we did not try.
