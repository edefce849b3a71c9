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
OUTSIDERS = CLIENTS * N  # candidates that nobody trained on, as many as samples

# %% [markdown]
# ## Ten clients and a server that is honest but curious
#
# Each client has fifty samples of a noisy linear rule, and does a few steps of logistic regression a round on random parts of them; the server averages the updates. Each client is the target once: the server then has 550 candidates, that client's fifty
# samples and 500 that nobody trained on, fifty drawn as each client's are. All clients draw alike until we say otherwise: with `skew`, the features of each are moved by a vector of its own.


# %%
def samples(n, rule, rng, moved=0.0):
    x = torch.randn(n, D, generator=rng) + moved
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
def federate(seed, defence=None, level=0.0, skew=0.0):
    """Minus loss and cosine of each update and candidate, (ROUNDS, CLIENTS, 1000); accuracy."""
    rng = torch.Generator().manual_seed(seed)
    rule, moves = torch.randn(D, generator=rng), skew * torch.randn(CLIENTS, D, generator=rng)
    clients, outsiders = ([samples(N, rule, rng, move) for move in moves] for _ in range(2))
    x, y = (torch.cat(sides) for sides in zip(*clients, *outsiders))
    test_x, test_y = samples(2000, rule, rng)
    w, loss, cosine = torch.zeros(D), [], []
    for _ in range(ROUNDS):
        sent = torch.stack([update(w, *client, defence, level, rng) for client in clients])
        logits = (w + sent) @ x.T
        loss.append(F.binary_cross_entropy_with_logits(logits, y.expand_as(logits), reduction="none"))
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
def tail(target, others, pooled=False):
    """The terms of (1), shape (ROUNDS, candidates), or with one deviation for all candidates."""
    variance = others.var(1) + 1e-8
    variance = variance.mean(1, keepdim=True) if pooled else variance
    return torch.special.ndtr((target - others.mean(1)) / variance.sqrt())


def views(statistic, own=False):
    """Of each client as the target: its statistics, the others', and who is a member."""
    for k in range(CLIENTS):
        members, rest = torch.arange(k * N, (k + 1) * N), torch.arange(CLIENTS) != k
        outsiders = OUTSIDERS + (members if own else torch.arange(OUTSIDERS))
        seen = statistic[:, :, torch.cat([members, outsiders])]
        yield seen[:, k], seen[:, rest], np.arange(seen.shape[2]) < N


# %%
def caught(score, member, false=0.01):
    """The share of members above all but this share of the others."""
    return np.mean(score[member] > np.quantile(score[~member], 1 - false, method="higher"))


def attacks(statistic, own=False):
    """AUC and share caught of each attack, means over targets; of one round, over rounds."""
    found = {}
    for target, others, member in views(statistic, own):
        test, pooled = (tail(target, others, p) for p in (False, True))
        scores = {"target alone": target, "test": test, "test, pooled": pooled}
        scores["pooled, no Phi"] = torch.special.ndtri(pooled.double().clamp(1e-12, 1 - 1e-12))
        for name, s in scores.items():
            for way, list_of in (("one round", s[::3]), ("summed", s.sum(0)[None])):
                pairs = [(roc_auc_score(member, v), caught(v.numpy(), member)) for v in list_of]
                found.setdefault(f"{name}, {way}", []).append(np.mean(pairs, 0))
    return {name: np.mean(v, 0) for name, v in found.items()}


# %%
plain = [federate(s) for s in tqdm(seeds)]
found = {}
for k, name in enumerate(("loss", "cosine")):
    runs = [attacks(run[k]) for run in plain]
    found[name] = {attack: np.array([run[attack] for run in runs]) for attack in runs[0]}
    for attack, value in found[name].items():
        mean, sd = value.mean(0), value.std(0, ddof=1)
        area_and_share = f"AUC {mean[0]:.2f} ± {sd[0]:.2f}, caught {mean[1]:.3f} ± {sd[1]:.3f}"
        print(f"{name:7}{attack:26}{area_and_share}")

