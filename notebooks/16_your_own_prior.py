# %% [markdown] tags=["slide"]
# # Your own prior: bring pairs, an encoder and a critic
#
# You have pairs of your own: two frames, two views, now and later. **Which prior do you write down for them, and how do you find out whether it was a good one?**
# A prior is an assumption about how $z'$ follows from $z$, and nobody knows your data better than you. This lesson shows how to write the
# assumption as a critic, how to check that the critic is a prior at all, and how held-out pairs judge it.
#
# **Afterwards you can** write a critic and have it checked; choose between priors of your own by held-out evidence, and find the pairs that decide; say why training may fail to bring a code to what its prior allows; choose the number of latents; use an encoder for each side; recognise a broken critic that its training loss does not show.
#
# **You need** lessons [5](05_the_evidence_of_a_data_set.ipynb) and [8](08_a_prior_is_an_assumption.ipynb). This is the last lesson, and its end looks back at all of them. **Time** 60 minutes, of which the computer takes one.
# Symbols are in the [notation](../docs/notation.md), words in the [glossary](../docs/glossary.md), objections in the
# [FAQ](../docs/faq.md).
#
# **Whose result is it?** That a critic is a prior is section 4 of the paper ([Aitchison and Ganev](https://arxiv.org/abs/2107.02495)), here (E7) and (E18). The data, the priors and what
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

# %% [markdown] tags=["slide"]
# ## A critic is any module that scores pairs
#
# Three things make a model: pairs $(x, x')$, an encoder, and a critic $f(z, z')$, which makes the prior $P(z'|z) = Q(z')\,f(z,z')/Z(z)$ (E7). In code a critic is a module that takes $n$ rows $z$ and $m$ rows $z'$, and returns the table of
# all scores $\log f$, of shape $(n, m)$. Here is a critic for a latent that is an angle $\theta$, the direction of $z$ in the plane:
#
# $$\log f(z,z') = \kappa\cos(\theta - \theta'). \tag{E18}$$
#
# This is the von Mises–Fisher distribution, the circle's analogue of a Gaussian, with its peak where $\theta' = \theta$. The number $\kappa$ is its *concentration*: a large $\kappa$ says that $\theta'$ lies close to $\theta$. `rpm.check_critic` tries the module on made-up latents; the nats in its last line are theirs, and say nothing of your data.


# %% tags=["reproducible", "slide"]
class Circle(nn.Module):
    """log f = kappa cos(theta - theta'), the von Mises-Fisher prior on the circle."""

    def __init__(self, kappa=10.0):
        super().__init__()
        self.log_kappa = nn.Parameter(torch.tensor(math.log(kappa)))

    def forward(self, z, z_prime):
        cosine = F.normalize(z, dim=1) @ F.normalize(z_prime, dim=1).T
        return self.log_kappa.exp() * cosine


report = rpm.check_critic(Circle(), dim=2)
report

# %%
assert report.ok
z, z_prime = torch.randn(2, 64, 2, generator=torch.Generator().manual_seed(0))
ours, theirs = Circle(kappa=10.0), rpm.VonMisesFisher(temperature=1 / 10)
off = (ours(z, z_prime) - theirs(z, z_prime)).abs().max().item()
print(f"largest difference from rpm.VonMisesFisher at temperature 1/kappa: {off:.0e}")
assert off < 1e-4

# %% [markdown] tags=["slide"]
# Each line of this report is a property that the rest of the course relied on. (*Interaction*: if $\log f$ were a sum $a(z)+b(z')$, then $P(z'|z)$ would not depend on $z$.) The last one compares the table of scores with `rpm.dataset_evidence`, value and gradient: the two
# have to be one number. A critic that fails can have a perfect training loss; the appendix at the end of this lesson shows two that fail. In a test suite of yours, write
# `rpm.check_critic(critic, dim=2, raise_exception=True)`.
#
# In the rest of this lesson, *evidence* is InfoNCE with all given pairs as candidates. The encoders are deterministic, so it is the log evidence less $C$ (E14): how many nats a pair the model is better than chance.
#
# ## A circle does not fit on a line
#
# First example: the hand of a clock turns by a random angle between two frames, on average neither forwards nor backwards. All there is to know about $x$ is an angle.


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


