# %% [markdown]
# # InfoNCE is the ELBO: choose a prior, get an objective
#
# (E4) says that the ELBO depends on the prior $P(z,z')$ and on pairs of latents, on nothing else. So each prior is an objective. Four priors, and one
# table that is not quite a prior, give five objectives that you may have met. One is InfoNCE.
#
# **Afterwards you can** name the objective that a prior gives, and the prior behind an objective; show that InfoNCE equals the ELBO exactly; say
# why InfoNCE is loose as a bound on the mutual information and exact as an ELBO; tell the critic from the normaliser.
#
# **You need** [lesson 2](02_the_elbo.ipynb). **Time** 35 minutes.
#
# **Whose result**: (E6) and (E7) are the paper's, and so is the remark that InfoNCE is loose as a bound on the MI; the KL that says by how much (E8), the
# other priors, the mean of two ELBOs (E12) and the Gaussian (E20) are this course's.
# Beside it: [notation](../docs/notation.md), [glossary](../docs/glossary.md), [questions and answers](../docs/faq.md).

# %%
import math

import torch

import rpm_tutorial as rpm

device = rpm.setup()
world = rpm.FiniteRPM.ring(coupling=3.0, sharpness=3.0)

# %% [markdown]
# We need a critic. Any table of scores $s = \log f(z,z')$ will do. Ours starts from the best one, the logarithm of the **density ratio** $Q(z,z')/Q(z)Q(z')$, and adds two things: noise, so that
# nothing holds by symmetry, and the number 1, which InfoNCE does not see and NWJ needs (E10).

# %% tags=["reproducible"]
rng = torch.Generator().manual_seed(0)
log_ratio = torch.log(world.q_joint / world.q_z[:, None] / world.q_z_prime)
log_f = 1 + log_ratio + 0.4 * torch.randn(3, 4, generator=rng, dtype=torch.float64)
rpm.figures.tables(
    {"s = log f(z,z′)": log_f},
    x_label="z′",
    y_label="z",
    unit="score (nats)",
    caption="High scores mark pairs of latents that occur more often than by chance. The noise in the scores is the critic's error.",
)

# %% [markdown]
# ## The best prior turns the ELBO into the mutual information
#
# In (E5), $L - C = I_Q(z;z') - \mathrm{KL}(Q\|P)$. The KL vanishes for $P = Q$:
#
# $$P(z,z') = Q(z,z') \quad\Rightarrow\quad L - C = I_Q(z;z'). \tag{E6}$$

# %% tags=["reproducible"]
prior = rpm.priors.optimal(world.q_joint)  # log P(z,z') = log Q(z,z')
elbo = world.elbo(prior).value - world.constant
print(f"L − C = {elbo:.6f},  MI = {world.mutual_information:.6f},  residual {abs(elbo - world.mutual_information):.1e}")
assert abs(elbo - world.mutual_information) < 1e-12

# %% [markdown]
# So "maximise mutual information" is what one gets by letting the prior follow the encoder anywhere, which means by assuming nothing.
# All other priors assume something.
#
# ## InfoNCE assumes that z′ follows from z
#
# Keep $P(z) = Q(z)$, and let the critic reweight where $z'$ lies, given $z$:
#
# $$P(z'|z) = \frac{Q(z')\,f(z,z')}{Z(z)}, \qquad Z(z) = \mathbb E_{Q(z')} f(z,z'). \tag{E7}$$

# The picture shows one row of the prior for each $z$: the same $Q(z')$, reweighted.

# %% tags=["reproducible"]
f = log_f.exp()
rpm.figures.reweighting(world.q_z_prime, f)

# %% tags=["reproducible"]
Z = f @ world.q_z_prime  # Z(z): one number per z
P = world.q_z[:, None] * world.q_z_prime * f / Z[:, None]  # the prior, (E7)
print("rows of P(z′|z) sum to", (P / world.q_z[:, None]).sum(1).numpy().round(12))
assert torch.allclose(P.log(), rpm.priors.infonce(log_f, world.q_joint), atol=1e-12)

# %% [markdown]
# Put it into (E4). Both aggregate posteriors cancel, $\log P(z,z') - \log Q(z) - \log Q(z') = s(z,z') - \log Z(z)$, and what is left is
#
# $$L - C = \mathbb E_{Q(z,z')}[s(z,z')] - \mathbb E_{Q(z)}[\log Z(z)] = I_\infty,$$
#
# InfoNCE with infinitely many candidates: the formula of lesson 0, in which the mean over pairs is now $\mathbb E_{Q(z,z')}$ and the mean over candidates
# $\mathbb E_{Q(z')}$.
#
# **Predict**: the left side adds up the five terms of (E3), the right side never sees an observation. How many digits will agree?
#
# <details><summary>Answer</summary>
#
# All of them; what differs is rounding.
# </details>