# %%
area, share = ({n: {a: v[:, i] for a, v in f.items()} for n, f in found.items()} for i in (0, 1))
for value in area.values():
    assert (value["test, summed"] > value["test, one round"]).all()
assert (area["loss"]["test, one round"] > area["loss"]["target alone, summed"]).all()
apart = {name: value["test, summed"] - value["target alone, summed"] for name, value in area.items()}
assert (apart["loss"] > 0.02).all() and (apart["cosine"] < 0).all(), "they help the one and hurt the other"
turned = share["cosine"]
assert (turned["test, one round"] > turned["test, summed"]).all(), "at 1 % the ranking turns"
for better in ("target alone, summed", "pooled, no Phi, summed"):
    assert turned[better].mean() > 1.5 * turned["test, summed"].mean()

# %% [markdown]
# By the area under the curve both halves of the claim hold for the loss. For the cosine the rounds help, and the other clients hurt. Two reasons suggest themselves, and we tested neither: a cosine already leaves out how large a candidate's gradient is, and nine clients fit a noisy Gaussian.
#
# **An attacker accuses only where it is sure.** So the last figure counts the members above all but 1 % of the outsiders, and there the ranking turns: for the cosine, the sum of thirty rounds catches fewer members than one round does, and half as many as the target alone.
# $\Phi$ is bounded, so a member that stands far out in some rounds gets no more than one for each. One deviation for all candidates, and no $\Phi$, more than makes up for it.
#
# The paper's own figures, for networks that fit images, are of another size: its test catches 66.98 % of members where the best attack beside it catches 54.66 %, with an AUC of .89 against .85. A logistic rule has little to memorise with.
#
# ## Clients that differ
#
# The paper reports that the attack withstands clients whose data differ. Let each client's features be moved by a vector of its own, twice as long as the features' own spread. **Predict**: is a member still found?
#
# <details><summary>Answer</summary>
#
# Hardly, if the outsiders are drawn as the target's own samples are. If they are drawn as anyone's, it depends on the statistic: by the loss, members score *below* outsiders. The other clients are a control group as long as they are like the target.
# </details>


# %%
def area_of_test(statistic, own=False, rounds=ROUNDS):
    """AUC of the test summed over the first rounds, mean over targets."""
    sums = [(member, tail(t, o)[:rounds].sum(0)) for t, o, member in views(statistic, own)]
    return np.mean([roc_auc_score(member, score) for member, score in sums])


differing = [federate(s, skew=2.0) for s in tqdm(seeds)]
for k, name in enumerate(("loss", "cosine")):
    for own, kind in {True: "the target's", False: "anyone's"}.items():
        alike, apart = (
            np.array([area_of_test(r[k], own) for r in part]) for part in (plain, differing)
        )
        print(f"{name:7}outsiders drawn as {kind:13} AUC {alike.mean():.2f} ± {alike.std(ddof=1):.2f};", end=" ")
        print(f"if clients differ {apart.mean():.2f} ± {apart.std(ddof=1):.2f}")
        assert not own or apart.mean() < alike.mean() - 0.08
        assert own or name == "cosine" or (apart < 0.5).all(), "worse than chance"

# %% [markdown]
# We moved features by a good deal; the paper's clients differ in their shares of labels. So this does not refute its figures, but it says where they stop: a test against other clients needs clients that are like the target.
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
    curves[name] = [np.mean([area_of_test(run[1], rounds=k) for run in runs]) for k in rounds]
    print(f"{name:9} AUC by rounds", np.round(curves[name], 2))
first, *_, last = curves["noise 3"]
assert last > first + 0.04 and curves["no noise"][-1] < max(curves["no noise"]) - 0.01
rpm.figures.lines(
    rounds,
    curves,
    x_label="rounds",
    y_label="AUC of the test on cosines",
    caption="Without noise the first rounds say most; with it, thirty make up for the first.",
)

# %% [markdown]
# ## What a defence costs
#
# The paper compares two kinds: perturbing what is sent (noise, in units of the update's length; sparsification, which sends only the largest entries) and replacing the data (mixup, which trains on blends of samples).

