# %% [markdown]
# # Membership in federated learning: the other clients are the control group
#
# Clients who train a model together send updates, not data. The server can still ask of a sample whether a client trained on it, and the other clients are what it compares with.
#
# **The paper's claim** (Zhu et al., *FedMIA* in its later version, *Evaluating Membership Inference Attacks and Defenses in Federated Learning* in its first, [arXiv 2402.06289](https://arxiv.org/abs/2402.06289)): test the target's update against the distribution of the other
# clients' updates, one-tailed, and add the rounds up. That beats attacks on one round or on the target alone.
#
# **Afterwards you can** run a likelihood-ratio attack over rounds and clients; compare defences by what they cost; bound, in nats, what the updates say about membership.
#
# **You need** [lesson 3](../03_infonce_is_the_elbo.ipynb). **Time** 20 minutes, of which the computer takes a quarter of one.

# %%
import math

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F
from tqdm.auto import tqdm

import rpm_tutorial as rpm

rpm.setup()
seed = 0
seeds = tuple(range(seed, seed + 5))
D, N, CLIENTS, ROUNDS = 60, 50, 10, 30  # features, samples of a client, clients, rounds

# %% [markdown]
# ## Ten clients and a server that is honest but curious
#
# Each client has fifty samples of a noisy linear rule, and does a few steps of logistic regression a round on random parts of them; the server averages the updates. It has 100 candidates: the fifty samples of client 0, and fifty that nobody trained on.


# %%
def samples(n, rule, rng):
    x = torch.randn(n, D, generator=rng)
    return x, (torch.rand(n, generator=rng) < torch.sigmoid(3 * x @ rule / rule.norm())).float()


def gradients(w, x, y):
    """Of each sample's loss, shape (n, D)."""
    return (torch.sigmoid(x @ w) - y)[:, None] * x


def mixed(x, y, rng):
    """Mixup: each sample blended with another in a random proportion."""
    order, share = torch.randperm(len(x), generator=rng), torch.rand(len(x), generator=rng)
    return share[:, None] * x + (1 - share[:, None]) * x[order], share * y + (1 - share) * y[order]


# %%
def update(w, x, y, defence, level, rng):
    """What a client sends: the change of its weights over five steps of ten samples, defended."""
    local = w.clone()
    for _ in range(5):
        part = torch.randperm(N, generator=rng)[:10]
        batch = mixed(x[part], y[part], rng) if defence == "mixup" else (x[part], y[part])
        local -= 0.3 * gradients(local, *batch).mean(0)
    change = local - w
    if defence == "noise":
        change = change + level * change.norm() / math.sqrt(D) * torch.randn(D, generator=rng)
    if defence == "sparse":  # keep the largest entries only
        change = change * (change.abs() >= change.abs().quantile(level))
    return change


# %%
def federate(seed, defence=None, level=0.0):
    """Each round's minus loss and cosine for each client's update and candidate, (ROUNDS, CLIENTS, 2 N), and the test accuracy."""
    rng = torch.Generator().manual_seed(seed)
    rule = torch.randn(D, generator=rng)
    clients = [samples(N, rule, rng) for _ in range(CLIENTS)]
    x, y = (torch.cat(sides) for sides in zip(clients[0], samples(N, rule, rng)))
    test_x, test_y = samples(2000, rule, rng)
    w, loss, cosine = torch.zeros(D), [], []
    for _ in range(ROUNDS):
        sent = torch.stack([update(w, *client, defence, level, rng) for client in clients])
        loss.append(F.binary_cross_entropy_with_logits((w + sent) @ x.T, y.expand(CLIENTS, -1), reduction="none"))
        cosine.append(F.cosine_similarity(sent[:, None], -gradients(w, x, y), dim=2))
        w = w + sent.mean(0)
    return -torch.stack(loss), torch.stack(cosine), ((test_x @ w > 0) == test_y).float().mean().item()


