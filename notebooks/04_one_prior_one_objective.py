# %% [markdown] tags=["slide"]
# # One prior, one objective: what MINE, NWJ and CLIP assume
#
# InfoNCE is one of several losses that compare the scores of true pairs with those of mismatched ones. MINE, NWJ and the loss of CLIP take the same encoder and the same critic,
# and give other numbers. Which of them is right? By (E4) every prior gives an objective. So we look for the prior behind each loss: MINE has one, NWJ has a table that need not sum to one, and CLIP has two. So the question becomes: which prior do you want?
#
# **Afterwards you can** name the prior behind an objective, and the objective that a prior gives; say which objective is the larger for the same critic,
# and by which KL; distinguish the critic from the normaliser; say which of your losses changes when a constant is added to its scores.
#
# **You need** [lesson 3](03_infonce_is_the_elbo.ipynb). **Time** 40 minutes.
#
# **Whose result**: the paper has two of these priors, the optimal one (E6) and that of InfoNCE (E7). The objectives are older than it; that each belongs to a prior of its own, with the same encoder and likelihoods, (E9) to (E12), is this course's. (NWJ's prior is relaxed, and CLIP has two.)
# Beside it: [notation](../docs/notation.md), [glossary](../docs/glossary.md), [questions and answers](../docs/faq.md).

# %%
import math

import torch

import rpm_tutorial as rpm

device = rpm.setup()
world = rpm.FiniteRPM.ring(coupling=3.0, sharpness=3.0)
q = world.q_joint  # Q(z,z')

# %% [markdown]
# The world is that of lesson 3, and so is the critic: its scores are the logarithm of the density ratio $r = Q(z,z')/Q(z)Q(z')$, plus noise. Here the number 1 is added to every score.
# InfoNCE does not notice, since a constant factor of $f$ cancels against $Z(z)$. NWJ, an objective further down, needs it.

# %% tags=["reproducible", "slide"]
rng = torch.Generator().manual_seed(0)
log_ratio = torch.log(q / world.q_z[:, None] / world.q_z_prime)
noise = torch.randn(3, 4, generator=rng, dtype=torch.float64)
log_f = 1 + log_ratio + 0.4 * noise
f = log_f.exp()
rpm.figures.tables(
    {"s = log f(z,z′)": log_f},
    x_label="z′",
    y_label="z",
    unit="score (nats)",
    caption="Scores above 1 mark pairs of latents that meet more often than by chance, "
    "up to the noise of the critic.",
)

# %% [markdown] tags=["slide"]
# ## One normaliser for all z: Donsker–Varadhan
#
# InfoNCE's prior divides each row of $Q(z)Q(z')f(z,z')$ by a normaliser of its own, $Z(z) = \mathbb E_{Q(z')} f$. Divide the whole table by one number instead:
#
# $$P(z,z') = \frac{Q(z)\,Q(z')\,f(z,z')}{\bar Z}, \qquad \bar Z = \mathbb E_{Q(z)Q(z')} f. \tag{E9}$$
#
# The table sums to one, so this is a prior. Put it into (E4): $Q(z)$ and $Q(z')$ cancel as before, and $s - \log\bar Z$ is left in the bracket,
#
# $$L - C = \mathbb E_{Q(z,z')}\,s - \log\bar Z.$$
#
# This is the objective of Donsker and Varadhan (DV), known in deep learning as MINE, mutual information neural estimation.

# %% tags=["reproducible", "slide"]
Z = f @ world.q_z_prime  # Z(z), one for each z
Z_bar = world.q_z @ Z  # one for all
score = (q * log_f).sum()
dv = score - Z_bar.log()
dv_prior = rpm.priors.donsker_varadhan(log_f, q)  # log P(z,z'), (E9)
elbo = world.elbo(dv_prior).value - world.constant
print(f"DV {dv:.6f} = L − C {elbo:.6f},  residual {abs(dv - elbo):.1e} nats")
assert abs(dv - elbo) < 1e-12

