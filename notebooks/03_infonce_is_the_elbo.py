# %% [markdown] tags=["slide"]
# # InfoNCE is the ELBO: the prior that you have been using
#
# You chose an encoder, a similarity and a temperature, and a softmax over a batch did the rest. Nobody asked you for a prior. Yet by (E4) the ELBO, up to $C$, depends on two things only: on the pairs of latents that your encoder makes, and on the prior $P(z,z')$. So if InfoNCE is an ELBO, it has a prior.
# Which one?
#
# **Afterwards you can** write down the prior behind InfoNCE, and show that InfoNCE equals the ELBO exactly; name the prior that turns the ELBO into the
# mutual information; tell $I_\infty$ from $I_N$; say why InfoNCE is loose as a bound on the mutual information and exact as an ELBO.
#
# **You need** [lesson 2](02_the_elbo.ipynb). **Time** 35 minutes.
#
# **Whose result**: the optimal prior (E6), the prior of InfoNCE (E7), and the remark that InfoNCE is a loose bound on the mutual information are the
# paper's: its abstract names all three, and its main part derives them, for infinitely many candidates. The KL that says how loose (E8), the one formula
# behind $I_\infty$ and $I_N$, and the Gaussian (E20) are this course's.
# Beside it: [notation](../docs/notation.md), [glossary](../docs/glossary.md), [questions and answers](../docs/faq.md).

# %%
import math

import torch

import rpm_tutorial as rpm

device = rpm.setup()
world = rpm.FiniteRPM.ring(coupling=3.0, sharpness=3.0)

# %% [markdown] tags=["slide"]
# The world is that of lessons 1 and 2: three values of $z$, four of $z'$, and $Q(z,z')$ says how often data and encoder produce each pair of them.
#
# ## The optimal prior turns the ELBO into the mutual information
#
# Lesson 2 ended with $L - C = I_Q(z;z') - \mathrm{KL}(Q(z,z')\,\|\,P(z,z'))$. Here $I_Q(z;z')$, or MI for short, is the mutual information of the
# latents, and only the KL contains the prior. A KL is never negative, and it is zero where its two arguments are equal. So, for a given encoder, the prior with the highest ELBO is $Q(z,z')$ itself. It is called the **optimal prior**, since it is optimal for the ELBO, though not always for the log evidence:
#
# $$P(z,z') = Q(z,z') \quad\Rightarrow\quad L - C = I_Q(z;z'). \tag{E6}$$

# %% tags=["reproducible"]
prior = rpm.priors.optimal(world.q_joint)  # log P(z,z') = log Q(z,z')
elbo = world.elbo(prior).value - world.constant
MI = world.mutual_information
print(f"L − C = {elbo:.6f},  MI = {MI:.6f},  residual {abs(elbo - MI):.1e} nats")
assert abs(elbo - MI) < 1e-12

# %% [markdown] tags=["slide"]
# So to maximise the mutual information is to maximise an ELBO whose prior copies whatever the encoder does. Such a prior assumes nothing about the
# latents. Every other prior assumes something, and its ELBO is lower by a KL if the latents are distributed otherwise.
#
# ## InfoNCE assumes how z′ is drawn, given z
#
# The prior of InfoNCE has two parts. The first latent is left as the encoder makes it, $P(z) = Q(z)$. The second is drawn from
# $Q(z')$, reweighted by the critic $f(z,z')$ according to how well it fits $z$:
#
# $$P(z'|z) = \frac{Q(z')\,f(z,z')}{Z(z)}, \qquad Z(z) = \mathbb E_{Q(z')} f(z,z'). \tag{E7}$$
#
# The **normaliser** $Z(z)$ is what makes each row of the table $P(z'|z)$, one for each $z$, sum to one. To try it we need a critic, and any table of scores $s = \log f(z,z')$ will do. We
# take the logarithm of the **density ratio** $r(z,z') = Q(z,z')/Q(z)Q(z')$, which says how much more often two latents meet than by chance, and add noise, because a trained critic has errors too.

