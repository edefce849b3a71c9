# %% [markdown]
# # The gradient of the information, without a critic
#
# To raise the mutual information by gradient steps one needs its gradient, not its value. The gradient can be had from *scores* of the samples' densities, $\nabla\log q$, and these from the samples alone:
# no network is trained, no bound is taken.
#
# **The paper's claim**: an estimator of the gradient (MIGE) built on the spectral Stein score estimator is more accurate than differentiating an estimate
# such as MINE, the more so in many dimensions, and trains representations. Wen, Zhou, He, Zhou and Xu, *Mutual information gradient estimation for
# representation learning*, ICLR 2020, [arXiv 2005.01123](https://arxiv.org/abs/2005.01123).
#
# **Afterwards you can** write an entropy's gradient as a mean of scores; estimate a score from samples; say why a critic's error shows more in the slope
# than in the value; train an encoder without a critic.
#
# **You need** [lesson 3](../03_infonce_is_the_elbo.ipynb). **Time** 20 minutes, of which the computer takes half of one.

# %%
import torch
from tqdm.auto import tqdm

import rpm_tutorial as rpm
from rpm_tutorial.estimators import ESTIMATORS, mige, stein_score

rpm.setup()
seed = 0
seeds = (seed, seed + 1, seed + 2)
rng = torch.Generator().manual_seed(seed)

# %% [markdown]
# ## An entropy moves against the score
#
# Let samples $z = z_\phi(\varepsilon)$ depend on $\phi$, and $q_\phi$ be their density. In $\nabla_\phi H = -\nabla_\phi\,\mathbb E\log q_\phi(z_\phi)$ two things depend on $\phi$. The density's own change averages to zero, as
# $\mathbb E\,\nabla_\phi\log q_\phi = \nabla_\phi\!\int q_\phi = 0$; what is left is the samples' motion along the score:
#
# $$\nabla_\phi H = -\mathbb E\Big[\nabla_z\log q(z)\cdot\frac{\partial z}{\partial\phi}\Big], \qquad \nabla I = \nabla H(z) + \nabla H(z') - \nabla H(z,z').$$
#
# So three scores are needed. The estimator expands each in the eigenfunctions of a Gaussian kernel, $\psi$, and finds the coefficients from $\mathbb E[\psi\,\nabla\log q] = -\mathbb E[\nabla\psi]$ (Stein).

# %%
rpm.show_source(stein_score)

# %% tags=["reproducible"]
for dim in (1, 2, 8):
    x = torch.randn(500, dim, generator=rng, dtype=torch.float64)  # whose true score is -x
    error = (stein_score(x) + x).square().mean() / x.square().mean()
    print(f"d = {dim}: mean square error {error:.3f}, relative to that of guessing zero")
    assert error < 0.3

# %% [markdown]
# ## The slope of the information of Gaussian pairs
#
# $z' = \rho z + \sqrt{1-\rho^2}\,\varepsilon$ in $d$ dimensions: $I = -\frac d2\log(1-\rho^2)$, so $\partial I/\partial\rho = d\rho/(1-\rho^2)$. MIGE gets 256
# pairs, as in the authors' [experiment](https://github.com/zhouyiji/MIGE). First $d=8$.


# %%
def moving_pairs(rho, dim, generator, n=256):
    """Pairs as a differentiable function of their correlation."""
    z, noise = torch.randn(2, n, dim, generator=generator, dtype=torch.float64)
    return z, rho * z + (1 - rho**2).sqrt() * noise


def slope(value_of, rho, dim, seed, n=256):
    """The derivative of value_of(z, z') with respect to rho, on pairs of this seed."""
    rho = torch.tensor(rho, dtype=torch.float64, requires_grad=True)
    pairs = moving_pairs(rho, dim, torch.Generator().manual_seed(1000 + seed), n)
    return torch.autograd.grad(value_of(*pairs), rho)[0]


def true_slope(rho, dim):
    return dim * rho / (1 - rho**2)


# %% tags=["reproducible"]
rhos = (-0.8, -0.4, 0.4, 0.8)
truth = torch.tensor([true_slope(rho, 8) for rho in rhos], dtype=torch.float64)
by_mige = torch.tensor([[slope(mige, rho, 8, s) for rho in rhos] for s in tqdm(seeds)])
for rho, true, found in zip(rhos, truth, by_mige.T):
    print(f"rho = {rho:+.1f}: true {true:6.2f}, MIGE {found.mean():6.2f} ± {found.std():.2f} nats per unit of rho")
assert ((by_mige - truth).abs() < 0.2 * truth.abs()).all()

# %% [markdown]
# ## The slope of a critic
#
# MINE trains a critic with the Donsker–Varadhan objective (E9) and then differentiates the value through the samples. 300 steps, a universal critic.
#
# **Predict**: a critic that reads nine tenths of the information: does it have nine tenths of the slope?
#
# <details><summary>Answer</summary>
#
# No promise is made. The objective asks for the critic's values at the pairs; its slope there is a by-product. Where the information grows fastest, the critic
# misses most, and that adds to the slope's error. Here, at $|\rho| = 0.8$ in eight dimensions, it has about seven tenths.
# </details>