# %% tags=["reproducible"]
score = (world.q_joint * log_f).sum()
log_normaliser = (world.q_z * Z.log()).sum()
infonce = score - log_normaliser
elbo = world.elbo(P.log()).value - world.constant
print(f"InfoNCE = {infonce:.12f}\nL − C   = {elbo:.12f}   residual {abs(elbo - infonce):.1e}")
assert abs(elbo - infonce) < 1e-12

# %% [markdown]
# This is the theorem of the course in three lines of code, and the library's `infonce` is these lines with names and checks.
#
# ## I∞ and I_N are one formula on two distributions
#
# $I_\infty$ averages over distributions, $I_N$ of lesson 0 over $N$ pairs, the positive among its own candidates. Take for $Q(z,z')$ the $N$ pairs themselves, each with
# probability $1/N$. Then $Q(z')$ is $1/N$ for each candidate, and $I_\infty$ *of that distribution* is $I_N$. So:
#
# - **$I_N$ of a data set** is exact, for that data set, and at most $\log N$ (lesson 5).
# - **$I_N$ of a batch**, as an estimate of the $I_\infty$ of what the batch was drawn from, is off by a bias (lesson 6).
# - **$I_\infty$** of a distribution has no ceiling but the mutual information.

# %% tags=["reproducible"]
pairs = torch.randn(6, 6, generator=rng, dtype=torch.float64)  # scores of 6 pairs
of_pairs = rpm.infonce(pairs, torch.eye(6, dtype=torch.float64) / 6).value  # the formula of I_inf
I_N = (pairs.diagonal() - pairs.exp().mean(1).log()).mean()  # lesson 0
print(f"I∞ of six pairs {of_pairs:.6f},  I_6 {I_N:.6f},  residual {abs(of_pairs - I_N):.1e}")
assert abs(of_pairs - I_N) < 1e-12

# %% [markdown]
# ## As a bound on the MI it is loose, as an ELBO it is exact
#
# InfoNCE is often introduced as a lower bound on the mutual information. It is one, and (E5) says how loose:
#
# $$I_Q(z;z') - I_\infty = \mathrm{KL}\big(Q(z,z')\,\|\,P(z,z')\big) \ge 0. \tag{E8}$$

# %% tags=["reproducible"]
gap = world.mutual_information - infonce
divergence = (world.q_joint * (world.q_joint.log() - P.log())).sum()
print(f"MI − InfoNCE = {gap:.6f},  KL(Q‖P) = {divergence:.6f},  residual {abs(gap - divergence):.1e}")
assert gap > 0 and abs(gap - divergence) < 1e-12

# %% [markdown]
# More samples do not close this gap: $I_\infty$ has infinitely many already. It closes only if the critic becomes the true density ratio, up
# to a factor that depends on $z$. With a critic of a given shape, say cosine over a temperature, InfoNCE does not estimate the mutual
# information badly; it measures something else exactly.
#
# ## One normaliser for all z: Donsker–Varadhan
#
# Normalise the whole table at once, and $P(z)$ is free to differ from $Q(z)$. In (E4) the aggregate posteriors cancel again, and $\log \bar Z$ is left: the
# Donsker–Varadhan objective, known in deep learning as MINE (mutual information neural estimation).
#
# $$P(z,z') = Q(z)Q(z')\,f/\bar Z, \quad \bar Z = \mathbb E_{Q(z)Q(z')} f \quad\Rightarrow\quad L - C = \mathbb E\,s - \log\bar Z. \tag{E9}$$
#
# Or relax the prior, and drop the normaliser: $\tilde P = Q(z)Q(z') f/e$, with $e = 2.718\ldots$, need not sum to one. The KL to such a table is $\mathbb E_Q \log(Q/\tilde P) + \sum \tilde P - 1$, so (E5) gains a
# slack of $1 - \sum\tilde P$, which `unnormalised=True` adds:
#
# $$L - C = (\mathbb E\,s - 1) + (1 - \bar Z/e) = \mathbb E\,s - \bar Z/e, \tag{E10}$$
#
# the NWJ objective, after Nguyen, Wainwright and Jordan. It is best at $f = e\,Q(z,z')/Q(z)Q(z')$; the 1 in our critic supplies that $e$.