# %% tags=["slide"]
x, x_prime, theta = turns(2048, torch.Generator().manual_seed(99))
entropy_of_step = 0.5 * math.log(2 * math.pi * math.e * 0.3**2)  # of a Gaussian
truth = math.log(2 * math.pi) - entropy_of_step  # a step rarely goes around the circle
print(f"mutual information of two frames: {truth:.3f} nats")
turned = f"the hand turns, typically by {math.degrees(0.3):.0f}° to either side"
rows = {"x": x[:10], "x′": x_prime[:10]}
rpm.figures.images(rows, caption=f"Ten pairs, one in each column: {turned}.")

# %% [markdown] tags=["slide"]
# We train four models, each from several random starts:
#
# - **The line**: one latent, and a random walk as the prior: Gaussian steps, $\log f = -(z-z')^2/2\sigma^2$.
# - **The circle**: two latents; `Circle` uses only their direction.
# - **The centred circle**: the same, but before training the latents are shifted so that their mean is 0.
# - **The circle by way of the plane**: first 100 training steps with a random walk in the plane as the prior; then the latents are centred, and `Circle` takes over for 100 more (the others train for 150).
#
# **Predict**: the line cannot hold the circle without using each place twice. Do the other three differ? They have the same prior.
#
# <details><summary>Answer</summary>
#
# They do. By way of the plane every start earns the whole mutual information. Without centring none does. With centring some do and some do not.
# </details>


# %%
def trained(plan, seed, centred=False):
    """z, z' of held-out frames, their evidence, that of 256 training pairs, critic."""
    torch.manual_seed(seed)
    encoder = rpm.encoders.mlp(256, plan[0][0], width=64)
    for stage, (_, make_critic, steps) in enumerate(plan):
        if stage or centred:  # the circle minds where 0 lies: move it to the middle
            with torch.no_grad():
                encoder[-1].bias.sub_(encoder(next(turn_batches(seed))[0]).mean(0))
        critic, batches = make_critic(), turn_batches(1000 * stage + seed)
        list(rpm.train(encoder, critic, batches, steps, learning_rate=3e-3))
    with torch.no_grad():
        z, z_prime = encoder(x), encoder(x_prime)
        seen = rpm.infonce(critic(*map(encoder, next(turn_batches(seed))))).value.item()
        held_out = rpm.dataset_evidence(z, z_prime, critic).infonce.item()
    return z, z_prime, held_out, seen, critic


# %% tags=["slide"]
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

# %% [markdown] tags=["slide"]
# By way of the plane the model earns the whole mutual information, from every start. The line cannot, and the circle without centring earns no more than the line. Of the centred starts some earn all
# and some do not. To see why, turn the hand once around, and count how often the code's direction goes around with it. This is the code's *winding number*.


# %% tags=["slide"]
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
wound = held_out["centred circle"] > truth - 0.1
seen = torch.tensor([run[3] for run in runs["centred circle"]])  # on training pairs
assert 0 < wound.sum() < 6 and seen[wound].min() > seen[~wound].max() + 0.3
kappa = runs["circle by way of the plane"][0][4].log_kappa.exp().item()
print(f"learned kappa {kappa:.0f}; steps of size 0.3 have 1/0.3² = {1 / 0.3**2:.0f}")

# %% [markdown] tags=["slide"]
# A code that winds 0 times is *folded*: seen from the origin its direction goes out and comes back, so that two angles of the hand share each direction. The line's code is always folded: a continuous map of a circle to a line takes each value between its ends at least twice. So it earns as much as a folded circle, which loses a little less than $\log 2$ nats.
#
# A winding number is a whole number, and it changes only when a latent passes through the origin, where there is no direction. An untrained network as a rule puts its latents close together and away from the origin, so their curve does not go around it: a fold. Centring puts the origin in the middle of the latents, but the closed curve that they form need not go around it, so centred starts fold too. The random walk has no
# origin: it opens the code into a ring, and after centring the origin lies inside the ring.
#
# The evidence of *training* pairs tells folded and wound codes apart too, as an assertion in the cell above checks; so among several centred starts you can pick a good one without held-out pairs. ([Lesson 14](14_elbo_against_evidence.ipynb) chooses restarts in this way.)
#
# ## Concentration is an assumption about the next frame
#
# In the widget below you choose a code, a $\kappa$ and a pair, and see which next frames the prior expects. **Predict**: does the best $\kappa$ of the folded code show that something is wrong with it?
#
# <details><summary>Answer</summary>
#
# No: it is about the same as that of the code that winds once. Each step looks as it should. But each latent stands for two angles, so the model spreads its probability over two places. Only the height
# of the evidence curve shows the fold.
# </details>

