# %% [markdown]
# # InfoNCE-anchor
#
# InfoNCE learns the density ratio of pairs only up to a factor that may be anything for each $z$. One more class, "none of these is the partner", fixes the factor, and
# an estimate of the information that no longer stops at $\log N$ comes with it.
#
# **The paper's claim**: with an anchor class, the plug-in estimate of the mutual information is consistent where InfoNCE is capped; as a loss for learning *representations* it gains
# nothing (Ryu and others, *Contrastive Predictive Coding Done Right for Mutual Information Estimation*, [arXiv 2510.25983](https://arxiv.org/abs/2510.25983)).
#
# **Afterwards you can** say what InfoNCE leaves undetermined; pin it; choose between the two by what you want to know.
#
# **You need** [lesson 6](../06_finite_batches.ipynb). **Time** 15 minutes, of which the computer takes one.

# %%
import functools
import math

import numpy as np
import torch
from tqdm.auto import tqdm

import rpm_tutorial as rpm
from rpm_tutorial.estimators import infonce_anchor, plug_in

rpm.setup()
seed = 0
seeds = (seed, seed + 1, seed + 2)
rng = torch.Generator().manual_seed(seed)

# %% [markdown]
# ## What InfoNCE cannot see
#
# Let $r(z,z') = Q(z,z')/Q(z)Q(z')$, and $f = r\,c(z)$ with any $c > 0$. In a softmax over candidates $z'$ the factor $c(z)$ cancels. So InfoNCE has the same value for all $c$, and a
# critic trained by it need not be a density ratio.
#
# The paper adds a class. With $K$ candidates, one of them the partner with probability $K/(K+\nu)$; with probability $\nu/(K+\nu)$, none is, and the right answer is the
# anchor, whose score is fixed at $\nu$:
#
# $$\tfrac{K}{K+\nu}\,\mathbb E\log\frac{f(z,z'_1)}{\nu+\sum_i f(z,z'_i)} + \tfrac{\nu}{K+\nu}\,\mathbb E\log\frac{\nu}{\nu+\sum_i f(z,z'_i)}.$$
#
# Multiply $f$ by $c(z)$: the anchor does not move with it. The library counts from what a guess without looking would get, so $f = 1$ has the value 0; with
# $\nu = 0$ that is InfoNCE, and with $K = \nu = 1$ the logistic loss.

# %% tags=["reproducible"]
q_joint = torch.rand(4, 4, generator=rng, dtype=torch.float64) + 0.05
q_joint /= q_joint.sum()
log_r = (q_joint / torch.outer(q_joint.sum(1), q_joint.sum(0))).log()
log_c = torch.randn(4, 1, generator=rng, dtype=torch.float64)
for nu in (0.0, 0.5, 2.0):
    true, shifted = (infonce_anchor(s, q_joint, k=3, nu=nu).value for s in (log_r, log_r + log_c))
    print(f"nu = {nu}: f = r {true:.6f}, f = r c(z) {shifted:.6f} nats")
    assert abs(true - shifted) < 1e-12 if nu == 0 else shifted < true - 1e-3

# %% [markdown]
# ## Training both on the same pairs
#
# Gaussian pairs in 20 dimensions, whose information we set: 2, 5 or 8 nats. The critic is universal, the batch has 64 pairs, and $\log 64 = 4.16$.
#
# After training, InfoNCE reads its own value. The anchor reads the **plug-in** $\mathbb E\log f$: if $f = r$, that is the information, and no candidate is involved.
#
# **Predict**: what will each say at 8 nats?
#
# <details><summary>Answer</summary>
#
# InfoNCE less than $\log 64$, whatever the critic: a softmax can be no more than certain. The plug-in about 7: past the ceiling, and after 600 steps still a nat short. It is not a bound, so it could as well be
# above.
# </details>

# %%
batch, dim, steps = 64, 20, 600
information = (2.0, 5.0, 8.0)


def pairs(nats, seed):
    """Batches of Gaussian pairs with the given information: (E20) solved for rho."""
    generator, rho = torch.Generator().manual_seed(seed), (1 - np.exp(-2 * nats / dim)) ** 0.5
    while True:
        yield [side.float() for side in rpm.gaussian.sample(batch, rho, dim, generator=generator)]


# %%
def tables(objective, nats, seed):
    """Train a critic, and score 50 fresh batches with it."""
    torch.manual_seed(seed)
    critic, fresh = rpm.Universal(dim), pairs(nats, 1000 + seed)
    list(rpm.train(torch.nn.Identity(), critic, pairs(nats, seed), steps, objective=objective, learning_rate=4e-3))
    with torch.no_grad():
        return [critic(*next(fresh)) for _ in range(50)]


def read(estimate, trained):
    return torch.stack([estimate(log_f).value for log_f in trained]).mean().item()