# %% tags=["reproducible"]
Z_bar = world.q_z @ Z
dv = score - Z_bar.log()
nwj = score - Z_bar / torch.e
elbo_dv = world.elbo(rpm.priors.donsker_varadhan(log_f, world.q_joint)).value - world.constant
elbo_nwj = world.elbo(rpm.priors.nwj(log_f, world.q_joint), unnormalised=True).value - world.constant
print(f"DV   {dv:.6f}  residual {abs(dv - elbo_dv):.1e}\nNWJ {nwj:.6f}  residual {abs(nwj - elbo_nwj):.1e}")
assert abs(dv - elbo_dv) < 1e-12 and abs(nwj - elbo_nwj) < 1e-12

# %% [markdown]
# ## For one critic, the objectives come in a fixed order
#
# **Predict** the order of NWJ, DV, InfoNCE and MI for the same $f$.
#
# <details><summary>Answer</summary>
#
# NWJ ≤ DV ≤ InfoNCE ≤ MI. Jensen gives the middle step ($\mathbb E\log Z(z) \le \log \mathbb E Z(z)$), $\log \bar Z \le \bar Z/e$ the left one, (E8) the right one.
# </details>

# %% tags=["reproducible"]
assert nwj <= dv <= infonce <= world.mutual_information
rpm.figures.dots(
    {"NWJ": nwj.item(), "DV": dv.item(), "InfoNCE": infonce.item(), "MI": world.mutual_information.item()},
    x_label="nats per pair",
    caption="One critic under two priors and a relaxed one, and the mutual information that none of them exceeds.",
)

# %% [markdown]
# A higher value for the same critic does not make InfoNCE the better objective. It says only that its prior
# has $P(z) = Q(z)$ right by construction, and leaves less for the critic to get right. Which prior is right is a question about the latents.
#
# ## The table of the course
#
# One more prior: keep $P(z) = Q(z)$ and bring a normalised conditional $P(z'|z)$ of your own. In (E4) $\log Q(z)$ cancels and $-\log Q(z')$ stays:
#
# $$L - C = \mathbb E\log P(z'|z) + H(Q(z')), \tag{E11}$$
#
# the Barber–Agakov bound. Here $H(Q(z'))$ is a sum; for a network it is unknown, which is why the other priors keep $Q(z')$ as a factor. Now the four priors and the relaxed one, each as an
# ELBO by the sum (E3) and as the objective of its name.

# %% tags=["reproducible"]
q, log_p = world.q_joint, log_f.log_softmax(1)  # log_p: a normalised P(z'|z)
table = {
    "optimal (E6)": (rpm.priors.optimal(q), rpm.mutual_information(q)),
    "InfoNCE (E7)": (rpm.priors.infonce(log_f, q), rpm.infonce(log_f, q).value),
    "joint, DV (E9)": (rpm.priors.donsker_varadhan(log_f, q), rpm.donsker_varadhan(log_f, q).value),
    "none, NWJ (E10)": (rpm.priors.nwj(log_f, q), rpm.nwj(log_f, q).value),
    "explicit, BA (E11)": (rpm.priors.barber_agakov(log_p, q), rpm.barber_agakov(log_p, q).value),
}
print(f"{'prior':20}{'L − C from (E3)':>18}{'objective':>17}{'residual':>11}")
for name, (prior, objective) in table.items():
    elbo = world.elbo(prior, unnormalised="NWJ" in name).value - world.constant
    print(f"{name:20}{elbo:18.12f}{objective:17.12f}{abs(elbo - objective):11.1e}")
    assert abs(elbo - objective) < 1e-12

# %% [markdown]
# ## CLIP averages two ELBOs
#
# The symmetric loss normalises once over $z'$ and once over $z$. Each half is an ELBO under a prior of its own; the second is (E7) with the roles exchanged:
#
# $$P_1 = Q(z)\,\frac{Q(z')f}{Z(z)}, \quad P_2 = Q(z')\,\frac{Q(z)f}{Z(z')} \quad\Rightarrow\quad I_\text{CLIP} = \tfrac12\big(L_1 - C\big) + \tfrac12\big(L_2 - C\big). \tag{E12}$$
#
# The mean of the two is not the ELBO of the averaged prior: that one is larger, by Jensen.