# %% tags=["reproducible", "slide"]
rng = torch.Generator().manual_seed(0)
log_ratio = torch.log(world.q_joint / world.q_z[:, None] / world.q_z_prime)
noise = torch.randn(3, 4, generator=rng, dtype=torch.float64)
log_f = log_ratio + 0.4 * noise
f = log_f.exp()
rpm.figures.reweighting(world.q_z_prime, f)

# %% [markdown]
# The top row is $Q(z')$, and below it stands one row of $P(z'|z)$ for each $z$. In code, the prior is the product of $Q(z)$, $Q(z')$ and $f/Z$.

# %% tags=["reproducible"]
Z = f @ world.q_z_prime  # Z(z): one number for each z
P_given_z = world.q_z_prime * f / Z[:, None]  # P(z'|z), (E7)
P = world.q_z[:, None] * P_given_z  # P(z,z')
print("rows of P(z′|z) sum to", P_given_z.sum(1).numpy().round(12))
assert torch.allclose(P.log(), rpm.priors.infonce(log_f, world.q_joint), atol=1e-12)

# %% [markdown] tags=["slide"]
# Put this prior into (E4), $L - C = \mathbb E_{Q(z,z')}[\log P(z,z') - \log Q(z) - \log Q(z')]$. The prior has $Q(z)$ and $Q(z')$ as factors, so that both
# cancel, and $s(z,z') - \log Z(z)$ is left in the bracket:
#
# $$L - C = \mathbb E_{Q(z,z')}[s(z,z')] - \mathbb E_{Q(z)}[\log Z(z)] =: I_\infty.$$
#
# This is InfoNCE. Lesson 0 had $\frac1N\sum_i \big[s_{ii} - \log \frac1N\sum_j f_{ij}\big]$: the mean over pairs has become $\mathbb E_{Q(z,z')}$, and the mean over the
# $N$ candidates, the $z'_j$ that compete for a $z$, has become $\mathbb E_{Q(z')}$. The index ∞ stands for infinitely many candidates drawn from $Q(z')$: their mean of $f$ is the expectation $Z(z)$.
#
# **Predict**: compute $L$ as lesson 2 did, as a sum of five expectations over $x, x', z, z'$ (E3). Compute $I_\infty$ from the critic and $Q(z,z')$ alone, without $x$ and $x'$. In how many digits will $L - C$ and $I_\infty$ agree?
#
# <details><summary>Answer</summary>
#
# In all of them. They are the same number, and what differs is rounding.
# </details>

# %% tags=["reproducible", "slide-code"]
score = (world.q_joint * log_f).sum()
log_normaliser = (world.q_z * Z.log()).sum()
infonce = score - log_normaliser
elbo = world.elbo(P.log()).value - world.constant  # five expectations, (E3)
print(f"InfoNCE = {infonce:.12f}\nL − C   = {elbo:.12f}")
print(f"residual {abs(elbo - infonce):.1e} nats")
assert abs(elbo - infonce) < 1e-12

# %% [markdown] tags=["slide"]
# This is the theorem of the course. The library's `infonce` is the line `Z = f @ world.q_z_prime` further up and the first three lines of the cell just above, with names and checks.
#
# ## I∞ and I_N are one formula on two distributions
#
# $I_\infty$ averages over a distribution $Q(z,z')$; $I_N$ averages over $N$ pairs. They are the same formula: let the distribution be the list of the
# $N$ pairs, each with probability $1/N$. Then $Q(z')$ gives $1/N$ to each $z'_j$, and $I_\infty$ *of that list* is $I_N$.

# %% tags=["reproducible", "slide"]
scores = torch.randn(6, 6, generator=rng, dtype=torch.float64)  # 6 pairs, any critic
the_list = torch.eye(6, dtype=torch.float64) / 6  # its Q(z,z')
of_the_list = rpm.infonce(scores, the_list).value  # the formula of I∞
I_N = (scores.diagonal() - scores.exp().mean(1).log()).mean()  # lesson 0
print(f"I∞ of the list {of_the_list:.6f},  I_6 {I_N:.6f} nats")
assert abs(of_the_list - I_N) < 1e-12

