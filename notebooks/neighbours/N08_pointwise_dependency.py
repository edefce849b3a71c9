# %% [markdown]
# # Point-wise dependency
#
# The mutual information is the mean of one number per pair, $\log r(z,z')$. Estimate the ratio $r$ itself and you have more than its mean: you know of each single pair how much
# likelier it is than chance.
#
# **The paper's claim**: two methods that need no variational bound, a probabilistic classifier and a least-squares fit, estimate this
# *point-wise dependency*; plugged in, it gives the information with less variance than the bounds; and it tells which texts belong to which spoken
# words. Tsai, Zhao, Yamada, Morency and Salakhutdinov, *Neural methods for point-wise dependency estimation*, NeurIPS 2020,
# [arXiv 2006.05553](https://arxiv.org/abs/2006.05553). The authors'
# [stored run](https://github.com/yaohungt/Pointwise_Dependency_Neural_Estimation) of the classifier picks the right text out of five for 95.9 % of
# 5 000 held-out words.
#
# **Afterwards you can** learn a ratio in five ways, and say which level each ends on; say why one estimate of the information scatters and another
# does not; tell a pair from two things that merely met; say what the plug-in leaves out.
#
# **You need** [lesson 6](../06_finite_batches.ipynb). **Time** 20 minutes, of which the computer takes half of one.

# %%
import numpy as np
import torch
from tqdm.auto import tqdm

import rpm_tutorial as rpm
from rpm_tutorial.estimators import ESTIMATORS, jensen_shannon, plug_in

rpm.setup()
seed = 0
seeds = (seed, seed + 1, seed + 2)
rng = torch.Generator().manual_seed(seed)

# %% [markdown]
# ## Five ways to one table
#
# $$r(z,z') = \frac{Q(z,z')}{Q(z)Q(z')}.$$
#
# | way | maximises over $f$ | at best $f$ is |
# |---|---|---|
# | probabilistic classifier | the log likelihood of "pair or independent?" | $r$, its odds |
# | density-ratio fitting, by least squares | $\mathbb E f - \frac12\mathbb E_{Q(z)Q(z')}f^2$ | $r$ |
# | density matching I | $\mathbb E\log f - (\mathbb E_{Q(z)Q(z')}f - 1)$ | $r$ |
# | density matching II | $\mathbb E\log f - (\log\mathbb E_{Q(z)Q(z')}f)^2$ | $\sqrt e\,r$ |
# | a bound's critic | NWJ | $e\,r$ |
#
# Both kinds of density matching, with a Lagrange term and with a penalty, are the authors', from their code. A critic with a number for every cell of a
# 4×4 table can be anything. It sees 5 000 pairs.

# %%
q_true = torch.rand(4, 4, generator=rng, dtype=torch.float64) + 0.1
q_true /= q_true.sum()
draws = torch.multinomial(q_true.flatten(), 5000, replacement=True, generator=rng)
q = torch.bincount(draws, minlength=16).view(4, 4).double() / len(draws)
counted = q / torch.outer(q.sum(1), q.sum(0))  # the ratio of the counts


def matching_I(log_f, q_joint=None):
    return ESTIMATORS["NWJ"].objective(log_f + 1, q_joint)


def matching_II(log_f, q_joint=None):
    _, score, log_mass = ESTIMATORS["DV"].objective(log_f, q_joint)
    return rpm.Objective(score - log_mass**2, score, log_mass**2)


# %%
def learned(objective):
    """The log f that maximises an objective on the table, by L-BFGS from f = 1."""
    log_f = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    how = {"max_iter": 500, "tolerance_change": 0, "line_search_fn": "strong_wolfe"}
    optimiser = torch.optim.LBFGS([log_f], **how)

    def loss():
        optimiser.zero_grad()
        value = -objective(log_f, q).value
        value.backward()
        return value

    optimiser.step(loss)
    return log_f.detach()


# %% tags=["reproducible"]
ways = {
    "classifier": (jensen_shannon, 0),
    "least squares": (ESTIMATORS["DRF"].objective, 0),
    "density matching I": (matching_I, 0),
    "density matching II": (matching_II, 0.5),
    "NWJ's critic": (rpm.nwj, 1),
}
for name, (objective, level) in ways.items():
    above = learned(objective) - counted.log()
    print(f"{name:19}: log f lies {abs(above.mean()):.4f} above log r")
    assert (above - level).abs().max() < 1e-4