# %% tags=["reproducible"]
two_priors = rpm.priors.infonce(log_f, q), rpm.priors.infonce(log_f.T, q.T).T
over_z_prime, over_z = (world.elbo(prior).value - world.constant for prior in two_priors)
clip = rpm.symmetric_infonce(log_f, q).value
averaged = torch.logsumexp(torch.stack(two_priors), 0) - torch.tensor(2.0).double().log()
elbo = world.elbo(averaged).value - world.constant
print(f"({over_z_prime:.6f} + {over_z:.6f}) / 2 = {clip:.6f};  ELBO of the averaged prior {elbo:.6f}")
assert abs((over_z_prime + over_z) / 2 - clip) < 1e-12 and clip < elbo

# %% [markdown]
# ## A prior is a critic times a normaliser
#
# InfoNCE, DV and NWJ all start from $Q(z)Q(z')f$. The **critic** $f$ says which latents fit together; the **normaliser** says what is divided by: one $Z(z)$ for
# each row, one $\bar Z$ for all, or the fixed number $e$. The two choices are independent, and each has a slider or a menu below.
#
# The critic there is $\log f = 1 + \kappa \log\frac{Q(z,z')}{Q(z)Q(z')} + c(z)$. At $\kappa = 1$ it knows the true density ratio, which a larger $\kappa$ exaggerates and a
# smaller one mutes; the offset $t$ tilts whole rows, $c(z) = -t, 0, t$. Move the offset; in a running lesson $\kappa$ moves too, and a menu picks the prior whose KL the caption reports.
#
# **Predict**: which of the three curves does the offset leave where it is?
#
# <details><summary>Answer</summary>
#
# InfoNCE. Its $Z(z)$ divides out anything that depends on $z$ alone; DV and NWJ have one normaliser or none, and pay for it.
# </details>

# %% tags=["reproducible"]
rpm.explore(rpm.lessons.lesson_03.prior_choice)

# %% [markdown]
# The answer, asserted: an offset per row leaves InfoNCE unchanged to rounding.

# %% tags=["reproducible"]
c = torch.tensor([[-1.0], [0.0], [2.0]], dtype=torch.float64)
shift = {
    fn.__name__: (fn(log_f + c, q).value - fn(log_f, q).value).item()
    for fn in (rpm.infonce, rpm.donsker_varadhan, rpm.nwj)
}
print({name: f"{value:+.4f}" if abs(value) > 1e-12 else "0" for name, value in shift.items()})
assert abs(shift["infonce"]) < 1e-12 and shift["donsker_varadhan"] < -0.1

# %% [markdown]
# This is why a critic trained by InfoNCE yields density ratios only up to a factor per $z$, and why it does not matter which score counts as zero.
#
# ## It holds without any table: two Gaussians
#
# For standard normal $z, z'$ with correlation $\rho$, and a random-walk critic $s = -\tfrac a2 (z - z')^2$ with $a = 1/\sigma^2$, the integrals of (E7) can be done by hand. The score averages $-\tfrac a2\,\mathbb E(z-z')^2 = -a(1-\rho)$, and
# $\log Z(z) = -\tfrac12\log(1+a) - \tfrac{a z^2}{2(1+a)}$ is averaged with $\mathbb E z^2 = 1$:
#
# $$I_\infty = -a(1-\rho) + \tfrac12 \log(1+a) + \tfrac{a}{2(1+a)}. \tag{E20}$$
#
# Feed samples to the same function, in blocks of 1 000 pairs.

# %% tags=["reproducible"]
rho, scale = 0.8, 0.7
rng = torch.Generator().manual_seed(1)
z, z_prime = rpm.gaussian.sample(100_000, rho, generator=rng)
critic = rpm.RandomWalk(scale).double()
blocks = torch.tensor([rpm.infonce(critic(a, b)).value.item() for a, b in zip(z.split(1000), z_prime.split(1000))])
exact, information = rpm.gaussian.infonce_random_walk(rho, scale), rpm.gaussian.mutual_information(rho)
print(f"(E20) {exact:.4f}   MI {information:.4f}")
for used in (10, 100):
    mean, error = blocks[:used].mean(), blocks[:used].std() / used**0.5
    print(f"{used * 1000:7} samples: {mean:.4f} ± {error:.4f}")
    assert abs(mean - exact) < 4 * error + 0.002  # a block of 1 000 carries a bias of the order of 1/1 000
assert mean + 4 * error < information

# %% [markdown]
# InfoNCE comes out at the value of (E20), below the MI, and more samples narrow it down there. The gap is the prior's error: under
# $P(z'|z) \propto Q(z')f$, $z'$ has mean $\frac{a}{1+a}z$ and variance $\frac1{1+a}$; in truth they are $\rho z$ and $1-\rho^2$. One number $a$ cannot set both right.