# %% [markdown] tags=["slide"]
# This prior differs from InfoNCE's in its row sums, $P(z) = Q(z)\,Z(z)/\bar Z$: where the scores of a row are high, it expects $z$ more often than the encoder produces it.
#
# ## No normaliser at all: NWJ
#
# Now divide by a fixed number. Any positive number would do; NWJ takes $e = 2.718\ldots$, because then the two ones in (E10) cancel: $\tilde P(z,z') = Q(z)Q(z')f/e$. This table sums to $\bar Z/e$, which need not be one, so it is no prior but a **relaxed prior**.
# The KL to such a table is defined with a correction for what its sum lacks or exceeds,
#
# $$\mathrm{KL}(Q\,\|\,\tilde P) = \mathbb E_Q \log(Q/\tilde P) + \textstyle\sum \tilde P - 1 .$$
#
# It is never negative, and zero only if $\tilde P = Q$, as a KL should be. $\tilde P$ is no model, so for it we *define* $L - C$ by (E5) with this KL. DV's prior is $\tilde P$ divided by its sum. The result never exceeds the $L - C$ of that prior, so it still bounds the evidence of DV's model, less $C$:
#
# $$L - C = \mathbb E_{Q(z,z')} \log \frac{\tilde P(z,z')}{Q(z)\,Q(z')} + 1 - \textstyle\sum \tilde P = (\mathbb E\,s - 1) + (1 - \bar Z/e) = \mathbb E\,s - \bar Z/e, \tag{E10}$$
#
# the objective of Nguyen, Wainwright and Jordan (NWJ). The library calls $1 - \sum\tilde P$, the correction as it enters $L$ (in the KL it has the other sign), the *slack*; `unnormalised=True` adds it to $L$.

# %% tags=["reproducible", "slide"]
nwj = score - Z_bar / math.e
nwj_prior = rpm.priors.nwj(log_f, q)  # log P̃; P̃ need not sum to one
elbo = world.elbo(nwj_prior, unnormalised=True)
above_C = elbo.value - world.constant
print(f"Σ P̃ = {nwj_prior.exp().sum():.4f}, slack {elbo.slack:+.4f}")
print(f"NWJ {nwj:.6f} = L − C {above_C:.6f},  residual {abs(nwj - above_C):.1e} nats")
assert abs(nwj - above_C) < 1e-12

# %% [markdown]
# Only for $f/e = r$ does the relaxed prior equal $Q(z,z')$, and NWJ the MI. So the optimal critic of NWJ is $s = 1 + \log r$, and the 1 in our scores is what it asks for. DV equals the MI for $s = c + \log r$ with any number $c$, and InfoNCE for $s = c(z) + \log r$ with any function $c(z)$.

# %% tags=["reproducible"]
MI = world.mutual_information
for c in (0.0, 1.0, 3.0):
    objectives = rpm.nwj, rpm.donsker_varadhan, rpm.infonce
    at_nwj, at_dv, at_infonce = (fn(c + log_ratio, q).value for fn in objectives)
    found = f"NWJ {at_nwj:.4f}, DV {at_dv:.4f}, InfoNCE {at_infonce:.4f}"
    print(f"s = {c:g} + log r: {found}")
    assert abs(at_dv - MI) < 1e-12 and abs(at_infonce - MI) < 1e-12
    assert (abs(at_nwj - MI) < 1e-12) == (c == 1)

# %% [markdown] tags=["slide"]
# ## For one critic, the objectives come in a fixed order
#
# **Predict** the order of NWJ, DV, InfoNCE and the MI, for the same $f$.
#
# <details><summary>Answer</summary>
#
# NWJ ≤ DV ≤ InfoNCE ≤ MI: the more of the prior is right by construction, the less is left to lose.
# </details>
#
# Each step up removes one error of the prior, and the length of the step is exactly the size of that error:
#
# - from NWJ to DV: that the table does not sum to one. The step is $\bar Z/e - 1 - \log(\bar Z/e) \ge 0$.
# - from DV to InfoNCE: that $P(z)$ is not $Q(z)$. The step is $\log\bar Z - \mathbb E_{Q(z)} \log Z(z) = \mathrm{KL}(Q(z)\,\|\,P(z))$, with DV's $P(z) = Q(z)Z(z)/\bar Z$.
# - from InfoNCE to the MI: that $P(z'|z)$ is not $Q(z'|z)$. The step is the KL of (E8).