# %% tags=["slide"]
folded = min(runs["circle"], key=lambda run: run[2])
codes = {"wound once": runs["circle by way of the plane"][0][:2], "folded": folded[:2]}
codes = {name: (z[:512], z_prime[:512]) for name, (z, z_prime) in codes.items()}
best_kappa = {}
for name, pairs in codes.items():
    with torch.no_grad():
        found = {k: rpm.dataset_evidence(*pairs, Circle(k)) for k in range(1, 41)}
    of_kappa = {k: evidence.infonce.item() for k, evidence in found.items()}
    best_kappa[name] = k = max(of_kappa, key=of_kappa.get)
    print(f"{name:10} best kappa {k}, where it earns {of_kappa[k]:.2f} nats")
assert abs(best_kappa["wound once"] - best_kappa["folded"]) <= 3
rpm.explore(rpm.lessons.lesson_16.concentration(codes))

# %% [markdown] tags=["slide"]
# ## A real series: the evidence chooses, and names the pairs that decide
#
# Second example: life expectancy in 142 countries, every five years from 1952 to 2007 (data of Gapminder; plotly ships the table). A pair is a country's life expectancy now and five years
# later. For now there is nothing to encode: $z$ is life expectancy itself, minus 60 years and divided by 12. We train on the pairs of 100 countries and evaluate on those of the other 42.

# %%
with (files("plotly") / "package_data/datasets/gapminder.csv.gz").open("rb") as file:
    table = list(csv.DictReader(gzip.open(file, "rt", encoding="utf-8")))
life = (torch.tensor([float(row["lifeExp"]) for row in table]).view(142, 12) - 60) / 12


def transitions(seed):
    """Training pairs, held-out pairs, held-out countries: each seed another split."""
    order = torch.randperm(142, generator=torch.Generator().manual_seed(seed))
    now, later = life[order, :-1].reshape(-1, 1), life[order, 1:].reshape(-1, 1)
    return (now[:1100], later[:1100]), (now[1100:], later[1100:]), order[100:]


def transition_batches(seed):
    (now, later), *_ = transitions(seed)
    generator = torch.Generator().manual_seed(seed)
    while True:
        k = torch.randint(len(now), (128,), generator=generator)
        yield now[k], later[k]


# %% [markdown]
# The library has a random walk, whose steps are Gaussian, and a Laplace walk, whose steps are mostly small and now and then large. Neither knows that life expectancy rises. That it does is an assumption of ours, so we write it down: a walk
# with a *drift*, which takes its step from $z + \text{drift}$.


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

# %% [markdown] tags=["slide"]
# **Predict**: the universal critic, two networks and an inner product, can become any of the others. It has thousands more parameters. Which of the five wins on countries that it has not seen?
#
# <details><summary>Answer</summary>
#
# The drifting Laplace walk, with two parameters. It says that life expectancy rises, and that large steps happen. The next cells show all five, with their spread over three splits.
# </details>


# %%
def fitted(make_critic, seed, encoder=None, learning_rate=2e-2):
    """A trained critic, its encoder, its evidence on training and held-out pairs."""
    train, test, _ = transitions(seed)
    torch.manual_seed(seed)
    critic, encoder = make_critic(), encoder() if encoder else nn.Identity()
    batches = transition_batches(seed)
    list(rpm.train(encoder, critic, batches, 200, learning_rate=learning_rate))
    with torch.no_grad():
        latents = [(encoder(now), encoder(later)) for now, later in (train, test)]
        found = [rpm.dataset_evidence(*both, critic) for both in latents]
    return critic, encoder, [evidence.infonce.item() for evidence in found]


fits = {}
for name, make in PRIORS.items():
    rate = 5e-3 if name == "universal" else 2e-2
    fits[name] = [fitted(make, s, learning_rate=rate) for s in tqdm(seeds, name)]

