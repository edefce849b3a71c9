# %% [markdown]
# # InfoRM: a reward model with a bottleneck, and the outliers that hack it
#
# A reward model learns from comparisons what people prefer, and a policy then climbs it, past the point where people agree. A bottleneck on the reward model's latent is meant to keep out what does not matter, and to show who left the data.
#
# **The paper's claim** (Miao et al., *InfoRM: Mitigating Reward Hacking in RLHF via Information-Theoretic Reward Modeling*, [arXiv 2402.09345](https://arxiv.org/abs/2402.09345), and *Information-Theoretic Reward Modeling for Stable RLHF*, [arXiv 2510.13694](https://arxiv.org/abs/2510.13694)): an
# information bottleneck filters what is irrelevant to preferences; hacked responses are outliers of its latent; and penalising their distance keeps the policy from hacking.
#
# **Afterwards you can** train a Bradley-Terry reward model with a bottleneck; watch proxy and gold reward part; detect hacking by the Mahalanobis distance; say what a bottleneck charges for, and why the RPM does not.
#
# **You need** [lesson 2](../02_the_elbo.ipynb). **Time** 20 minutes, of which the computer takes half of one.

# %%
import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F
from tqdm.auto import tqdm

import rpm_tutorial as rpm

rpm.setup()
seed = 0
seeds = tuple(range(seed, seed + 5))
D, K = 20, 8  # features of a response, dimensions of the latent

# %% [markdown]
# ## A gold reward, sixty comparisons, and much that does not matter
#
# A response is a vector: its quality, a spurious feature that goes along with quality in the data (say, length), and eighteen features that mean nothing. The gold reward is the quality, minus a penalty for anything unnatural: any other
# feature beyond two standard deviations. Of two responses, the better one is preferred with probability $\sigma(2\,\Delta\text{gold})$.


# %%
def responses(n, rng):
    quality = torch.randn(n, 1, generator=rng)
    spurious = 0.8 * quality + 0.6 * torch.randn(n, 1, generator=rng)
    return torch.cat([quality, spurious, torch.randn(n, D - 2, generator=rng)], 1)


def gold(x):
    return x[:, 0] - 0.25 * F.relu(x[:, 1:].abs() - 2).square().sum(1)


def preferences(n, rng, flipped=0.0):
    """The preferred responses and the others, each (n, D); a share is labelled wrong."""
    a, b = responses(n, rng), responses(n, rng)
    chance = flipped + (1 - 2 * flipped) * torch.sigmoid(2 * (gold(a) - gold(b)))
    a_wins = (torch.rand(n, generator=rng) < chance)[:, None]
    return torch.where(a_wins, a, b), torch.where(a_wins, b, a)


# %% [markdown]
# ## The reward model
#
# An encoder gives $Q(z|x) = \mathcal N(\mu(x), \sigma^2(x))$, a linear head $g$ the reward. With $w$ preferred to $l$, it maximises
#
# $$\mathbb E\log\sigma\big(g(z_w) - g(z_l)\big) - \beta\,\mathbb E\,\mathrm{KL}\big(Q(z|x)\,\|\,\mathcal N(0, I)\big). \tag{1}$$
#
# The KL is the *rate*: the nats that a latent may say about its response. With $\beta = 0$ we leave the noise out too: the usual reward model.
#
# **What the authors' code charges is something else.** In [their repository](https://github.com/miaoyuchun/InfoRM) (`openrlhf/models/model_inform.py`), $\mu$ and $\log\sigma^2$ are first averaged over the dimensions of the latent, and the KL is that of the one
# Gaussian with these averages. It vanishes as soon as the *averages* are 0, whatever the dimensions say. We train both: (1), and that one, as `averaged`.