# %% tags=["reproducible", "slide"]
infonce = rpm.infonce(log_f, q).value
p_z = dv_prior.exp().sum(1)  # DV's P(z)
infonce_prior = rpm.priors.infonce(log_f, q)
sum_is_wrong = Z_bar / math.e - 1 - (Z_bar / math.e).log()
z_is_wrong = (world.q_z * (world.q_z / p_z).log()).sum()
z_prime_is_wrong = (q * (q.log() - infonce_prior)).sum()
print(f"steps: {sum_is_wrong:.4f}, {z_is_wrong:.4f}, {z_prime_is_wrong:.4f} nats")
steps = torch.stack([dv - nwj, infonce - dv, MI - infonce])
by_name = torch.stack([sum_is_wrong, z_is_wrong, z_prime_is_wrong])
assert torch.allclose(steps, by_name, atol=1e-12) and by_name.min() >= 0
rpm.figures.dots(
    {"NWJ": nwj.item(), "DV": dv.item(), "InfoNCE": infonce.item(), "MI": MI.item()},
    x_label="nats per pair",
    caption="One critic, three objectives, and the MI that none exceeds.",
)

# %% [markdown] tags=["slide"]
# A larger value for the same critic does not make InfoNCE the better objective to train on: its prior copies $Q(z)$ from the encoder, so that it cannot lose there, whatever the encoder makes of $z$. It is the ELBO of another model, and since the order is the same for all encoders and critics, it does not say which model is right. None of the three has a $P(z)$ that you choose. If you want $z$ to have a certain distribution, a prior that says so is an assumption worth making.
#
# ## A prior is a critic times a normaliser
#
# The three start from the same table $Q(z)Q(z')f$. The **critic** $f$ says which latents fit together. The **normaliser** says what the table is divided by: $Z(z)$, one for each row, or $\bar Z$, one for all. NWJ has none, and divides by the fixed number $e$. The two choices are independent.
#
# The widget has a critic with two errors to set, $\log f = 1 + \kappa \log r + c(z)$. The factor $\kappa$ scales the density ratio: at 1 the critic is right, above 1 it exaggerates the ratio, below 1 it weakens it. The
# offset $t$ shifts the three rows by $c(z) = -t, 0, t$. Curves show the three objectives against $\kappa$; a menu picks the one whose KL to $Q(z,z')$ is drawn as a bar.
#
# **Predict** before you move the offset: which of the three curves stays where it is?
#
# <details><summary>Answer</summary>
#
# InfoNCE. Its $Z(z)$ divides out whatever depends on $z$ alone. DV and NWJ have one normaliser or none, and change with the shift: at $\kappa = 1$ every shift costs them.
# </details>

# %% tags=["reproducible", "slide"]
rpm.explore(rpm.lessons.lesson_04.prior_choice)

# %% [markdown]
# The answer, computed: a shift of the rows moves DV and NWJ, and leaves InfoNCE where it is.

# %% tags=["reproducible"]
c = torch.tensor([[-1.0], [0.0], [2.0]], dtype=torch.float64)
moved = {}
for fn in (rpm.infonce, rpm.donsker_varadhan, rpm.nwj):
    moved[fn.__name__] = (fn(log_f + c, q).value - fn(log_f, q).value).item()
    print(f"{fn.__name__:17} moves by {moved[fn.__name__]:.4f} nats")
assert abs(moved["infonce"]) < 1e-12 and moved["donsker_varadhan"] < -0.1