r_true = q_true / torch.outer(q_true.sum(1), q_true.sum(0))
print(f"the counts' ratio is off the truth by up to {(counted - r_true).abs().max():.2f}")

# %% [markdown]
# All five find the ratio of the counts, each on its level: how a critic that can be anything was trained makes no other difference. What is left is the
# error of the sample. Density matching II ends half a nat too high, and its plug-in with it: for $f = m\,r$ the objective is
# $\mathbb E\log r + \log m - (\log m)^2$, greatest at $\log m = \frac12$. Density matching I has no such offset; we meet its objective again below.
#
# ## The same critic, estimates of very different scatter
#
# Now suppose that the ratio is *known*, on Gaussian pairs in ten dimensions, and only the mean is left to estimate, from batches of 128. The plug-in (PC, DRF) averages $\log r$ over the pairs.
# The bounds need $\mathbb E_{Q(z)Q(z')}\,r$ as well, which is one, but is estimated from the batch.
#
# **Predict**: as the information grows from 2 to 8 nats, which estimates scatter more and more?
#
# <details><summary>Answer</summary>
#
# NWJ and Donsker–Varadhan. The mean of $r$ over independent cells rests on rare cells with huge $r$: the variance of $r$ is $\chi^2 = e^{2\,\mathrm{MI}}-1$ for these pairs
# (lesson 6). SMILE, which clips $\log f$ to ±5 in the normaliser, removes the scatter, and the rare cells with it, so that the estimate is too high. The plug-in needs no independent cells.
# </details>

# %%
dim, batch, information = 10, 128, (2.0, 4.0, 6.0, 8.0)
names = ("NWJ", "DV", "SMILE", "PC")


def correlation(nats):
    return (1 - np.exp(-2 * nats / dim)) ** 0.5


def oracle(name, nats, seed, batches=60):
    """Estimates from as many batches, by the critic that the estimator's training would end in at best."""
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(batches):
        pair = rpm.gaussian.sample(batch, correlation(nats), dim, generator=generator)
        log_r = rpm.gaussian.log_optimal_critic(*pair, correlation(nats)) + nats
        found.append(ESTIMATORS[name].estimate(log_r + (name == "NWJ")).value.item())
    return np.mean(found), np.std(found, ddof=1)


# %% tags=["reproducible"]
scatter = {
    name: {nats: np.array([oracle(name, nats, s) for s in seeds]) for nats in information} for name in tqdm(names)
}
for name, by_nats in scatter.items():
    print(
        f"{name:6}", "   ".join(f"I = {n:.0f}: {v[:, 0].mean():.2f} ± {v[:, 1].mean():.2f}" for n, v in by_nats.items())
    )
at_8 = {name: scatter[name][8.0] for name in names}
print("sd at 8 nats, each seed:", {name: v[:, 1].round(2).tolist() for name, v in at_8.items()})
assert (at_8["NWJ"][:, 1] > 2 * at_8["PC"][:, 1]).all() and (at_8["DV"][:, 1] > 1.5 * at_8["PC"][:, 1]).all()
growth = {name: by_nats[8.0][:, 1].mean() / by_nats[2.0][:, 1].mean() for name, by_nats in scatter.items()}
print("scatter at 8 nats / at 2:", ", ".join(f"{name} {ratio:.1f}" for name, ratio in growth.items()))
assert 1.3 < growth["PC"] < 1.8 and growth["NWJ"] > 4
assert (at_8["SMILE"][:, 0] > 9).all() and (abs(at_8["PC"][:, 0] - 8) < 0.15).all()

# %% tags=["reproducible"]
rpm.figures.lines(
    information,
    {
        "plug-in" if name == "PC" else name: [v[:, 1].mean() for v in by_nats.values()]
        for name, by_nats in scatter.items()
    },
    x_label="information of the pairs (nats)",
    y_label="scatter of a batch's estimate (nats)",
    caption="All know the true ratio. The plug-in's scatter grows by half, NWJ's many times over; clipping buys its calm with a bias.",
)