# %% tags=["reproducible"]
a = 1 / scale**2
mean, variance, true_variance = a / (1 + a), 1 / (1 + a), 1 - rho**2
print(
    f"z′ given z, prior: mean {mean:.2f} z, variance {variance:.2f}; truth: mean {rho:.2f} z, variance {true_variance:.2f}"
)
divergence = (math.log(variance / true_variance) + (true_variance + (rho - mean) ** 2) / variance - 1) / 2  # E_z KL
print(f"KL(Q‖P) = {divergence:.4f} = MI − (E20)")
assert abs(divergence - (information - exact)) < 1e-12

# %% [markdown]
# ## Exercises
#
# **1.** Write $I_\infty$ yourself, from `log_f` and `q_joint`, both of shape (Z, Z').


# %% tags=["exercise"]
def my_infonce(log_f, q_joint):
    return ...


rpm.lessons.lesson_03.infonce.check(my_infonce)

# %% [markdown]
# **2.** Return the InfoNCE prior $P(z,z')$ as a table of probabilities, not logarithms. Its rows must sum to $Q(z)$.


# %% tags=["exercise"]
def infonce_prior(log_f, q_joint):
    return ...


rpm.lessons.lesson_03.prior.check(infonce_prior)

# %% [markdown]
# **3. Find the bug.** This function should return the symmetric objective (E12) of a batch, pairs on the diagonal. **Symptom**, the last line that it prints: exchange $z$ and $z'$,
# and another value comes out. Repair it.


# %% tags=["exercise", "bug", "reproducible"]
def my_clip(log_f):
    over_z_prime = log_f.log_softmax(1).diagonal().mean()
    over_z = log_f.T.log_softmax(0).diagonal().mean()
    return (over_z_prime + over_z) / 2 + math.log(len(log_f))


rpm.lessons.lesson_03.clip.check(my_clip)
scores = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
print(f"the table: {my_clip(scores):.4f} nats; the transposed table: {my_clip(scores.T):.4f} nats")

# %% [markdown]
# ## Quiz
#
# **1. "InfoNCE with a cosine critic is a poor estimate of the mutual information." Therefore…**
# <details><summary>it is a poor objective</summary>That does not follow: as an ELBO it is exact, and what it measures besides the MI is how well the prior fits.</details>
# <details><summary>a more flexible critic gives better representations</summary>It gives a better estimate of the MI, and a prior that assumes less. Nothing here says that this helps the representation.</details>
# <details><summary>the MI is not what it measures</summary>Yes: it measures MI − KL(Q‖P), the fit of a model whose prior has that shape.</details>
#
# **2. Which prior lies behind the MINE (Donsker–Varadhan) objective?**
# <details><summary>P(z) = Q(z), P(z′|z) normalised by Z(z)</summary>That is InfoNCE.</details>
# <details><summary>Q(z)Q(z′) f, normalised by one constant</summary>Yes (E9). Its marginal P(z) need not equal Q(z).</details>
# <details><summary>Q(z,z′)</summary>That is the optimal prior; its objective is the MI itself.</details>
#
# **3. You add c(z′), a number per column, to the critic. InfoNCE…**
# <details><summary>stays as it is</summary>That is true of c(z). A column's offset changes how likely a candidate is for every z, and Z(z) is a weighted mean over columns.</details>
# <details><summary>changes in general</summary>Yes: it reweights Q(z′) inside the prior.</details>
# <details><summary>becomes the CLIP loss</summary>No: that needs a second normaliser, over z.</details>
#
# ## The three numbers of this world
#
# Under InfoNCE's prior. InfoNCE and the ELBO agree as they must; this encoder leaves doubt, so that the evidence is larger, by the gap of lesson 2. Lesson 5 closes it.

# %% tags=["reproducible"]
bound = world.elbo(P.log()).value - world.constant
evidence, gap = world.log_evidence(P.log()) - world.constant, world.gap(P.log())
three = {"InfoNCE": infonce, "ELBO − C": bound, "log evidence − C": evidence}
print("  ".join(f"{name} {number:.4f}" for name, number in three.items()), "nats")
print(f"log evidence − ELBO = gap = {gap:.4f}")
assert abs(infonce - bound) < 1e-12 and abs(evidence - bound - gap) < 1e-12

# %% [markdown]
# ## What we saw
#
# Four priors and a relaxed one, five objectives, each pair equal to rounding. InfoNCE is the ELBO under $P(z)=Q(z)$, $P(z'|z) \propto Q(z') f$. In [lesson 5](05_the_evidence_of_a_data_set.ipynb) the tables go,
# and tens of thousands of images come.
