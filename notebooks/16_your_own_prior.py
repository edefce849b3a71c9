# %% [markdown]
# # Your own prior: bring pairs, an encoder and a critic
#
# A prior is an assumption about how $z'$ follows from $z$, and nobody knows your data better than you. This lesson gives you the tools to write
# the assumption down, to check that it is one, and to let held-out evidence say what it is worth.
#
# **Afterwards you can** write a critic and have it checked; recognise a broken critic that its training loss does not show; choose between
# priors of your own by held-out evidence, and find the pairs that decide; say when a learned code cannot reach its prior; use an
# encoder for each side.
#
# **You need** [lesson 13](13_the_other_rpm.ipynb), or at least lessons 5 and 6. **Time** 35 minutes, of which the computer takes one.
# Symbols are in the [notation](../docs/notation.md), words in the [glossary](../docs/glossary.md), objections in the
# [FAQ](../docs/faq.md).
#
# **Whose result is it?** That a critic is a prior is the paper's ([Aitchison and Ganev](https://arxiv.org/abs/2107.02495)) (E18). The data, the priors and what
# is found with them are this course's.

# %%
import csv
import gzip
import math
from importlib.resources import files

import torch
from sklearn.cross_decomposition import CCA
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

import rpm_tutorial as rpm

rpm.setup()
seeds = (0, 1, 2)

# %% [markdown]
# ## A critic is any module that scores pairs
#
# Three things make a model: pairs $(x, x')$, an encoder, and a critic $\log f(z, z')$, which is the prior (E7). A critic
# maps $n$ rows $z$ and $m$ rows $z'$ to a table of shape $(n, m)$, pair by pair. Here is one for a latent that is an angle:
#
# $$\log f(z,z') = \kappa\cos(\theta - \theta'), \tag{E18}$$
#
# with $\theta$ the direction of $z$ in the plane. This is the von Mises-Fisher distribution of a partner around $z$, the circle's analogue of a Gaussian. A large $\kappa$ says that steps are
# small. A circle has no end.


# %% tags=["reproducible"]
class Circle(nn.Module):
    """log f = kappa cos(theta - theta'), the von Mises-Fisher prior on the circle."""

    def __init__(self, kappa=10.0):
        super().__init__()
        self.log_kappa = nn.Parameter(torch.tensor(math.log(kappa)))

    def forward(self, z, z_prime):
        return self.log_kappa.exp() * F.normalize(z, dim=1) @ F.normalize(z_prime, dim=1).T


report = rpm.check_critic(Circle(), dim=2)
report

# %%
assert report.ok
z, z_prime = torch.randn(2, 64, 2, generator=torch.Generator().manual_seed(0))
off = (Circle(10.0)(z, z_prime) - rpm.VonMisesFisher(temperature=1 / 10)(z, z_prime)).abs().max().item()
print(f"largest difference from the library's von Mises-Fisher critic at temperature 1/kappa: {off:.0e}")
assert off < 1e-4

# %% [markdown]
# Each line is one thing that the rest of the course relied on. The last one compares the table of scores with `dataset_evidence`, value and gradient: the two
# have to be one number.
#
# ## A broken critic can have a perfect loss
#
# Someone normalises the scores inside the critic, as one would before a cross-entropy.
#
# **Predict**: what does the training loss say about it?
#
# <details><summary>Answer</summary>
#
# Nothing at all. InfoNCE normalises each row itself, and a row that is normalised already has a normaliser of 1: the value is the same.
# </details>


# %% tags=["reproducible"]
class Normalised(rpm.RandomWalk):
    def forward(self, z, z_prime):
        return super().forward(z, z_prime).log_softmax(1)