# %% [markdown]
# ## The test
#
# Two statistics of an update and a candidate: minus the loss that the candidate has after the update, and the cosine between the update and the step that the candidate alone would ask for. Members should score high, but some samples score high for everyone. So each
# candidate gets a Gaussian of its own, fitted on the nine clients that are not the target, and the target's statistic becomes a one-tailed probability; over rounds these are added.
#
# $$\Lambda_i = \sum_t \Phi\!\left(\frac{s_{it}^\text{target} - \operatorname{mean}_k s_{it}^k}{\operatorname{sd}_k s_{it}^k}\right) \tag{1}$$
#
# for candidate $i$, round $t$ and client $k$, with $s$ the statistic.
#
# **Predict**: the sum over rounds of the target's statistic alone, or the test in a single round: which knows more, when the statistic is the loss?
#
# <details><summary>Answer</summary>
#
# The test in a single round. How hard a candidate is for everyone differs more between candidates than membership does, and no sum over rounds takes that out; the other clients do.
# </details>


# %%
def tail(statistic):
    """The terms of (1), shape (ROUNDS, 2 N)."""
    others = statistic[:, 1:]
    return torch.special.ndtr((statistic[:, 0] - others.mean(1)) / others.std(1))


def auc(score):
    return roc_auc_score(np.arange(2 * N) < N, score)


def attacks(statistic):
    """Of one round: the mean over rounds of its AUC."""
    scores = {"target alone": statistic[:, 0], "test": tail(statistic)}
    one_round = {f"{name}, one round": np.mean([auc(r) for r in rounds]) for name, rounds in scores.items()}
    return one_round | {f"{name}, summed": auc(rounds.sum(0)) for name, rounds in scores.items()}


# %%
plain = [federate(s) for s in tqdm(seeds)]
found = {}
for k, name in enumerate(("loss", "cosine")):
    runs = [attacks(run[k]) for run in plain]
    found[name] = {attack: np.array([run[attack] for run in runs]) for attack in runs[0]}
    for attack, value in found[name].items():
        print(f"{name:7}{attack:24} AUC {value.mean():.2f} ± {value.std(ddof=1):.2f}")
for value in found.values():
    assert value["test, summed"].mean() > value["test, one round"].mean() + 0.015
loss = found["loss"]
assert loss["test, one round"].mean() > loss["target alone, summed"].mean()
apart = {name: value["test, summed"] - value["target alone, summed"] for name, value in found.items()}
print("AUC, test less target alone, summed:", ", ".join(f"{n} {value.mean():+.2f}" for n, value in apart.items()))
assert apart["loss"].mean() > 0.02 and apart["cosine"].mean() < -0.005, "they help the one and hurt the other"

# %% [markdown]
# Both halves of the claim hold for the loss. For the cosine the rounds help, and the other clients hurt. Two reasons suggest themselves, and we tested neither: a cosine already leaves out how large a candidate's gradient is, and nine clients fit a noisy Gaussian.
#
# ## What the rounds add
#
# The same test on the first $T$ rounds, without noise and with noise as long as the update, or three times as long. **Predict**: the strongest noise hides a member well in one round. How much of that is left after thirty?
#
# <details><summary>Answer</summary>
#
# Little: the noise is new in each round and the membership is not, so a sum over rounds averages the noise away.
# </details>

# %%
rounds = (1, 2, 5, 10, 20, 30)
noisy = {level: [federate(s, "noise", level) for s in tqdm(seeds)] for level in (1.0, 3.0)}
curves = {}
for name, runs in {"no noise": plain, "noise 1": noisy[1.0], "noise 3": noisy[3.0]}.items():
    curves[name] = [np.mean([auc(tail(run[1])[:k].sum(0)) for run in runs]) for k in rounds]
    print(f"{name:9} first round {curves[name][0]:.2f}, thirty rounds {curves[name][-1]:.2f}")
assert curves["noise 3"][-1] > curves["noise 3"][0] + 0.04 and curves["no noise"][-1] < max(curves["no noise"]) - 0.02
rpm.figures.lines(
    rounds,
    curves,
    x_label="rounds",
    y_label="AUC of the test on cosines",
    caption="Without noise the first rounds say most, and the later ones, with their small gradients, dilute it. With noise the "
    "first round says little, and thirty rounds make up for it.",
)