# %% [markdown]
# ## When the critic has to be learned
#
# With a network the ways are no longer equal: how an objective weighs the cells decides how well it trains. Least squares shows it best. Let the
# network give $s = \log f$, and the slope of $\frac12\mathbb E f^2$ in $s$ is $f^2$: a few cells with a large $f$ drown all others. Let it give $f$
# itself, as the authors do, and the slope is $f$; where that comes out negative or small, the plug-in reads $\log 10^{-4}$. Ten dimensions, batches
# of 64, 500 steps, three seeds.


# %%
def least_squares(f):
    """The objective of a table of f itself; the cells off its diagonal are independent."""
    others = f[~torch.eye(len(f), dtype=torch.bool)]
    first, second = f.diagonal().mean(), others.square().mean() / 2
    return rpm.Objective(first - second, first, second)


def pairs(nats, seed, n=64):
    generator = torch.Generator().manual_seed(seed)
    while True:
        z, z_prime = rpm.gaussian.sample(n, correlation(nats), dim, generator=generator)
        yield z.float(), z_prime.float()


# %%
WAYS = {  # what is trained, and log r from what the network gives
    "classifier": (jensen_shannon, lambda s: s),
    "matching I": (matching_I, lambda s: s),
    "matching II": (matching_II, lambda s: s),
    "squares, s = log f": (ESTIMATORS["DRF"].objective, lambda s: s),
    "squares, s = f": (least_squares, lambda s: s.clamp(min=1e-4).log()),
}


def plugged_in(way, nats, seed, steps=500):
    torch.manual_seed(seed)
    critic, fresh = rpm.Universal(dim), pairs(nats, 1000 + seed, n=512)
    objective, log_ratio = WAYS[way]
    list(rpm.train(torch.nn.Identity(), critic, pairs(nats, seed), steps, objective=objective))
    with torch.no_grad():
        found = [plug_in(log_ratio(critic(*next(fresh)))).value for _ in range(10)]
    return torch.stack(found).mean().item()


# %%
def over_seeds(way, nats):
    found = np.array([plugged_in(way, nats, s) for s in tqdm(seeds, leave=False)])
    print(f"{nats:.0f} nats, {way:18}: {found.mean():6.2f}, {found.min():6.2f} to {found.max():.2f}")
    return found


squares = [over_seeds(way, nats) for nats in (2.0, 5.0) for way in list(WAYS)[3:]]
for (in_logs, plain), nats in zip((squares[:2], squares[2:]), (2.0, 5.0)):
    assert (abs(plain - nats) < abs(in_logs - nats) - 0.5).all()
    assert np.ptp(plain) < 0.3 and (plain < 0.75 * nats).all()
assert squares[3].max() / 5 < squares[1].min() / 2 - 0.1, "a smaller share of more"

# %%
at_5 = {way: over_seeds(way, 5.0) for way in list(WAYS)[:3]} | {"squares": squares[3]}
off = {way: abs(found - 5) for way, found in at_5.items()}
assert all((off["classifier"] < off[way] - 0.5).all() for way in off if way != "classifier")

# %% [markdown]
# So it is the parametrisation that fails, not least squares: of $f$ itself they repeat within a few tenths of a nat, but read too little, and a smaller
# share of it where there is more. The classifier comes closest. The paper's networks see both sides at once and train for 20 000 steps in 20 dimensions.
# They are too slow for this page, so we don't say how far more training would carry each.
#
# ## Which pairs are pairs?
#
# The left half of a digit and its right half are two views of unlike kind. Cut in two, a held-out digit has to find its other half among five. Then a
# second question, for which it takes $r$ itself: here are a left and a right half, do they belong together? They do where $\log r > 0$, where they meet
# more often than by chance. Beside the classifier stand least squares and InfoNCE, whose critic is $\log r$ plus any $c(z)$ (E7).


# %%
def halves(seed):
    """Left and right halves, (n, 32) each: those to train on, and those held out."""
    whole, order = rpm.datasets.digits().x, torch.Generator().manual_seed(seed)
    whole = whole[torch.randperm(len(whole), generator=order)]
    left, right = (side.flatten(1) for side in whole.chunk(2, dim=-1))
    return (left[450:], right[450:]), (left[:450], right[:450])