# %% [markdown] tags=["slide"]
# So three numbers are called InfoNCE. They differ in what they are computed from:
#
# | | computed from | compared with the ELBO |
# |---|---|---|
# | $I_\infty$ | a distribution $Q(z,z')$ | it *is* the ELBO of that distribution, less $C$ |
# | $I_N$ of a data set | all $N$ pairs there are | it *is* the ELBO of that data set, less its $C$; at most $\log N$ ([lesson 5](05_the_evidence_of_a_data_set.ipynb)) |
# | $I_N$ of a batch | $N$ pairs drawn from more | it *estimates* the ELBO of what they were drawn from, less its $C$, with a bias ([lesson 6](06_finite_batches.ipynb)) |
#
# ## It is a loose bound on the MI, and it equals the ELBO exactly
#
# InfoNCE is usually introduced as a lower bound on the mutual information. It is one, since $L - C = \mathrm{MI} - \mathrm{KL}$ says so, and
# says by how much it falls short:
#
# $$I_Q(z;z') - I_\infty = \mathrm{KL}\big(Q(z,z')\,\|\,P(z,z')\big) \ge 0. \tag{E8}$$

# %% tags=["reproducible", "slide"]
shortfall = MI - infonce
divergence = (world.q_joint * (world.q_joint.log() - P.log())).sum()
print(f"MI − InfoNCE = {shortfall:.6f},  KL(Q‖P) = {divergence:.6f} nats")
assert shortfall > 0 and abs(shortfall - divergence) < 1e-12

# %% [markdown]
# More candidates do not close this shortfall (not to be confused with the gap of lesson 2): in $I_\infty$ all of $Q(z')$ are candidates already. The shortfall vanishes only where the prior equals $Q(z,z')$, which is where
# the critic is $f(z,z') = c(z)\,r(z,z')$: the density ratio, times any positive factor that depends on $z$ alone. For then $Z(z) = c(z)$, the factor cancels in $f/Z(z)$, and the prior is $Q(z)Q(z')\,r = Q(z,z')$. Such a critic is called an
# **optimal critic**.

# %% tags=["reproducible"]
log_c = torch.tensor([[-1.0], [0.0], [2.0]], dtype=torch.float64)  # one for each z
at_best = rpm.infonce(log_c + log_ratio, world.q_joint).value
with_c = rpm.infonce(log_c + log_f, world.q_joint).value
print(f"optimal critic: InfoNCE {at_best:.6f}, MI {MI:.6f}")
print(f"our critic, times c(z): InfoNCE {with_c:.6f}, before {infonce:.6f}")
assert abs(at_best - MI) < 1e-12 and abs(with_c - infonce) < 1e-12

# %% [markdown] tags=["slide"]
# Two things follow. A critic trained by InfoNCE gives the density ratio only up to the factor $c(z)$. And a critic of a fixed shape, say a cosine over a temperature, is optimal only if the latents happen to have a density ratio of that shape, up to $c(z)$. If not, InfoNCE stays below the MI for these latents, however long the critic is trained. As an estimate of the MI this would be a failure, but that is not what InfoNCE is. It is the exact value of
# something else: the ELBO of the model whose prior has that shape.
#
# ## (E8) holds without any table: two Gaussians
#
# Let $z$ and $z'$ be standard normal numbers with correlation $\rho$. The critic is named after a **random walk**, $f = e^{-(z-z')^2/2\sigma^2}$, a Gaussian step of size $\sigma$ from $z$: it likes a $z'$ that lies within about one step of $z$. (The prior multiplies it by $Q(z')$, which pulls $z'$ towards 0.) With $a = 1/\sigma^2$ the score is $s = -\tfrac a2(z-z')^2$. Both averages of $I_\infty$ can be done by hand:
#
# - the score: $\mathbb E(z-z')^2 = 2(1-\rho)$, so $\mathbb E s = -a(1-\rho)$;
# - the normaliser: a Gaussian integral gives $\log Z(z) = -\tfrac12\log(1+a) - \tfrac{a z^2}{2(1+a)}$, and $\mathbb E z^2 = 1$.
#
# $$I_\infty = -a(1-\rho) + \tfrac12 \log(1+a) + \tfrac{a}{2(1+a)}, \qquad \mathrm{MI} = -\tfrac12\log(1-\rho^2). \tag{E20}$$
#
# The next cell estimates $I_\infty$ from samples, in batches of 1 000 pairs; ± is one standard error of the mean over batches. Its check allows .002 nats for the bias of such a batch, which is lesson 6's subject.