# %%
def by_critic(rho, dim, seed, steps=300):
    """What a trained critic gives as slope and as value, at this correlation."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    objective, critic = ESTIMATORS["DV"].objective, rpm.Universal(dim)
    batches = ([side.float() for side in rpm.gaussian.sample(128, rho, dim, generator=generator)] for _ in range(steps))
    list(rpm.train(torch.nn.Identity(), critic, batches, steps, objective=objective))
    critic.double()
    pairs = moving_pairs(torch.tensor(rho), dim, torch.Generator().manual_seed(1000 + seed))
    with torch.no_grad():
        value = objective(critic(*pairs)).value
    return slope(lambda *moved: objective(critic(*moved)).value, rho, dim, seed), value


# %%
mine = torch.tensor([[by_critic(rho, 8, s) for rho in (-0.8, 0.8)] for s in tqdm(seeds)])
by_mine, value = mine[..., 0], mine[..., 1] / rpm.gaussian.mutual_information(0.8, 8)
share = {"MIGE": by_mige[:, [0, 3]] / truth[[0, 3]], "MINE": by_mine / truth[[0, 3]]}
print("shares of the true slope at |rho| = 0.8:", {name: round(s.mean().item(), 2) for name, s in share.items()})
print(f"MINE's value is {value.mean():.0%} of the information")
assert ((share["MIGE"] - 1).abs() < (share["MINE"] - 1).abs()).all()
assert abs(share["MINE"].mean() - 0.7) < 0.1 and share["MINE"].mean() < value.mean() - 0.05
longer = by_critic(-0.8, 8, seed, steps=1500)[0]
print(f"one run at rho = -0.8: {by_mine[0, 0]:.1f} after 300 steps, {longer:.1f} after 1 500, true {truth[0]:.1f}")
assert abs(longer - truth[0]) < abs(by_mine[0, 0] - truth[0]) - 0.5

# %% [markdown]
# MINE is stopped early here; more steps bring it nearer. The authors stop after 200.
#
# ## More dimensions
#
# Their experiment has 16 and 32 dimensions too, one run of each, whose results they store. Below, theirs at $\rho = -0.8$ stands beside our mean of three seeds.

# %%
theirs = {8: (-16.7, -12.9), 16: (-31.4, -17.6), 32: (-48.3, -13.1)}  # MIGE, MINE
ours = {8: share}
for dim in tqdm((16, 32)):
    true = true_slope(-0.8, dim)
    by_score = torch.stack([slope(mige, -0.8, dim, s) for s in seeds]) / true
    by_net = torch.stack([by_critic(-0.8, dim, s)[0] for s in seeds]) / true
    ours[dim] = {"MIGE": by_score, "MINE": by_net}
print("shares of the true slope")
for dim, found in ours.items():
    for (name, shares), stored in zip(found.items(), theirs[dim]):
        stored = stored / true_slope(-0.8, dim)
        print(f"d = {dim:2}, {name}: {shares.mean():.2f} ± {shares.std():.2f}, the authors' {stored:.2f}")
        assert abs(shares.mean() - stored) < 0.15
assert all((found["MIGE"].min() > found["MINE"].max() + 0.1) for found in ours.values())
assert ours[32]["MIGE"].max() < 0.8 < ours[8]["MIGE"].min(), "less of it in more dimensions"

# %% tags=["reproducible"]
more = torch.stack([slope(mige, -0.8, 32, s, n=500) for s in seeds]) / true_slope(-0.8, 32)
print(f"d = 32 from 500 pairs instead of 256: MIGE has {more.mean():.2f} of the slope")
assert (more > 0.75).all() and (more < 0.95).all()

# %%
shares = {name: [found[name].mean() for found in ours.values()] for name in ("MIGE", "MINE")}
stored = {name: [theirs[dim][k] / true_slope(-0.8, dim) for dim in theirs] for k, name in enumerate(shares)}
rpm.figures.lines(
    list(ours),
    shares | {f"{name}, the authors'": values for name, values in stored.items()},
    x_label="dimensions",
    y_label="share of the true slope",
    caption="At |ρ| = 0.8, ours a mean of three seeds, the authors' one run. Both lose slope in more dimensions, the critic sooner.",
)

# %% [markdown]
# Figure for figure what the authors stored. The critic falls behind fast; but MIGE is no exception to the rule, it loses a third of the slope in 32
# dimensions, too, and needs more samples to get it back. "Close to the truth" is a statement about eight dimensions.
#
# ## An encoder without a critic
#
# Four coordinates of $x$ and $x'$ correlate by 0.9, 0.6, 0.3 and 0. A linear encoder $z = w\cdot x$, $z' = w\cdot x'$ climbs the information by MIGE alone. The best that one direction can do is the first coordinate.

# %% tags=["reproducible"]
correlations = torch.tensor([0.9, 0.6, 0.3, 0.0], dtype=torch.float64)
directions = []
for s in tqdm(seeds):
    generator = torch.Generator().manual_seed(s)
    w = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))
    optimiser = torch.optim.Adam([w], lr=0.1)
    for _ in range(60):
        x, noise = torch.randn(2, 200, 4, generator=generator, dtype=torch.float64)
        x_prime = correlations * x + (1 - correlations**2).sqrt() * noise
        optimiser.zero_grad()
        (-mige(*(side @ w[:, None] / w.norm() for side in (x, x_prime)))).backward()
        optimiser.step()
    directions.append((w / w.norm()).detach())
    print("w =", [round(value, 2) for value in directions[-1].tolist()])
assert all(abs(w[0]) > 0.9 for w in directions)

# %% [markdown]
# And on images, the paper's purpose: two augmented views of a handwritten digit, eight latents. Beside MIGE stand InfoNCE, in batches of the same 128, and the same
# network as it comes, untrained. A linear probe reads the digit.


# %%
images = rpm.datasets.digits()
held_out = torch.arange(len(images.x)) % 4 == 0
x, labels = images.x[~held_out], images.labels[~held_out]


def views(seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        i = torch.randint(len(x), (128,), generator=generator)
        yield rpm.datasets.two_views(x[i], flip=False, generator=generator)


def climb_mige(encoder, seed, steps=300):
    optimiser, batches = torch.optim.Adam(encoder.parameters(), 2e-3), views(seed)
    for _ in range(steps):
        z, z_prime = encoder(torch.cat(next(batches))).chunk(2)
        optimiser.zero_grad()
        (-mige(z, z_prime)).backward()
        optimiser.step()


# %%
def climb_infonce(encoder, seed):
    list(rpm.train(encoder, rpm.VonMisesFisher(temperature=0.1), views(seed), 300))


def probed(train, seed):
    torch.manual_seed(seed)
    encoder = rpm.encoders.mlp(64, 8)
    train(encoder, seed)
    with torch.no_grad():
        z, z_test = encoder(x), encoder(images.x[held_out])
    return rpm.probes.linear_probe(z, labels, z_test, images.labels[held_out], C=1.0)


ways = {"untrained": lambda *_: None, "InfoNCE": climb_infonce, "MIGE": climb_mige}
accuracy = {name: torch.tensor([probed(way, s) for s in seeds]) for name, way in tqdm(ways.items())}
print(", ".join(f"{name} {found.mean():.3f} ± {found.std():.3f}" for name, found in accuracy.items()))
assert (accuracy["MIGE"] > accuracy["untrained"] + 0.1).all()
assert (accuracy["MIGE"] > accuracy["InfoNCE"] - 0.02).all()

# %% [markdown]
# ## Seen from the RPM
#
# MIGE's gradient is that of the ELBO under the optimal prior (E6). The prior $P(z,z') = Q(z,z')$ follows the encoder, yet its following costs no gradient: by (E8) the ELBO under a prior with a *fixed* critic
# $\log r$ lies below the information and touches it where $r$ is the true ratio, so their slopes agree:
#
# $$\nabla_\phi\, I_{Q_\phi}(z;z') = \nabla_\phi\, I_\infty(\log r, Q_\phi)\big|_{r\ \text{fixed}}, \qquad \nabla_z\log r = \nabla_z\log Q(z,z') - \nabla_z\log Q(z).$$
#
# Of the critic only its slope is needed, a difference of scores. The normaliser adds nothing: where $r$ is the true ratio $Z(z)=1$ for all $z$, and to first order its mean logarithm stays zero. On a table both sides are exact:

# %% tags=["reproducible"]
logits = torch.randn(4, 4, generator=rng, dtype=torch.float64, requires_grad=True)
q = logits.flatten().softmax(0).view(4, 4)
log_r = (q / torch.outer(q.sum(1), q.sum(0))).log().detach()
(of_information,) = torch.autograd.grad(rpm.mutual_information(q), logits, retain_graph=True)
(of_elbo,) = torch.autograd.grad(rpm.infonce(log_r, q).value, logits)
print(f"largest difference of the two gradients {(of_information - of_elbo).abs().max():.1e}")
assert (of_information - of_elbo).abs().max() < 1e-12

# %% [markdown]
# ## Exercise
#
# `score` (n, d) holds $\nabla\log q$ at n samples and `motion` (n, d) the derivative of each sample with respect to a number $\phi$. Return the derivative of the entropy.


# %% tags=["exercise"]
def entropy_slope(score, motion):
    return ...


rpm.lessons.neighbour_11.entropy_slope.check(entropy_slope)

# %% [markdown]
# ## What we saw
#
# Scores estimated from 256 samples give the slope of the information to within a fifth in eight dimensions, and two thirds of it in 32, as in the authors' runs; that of a critic trained for 300 steps falls further short, and
# comes nearer with more. The same gradient trains an encoder of images, whose probe is at least that of InfoNCE. Seen from the RPM it is the ELBO's gradient under the optimal prior, with all that the optimal prior does not know: it
# has no geometry (E17).