whole = [rpm.infonce(critic(z, z + 0.3 * z_prime)).value.item() for critic in (rpm.RandomWalk(), Normalised())]
print(f"InfoNCE with the walk {whole[0]:.6f}, normalised inside {whole[1]:.6f}")
assert abs(whole[0] - whole[1]) < 1e-5
pairs = z, z + 0.3 * z_prime
in_tiles = rpm.dataset_evidence(*pairs, Normalised(), block=8).infonce.item()
print(f"the same pairs in tiles of 8 rows: {in_tiles:.3f} instead of {whole[0]:.3f} nats")
report = rpm.check_critic(Normalised(), dim=2)
assert not report.ok and abs(in_tiles - whole[0]) > 0.01
report

# %% [markdown]
# The score of a pair came to depend on who else is in the batch, so there is no $f(z,z')$, hence no prior, and the evidence depends on how the table was cut.
#
# The second one is a distance, where the walk has its square. It looks right until a $z'$ equals its $z$, where the root has no derivative.


# %% tags=["reproducible"]
class Distance(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, z, z_prime):
        return -(z[:, None] - z_prime).square().sum(2).sqrt() / self.log_scale.exp()


report = rpm.check_critic(Distance(), dim=2)
assert [check.name for check in report.checks if check.passed is False] == ["gradient"]
report

# %% [markdown]
# One such pair in an epoch, and every weight of the encoder is NaN. (`torch.cdist` has a derivative of 0 there.) In a test suite of yours, write
# `rpm.check_critic(critic, dim=2, raise_exception=True)`.
#
# ## A circle has no place on a line
#
# First example: a hand turns by a random angle between two frames. All there is to know about $x$ is an angle.


# %%
def hand(theta, side=16):
    """Images of a hand that points in the directions theta, shape (n, side, side)."""
    axis = torch.arange(side) - (side - 1) / 2
    u, v = theta.cos()[:, None, None], theta.sin()[:, None, None]
    along, across = u * axis + v * axis[:, None], u * axis[:, None] - v * axis
    inside = [1.2 - across.abs(), along, side / 2 - 1 - along]
    return torch.sigmoid(2 * torch.stack(inside)).prod(0)


def turns(n, generator, step=0.3):
    theta = 2 * math.pi * torch.rand(n, generator=generator)
    return hand(theta), hand(theta + step * torch.randn(n, generator=generator)), theta