# %% [markdown]
# ## What a defence costs
#
# The paper compares two kinds: perturbing what is sent (noise, in units of the update's length; sparsification, which sends only the largest entries) and replacing the data (mixup, which trains on blends of samples).

# %%
defences = {"sparse, 4 of 5 dropped": ("sparse", 0.8), "sparse, 19 of 20": ("sparse", 0.95), "mixup": ("mixup", 0.0)}
runs = {name: [federate(s, *defence) for s in seeds] for name, defence in tqdm(defences.items())}
runs = {"none": plain, "noise 1": noisy[1.0], "noise 3": noisy[3.0]} | runs
leak, accuracy = {}, {}
for name, federations in runs.items():
    tests = [tail(run[1]) for run in federations]
    one = np.mean([np.mean([auc(r) for r in test]) for test in tests])
    leak[name] = np.mean([auc(test.sum(0)) for test in tests])
    accuracy[name] = np.mean([run[2] for run in federations])
    print(f"{name:24} AUC of one round {one:.2f}, of all {leak[name]:.2f}; accuracy {accuracy[name]:.3f}")
assert min(leak.values()) > 0.55, "none of them hides the members"
assert accuracy["mixup"] > accuracy["none"] - 0.015 and abs(leak["mixup"] - leak["none"]) < 0.03
assert accuracy["noise 3"] < accuracy["none"] and accuracy["sparse, 19 of 20"] < accuracy["none"]

# %% [markdown]
# No defence brings the sum of all rounds near chance. The paper recommends those that replace data, such as mixup, since they cost the least accuracy for what they hide; here mixup costs next to nothing, and hides as little.
#
# ## Seen from the RPM
#
# Take the statistic $u$ of an update as $x$ and membership $m$, one half each, as $x'$, both recognised as they are. An attack is a prior $P(m|u)$, and its log loss bounds the information from below, as every explicit conditional prior does:
#
# $$L - C = \mathbb E\log P(m|u) + H(m) \le I(m;u) \le \log 2. \tag{E11}$$
#
# The bound is tight for the posterior, and any other attack falls short by its KL (E5). With $u$ in ten bins:

# %%
member = torch.arange(2 * N) < N


def table(statistics):
    """Q(u, m) over all federations: ten bins of equal size, member or not."""
    u = torch.cat([s.argsort().argsort() for s in statistics]) * 10 // (2 * N)
    counts = torch.zeros(10, 2, dtype=torch.float64)
    counts.index_put_((u, member.repeat(len(statistics)).long()), torch.tensor(1.0).double(), accumulate=True)
    return counts / counts.sum()


# %%
tests = [tail(run[1]) for run in plain]
rising = torch.linspace(0.1, 0.9, 10, dtype=torch.float64)
guess = torch.stack([rising.flip(0), rising], 1).log()  # log P(m|u) of an attack of our own
for name, q in {
    "last round": table([test[-1] for test in tests]),
    "all rounds": table([test.sum(0) for test in tests]),
}.items():
    information = rpm.mutual_information(q)
    posterior = rpm.barber_agakov((q / q.sum(1, keepdim=True)).clamp(1e-300).log(), q).value
    print(
        f"{name:10} I = {information:.3f} nats of {math.log(2):.3f}; our own guess {rpm.barber_agakov(guess, q).value:.3f}"
    )
    assert abs(information - posterior) < 1e-12 and rpm.barber_agakov(guess, q).value <= information

# %% [markdown]
# The information is that of a finite sample of candidates, and so a little too high. Our guess is too sure of itself, and pays for it: its bound
# may even lie below zero, where it says nothing.
#
# ## Exercise
#
# Return (1) for all candidates, shape (n,), from `target`, shape (rounds, n), and `others`, shape (rounds, clients, n).


# %% tags=["exercise"]
def score(target, others):
    return ...


rpm.lessons.neighbour_03.score.check(score)

# %% [markdown]
# ## What we saw
#
# A client's update gives its samples away: by the loss, when it is compared with what the other clients send; by the cosine, even without. The sum over rounds beats the average round, though without noise not the very first; noise
# that hides a member in one round hides it much less in thirty. In nats, an attack is a lower bound on the
# information between membership and updates, tight if it is the posterior.