# %% [markdown] tags=["slide"]
# ## The table of the course
#
# One more prior, without a critic: keep $P(z) = Q(z)$, and write down a normalised $P(z'|z)$ of your own, for example a Gaussian around $z$. In (E4) $\log Q(z)$ cancels and $-\log Q(z')$ stays. Its average is the entropy $H(Q(z'))$:
#
# $$L - C = \mathbb E_{Q(z,z')}\log P(z'|z) + H(Q(z')), \tag{E11}$$
#
# the bound of Barber and Agakov (BA). In a finite world the entropy is a sum. For a network it is unknown. InfoNCE, DV and NWJ do not need it: their priors have $Q(z')$ as a factor, which cancels.
#
# Now all of them: four priors and one relaxed prior. Each is computed twice, as an ELBO by the sum (E3) and as the objective of its name.

# %% tags=["reproducible"]
log_p = log_f.log_softmax(1)  # any normalised P(z'|z): each row sums to one
table = {
    "optimal (E6)": (rpm.priors.optimal(q), rpm.mutual_information(q)),
    "InfoNCE (E7)": (infonce_prior, rpm.infonce(log_f, q).value),
    "DV (E9)": (dv_prior, rpm.donsker_varadhan(log_f, q).value),
    "NWJ (E10)": (nwj_prior, rpm.nwj(log_f, q).value),
    "BA (E11)": (
        rpm.priors.barber_agakov(log_p, q),
        rpm.barber_agakov(log_p, q).value,
    ),
}

# %% tags=["reproducible", "slide"]
print(f"{'prior':13}{'sums to':>8}{'L − C':>17}{'objective':>17}{'residual':>10}")
for name, (prior, objective) in table.items():
    elbo = world.elbo(prior, unnormalised=name.startswith("NWJ")).value
    elbo, total = elbo - world.constant, prior.exp().sum()
    residual = abs(elbo - objective)
    print(f"{name:13}{total:8.3f}{elbo:17.12f}{objective:17.12f}{residual:10.1e}")
    assert residual < 1e-12

# %% [markdown] tags=["slide"]
# | objective | the prior | what it gets right by construction |
# |---|---|---|
# | MI | $Q(z,z')$ | everything: it assumes nothing |
# | InfoNCE | $Q(z)\,Q(z')f/Z(z)$ | $P(z)$ |
# | DV, MINE | $Q(z)\,Q(z')f/\bar Z$ | that it sums to one |
# | NWJ | $Q(z)\,Q(z')f/e$, relaxed | nothing |
# | BA | $Q(z)\,P(z'\mid z)$ | $P(z)$ |
#
# ## CLIP averages two ELBOs
#
# CLIP's loss takes the softmax of the scores twice, over the rows and over the columns of the table, and averages. The softmax over each row gives InfoNCE. The softmax over each column gives InfoNCE with the two sides exchanged: its prior has the right $P(z') = Q(z')$, and a normaliser $Z(z') = \mathbb E_{Q(z)} f$ for each column. So each half is an ELBO less $C$: $L_1$ under the prior $P_1$ of the rows, $L_2$ under the prior $P_2$ of the columns, with the same encoder:
#
# $$P_1 = \frac{Q(z)\,Q(z')f}{Z(z)}, \quad P_2 = \frac{Q(z)\,Q(z')f}{Z(z')} \quad\Rightarrow\quad I_\text{CLIP} = \tfrac12\big(L_1 - C\big) + \tfrac12\big(L_2 - C\big). \tag{E12}$$
#
# Is that the ELBO of the averaged prior $\tfrac12(P_1 + P_2)$? No: the logarithm of an average is at least the average of the logarithms, so that this ELBO is the larger one.

# %% tags=["reproducible", "slide-code"]
P_1 = rpm.priors.infonce(log_f, q)  # both are logarithms
P_2 = rpm.priors.infonce(log_f.T, q.T).T
over_rows, over_columns = (world.elbo(P).value - world.constant for P in (P_1, P_2))
clip = rpm.symmetric_infonce(log_f, q).value
averaged = torch.logaddexp(P_1, P_2) - math.log(2)  # log (P_1 + P_2) / 2
elbo = world.elbo(averaged).value - world.constant
print(f"({over_rows:.6f} + {over_columns:.6f}) / 2 = {clip:.6f} nats")
print(f"ELBO of the averaged prior: {elbo:.6f} nats")
assert abs((over_rows + over_columns) / 2 - clip) < 1e-12 and clip < elbo