# %%
def found_by(objective, log_ratio, seed, steps=500):
    """Right answers: which of five, and pair or not by the sign; area under the ROC curve."""
    torch.manual_seed(seed)
    critic, (train, test) = rpm.Universal(32), halves(seed)
    batches = rpm.datasets.tensor_pairs(*train, 128, seed=seed)
    list(rpm.train(torch.nn.Identity(), critic, batches, steps, objective=objective))
    with torch.no_grad():
        log_r = log_ratio(critic(*test))
    five = torch.stack([log_r.roll(-k, 1).diagonal() for k in range(5)], 1)
    pair, none = five[:, 0], five[:, 1]
    sign = ((pair > 0).double().mean() + (none <= 0).double().mean()) / 2
    auc = (pair[:, None] > none).double().mean()
    return [(five.argmax(1) == 0).double().mean(), sign, auc]


# %%
rivals = {name: WAYS[name] for name in ("classifier", "squares, s = f")}
rivals["InfoNCE"] = rpm.infonce, lambda s: s
runs = {name: [found_by(*rivals[name], s) for s in seeds] for name in tqdm(rivals)}
print("of five / by the sign / area under the ROC curve: mean, and from all seeds")
for name, rows in runs.items():
    columns = [f"{c.mean():.2f} ({c.min():.2f} to {c.max():.2f})" for c in np.array(rows).T]
    print(f"{name:14}", " / ".join(columns))
ours, nce = np.array(runs["classifier"]), np.array(runs["InfoNCE"])
assert (ours[:, 0] > 0.75).all() and (nce[:, 0] > ours[:, 0] - 0.02).all(), "chance is 0.2"
assert (ours[:, 1] > nce[:, 1] + 0.03).all() and (ours[:, 2] > nce[:, 2] + 0.02).all()

# %% [markdown]
# Among five candidates of one row InfoNCE does at least as well as the classifier, since $c(z)$ is the same for all five. Asked about a single pair it does worse,
# by the sign and by any other threshold, since each row has another $c(z)$. The paper's .959 is of words and their texts, from 32 622 training pairs; here there
# are 1 347 digits.
#
# ## Seen from the RPM
#
# The ratio *is* the prior: $P(z,z') = Q(z)Q(z')\,r(z,z')$, and learning $r$ is fitting $P$ to $Q(z,z')$, the optimal prior (E6). A learned $f$ need not be normalised. With the generalised KL
# of (E10) its ELBO is
#
# $$L - C = \mathbb E\log f - \big(\mathbb E_{Q(z)Q(z')}f - 1\big),$$
#
# the plug-in, less the prior's mass above one: the authors' density matching I, to the letter. So the plug-in is an ELBO where the mass is one, and overstates it where it is more: what it saves in variance is the term that made the bound a bound.

# %% tags=["reproducible"]
world = rpm.FiniteRPM.ring()
log_f = torch.randn(world.q_joint.shape, generator=rng, dtype=torch.float64)
independent = torch.outer(world.q_z, world.q_z_prime)
elbo = world.elbo(independent.log() + log_f, unnormalised=True).value - world.constant
mass = (independent * log_f.exp()).sum()
residual = elbo - (plug_in(log_f, world.q_joint).value - (mass - 1))
print(f"L - C {elbo:.6f}, plug-in {plug_in(log_f, world.q_joint).value:.6f}, mass {mass:.6f}; residual {residual:.1e}")
assert abs(residual) < 1e-12

# %% [markdown]
# ## Exercise
#
# A classifier was trained on `n_pairs` pairs and `n_independent` independent cells, as many of each as there happened to be. It says "pair" with probability `p` (a tensor). Return
# $\log r$.


# %% tags=["exercise"]
def log_ratio(p, n_pairs, n_independent):
    return ...


rpm.lessons.neighbour_08.log_ratio.check(log_ratio)

# %% [markdown]
# ## What we saw
#
# On a table the five ways agree with the ratio of the counts to 1e-4, once the level is known; the authors' penalty leaves it half a nat too high. With the true ratio known, the plug-in scatters little at 8 nats, where NWJ
# scatters more than twice as much and clipping is off by more than a nat. With a learned critic the classifier came closest; least squares were stable for $f$ itself and useless for $\log f$. On halves of digits $r$ says which pairs
# are pairs, which InfoNCE's critic doesn't. Seen from the RPM all of them fit the prior, and the plug-in trusts it to be normalised.