# %%
ceiling = np.log(batch)
trained = {(nats, s): tables(rpm.infonce, nats, s) for nats in tqdm(information) for s in seeds}
by_infonce = {nats: np.array([read(rpm.infonce, trained[nats, s]) for s in seeds]) for nats in information}
for nats, found in by_infonce.items():
    print(f"I = {nats:.0f}: InfoNCE {found.mean():.2f} ± {found.std(ddof=1):.2f} nats, three seeds")
assert all((found < ceiling).all() for found in by_infonce.values()) and by_infonce[8.0].mean() < 4.1

# %%
light = functools.partial(infonce_anchor, nu=1.0)  # one anchor among 63 candidates; by default nu is their number
anchored = {(nats, s): tables(light, nats, s) for nats in tqdm(information) for s in seeds}
by_anchor = {nats: np.array([read(plug_in, anchored[nats, s]) for s in seeds]) for nats in information}
for nats, found in by_anchor.items():
    print(f"I = {nats:.0f}: anchor {found.mean():.2f} ± {found.std(ddof=1):.2f} nats, three seeds")
assert all((abs(found - nats) < 0.25 * nats).all() for nats, found in by_anchor.items())
assert (by_anchor[8.0] > ceiling + 1).all() and all(found.mean() < nats for nats, found in by_anchor.items())
assert abs(by_anchor[8.0].mean() - 7) < 0.5, "a nat short"

# %%
rpm.figures.lines(
    information,
    {
        "MI": information,
        "InfoNCE": [v.mean() for v in by_infonce.values()],
        "anchor": [v.mean() for v in by_anchor.values()],
    },
    ceiling=("log N", ceiling),
    x_label="information of the pairs (nats)",
    y_label="estimate (nats)",
    caption="The mean of three trainings. InfoNCE bends under log 64; the anchor's plug-in passes it, and stays somewhat below the diagonal.",
)

# %% [markdown]
# ## Another score for the same classes
#
# The anchor's loss is the log score of a probability over $K+1$ classes: the $K$ candidates, each in proportion to its $f$, and the anchor, to $\nu$. The paper's framework allows any *proper* score, one that is best for the true probabilities, for example the **spherical** one: the probability of the right class over the
# length of the vector of all. At the optimum $f = r$ for both. The paper finds the log score the more accurate of its scores. **Predict**: which way does the spherical one err at 8 nats, after as many steps?
#
# <details><summary>Answer</summary>
#
# It depends on the anchor's weight: several nats upwards with one anchor, several downwards with as many as candidates. The log score with one anchor was a nat short.
# </details>


# %%
def spherical(log_f, nu=1.0):
    """The candidates as for the anchor; in f, lengths are root sums of squares."""
    k, steps = len(log_f) - 1, torch.arange(len(log_f))
    around = log_f.gather(1, (steps[:, None] + steps) % len(log_f))  # column 0: the partner
    anchor = torch.full_like(around[:, :1], math.log(nu))
    groups = (torch.cat([anchor, group], 1) for group in (around[:, :k], around[:, 1:]))
    with_partner, without = (group.mul(2).logsumexp(1) / 2 for group in groups)
    score = k * (around[:, 0] - with_partner).exp() + nu * (anchor[:, 0] - without).exp()
    return rpm.Objective(score.mean() / (k + nu), score.mean(), torch.zeros(()))


# %%
for nu in (1.0, 63.0):
    score = functools.partial(spherical, nu=nu)
    found = np.array([read(plug_in, tables(score, 8.0, s)) for s in seeds])
    print(f"I = 8, nu = {nu:.0f}: spherical {found.mean():.2f} ± {found.std(ddof=1):.2f} nats, three seeds")
    assert (abs(found - 8) > 1.5 * abs(by_anchor[8.0].mean() - 8)).all(), "the log score is nearer"
    assert (found > 10).all() if nu == 1 else (found < 6).all()

# %% [markdown]
# ## The free factor, seen
#
# The same formula $\mathbb E\log f$, read from the critics that InfoNCE trained: nothing in that loss cared about their level. What the anchor pinned is
# $\mathbb E_{Q(z')}f$, which is one where $f = r$.

# %%
free = np.array([read(plug_in, trained[2.0, s]) for s in seeds])
print("plug-in at 2 nats: InfoNCE's critics", free.round(2), " anchor's critics", by_anchor[2.0].round(2))
assert (abs(free - 2) > 2 * abs(by_anchor[2.0] - 2)).all()

# %% [markdown]
# ## As a loss for representations it gains nothing
#
# Now an encoder is trained, on two views of each of 1 200 digits: by InfoNCE; with one anchor among 127 candidates, nearly InfoNCE; and with as much weight on the anchor as on all of them. A linear probe then reads the other 597.