# %%
defences = {"4 of 5 dropped": ("sparse", 0.8), "19 of 20 dropped": ("sparse", 0.95), "mixup": ("mixup",)}
runs = {name: [federate(s, *defence) for s in seeds] for name, defence in tqdm(defences.items())}
runs = {"none": plain, "noise 1": noisy[1.0], "noise 3": noisy[3.0]} | runs
leak, accuracy = {}, {}
for name, federations in runs.items():
    leak[name] = np.mean([area_of_test(run[1]) for run in federations])
    accuracy[name] = np.mean([run[2] for run in federations])
    print(f"{name:17} AUC of all rounds {leak[name]:.2f}; accuracy {accuracy[name]:.3f}")
assert min(leak.values()) > 0.55, "none of them hides the members"
assert accuracy["mixup"] > accuracy["none"] - 0.015 and abs(leak["mixup"] - leak["none"]) < 0.03
assert accuracy["noise 3"] < accuracy["none"] and accuracy["19 of 20 dropped"] < accuracy["none"]

# %% [markdown]
# No defence brings the sum of all rounds near chance. The paper recommends those that replace data, such as mixup, since they cost the least accuracy for what they hide; here mixup costs next to nothing, and hides as little.
#
# ## Seen from the RPM
#
# Take the statistic $u$ of an update as $x$ and membership $m$, one half each, as $x'$, both recognised as they are. An attack is a prior $P(m|u)$, and its log loss bounds the information from below, as every explicit conditional prior does:
#
# $$L - C = \mathbb E\log P(m|u) + H(m) \le I(m;u) \le \log 2. \tag{E11}$$
#
# The bound is tight for the posterior, and any other attack falls short by its KL (E5). A posterior that is counted from the same candidates as the information would be tight by construction. So we count it in the first three federations, with $u$ in ten bins,
# and let it bound the information in the other two, on fifty members and fifty outsiders of each client. It can fail: a posterior that has learned chance falls below zero there, while the counted information cannot.


# %%
def table(statistics, shuffled=False):
    """Q(u, m) over federations: ten bins of equal size of the test on losses, member or not."""
    counts, rng = torch.zeros(10, 2, dtype=torch.float64), torch.Generator().manual_seed(seed)
    for statistic in statistics:
        for target, others, member in views(statistic, own=True):
            u = tail(target, others).sum(0).argsort().argsort() * 10 // (2 * N)
            m = torch.from_numpy(member).long()
            m = m[torch.randperm(len(m), generator=rng)] if shuffled else m
            counts.index_put_((u, m), torch.ones(len(u), dtype=torch.float64), accumulate=True)
    return counts / counts.sum()


# %%
for name, shuffled in {"as they are": False, "membership shuffled": True}.items():
    known, q = (table([run[0] for run in part], shuffled) for part in (plain[:3], plain[3:]))
    posterior = ((known + 1e-6) / (known + 1e-6).sum(1, keepdim=True)).log()
    information, bound = rpm.mutual_information(q), rpm.barber_agakov(posterior, q).value
    print(f"{name:20} counted {information:.4f}, bound {bound:+.4f} nats of {math.log(2):.3f}")
    assert bound <= information
    assert bound < 0.001 < information if shuffled else 0.03 < bound

# %% [markdown]
# The attack's posterior holds on federations that it has not seen, and reads some hundredths of a nat. With shuffled membership there is nothing to read: the counted information is a little above zero all the same, and the bound is not.
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
# A client's update gives its samples away: by the loss, when it is compared with what the other clients send; by the cosine, even without. By the area under the curve, the sum over rounds beats the average round; where only 1 % of outsiders may be
# accused it does not, unless the sum leaves $\Phi$ out. Noise that hides a member in one round hides it much less in thirty, and where clients differ much, the others are no control group: the test fails. In nats, an attack is a lower bound on the
# information between membership and updates, tight if it is the posterior; counted elsewhere, it can fail.