def turn_batches(seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield turns(256, generator)[:2]


# %%
x, x_prime, theta = turns(2048, torch.Generator().manual_seed(99))
truth = math.log(2 * math.pi) - 0.5 * math.log(
    2 * math.pi * math.e * 0.3**2
)  # H(uniform) - H(step); it hardly overlaps
print(f"mutual information of two frames: {truth:.3f} nats")
rpm.figures.images(
    {"x": x[:10], "x′": x_prime[:10]},
    caption=f"Ten pairs: the hand turns, by {math.degrees(0.3):.0f}° to either side as a rule.",
)

# %% [markdown]
# Four models. **The line**: one latent and a random walk. **The circle**: two latents, of which `Circle` keeps the direction. **The centred circle**: the same, its
# latents moved to have mean 0 before training. **The circle by way of the plane**: the same, after 100 steps of a random walk in the plane, and then centred.
#
# **Predict**: the first must cut the circle somewhere. Do the other three differ? They have the same prior.
#
# <details><summary>Answer</summary>
#
# They do. By way of the plane every start earns all there is. From a fresh start none does, and of the centred ones about half.
# </details>


# %%
def trained(plan, seed, centred=False):
    torch.manual_seed(seed)
    encoder = rpm.encoders.mlp(256, plan[0][0], width=64)
    for stage, (_, make_critic, steps) in enumerate(plan):
        if stage or centred:  # the circle minds where 0 lies: move it to the middle
            with torch.no_grad():
                encoder[-1].bias.sub_(encoder(next(turn_batches(seed))[0]).mean(0))
        critic = make_critic()
        list(rpm.train(encoder, critic, turn_batches(1000 * stage + seed), steps, learning_rate=3e-3))
    with torch.no_grad():
        z, z_prime = encoder(x), encoder(x_prime)
        return z, z_prime, rpm.dataset_evidence(z, z_prime, critic).infonce.item(), critic


# %%
PLANS = {
    "line": [(1, rpm.RandomWalk, 150)],
    "circle": [(2, Circle, 150)],
    "centred circle": [(2, Circle, 150)],
    "circle by way of the plane": [(2, rpm.RandomWalk, 100), (2, Circle, 100)],
}
runs, held_out = {}, {}
for name, plan in PLANS.items():
    many = range(6) if name == "centred circle" else seeds
    runs[name] = [trained(plan, s, name == "centred circle") for s in tqdm(many, name)]
    held_out[name] = torch.tensor([run[2] for run in runs[name]])
    print(f"{name:27}", ", ".join(f"{v:.2f}" for v in held_out[name]), "nats")
assert (held_out["circle by way of the plane"] > truth - 0.05).all()
assert (held_out["line"] < truth - 0.4).all()
assert (held_out["circle"] < held_out["line"] + 0.1).all()

# %% [markdown]
# By way of the plane the prior gets all that there is to know, on every seed. The line cannot. The circle from a fresh start gets no more than the line. Of the centred starts some get all
# and some do not. To see why, follow the hand once around and count how often the code goes around with it: the *winding number*.


# %%
def winding(z, theta):
    """How often the direction of z turns while theta turns once."""
    angle = torch.atan2(z[:, 1], z[:, 0])[theta.argsort()]
    step = torch.diff(angle, append=angle[:1])
    return round(torch.atan2(step.sin(), step.cos()).sum().item() / (2 * math.pi))


for name in ("circle", "centred circle", "circle by way of the plane"):
    numbers = [winding(z, theta) for z, *_ in runs[name]]
    print(f"{name:27} winding numbers {numbers}")
    for number, value in zip(numbers, held_out[name]):
        assert (abs(number) == 1) == (value > truth - 0.1)
assert held_out["centred circle"].min() < truth - 0.4  # 4 of 8 starts
kappa = runs["circle by way of the plane"][0][3].log_kappa.exp().item()
print(f"learned kappa {kappa:.0f}; a Gaussian step of 0.3 has 1/0.3² = {1 / 0.3**2:.0f}")

# %% [markdown]
# A winding number is a whole number, and it changes only if a latent passes through the origin, where the circle has no direction. A fresh network puts all its latents to one side
# of the origin. Seen from the origin, the code goes out and comes back, and winds 0 times. Centring is not enough. The code then lies around the origin, and still may go back on itself instead of
# around. The walk knows no origin. It opens the code into a ring, and once the origin lies inside, the ring winds once. In a folded code two angles share a latent, which costs about what a cut
# costs. The evidence on the *training* pairs shows it too, so restarts would find a good one.
#
# ## Concentration is an assumption about the next frame
#
# Choose a code, a $\kappa$ and a pair. **Predict**: is the best $\kappa$ of the folded code a sign that something is wrong with it?
#
# <details><summary>Answer</summary>
#
# No: it is about that of the other code. Each step looks as it should. But every latent stands for two angles, so the model spreads its probability over two places. Only the height
# of the curve shows it.
# </details>

# %%
folded = min(runs["circle"], key=lambda run: run[2])
codes = {"wound once": runs["circle by way of the plane"][0][:2], "folded": folded[:2]}
codes = {name: (z[:512], z_prime[:512]) for name, (z, z_prime) in codes.items()}
best_kappa = {}
for name, pairs in codes.items():
    with torch.no_grad():
        of_kappa = {k: rpm.dataset_evidence(*pairs, Circle(k)).infonce.item() for k in range(1, 41)}
    best_kappa[name] = k = max(of_kappa, key=of_kappa.get)
    print(f"{name:10} best kappa {k}, where it earns {of_kappa[k]:.2f} nats")
assert abs(best_kappa["wound once"] - best_kappa["folded"]) <= 3
rpm.explore(rpm.lessons.lesson_16.concentration(codes))

# %% [markdown]
# ## A real series: the evidence chooses, and names the pairs that decide
#
# Second example: life expectancy in 142 countries, every five years from 1952 to 2007 (Gapminder; plotly ships the table). A pair is a country now and five years
# later. The encoder is the identity, for now: $z$ is life expectancy, in units of twelve years from sixty. Some countries train, the others judge.

# %%
with (files("plotly") / "package_data/datasets/gapminder.csv.gz").open("rb") as file:
    table = list(csv.DictReader(gzip.open(file, "rt", encoding="utf-8")))
life = (torch.tensor([float(row["lifeExp"]) for row in table]).view(142, 12) - 60) / 12


def transitions(seed):
    """Training pairs, held-out pairs, and the held-out countries; each seed splits the countries in another way."""
    order = torch.randperm(142, generator=torch.Generator().manual_seed(seed))
    halves = [(life[k, :-1].reshape(-1, 1), life[k, 1:].reshape(-1, 1)) for k in (order[:100], order[100:])]
    return *halves, order[100:]


def transition_batches(seed):
    (now, later), *_ = transitions(seed)
    generator = torch.Generator().manual_seed(seed)
    while True:
        k = torch.randint(len(now), (128,), generator=generator)
        yield now[k], later[k]


# %% [markdown]
# The library has a random walk and a Laplace walk. Neither knows that life expectancy rises. That is an assumption of ours, so we write it down: a walk
# with a *drift*.


# %%
class Drifting(nn.Module):
    """A walk of any kind that starts from z + drift."""

    def __init__(self, walk):
        super().__init__()
        self.walk, self.drift = walk, nn.Parameter(torch.zeros(1))

    def forward(self, z, z_prime):
        return self.walk(z + self.drift, z_prime)


PRIORS = {
    "walk": lambda: rpm.RandomWalk(0.3),
    "Laplace walk": lambda: rpm.LaplaceWalk(0.3),
    "drifting walk": lambda: Drifting(rpm.RandomWalk(0.3)),
    "drifting Laplace walk": lambda: Drifting(rpm.LaplaceWalk(0.3)),
    "universal": lambda: rpm.Universal(1, width=64),
}
assert all(rpm.check_critic(make(), dim=1).ok for make in PRIORS.values())

# %% [markdown]
# **Predict**: the universal critic can become any of the others, and has thousands of parameters more. Which one wins on countries that it has not seen?
#
# <details><summary>Answer</summary>
#
# The drifting Laplace walk, with two parameters. It says that life expectancy rises, and that large steps happen. The next cell has all five, with their spread.
# </details>


# %%
def fitted(make_critic, seed, encoder=None, learning_rate=2e-2):
    """A critic, with its encoder if there is one, trained on the split `seed`; and its evidence (training, held out)."""
    train, test, _ = transitions(seed)
    torch.manual_seed(seed)
    critic, encoder = make_critic(), encoder() if encoder else nn.Identity()
    list(rpm.train(encoder, critic, transition_batches(seed), 200, learning_rate=learning_rate))
    with torch.no_grad():
        evidence = [rpm.dataset_evidence(encoder(a), encoder(b), critic).infonce.item() for a, b in (train, test)]
    return critic, encoder, evidence


rates = {"universal": 5e-3}
fits = {n: [fitted(make, s, learning_rate=rates.get(n, 2e-2)) for s in tqdm(seeds, n)] for n, make in PRIORS.items()}

# %%
scores = {name: torch.tensor([fit[2] for fit in of_name]) for name, of_name in fits.items()}
for name, value in scores.items():
    size = sum(p.numel() for p in PRIORS[name]().parameters())
    seen, unseen = value.T
    print(f"{name:22} {size:5} parameters  trained on {seen.mean():.2f}  held out {unseen.mean():.2f}", end="  ")
    print("splits", ", ".join(f"{v:.2f}" for v in unseen))
best = scores["drifting Laplace walk"][:, 1]
for rival in ("walk", "Laplace walk", "drifting walk"):
    assert (best > scores[rival][:, 1] + 0.1).all()
assert best.mean() > scores["universal"][:, 1].mean() - 0.05

# %% [markdown]
# On every split the drifting Laplace walk beats each other walk by more than a tenth of a nat, and it holds its own against a network. Drift alone was not enough, nor
# were long tails alone. Why tails? The evidence is a mean over pairs, so ask which pairs the Gaussian loses it on.

# %%
_, (test_now, test_later), held_out_countries = transitions(seeds[0])
laplace, gaussian = (fits[name][0][0] for name in ("drifting Laplace walk", "drifting walk"))
with torch.no_grad():
    per_pair = [rpm.dataset_evidence(test_now, test_later, c, reduction="none").infonce for c in (laplace, gaussian)]
gain = per_pair[0] - per_pair[1]
for k in gain.topk(4).indices.tolist():
    row = 12 * int(held_out_countries[k // 11]) + k % 11
    print(f"{table[row]['country']:12} {table[row]['year']}–{table[row + 1]['year']}: ", end="")
    print(f"{float(table[row]['lifeExp']):.0f} to {float(table[row + 1]['lifeExp']):.0f} years, +{gain[k]:.0f} nats")
share = gain.topk(len(gain) // 20).values.sum() / gain.sum()
print(
    f"a twentieth of the pairs carries {share:.0%} of the whole gain; on the median pair it is {gain.median():+.2f} nats"
)
assert share > 3 / 20 and gain.median() > 0

# %% [markdown]
# Wars, famines, epidemics, and their ends: a Gaussian step makes them all but impossible and pays for each, a Laplace step makes them rare. `reduction="none"` is the tool to remember: before you trust
# a difference in evidence, see whether many pairs carry it or a few. Here it is a few; yet the median pair gains too, and the other splits agree.
#
# One assumption is still wrong: that a year of life expectancy means the same at 40 and at 80. Let an encoder stretch the axis, under the same prior: one latent that drifts
# evenly, at every level.

# %%
learned = [
    fitted(PRIORS["drifting Laplace walk"], s, lambda: rpm.encoders.mlp(1, 1, width=64), 5e-3) for s in tqdm(seeds)
]
stretched = torch.tensor([fit[2][1] for fit in learned])
for s, before, after in zip(seeds, best, stretched):
    print(f"split {s}: held out {before:.2f} with life expectancy itself, {after:.2f} with a learned axis")
assert (stretched - best).mean() > 0.05

# %%
expectancy = torch.arange(35.0, 83.0)
axes = {}
for s, (critic, encoder, _) in zip(seeds, learned):
    with torch.no_grad():
        steps = encoder(((expectancy - 60) / 12)[:, None])[:, 0] / critic.drift  # in units of one drift
    axes[f"split {s}"] = (steps - steps[0]).tolist()
    rise = steps[::8].diff()  # of each eight years
    assert rise[-1] > 1.2 * rise[:-1].max()  # three splits: 6.8 to 7.0, and 5.1 at most
rpm.figures.lines(
    expectancy,
    axes,
    x_label="life expectancy (years)",
    y_label="learned z, in typical steps of 5 years",
    caption="The learned axis is steepest where life expectancy is high: the same number of years takes more time there.",
)

# %% [markdown]
# The prior gave the latent a meaning: it is a clock, whose hands move one unit every five years in a typical country. No label said so, and the sign and the zero of the axis
# are arbitrary, which is why the figure divides by the drift. The splits agree on its shape where they have data.
#
# ## Two views, two encoders
#
# Third example: paired tables. Of each of 569 cell samples, scikit-learn's breast cancer data hold ten features of the cell nuclei: their mean ($x$) and
# their standard error ($x'$). The views mean different things, so why should one encoder serve both? And how many latents should it have? `encoder_prime` is the encoder of $x'$.
#
# The number of latents is part of the model too, and held-out evidence can choose it. We try 2, 4 and 6 before anything else.

# %%
data = torch.tensor(load_breast_cancer().data, dtype=torch.float32)
features = (data + 1e-3).log()  # sizes and ratios: the logarithm makes them comparable


def linear(dim):
    return nn.Linear(10, dim)


def network(dim):
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, dim))


def views(seed):
    """Mean and error features, standardised by the training half; and the rows of both halves."""
    order = torch.randperm(569, generator=torch.Generator().manual_seed(seed))
    z = (features - features[order[:369]].mean(0)) / features[order[:369]].std(0)
    return z[:, :10], z[:, 10:20], order[:369], order[369:]


# %%
def two_views(make, shared, seed, dim=2, steps=300):
    x, x_prime, train, test = views(seed)
    torch.manual_seed(seed)
    encoder = make(dim)
    other = encoder if shared else make(dim)
    critic, pairs = rpm.RandomWalk(), rpm.datasets.tensor_pairs(x[train], x_prime[train], 128, seed=seed)
    list(rpm.train(encoder, critic, pairs, steps, encoder_prime=other, learning_rate=3e-2))
    with torch.no_grad():
        z, z_prime = encoder(x), other(x_prime)
        return z, [rpm.dataset_evidence(z[k], z_prime[k], critic).infonce.item() for k in (train, test)]


# %%
by_dim = {}
for dim in tqdm((2, 4, 6)):
    by_dim[dim] = [two_views(linear, False, s, dim)[1][1] for s in seeds]
    print(f"{dim} latents: held out", ", ".join(f"{v:.2f}" for v in by_dim[dim]), "nats")
assert min(a - b for a, b in zip(by_dim[6], by_dim[2])) > 0.2  # 0.4 to 0.7 on four splits

kinds, views_runs = {"linear": linear, "network": network}, {}
for name, make in tqdm(kinds.items()):
    for shared in (True, False):
        kind = f"{name}, {'shared' if shared else 'one for each view'}"
        views_runs[kind] = [two_views(make, shared, s, dim=6) for s in seeds]

# %%
nats = {name: torch.tensor([run[1] for run in of_name]) for name, of_name in views_runs.items()}
for name, value in nats.items():
    seen, unseen = value.T
    print(f"{name:28} trained on {seen.mean():.2f}  held out {unseen.mean():.2f}", end="  ")
    print("splits", ", ".join(f"{v:.2f}" for v in unseen))
own, shared, large = (
    nats[n]
    for n in ("linear, one for each view", "linear, shared", "network, one for each view")
)
assert (own[:, 1] > shared[:, 1]).all() and (own[:, 1] > large[:, 1]).all()
assert (large[:, 0] > own[:, 0]).all()

# %% [markdown]
# Six latents earn more than two on every split. Two linear encoders beat one that both views share, and beat two networks that look better on the pairs they were trained on. A few hundred
# pairs are few: judge by held-out evidence, whatever the loss says.
#
# Two linear encoders and a walk make a method that you may know. For Gaussian views the best of this family reaches $-\tfrac12\sum_k\log(1-\rho_k^2)$ with the *canonical
# correlations* $\rho_k$ (E20): it is canonical correlation analysis. So its variates should be readable from our $z$.

# %%
agreement = []
for s, (z, _) in zip(seeds, views_runs["linear, one for each view"]):
    x, x_prime, train, test = views(s)
    analysis = CCA(2, max_iter=2000).fit(x[train].numpy(), x_prime[train].numpy())
    variates = torch.from_numpy(analysis.transform(x.numpy()))
    agreement.append(rpm.probes.r_squared(z[train], variates[train], z[test], variates[test]))
print("held-out R² of scikit-learn's canonical variates, from z:", ", ".join(f"{r:.2f}" for r in agreement))
assert min(agreement) > 0.6

# %% [markdown]
# ## Exercises
#
# **1.** Return $\kappa\cos(\theta-\theta')$ for every pair of angles, shape (n, m), from `theta`, shape (n,), and `theta_prime`, shape (m,).


# %% tags=["exercise"]
def periodic(theta, theta_prime, kappa):
    return ...


rpm.lessons.lesson_16.periodic.check(periodic)

# %% [markdown]
# **2.** Return the drifting Laplace walk's $\log f = -\lVert z + \mathrm{drift} - z'\rVert_1/\mathrm{scale}$, shape (n, m), from `z`, shape (n, d), `z_prime`, shape (m, d), and
# `drift`, shape (d,).


# %% tags=["exercise"]
def drifting_walk(z, z_prime, drift, scale):
    return ...


rpm.lessons.lesson_16.drifting_walk.check(drifting_walk)

# %% [markdown]
# ## Quiz
#
# **1. Your critic divides its scores by their standard deviation over the batch. The loss is good. What is wrong?**
# <details><summary>nothing: a scale is part of any critic</summary>A scale of its own, yes. This one changes with the batch, so that a pair has no score of its own.</details>
# <details><summary>there is no f(z,z′), so no prior and no evidence</summary>Yes. The check is called pairing: the table has to agree with the scores of single pairs.</details>
# <details><summary>the gradient is NaN</summary>It is finite, which is why the training looks well.</details>
#
# **2. Prior A beats prior B by a tenth of a nat per held-out pair, and all of it comes from three pairs. You…**
# <details><summary>take A: evidence is evidence</summary>On those three pairs it is. Another sample may not contain them: look at other splits first.</details>
# <details><summary>look at the three pairs, and at other splits</summary>Yes. They may be errors in the data, or, as here, the very events that the tails are about.</details>
# <details><summary>remove the three pairs</summary>Only with a reason other than that they decide: removing what a prior finds improbable makes any prior look good.</details>
#
# **3. A periodic code is stuck at the evidence of a line. More training steps…**
# <details><summary>will unfold it</summary>Small steps on the circle leave the winding number as it is.</details>
# <details><summary>will not help; a detour through the plane will</summary>Yes: a walk opens the code into a ring, and a ring with the origin inside winds once. A loop beside the origin cannot be wound around it by small steps.</details>
# <details><summary>will not help: the prior is wrong</summary>The prior is the right one. The same prior earns all that there is when it starts from a ring.</details>
#
# ## What we saw, in this lesson and in all of them
#
# A prior of your own is a module of a few lines. `check_critic` says whether it is one; held-out evidence says what it is worth, and pair by pair where; and a good prior gives the
# latents a meaning: an angle, a clock, a canonical variate.
#
# The course had one thread: **one number with three names**. On a table of all pairs, *InfoNCE* is what you train ([lesson 0](00_start_here.ipynb)); it is the *ELBO* of a model whose
# decoder is Bayes' rule, up to a constant of the data ([1](01_the_model.ipynb), [2](02_the_elbo.ipynb), [3](03_infonce_is_the_elbo.ipynb)); and for a deterministic encoder it is
# the *log evidence* of the data set ([5](05_the_evidence_of_a_data_set.ipynb)), which a batch shows only up to its ceiling ([6](06_finite_batches.ipynb)). How much the views
# share does not make a representation good: scrambling does not change it. The prior says how they share it ([lessons 7](07_why_not_mutual_information.ipynb) to
# [13](13_the_other_rpm.ipynb)). The encoders of this lesson are deterministic, so its three numbers are one:

# %%
worlds = {
    "hand": held_out["circle by way of the plane"],
    "life expectancy": stretched,
    "cells": own[:, 1],
}
shown = (f"{name} {value.mean():.2f}" for name, value in worlds.items())
print("InfoNCE = ELBO − C = log evidence − C, in nats a pair:", ", ".join(shown))

# %% [markdown]
# **Where to go on.** The paper, [arXiv 2107.02495](https://arxiv.org/abs/2107.02495), now reads as a summary of what you have run. `objectives.py` holds the thread in a hundred lines.
# And there are your own pairs. You choose what belongs together; the evidence cannot choose that for you (lesson 9). Then write down several ways in which one may follow from the other,
# and let held-out evidence choose among them. Whether the chosen model serves your purpose is a second question, and a probe for that purpose answers it.