# %% [markdown] tags=["slide"]
# So CLIP's objective is not the ELBO of the averaged prior. It is the mean of the ELBOs of two priors, and lies below the ELBO of their average: still a lower bound on the evidence of the averaged prior's model, and one that treats both sides alike.
#
# ## Exercises
#
# **1.** NWJ is below DV unless $\bar Z = e$, and a constant added to all scores, which multiplies $\bar Z$, repairs that (`rpm.WithBias` learns one). Return the constant $b$ for which
# NWJ of `log_f + b` equals DV of `log_f`. Both tables have shape (Z, Z').


# %% tags=["exercise"]
def level(log_f, q_joint):
    return ...


rpm.lessons.lesson_04.level.check(level)

# %% [markdown] tags=["slide"]
# **2. Find the bug.** This function should return the symmetric objective (E12) of a batch, pairs on the diagonal. **Symptom**, the last line that it prints: exchange $z$ and $z'$,
# and another value comes out. Repair it.


# %% tags=["exercise", "bug", "reproducible"]
def my_clip(log_f):
    over_z_prime = log_f.log_softmax(1).diagonal().mean()
    over_z = log_f.T.log_softmax(0).diagonal().mean()
    return (over_z_prime + over_z) / 2 + math.log(len(log_f))


rpm.lessons.lesson_04.clip.check(my_clip)
scores = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
value, transposed = my_clip(scores), my_clip(scores.T)
print(f"the table: {value:.4f} nats; the transposed table: {transposed:.4f} nats")

# %% [markdown]
# ## Quiz
#
# **1. For your critic NWJ reads 0.3 nats less than InfoNCE. Therefore…**
# <details><summary>InfoNCE is the better objective</summary>It is the larger for every critic. They belong to different priors, and the order cannot say which prior is right.</details>
# <details><summary>the NWJ prior errs by 0.3 nats more, in its sum and in P(z)</summary>Yes: the two steps between them are the table that does not sum to one, and P(z) ≠ Q(z). A constant mends the first, an offset per row both.</details>
# <details><summary>NWJ has not converged</summary>It may have. A critic whose scores cannot reach the level 1 + log r stays below for good.</details>
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
# The ELBO and the evidence are those of the DV prior, and InfoNCE has the same critic. All three differ, and each difference has a name. InfoNCE exceeds the ELBO by $\mathrm{KL}(Q(z)\,\|\,P(z))$, since it is the ELBO of another prior.
# The log evidence exceeds the ELBO by the gap of lesson 2.

# %% tags=["reproducible"]
bound = world.elbo(dv_prior).value - world.constant
evidence = world.log_evidence(dv_prior) - world.constant
gap = world.gap(dv_prior)
three = {"InfoNCE": infonce, "ELBO − C": bound, "log evidence − C": evidence}
print("  ".join(f"{name} {number:.4f}" for name, number in three.items()), "nats")
print(f"InfoNCE − (ELBO − C) = KL(Q(z) ‖ P(z)) = {z_is_wrong:.4f}")
print(f"log evidence − ELBO = gap = {gap:.4f}")
assert abs(infonce - bound - z_is_wrong) < 1e-12
assert abs(evidence - bound - gap) < 1e-12

# %% [markdown] tags=["slide"]
# ## What we saw
#
# Four priors and a relaxed one gave five objectives, each equal to its ELBO up to rounding; CLIP's objective is the mean of two. For one critic NWJ, DV, InfoNCE and the MI come in a fixed order, and each step is one error of a prior. So
# do not ask which bound is tighter. Ask what you want to assume of the latents. [Lesson 5](05_the_evidence_of_a_data_set.ipynb) goes from these small tables to tens of thousands of images.