# %% tags=["slide"]
scores = {name: torch.tensor([fit[2] for fit in found]) for name, found in fits.items()}
for name, value in scores.items():
    size = sum(p.numel() for p in PRIORS[name]().parameters())
    seen, unseen = value.T
    print(f"{name:22} {size:5} parameters: training pairs {seen.mean():.2f}", end=", ")
    print(f"held out {unseen.mean():.2f}", *(f"{v:.2f}" for v in unseen))
best = scores["drifting Laplace walk"][:, 1]
for rival in ("walk", "Laplace walk", "drifting walk"):
    assert (best > scores[rival][:, 1] + 0.1).all()
assert best.mean() > scores["universal"][:, 1].mean() - 0.05

# %% [markdown] tags=["slide"]
# Each line ends with the mean of the held-out evidence and its three splits. On every split the drifting Laplace walk beats each other walk by more than a tenth of a nat, and it is no worse than the universal critic. A drift alone was not enough, nor
# were long tails alone. Why do tails matter? The evidence is a mean over pairs, so we can ask on which pairs the Gaussian walk loses.

# %% tags=["slide"]
_, (test_now, test_later), held_out_countries = transitions(seeds[0])
per_pair = []
for name in ("drifting Laplace walk", "drifting walk"):
    with torch.no_grad():
        critic = fits[name][0][0]
        found = rpm.dataset_evidence(test_now, test_later, critic, reduction="none")
    per_pair.append(found.infonce)