# %%
class RewardModel(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.head = encoder, torch.nn.Linear(K, 1)

    def latent(self, x):
        return self.encoder(x).chunk(2, 1)[0]  # the mean

    def forward(self, x):
        return self.head(self.latent(x))[:, 0]


# %%
def kl(mean, log_variance):
    """From the standard normal, of each dimension."""
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


def objective(model, better, worse, beta, rng, averaged=False):
    """(1), or with the authors' charge, and the rate in nats per response."""
    mean, log_variance = model.encoder(torch.cat([better, worse])).chunk(2, 1)
    noise = torch.randn(mean.shape, generator=rng) * (log_variance / 2).exp() if beta else 0
    win, lose = model.head(mean + noise)[:, 0].chunk(2)
    rate = kl(mean, log_variance).sum(1).mean()
    charge = kl(mean.mean(1), log_variance.mean(1)).mean() if averaged else rate
    return F.logsigmoid(win - lose).mean() - beta * charge, rate.item()


# %%
def trained(seed, beta=0.0, make=None, rate=2e-2, decay=0.0, flipped=0.0, averaged=False):
    """A reward model after 500 steps on sixty comparisons, and the rate of (1) in nats."""
    rng = torch.Generator().manual_seed(seed)
    better, worse = preferences(60, rng, flipped)
    torch.manual_seed(seed)
    model = RewardModel(make() if make else torch.nn.Linear(D, 2 * K))
    optimiser = torch.optim.Adam(model.parameters(), rate, weight_decay=decay)
    for _ in range(500):
        value, nats = objective(model, better, worse, beta, rng, averaged)
        optimiser.zero_grad()
        (-value).backward()
        optimiser.step()
    return model, nats


# %% [markdown]
# **Predict**: as $\beta$ grows from 0 to 0.3, what happens to the share of the reward's gradient that falls on the eighteen empty features? And with the authors' charge?
#
# <details><summary>Answer</summary>
#
# For this linear encoder it falls by about a third, and mostly in two of the five seeds. Plain weight decay does more than half of the same: on this toy we cannot credit the nats. The authors' charge leaves
# nearly all of it: tens of nats pass where (1) lets one pass.
# </details>


# %%
def network():
    return rpm.encoders.mlp(D, 2 * K, width=64)


def irrelevant(model, seed):
    """The share of the reward's squared gradient that falls on features that mean nothing."""
    x = responses(500, torch.Generator().manual_seed(1000 + seed)).requires_grad_()
    squared = torch.autograd.grad(model(x).sum(), x)[0].square()
    return (squared[:, 2:].sum(1) / squared.sum(1)).mean().item()


def train_all(name, **settings):
    """The models of all seeds, the empty features' share of each, and its rate."""
    models, rates = zip(*(trained(s, **settings) for s in seeds))
    shares = np.array([irrelevant(model, s) for model, s in zip(models, seeds)])
    nats = f", rate {np.mean(rates):5.2f} nats" if settings.get("beta") else ""
    print(f"{name:17} empty features {shares.mean():.2f} ± {shares.std(ddof=1):.2f}{nats}")
    return models, shares, np.array(rates)


# %%
betas = (0.0, 0.003, 0.03, 0.1, 0.3)
sweep = {beta: train_all(f"beta {beta}", beta=beta) for beta in tqdm(betas)}
decayed = train_all("weight decay", decay=0.03)
theirs = train_all("averaged, 0.1", beta=0.1, averaged=True)
falls = sweep[0][1] - sweep[0.3][1]
print("fall from beta 0 to 0.3 in each seed", falls.round(2))
assert (sweep[0][1] - decayed[1]).mean() > 0.45 * falls.mean() > 0.02
assert np.sort(falls)[-2:].sum() > 0.6 * falls.sum(), "the two largest of five"
assert 0.2 < falls.mean() / sweep[0][1].mean() < 0.5, "about a third"
rates = [sweep[beta][2].mean() for beta in betas[1:]]
assert all(a > b for a, b in zip(rates, rates[1:])), "a dearer nat is used less"
assert (theirs[2] > 10 * sweep[0.1][2]).all() and theirs[1].mean() > sweep[0.1][1].mean()


# %%
deep, noisy = {}, {}
for beta in (0.0, 0.1):
    deep[beta] = train_all(f"deep, beta {beta}", beta=beta, make=network, rate=2e-3)[1]
    noisy[beta] = train_all(f"noisy, beta {beta}", beta=beta, flipped=0.25)
assert deep[0.1].mean() > deep[0.0].mean() + 0.05, "harm"
assert noisy[0.1][1].mean() > sweep[0.0][1].mean() + 0.1
assert abs(noisy[0.1][1] - noisy[0.0][1]).mean() < 0.1


def best_of(n, model, seed, tries=200):  # mean gold of the one that the model likes best
    x = responses(n * tries, torch.Generator().manual_seed(4000 + seed))
    with torch.no_grad():
        chosen = model(x).view(tries, n).argmax(1, keepdim=True)
    return gold(x).view(tries, n).gather(1, chosen).mean().item()


pushed = {"standard": sweep[0.0][0], "bottleneck": sweep[0.1][0]}
pushed |= {"weight decay": decayed[0], "standard, noisy": noisy[0.0][0]}
pushed |= {"bottleneck, noisy": noisy[0.1][0]}

# %% [markdown]
# Two limits of the claim. A network with two hidden layers can memorise sixty preferences and pass each through the bottleneck for a bit; the rate counts nats, and does not ask which. There the bottleneck does harm: the share rises. Which of our encoders stands better for the papers' language
# models, this toy cannot say. And if a quarter of the comparisons are labelled wrong, the empty features take two thirds of the gradient, with the bottleneck as without it: it cannot tell a wrong label from a right one.
#
# ## The policy climbs: proxy and gold part
#
# A policy can be pushed along a reward in two ways. **Best of n**: draw n ordinary responses and keep the one that the reward likes best; this costs at most $\log n - (n-1)/n$ nats of KL from the ordinary responses. **Gradient ascent** on the reward from ordinary
# responses, in steps of equal length. IBL adds a penalty to the second: the squared Mahalanobis distance of the latent from those of ordinary responses.
#
# **Predict**: with the bottleneck but no penalty, does the gold reward go on rising?
#
# <details><summary>Answer</summary>
#
# With best of n it does, up to 1 024: the best of ordinary responses is still one of them. Under gradient ascent it rises for longer than without the bottleneck, and then falls as well. The reward is wrong somewhere, and a climber finds out where. A penalty stops it near the
# data, if it is heavy enough for that reward's scale.
# </details>


# %%
best, counts = {}, np.array((1, 4, 16, 64, 256, 1024))
for name, models in pushed.items():
    best[name] = np.array([[best_of(n, m, s) for n in counts] for m, s in zip(models, seeds)])
    last = best[name][:, -1]
    print(f"{name:17} best of 1024: gold {last.mean():.2f} ± {last.std(ddof=1):.2f}")
    assert (np.diff(best[name].mean(0)) > 0).all(), "no curve turns"
end = {name: curve[:, -1] for name, curve in best.items()}
assert (end["bottleneck, noisy"] > end["standard, noisy"]).all()
assert abs(end["bottleneck"] - end["weight decay"]).mean() < 0.2
assert end["bottleneck"].mean() > end["standard"].mean() + 0.05
curves = {name: curve.mean(0) for name, curve in best.items() if name != "weight decay"}
caption = "Best of n, mean of five seeds. No curve turns; wrong labels cost more than any reward model wins."
rpm.figures.lines(counts, curves, x_log=True, x_label="n", y_label="gold reward", caption=caption)


# %%
def distance(z, reference):
    """Squared Mahalanobis distance, shape (n,); the covariance has a thousandth of its mean variance added."""
    covariance = torch.cov(reference.T)
    covariance = covariance + 1e-3 * covariance.trace() / K * torch.eye(K)
    centred = z - reference.mean(0)
    return (centred * torch.linalg.solve(covariance, centred.T).T).sum(1)


def ordinary(model, seed):
    with torch.no_grad():
        return model.latent(responses(2000, torch.Generator().manual_seed(2000 + seed)))


def spread(model, seed):
    """Of its reward over ordinary responses."""
    return model.head(ordinary(model, seed)).std().item()


# %%
def climb(model, seed, penalty=0.0, steps=100, length=0.25):
    """Mean proxy and gold reward at each step, shape (steps, 2), and the responses at each step."""
    x, reference = responses(300, torch.Generator().manual_seed(3000 + seed)), ordinary(model, seed)
    rewards, path = [], []
    for _ in range(steps):
        x.requires_grad_()
        proxy = model(x)
        step = torch.autograd.grad((proxy - penalty * distance(model.latent(x), reference)).sum(), x)[0]
        rewards.append((proxy.mean().item(), gold(x).mean().item()))
        path.append(x.detach())
        x = (x + length * F.normalize(step, dim=1)).detach()
    return np.array(rewards), path


# %%
settings = {"standard": (0, 0.0), "bottleneck": (0.1, 0.0), "standard, IBL": (0, 0.5), "bottleneck, IBL": (0.1, 0.5)}
climbs = {
    name: [climb(model, s, penalty) for model, s in zip(sweep[beta][0], seeds)]
    for name, (beta, penalty) in tqdm(settings.items())
}
scales = [spread(a, s) / spread(b, s) for a, b, s in zip(sweep[0][0], sweep[0.1][0], seeds)]
climbs["standard, scaled"] = [climb(a, s, 0.5 * c) for a, s, c in zip(sweep[0][0], seeds, scales)]
reward = {name: np.array([rewards for rewards, _ in runs]) for name, runs in climbs.items()}  # (seeds, steps, 2)
for name, r in reward.items():
    rise, end = r[:, -1, 0] - r[:, 0, 0], r[:, -1, 1]
    print(f"{name:16} proxy +{rise.mean():4.0f}; gold highest {r[..., 1].max(1).mean():.1f}, at the end", end=" ")
    print(", ".join(f"{value:.0f}" for value in end))
highest, safe = reward["bottleneck"][..., 1].max(1), reward["bottleneck, IBL"][:, -1, 1]
assert highest.mean() > reward["standard"][..., 1].max(1).mean()
assert (safe > 0).mean() >= 0.8 and safe.mean() > max(reward[k][:, -1, 1].mean() for k in ("standard", "bottleneck"))

# %%
rise = {name: (r[:, -1, 0] - r[:, 0, 0]).mean() for name, r in reward.items()}
held, highest = reward["standard, scaled"][..., 1], reward["standard"][..., 1].max(1)
print(f"the standard reward rises {rise['standard'] / rise['bottleneck']:.1f} times as far as the bottleneck's")
assert (reward["standard"][:, -1, 1] < highest).mean() > 0.5, "over-optimised"
assert rise["standard"] > 2 * rise["bottleneck"] and reward["standard, IBL"][:, -1, 1].min() < -10
assert (held[:, -1] > 0).all() and held.max(1).mean() < highest.mean(), "safe, and at a price"
rpm.figures.lines(
    0.25 * np.arange(100),
    {name: r[..., 1].mean(0) for name, r in reward.items() if name in settings},
    floor=-10.0,
    x_label="distance climbed",
    y_label="gold reward, mean of five seeds",
    caption="Without the penalty the gold reward turns and falls, later with the bottleneck. The same penalty holds the bottleneck's climber, and not the standard one. Curves are cut at −10.",
)

# %% [markdown]
# The weight 0.5 holds the bottleneck's climber and not the standard one, whose reward rises much further. Multiplied by the ratio of the two rewards' spreads over ordinary responses, as in the line "standard, scaled", it holds that one too.
# Safety has its price: a held climber stays lower than the free one's peak.
#
# ## Hacked responses are outliers
#
# The alarm: a response is an outlier if its distance exceeds that of 99 % of ordinary ones (the papers' outlier probability is the share of these). Does it ring before the gold reward turns, and how well does the distance tell a climbed response from an ordinary one?

# %%
for name in ("standard", "bottleneck"):
    alarm, turn, auc = [], [], []
    for model, s, (rewards, path) in zip(sweep[settings[name][0]][0], seeds, climbs[name]):
        reference = ordinary(model, s)
        limit = distance(reference, reference).quantile(0.99)
        with torch.no_grad():
            far = [distance(model.latent(x), reference) for x in path]
        alarm.append(next(k for k, d in enumerate(far) if (d > limit).float().mean() > 0.5) / 4)
        turn.append(rewards[:, 1].argmax() / 4)
        auc.append([roc_auc_score([0] * 300 + [1] * 300, torch.cat([far[0], far[k]])) for k in (8, 40)])
    near, hacked = np.mean(auc, 0)
    print(f"{name}: outliers are the majority at {np.mean(alarm):.1f}, gold turns at {np.mean(turn):.1f};", end=" ")
    print(f"AUC of the distance at 2: {near:.2f}, at 10: {hacked:.3f}")
    assert (np.array(alarm) < turn).all() and hacked > 0.99

# %% [markdown]
# The alarm rings early in both latents. It says that a response is unlike the data, not that it is bad: early on, these responses are better.
#
# ## Seen from the RPM
#
# The bottleneck is a recognition model with a fixed prior, and its rate is a part of the bound (E3). It splits into information and misfit:
#
# $$\mathbb E\,\mathrm{KL}\big(Q(z|x)\,\|\,P(z)\big) = I_Q(x;z) + \mathrm{KL}\big(Q(z)\,\|\,P(z)\big).$$
#
# In an RPM the likelihood is $P(x|z) = Q(z|x)P_\text{true}(x)/Q(z)$ (E2), and so $\mathbb E\log P(x|z) = I_Q(x;z) + C$, with $C = \mathbb E\log P_\text{true}(x)$ as there is one observation: the information is paid back, and only the misfit is left.
#
# $$L - C = -\mathrm{KL}\big(Q(z)\,\|\,P(z)\big).$$
#
# InfoRM charges for every nat about the response; the RPM charges for none, and asks instead that the latents be distributed as the prior says. On a table:

# %% tags=["reproducible"]
rng = torch.Generator().manual_seed(seed)
p_x, prior = (torch.rand(n, generator=rng, dtype=torch.float64) for n in (6, 4))
p_x, prior = p_x / p_x.sum(), prior / prior.sum()
recognition = torch.randn(6, 4, generator=rng, dtype=torch.float64).softmax(1)  # Q(z|x)
q_joint = p_x[:, None] * recognition
q_z = q_joint.sum(0)
rate = (q_joint * (recognition / prior).log()).sum()
misfit = (q_z * (q_z / prior).log()).sum()
likelihood = recognition * p_x[:, None] / q_z  # (E2)
bound = (q_joint * (prior.log() + likelihood.log() - recognition.log())).sum() - (p_x * p_x.log()).sum()
print(f"rate {rate:.4f} = {rpm.mutual_information(q_joint):.4f} + {misfit:.4f};  L - C = {bound:.4f}")
assert abs(rate - rpm.mutual_information(q_joint) - misfit) < 1e-12 and abs(bound + misfit) < 1e-12

# %% [markdown]
# ## Exercise
#
# Return the squared Mahalanobis distance of each row of `z`, shape (n,), from the sample `reference`, shape (m, k), with the covariance of that sample (divided by $m - 1$).


# %% tags=["exercise"]
def outlyingness(z, reference):
    return ...


rpm.lessons.neighbour_02.outlyingness.check(outlyingness)

# %% [markdown]
# ## What we saw
#
# With a linear encoder and few comparisons the bottleneck takes weight off what does not matter, as plain weight decay does, and the best of n and the climber reach a higher gold reward; with a deep encoder it did harm, and wrong labels it let through. The authors' code charges
# averages over the latent's dimensions, and lets tens of nats pass. The distance in the latent sees the climber leave, and as a penalty, heavy enough, holds the climber near the data. Best of n never left it. The papers' figures are win rates of language models, which have no counterpart
# here. The RPM has no such charge: its likelihood pays the rate's information back.