# %% tags=["reproducible", "slide"]
rho, sigma = 0.8, 0.7
exact = rpm.gaussian.infonce_random_walk(rho, sigma)  # (E20)
information = rpm.gaussian.mutual_information(rho)
rng = torch.Generator().manual_seed(1)
z, z_prime = rpm.gaussian.sample(100_000, rho, generator=rng)
walk = rpm.RandomWalk(sigma).double()
batches = zip(z.split(1000), z_prime.split(1000))
values = torch.stack([rpm.infonce(walk(a, b)).value.detach() for a, b in batches])
print(f"(E20) {exact:.4f}   MI {information:.4f} nats")
for used in (10, 100):
    mean, error = values[:used].mean(), values[:used].std() / used**0.5
    print(f"{used * 1000:7} pairs: {mean:.4f} ± {error:.4f}")
    assert abs(mean - exact) < 4 * error + 0.002
assert mean + 4 * error < information

# %% [markdown]
# More samples narrow the estimate down, to (E20) and not to the MI. The difference is again the KL of (E8), the prior's error. Since $P(z) = Q(z)$, it is the KL between the two conditionals of $z'$ given $z$, averaged over $z$. Under the prior $P(z'|z) \propto Q(z')f$ the partner
# $z'$ is normal with mean $\frac{a}{1+a}z$ and variance $\frac1{1+a}$; in the data its mean is $\rho z$ and its variance $1-\rho^2$. The KL between two normals is
# a formula, here averaged over $z$ with $\mathbb E z^2 = 1$:

# %% tags=["reproducible"]
a = 1 / sigma**2
mean, variance = a / (1 + a), 1 / (1 + a)  # of z' given z: mean * z, variance
true_variance = 1 - rho**2
print(f"prior: z′ given z has mean {mean:.2f} z, variance {variance:.2f}")
print(f"data:  z′ given z has mean {rho:.2f} z, variance {true_variance:.2f}")
ratio = true_variance / variance
divergence = (ratio - 1 - math.log(ratio) + (rho - mean) ** 2 / variance) / 2
print(f"KL(Q‖P) = {divergence:.4f} = MI − (E20)")
assert abs(divergence - (information - exact)) < 1e-12

# %% [markdown] tags=["slide"]
# ## The closer the partners, the shorter the best step
#
# The widget draws (E20) against the step $\sigma$ of the walk, the MI as a level line, and the KL as a bar at the chosen step.
#
# **Predict** before you move $\rho$: the more alike the partners are, does the best step become longer or shorter? Does InfoNCE reach the MI there?
#
# <details><summary>Answer</summary>
#
# Shorter: partners that lie close together ask for a small step. At $\rho = 0$ the partners are unrelated, and a longer step is always better. For $0 < \rho < 1$ InfoNCE never reaches the MI: the critic has one number only, $a$, which cannot make both the mean and the variance right.
# </details>

# %% tags=["reproducible", "slide"]
rpm.explore(rpm.lessons.lesson_03.walk)

# %% [markdown]
# The next cell checks the answer on a grid of steps:

# %% tags=["reproducible"]
steps = torch.linspace(0.1, 5, 491).tolist()
best_steps, shortfalls = [], []
for rho in (0.2, 0.5, 0.8, 0.95):
    of_step = {s: rpm.gaussian.infonce_random_walk(rho, s) for s in steps}
    best = max(of_step, key=of_step.get)
    best_steps.append(best)
    shortfalls.append(rpm.gaussian.mutual_information(rho) - of_step[best])
    print(f"ρ = {rho:4}: best step {best:.2f}, MI − InfoNCE {shortfalls[-1]:.4f} nats")
assert best_steps == sorted(best_steps, reverse=True) and min(shortfalls) > 0.001

# %% [markdown] tags=["slide"]
# ## Exercises
#
# **1.** Write $I_\infty$ yourself, from `log_f` and `q_joint`, both of shape (Z, Z').


# %% tags=["exercise"]
def my_infonce(log_f, q_joint):
    return ...


rpm.lessons.lesson_03.infonce.check(my_infonce)

# %% [markdown] tags=["slide"]
# **2.** Return the InfoNCE prior $P(z,z')$ as a table of probabilities, not logarithms. Its rows must sum to $Q(z)$.


# %% tags=["exercise"]
def infonce_prior(log_f, q_joint):
    return ...


rpm.lessons.lesson_03.prior.check(infonce_prior)

# %% [markdown]
# ## Quiz
#
# **1. "InfoNCE with a cosine critic is a poor estimate of the mutual information." Therefore…**
# <details><summary>it is a poor objective</summary>That does not follow: as an ELBO it is exact, and besides the MI it measures how well the prior fits.</details>
# <details><summary>a more flexible critic gives better representations</summary>It gives a better estimate of the MI, and a prior that assumes less. Nothing here says that this helps the representation.</details>
# <details><summary>the MI is not what it measures</summary>Yes: it measures MI − KL(Q‖P), the fit of a model whose prior has that shape.</details>
#
# **2. What does InfoNCE's prior assume of z, before z′ is drawn?**
# <details><summary>that it is uniform on the sphere</summary>No: that may come out of training, but the prior does not ask for it.</details>
# <details><summary>nothing: P(z) = Q(z), whatever the encoder makes</summary>Yes. What it assumes is how z′ is drawn, given z.</details>
# <details><summary>that it is standard normal</summary>No: that is the usual prior of a VAE.</details>
#
# **3. You double the number of candidates again and again, and the value stays below the MI. What is left?**
# <details><summary>the bias of a batch</summary>That shrinks as candidates are added; lesson 6 says how fast.</details>
# <details><summary>the KL between Q(z,z′) and the prior</summary>Yes (E8). Another critic, or another encoder, can change it; more candidates cannot.</details>
# <details><summary>the gap between ELBO and log evidence</summary>That is a distance on the other side: the evidence lies above the ELBO.</details>
#
# ## The three numbers of this world
#
# They belong to the small world, under the InfoNCE prior $P$ that the noisy critic gives. InfoNCE and the ELBO agree, as they must. The encoder leaves doubt about $z$, so that the evidence is larger, by
# the gap of lesson 2.

# %% tags=["reproducible"]
bound = world.elbo(P.log()).value - world.constant
evidence = world.log_evidence(P.log()) - world.constant
gap = world.gap(P.log())
three = {"InfoNCE": infonce, "ELBO − C": bound, "log evidence − C": evidence}
print("  ".join(f"{name} {number:.4f}" for name, number in three.items()), "nats")
print(f"log evidence − ELBO = gap = {gap:.4f}")
assert abs(infonce - bound) < 1e-12 and abs(evidence - bound - gap) < 1e-12

# %% [markdown] tags=["slide"]
# ## What we saw
#
# InfoNCE is the ELBO under the prior $P(z)=Q(z)$, $P(z'|z) = Q(z') f/Z(z)$: for any critic, as (E4) and (E7) show, and up to rounding for the one that we computed. It stays below the mutual information by the KL from
# $Q(z,z')$ to that prior. The denominator of the softmax in your loss is the normaliser of a prior (times $N$), and a normaliser is a choice:
# [lesson 4](04_one_prior_one_objective.ipynb) makes other choices, and each gives an objective that has a name.