# %%
digits = rpm.datasets.digits()
x, labels = digits.x, digits.labels


def probed(objective, seed, n=1200):
    torch.manual_seed(seed)
    encoder, critic = rpm.encoders.mlp(64, 16), rpm.VonMisesFisher(0.2)
    views = rpm.datasets.view_pairs(x[:n], 128, flip=False, seed=seed)
    list(rpm.train(encoder, critic, views, 300, objective=objective))
    z = rpm.encode(encoder, x)
    return rpm.probes.linear_probe(z[:n], labels[:n], z[n:], labels[n:])


losses = {"InfoNCE": rpm.infonce, "anchor 1 : 127": light, "anchor 1 : 1": infonce_anchor}
accuracy = {name: np.array([probed(f, s) for s in seeds]) for name, f in tqdm(losses.items())}
for name, found in accuracy.items():
    print(f"{name:15} accuracy {found.mean():.3f}, seeds {found.round(3)}")
assert all(abs(found.mean() - accuracy["InfoNCE"].mean()) < 0.03 for found in accuracy.values())

# %% [markdown]
# ## Seen from the RPM
#
# The free factor is the normaliser $Z(z) = \mathbb E_{Q(z')}f$ of the InfoNCE prior $Q(z)Q(z')f/Z(z)$: divided out, it cannot matter to the ELBO. Pinning it adds no information about the
# latents, and in the trainings above it gained nothing. For many candidates, $\nu = \alpha K$, the anchor's objective times $1+\alpha$, as the library counts it, becomes (derived here, by putting $\frac1K\sum_i f \to Z$)
#
# $$A_\alpha = \mathbb E\,s - (1+\alpha)\,\mathbb E_{Q(z)}\log\frac{Z(z)+\alpha}{1+\alpha}.$$
#
# At $\alpha = 0$ it is $I_\infty$ (E7). For $\alpha\to\infty$ it is $\mathbb E\,s - \mathbb E_{Q(z)} Z + 1$, the NWJ objective (E10) of $ef$. By Jensen's inequality it falls from the one to the other as $\alpha$ grows, and all
# agree where $Z(z) = 1$: the anchor is an ELBO less a fine for being unnormalised.
#
# The paper has this ladder with one normaliser for all pairs, $\bar Z = \mathbb E_{Q(z)Q(z')}f$ in the place of $Z(z)$ (its Theorem 10): it leads from Donsker and Varadhan's bound (E9) to NWJ. Row by row it starts higher, at $I_\infty$, and ends at the same NWJ.

# %% tags=["reproducible"]
s = torch.randn(4, 4, generator=rng, dtype=torch.float64)


def many_candidates(log_f, alpha, joint=False):
    Z = log_f.exp() @ q_joint.sum(0)
    Z = (q_joint.sum(1) @ Z).expand_as(Z) if joint else Z
    fine = q_joint.sum(1) @ ((Z + alpha) / (1 + alpha)).log()
    return (q_joint * log_f).sum() - (1 + alpha) * fine


for k in (2, 4, 8):
    gap = infonce_anchor(s, q_joint, k=k, nu=0.5 * k).value * 1.5 - many_candidates(s, 0.5)  # 1.5 = 1 + alpha
    print(f"K = {k}: {gap:+.4f} nats from the limit")
for joint, first in {False: rpm.infonce, True: rpm.donsker_varadhan}.items():
    ladder = [many_candidates(s, alpha, joint) for alpha in (0.0, 0.5, 2.0, 1e7)]
    print("alpha = 0, 0.5, 2, 1e7:", ", ".join(f"{v:.6f}" for v in ladder), "joint" if joint else "")
    assert abs(ladder[0] - first(s, q_joint).value) < 1e-12
    assert ladder == sorted(ladder, reverse=True)
    assert abs(ladder[-1] - rpm.nwj(s + 1, q_joint).value) < 1e-5

# %% [markdown]
# ## Exercise
#
# `log_f` was trained by InfoNCE, so that it is $\log r + \log c(z)$. Return the table without the free factor: the one of the same InfoNCE value with $Z(z) = 1$ for each $z$
# (rows). Its plug-in is then the information.


# %% tags=["exercise"]
def pinned(log_f, q_joint):
    return ...


rpm.lessons.neighbour_01.pinned.check(pinned)

# %% [markdown]
# ## What we saw
#
# InfoNCE leaves $c(z)$ free and reads at most $\log N$; the anchor pins $Z(z)$ to one, and its plug-in follows the information past the ceiling, with an error that no bound limits. The
# representations of digits were equally good, with little weight on the anchor and with much. (The paper's own representations are of CIFAR-100 and of proteins, and its tables are not repeated here.) Pin the normaliser if you want the number; for the latents it gained nothing here.