gain = per_pair[0] - per_pair[1]
for k in gain.topk(4).indices.tolist():
    row = 12 * int(held_out_countries[k // 11]) + k % 11
    now, later = table[row : row + 2]
    print(f"{now['country']:12} {now['year']}–{later['year']}: ", end="")
    years = [round(float(row["lifeExp"])) for row in (now, later)]
    print(f"{years[0]} to {years[1]} years, {gain[k]:+.0f} nats")

# %% tags=["slide"]
share = gain.topk(len(gain) // 20).values.sum() / gain.sum()
print(f"a twentieth of the pairs carries {share:.0%} of the gain;", end=" ")
print(f"on the median pair it is {gain.median():+.2f} nats")
assert share > 3 / 20 and gain.median() > 0

# %% [markdown] tags=["slide"]
# These are wars, famines, epidemics, and their ends. Under Gaussian steps they are almost impossible, and each costs that prior many nats; under Laplace steps they are merely rare. Remember `reduction="none"`, which gives the evidence of each pair: before you trust
# a difference in evidence, see whether it comes from many pairs or from a few. Here it comes from a few; but the median pair gains too, and on the other splits the same prior wins.
#
# One assumption of this prior may still be wrong: that life expectancy drifts by as many years at 40 as at 80. So let an encoder stretch the axis, and keep the prior: the latent drifts
# by the same amount at every level, whatever that is in years.

# %% tags=["slide"]
def axis():
    return rpm.encoders.mlp(1, 1, width=64)


prior = PRIORS["drifting Laplace walk"]
learned = [fitted(prior, s, axis, learning_rate=5e-3) for s in tqdm(seeds)]
stretched = torch.tensor([fit[2][1] for fit in learned])
for s, before, after in zip(seeds, best, stretched):
    print(f"split {s}: held out {before:.2f} with z = life expectancy", end=", ")
    print(f"{after:.2f} with a learned z")
assert (stretched - best).mean() > 0.05

# %% tags=["slide"]
expectancy = torch.arange(35.0, 83.0)
axes = {}
for s, (critic, encoder, _) in zip(seeds, learned):
    with torch.no_grad():
        latent = encoder(((expectancy - 60) / 12)[:, None])[:, 0]
        steps = latent / critic.drift  # in units of one drift
    axes[f"split {s}"] = (steps - steps[0]).tolist()
    rise = steps[::8].diff()  # of each eight years
    assert rise[-1] > 1.2 * rise[:-1].max()  # three splits: 6.8 to 7.0, and 5.1 at most
rpm.figures.lines(
    expectancy, axes,
    x_label="life expectancy (years)",
    y_label="learned z, in typical steps of 5 years",
    caption="Steepest at the right: each further year of life takes longest there.",
)

# %% [markdown] tags=["slide"]
# The prior gave the latent a meaning: it is a clock, which moves by one drift every five years in a typical country. No label said so. The sign, unit and zero of $z$
# are arbitrary, which is why the figure divides by the drift and starts at 0. The three splits agree on the shape.
#
# ## Two views, two encoders
#
# Third example: two tables with the same rows. For each of 569 cell samples, scikit-learn's breast cancer data hold the means of ten features of the cell nuclei ($x$) and
# the standard errors of the same features ($x'$). Two questions: how many latents should the code have, and should one encoder serve both views? If each view has an encoder of its own, `rpm.train` takes the one for $x'$ as `encoder_prime`.
#
# The number of latents is part of the model, and held-out evidence can choose it. We try 2, 4 and 6 latents, with a linear encoder for each view.

# %%
data = torch.tensor(load_breast_cancer().data, dtype=torch.float32)
features = (data + 1e-3).log()  # sizes and ratios: the logarithm makes them comparable


def linear(dim):
    return nn.Linear(10, dim)


def network(dim):
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, dim))


def views(seed):
    """Both views, standardised by the training rows; training rows, held-out rows."""
    order = torch.randperm(569, generator=torch.Generator().manual_seed(seed))
    z = (features - features[order[:369]].mean(0)) / features[order[:369]].std(0)
    return z[:, :10], z[:, 10:20], order[:369], order[369:]


# %%
def two_views(make, shared, seed, dim, steps=300):
    x, x_prime, train, test = views(seed)
    torch.manual_seed(seed)
    encoder = make(dim)
    other = encoder if shared else make(dim)
    pairs = rpm.datasets.tensor_pairs(x[train], x_prime[train], 128, seed=seed)
    critic, settings = rpm.RandomWalk(), {"encoder_prime": other, "learning_rate": 3e-2}
    list(rpm.train(encoder, critic, pairs, steps, **settings))
    with torch.no_grad():
        z, z_prime = encoder(x), other(x_prime)
        found = [rpm.dataset_evidence(z[k], z_prime[k], critic) for k in (train, test)]
    return z, [evidence.infonce.item() for evidence in found]


# %% tags=["slide"]
by_dim = {}
for dim in tqdm((2, 4, 6)):
    by_dim[dim] = [two_views(linear, False, s, dim)[1][1] for s in seeds]
    shown = ", ".join(f"{v:.2f}" for v in by_dim[dim])
    print(f"{dim} latents: held out {shown} nats on three splits")
more = [six - two for six, two in zip(by_dim[6], by_dim[2])]
assert min(more) > 0.2  # 0.4 to 0.7 on four splits

kinds, views_runs = {"linear": linear, "network": network}, {}
for name, make in tqdm(kinds.items()):
    for shared in (True, False):
        kind = f"{name}, {'shared' if shared else 'one for each view'}"
        views_runs[kind] = [two_views(make, shared, s, dim=6) for s in seeds]

# %% tags=["slide"]
nats = {name: torch.tensor([run[1] for run in of]) for name, of in views_runs.items()}
for name, value in nats.items():
    seen, unseen = value.T
    print(f"{name:26} training pairs {seen.mean():.2f}", end=", ")
    print(f"held out {unseen.mean():.2f}:", *(f"{v:.2f}" for v in unseen))
own, shared = nats["linear, one for each view"], nats["linear, shared"]
large = nats["network, one for each view"]
assert (own[:, 1] > shared[:, 1]).all() and (own[:, 1] > large[:, 1]).all()
assert (large[:, 0] > own[:, 0]).all()

# %% [markdown] tags=["slide"]
# Six latents earn more than two on every split; whether more earn more still we did not try. Two linear encoders beat one that both views share. They also beat two networks, which look better on the pairs that they were trained on. A few hundred
# pairs are few: judge by held-out evidence, whatever the training loss says.
#
# Two linear encoders and a random walk are close to a method that you may know, *canonical correlation analysis*. It looks for linear functions of $x$ and of $x'$, the *variates*, whose correlations $\rho_k$ are as high as possible. For Gaussian views the mutual information is
# $-\tfrac12\sum_k\log(1-\rho_k^2)$ (E20), so the variates with the highest $\rho_k$ are worth most nats. So $z$ should contain them, up to a linear map; we look for the two with the highest $\rho_k$.

# %% tags=["slide"]
agreement, by_chance = [], []
for s, (z, _) in zip(seeds, views_runs["linear, one for each view"]):
    x, x_prime, train, test = views(s)
    analysis = CCA(2, max_iter=2000).fit(x[train].numpy(), x_prime[train].numpy())
    variates = torch.from_numpy(analysis.transform(x.numpy()))
    torch.manual_seed(s + 100)
    for of, latents in ((agreement, z), (by_chance, linear(6)(x).detach())):
        both = (side[k] for k in (train, test) for side in (latents, variates))
        of.append(rpm.probes.r_squared(*both))
print("held-out R² of scikit-learn's two canonical variates, linear in z:", end=" ")
print(", ".join(f"{r:.2f}" for r in agreement), end="; in six untrained latents: ")
print(", ".join(f"{r:.2f}" for r in by_chance))
assert min(agreement) > max(by_chance)

# %% [markdown] tags=["slide"]
# The trained latents hold the two variates almost whole. Six random linear functions of ten related features hold much of them too: without that number beside it, an $R^2$ near one would say little.
#
# ## Exercises
#
# **1.** Return $\kappa\cos(\theta-\theta')$ for every pair of angles, shape (n, m), from `theta`, shape (n,), and `theta_prime`, shape (m,).


# %% tags=["exercise"]
def periodic(theta, theta_prime, kappa):
    return ...


rpm.lessons.lesson_16.periodic.check(periodic)

# %% [markdown] tags=["slide"]
# **2.** Return the drifting Laplace walk's $\log f = -\lVert z + \mathrm{drift} - z'\rVert_1/\mathrm{scale}$, shape (n, m), from `z`, shape (n, d), `z_prime`, shape (m, d), and
# `drift`, shape (d,).


# %% tags=["exercise"]
def drifting_walk(z, z_prime, drift, scale):
    return ...


rpm.lessons.lesson_16.drifting_walk.check(drifting_walk)

# %% [markdown] tags=["slide"]
# ## Quiz
#
# **1. Your critic divides its scores by their standard deviation over the batch. The loss is good. What is wrong?**
# <details><summary>nothing: a scale is part of any critic</summary>A scale of its own, yes. This one changes with the batch, so that a pair has no score of its own.</details>
# <details><summary>there is no f(z,z′), so no prior and no evidence</summary>Yes. The check called pairing finds it: each entry of the table has to be the score of its pair alone. The appendix has such a critic.</details>
# <details><summary>the gradient is NaN</summary>It is finite, which is why the training looks fine.</details>
#
# **2. Prior A beats prior B by a tenth of a nat per held-out pair, and all of it comes from three pairs. You…**
# <details><summary>take A: evidence is evidence</summary>It is evidence about those three pairs. Another sample may not contain them: look at other splits first.</details>
# <details><summary>look at the three pairs, and at other splits</summary>Yes. They may be errors in the data, or, as here, the very events that the tails are about.</details>
# <details><summary>remove the three pairs</summary>Only with a reason other than that they decide: removing what a prior finds improbable makes any prior look good.</details>
#
# **3. A code under the circle prior is stuck at the evidence that the line earns. More training steps…**
# <details><summary>will unfold it</summary>Small training steps leave the winding number as it is, unless a latent passes through the origin.</details>
# <details><summary>will not help; a centred start may, and the way through the plane does</summary>Yes: restarts, judged by the training pairs, or the way through the plane, where a walk opens the code into a ring first.</details>
# <details><summary>will not help: the prior is wrong</summary>The prior is the right one. The same prior earns all that there is when it starts from a ring.</details>
#
# ## What we saw, in this lesson and in all of them
#
# A prior of your own is a module of a few lines. `check_critic` says whether it is one. Held-out evidence says what it is worth, and on which pairs. A good prior gives the latents a meaning: an angle, a clock, and, up to a linear map, canonical variates.
#
# The course had one thread, **one number with three names**:
#
# - [Lesson 0](00_start_here.ipynb) computed the three names on one table: *InfoNCE*, which you train; the *ELBO* of a model, up to a constant of the data; and the model's *log evidence*.
# - Why they agree: a model whose decoder is Bayes' rule ([1](01_the_model.ipynb)); its ELBO, in which the encoders' densities cancel ([2](02_the_elbo.ipynb)); the prior that makes the ELBO InfoNCE ([3](03_infonce_is_the_elbo.ipynb)); other priors, each with its objective ([4](04_one_prior_one_objective.ipynb)).
# - How to measure it: the log evidence of a whole data set ([5](05_the_evidence_of_a_data_set.ipynb)), which a batch shows only up to its ceiling ([6](06_finite_batches.ipynb)).
# - What it means: how much two views share does not make a representation good, since scrambling does not change it ([7](07_why_not_mutual_information.ipynb)); the prior says *how* they share it, and evidence can choose the prior ([8](08_a_prior_is_an_assumption.ipynb)).
# - Where it leads: images, with the evidence beside a probe ([9](09_learning_from_images.ipynb)); chains in time ([10](10_sequences.ipynb)), CPC's horizons ([11](11_looking_ahead.ipynb)) and hidden states ([12](12_hidden_states.ipynb)); one latent for many observations ([13](13_the_other_rpm.ipynb)); bound or evidence ([14](14_elbo_against_evidence.ipynb)); the losses that you use ([15](15_the_losses_you_use.ipynb)); and now your own prior.
#
# The encoders of this lesson are deterministic, so its three numbers are one:

# %%
worlds = {
    "hand": held_out["circle by way of the plane"],
    "life expectancy": stretched,
    "cells": own[:, 1],
}
shown = ", ".join(f"{name} {value.mean():.2f}" for name, value in worlds.items())
print(f"InfoNCE = ELBO − C = log evidence − C, in nats a pair: {shown}")

# %% [markdown]
# **Where to go on.** The paper, [arXiv 2107.02495](https://arxiv.org/abs/2107.02495), now reads as a summary of what you have run. The library's file `objectives.py` (in the folder `rpm_tutorial`) defines InfoNCE and its relatives.
# And there are your own pairs. First choose what belongs together: the evidence cannot choose that for you, because another choice is other data (lesson 9). Then write down several ways in which $z'$ may follow from $z$,
# and let held-out evidence choose among them. Evidence does not say whether the latents serve your purpose: lesson 9 found that it does not predict a probe. So have a probe for your purpose, too.
#
# ## Appendix: two broken critics
#
# `check_critic` found nothing wrong with `Circle`. Here are two critics that fail it, of a kind that people really write. In the first, someone normalises the scores inside the critic, as one would before a cross-entropy.
#
# **Predict**: what does the training loss say about it?
#
# <details><summary>Answer</summary>
#
# Nothing at all. InfoNCE divides each row by its own normaliser, so a factor that a whole row shares cancels (lesson 3): the value is the same.
# </details>


# %% tags=["reproducible"]
class Normalised(rpm.RandomWalk):
    def forward(self, z, z_prime):
        return super().forward(z, z_prime).log_softmax(1)


rng = torch.Generator().manual_seed(0)
z = torch.randn(64, 2, generator=rng)
pairs = z, z + 0.3 * torch.randn(64, 2, generator=rng)
whole = [rpm.infonce(c(*pairs)).value.item() for c in (rpm.RandomWalk(), Normalised())]
print(f"InfoNCE with the walk {whole[0]:.6f}, normalised inside {whole[1]:.6f}")
in_tiles = rpm.dataset_evidence(*pairs, Normalised(), block=8).infonce.item()
print(f"the same pairs in tiles of 8 × 16 scores: {in_tiles:.3f}", end=", ")
print(f"not {whole[0]:.3f} nats")
assert abs(whole[0] - whole[1]) < 1e-5 and abs(in_tiles - whole[0]) > 0.01
report = rpm.check_critic(Normalised(), dim=2)
assert not report.ok
report

# %% [markdown]
# The score of a pair now depends on who else is in the batch. So there is no $f(z,z')$, hence no prior, and the evidence depends on how the table of scores was cut into tiles.
#
# The second critic is minus a distance, where the random walk has minus its square. It works until some $z'$ equals some $z$: there the square root has no derivative. One such pair in an epoch, and every weight of the encoder is NaN. (`torch.cdist` sets the derivative to 0 there.)


# %% tags=["reproducible"]
class Distance(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, z, z_prime):
        distance = (z[:, None] - z_prime).square().sum(2).sqrt()
        return -distance / self.log_scale.exp()


report = rpm.check_critic(Distance(), dim=2)
assert [c.name for c in report.checks if c.passed is False] == ["gradient"]
report
