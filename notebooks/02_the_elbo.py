# %% [markdown]
# # The ELBO: seven lines, each with its number
#
# The model of lesson 1 contains $P_\text{true}(x)$, which nobody can write down for images. Here it leaves the objective, and
# so does every density of the encoder given its input. We derive the bound a line at a time, and every line is a number on a live model, so
# that a wrong step could not hide.
#
# **Afterwards you can** derive (E4) and (E5) from (E3); say which assumption each step needs; compute the gap of the bound; and, given a
# broken assumption, point to the line that fails.
#
# **You need** [lesson 1](01_the_model.ipynb), KL divergence, Jensen's inequality. **Time** 35 minutes.
#
# **Whose result**: the bound and its lines (E3) to (E5) are the paper's; the gap as a number, and the lines that can be broken one by one, are this course's.
# Beside it: [notation](../docs/notation.md), [glossary](../docs/glossary.md), [questions and answers](../docs/faq.md).

# %%
import torch

import rpm_tutorial as rpm

device = rpm.setup()
world = rpm.FiniteRPM.ring(coupling=3.0, sharpness=3.0)
rpm.figures.seven_lines()

# %% [markdown]
# Above is the way that we go, from the log evidence at the top to the mutual information at the bottom. Do not read it now; come back to it after each section.
#
# ## The setting: one world, one prior
#
# Any normalised prior will do; the derivation does not ask which. We take one with a tilt, so that no symmetry can make a wrong line
# right by accident.

# %% tags=["reproducible"]
tilt = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.0, 1.5, 0.0, 0.2], [0.3, 0.0, 0.7, 1.0]], dtype=torch.float64)
log_prior = tilt - tilt.logsumexp((0, 1))  # log P(z,z'), sums to one
print(f"Σ P(z,z′) = {log_prior.exp().sum():.12f}")

# %% [markdown]
# All tables are broadcast to four axes, in the order $x, x', z, z'$. The weight of a cell is how often data and encoder produce it:
# $P_\text{true}(x,x')\,Q(z|x)\,Q(z'|x')$. An expectation $\mathbb E$ without index is a sum with these weights.

# %% tags=["reproducible"]
log_q_z_given_x = world.recognition.log()[:, None, :, None]
log_q_z_prime_given_x_prime = world.recognition_prime.log()[None, :, None, :]
log_p_x_given_z = world.log_p_x_given_z.T[:, None, :, None]
log_p_x_prime_given_z_prime = world.log_p_x_prime_given_z_prime.T[None, :, None, :]
weights = world.p_true[:, :, None, None] * (log_q_z_given_x + log_q_z_prime_given_x_prime).exp()


def E(values):
    """The expectation under data and encoder, in nats."""
    return (weights * values).sum()


print("axes x, x′, z, z′:", tuple(weights.shape), f"  Σ weights = {weights.sum():.12f}")

# %% [markdown]
# ## The ELBO lies below the log evidence
#
# For one pair, write the sum over latents as an average over the encoder, take the logarithm, and move it inside by Jensen's inequality:
#
# $$P(x,x') = \sum_{z,z'} P(x,x',z,z') = \mathbb E_{Q(z|x)Q(z'|x')}\left[\frac{P(x,x',z,z')}{Q(z|x)\,Q(z'|x')}\right]$$
#
# $$\log P(x,x') \;\ge\; \mathbb E_{Q(z|x)Q(z'|x')}\big[\log P(z,z') + \log P(x|z) + \log P(x'|z') - \log Q(z|x) - \log Q(z'|x')\big]. \tag{E3}$$
#
# Averaged over the data, the right side is $L$. The left side is the log evidence, which this small world can compute.

# %% tags=["reproducible"]
log_joint = log_prior + log_p_x_given_z + log_p_x_prime_given_z_prime  # log P(x,x',z,z'), (E1)
L = E(log_joint - log_q_z_given_x - log_q_z_prime_given_x_prime)  # (E3)
log_p = log_joint.logsumexp((2, 3))  # log P(x,x')
evidence = (world.p_true * log_p).sum()
print(f"log evidence {evidence:.6f}   ELBO {L:.6f}   difference {evidence - L:.6f} nats per pair")
assert L < evidence

# %% [markdown]
# ## The gap is a KL divergence, exactly
#
# **Predict**: the difference above is never negative, whatever the prior. Which divergence is it?
#
# <details><summary>Answer</summary>
#
# $\mathrm{KL}\big(Q(z|x)Q(z'|x')\,\|\,P(z,z'|x,x')\big)$: how far the encoder is from the model's own posterior. It is zero where they agree: for a
# deterministic encoder (lesson 5), or under the prior $Q(z)Q(z')$.
# </details>
#
# By Bayes' rule $\log P(x,x') = \log P(x,x',z,z') - \log P(z,z'|x,x')$ for all $z, z'$. Average both sides under $Q(z|x)Q(z'|x')$, and add and subtract
# $\log Q(z|x)Q(z'|x')$: the right side becomes (E3) plus that divergence.

# %% tags=["reproducible"]
log_posterior = log_joint - log_p[:, :, None, None]  # log P(z,z'|x,x'), Bayes' rule
gap = E(log_q_z_given_x + log_q_z_prime_given_x_prime - log_posterior)
line_0 = evidence - gap
print(f"evidence − KL = {line_0:.6f},  (E3) = {L:.6f},  residual {abs(line_0 - L):.1e}")
assert abs(line_0 - L) < 1e-12
independent = world.q_z.log()[:, None] + world.q_z_prime.log()  # the prior Q(z)Q(z')
assert abs(world.gap(independent)) < 1e-12

# %% [markdown]
# **What it needs**: that $z$ and $z'$ are drawn as they are scored, independently given $x$ and $x'$. Draw them together and the
# terms $\log Q(z|x) + \log Q(z'|x')$ are no longer the log density of the draw.
#
# ## Bayes' rule goes in
#
# The likelihood is *defined* by (E2), $\log P(x|z) = \log Q(z|x) + \log P_\text{true}(x) - \log Q(z)$. Put it in, on both sides.

# %% tags=["reproducible"]
log_p_x = world.p_x.log()[:, None, None, None]
log_p_x_prime = world.p_x_prime.log()[None, :, None, None]
log_q_z, log_q_z_prime = world.q_z.log()[:, None], world.q_z_prime.log()
bayes = log_q_z_given_x + log_p_x - log_q_z
bayes_prime = log_q_z_prime_given_x_prime + log_p_x_prime - log_q_z_prime
line_2 = E(log_prior + bayes + bayes_prime - log_q_z_given_x - log_q_z_prime_given_x_prime)
print(f"with Bayes' rule {line_2:.6f},  residual {abs(line_2 - L):.1e}")
assert abs(line_2 - L) < 1e-12

# %% [markdown]
# **What it needs**: that the likelihood is Bayes' rule applied to *some* encoder. A VAE's decoder is not, and this line is where the two
# part. Whether it is the encoder that draws $z$, the next line asks.
#
# ## The recognition densities cancel
#
# $\log Q(z|x)$ stands twice, once from the likelihood and once from the bound, with opposite signs. So does $\log Q(z'|x')$.
#
# $$L = \mathbb E\big[\log P(z,z') - \log Q(z) - \log Q(z') + \log P_\text{true}(x) + \log P_\text{true}(x')\big]$$

# %% tags=["reproducible"]
line_3 = E(log_prior + log_p_x - log_q_z + log_p_x_prime - log_q_z_prime)
print(f"after cancelling {line_3:.6f},  residual {abs(line_3 - line_2):.1e}")
assert abs(line_3 - line_2) < 1e-12

# %% [markdown]
# This is the step that makes contrastive learning possible. No density of the encoder given its input is left, so the encoder
# may be a deterministic network, whose density does not exist. **What it needs**: that the encoder in the likelihood is the encoder that
# draws $z$. With a blurred or delayed copy inside the likelihood the two terms differ. (Two encoders, one a side, break nothing.)
#
# ## The data terms are a constant
#
# $\log P_\text{true}(x)$ does not depend on $z$. Its average is fixed by the data, whatever we train:
#
# $$C = \mathbb E\log P_\text{true}(x) + \mathbb E\log P_\text{true}(x') = -H(x) - H(x').$$

# %% tags=["reproducible"]
C = (world.p_x * world.p_x.log()).sum() + (world.p_x_prime * world.p_x_prime.log()).sum()
line_4 = E(log_prior - log_q_z - log_q_z_prime) + C
print(f"C = {C:.6f};  with C outside {line_4:.6f},  residual {abs(line_4 - line_3):.1e}")
assert abs(line_4 - line_3) < 1e-12 and abs(C - world.constant) < 1e-12

# %% [markdown]
# We cannot compute $C$ for images, and never need to: it is the same for all encoders and all priors. "Up to a constant" means $C$ in
# this whole course. **What it needs**: that the entropies are those of the data that the pairs come from. Change the augmentation and
# $C$ changes with it.
#
# ## Only Q(z,z′) is left of the data
#
# What stands in the expectation depends on $z$ and $z'$ alone. So sum the weights over $x$ and $x'$ first; that sum is $Q(z,z')$.
#
# $$L - C = \mathbb E_{Q(z,z')}\big[\log P(z,z') - \log Q(z) - \log Q(z')\big] \tag{E4}$$

# %% tags=["reproducible"]
q_joint = weights.sum((0, 1))  # Q(z,z'): what is left when x and x' are summed out
line_5 = (q_joint * (log_prior - log_q_z - log_q_z_prime)).sum() + C
print(f"(E4) {line_5:.6f},  residual {abs(line_5 - line_4):.1e}")
assert abs(line_5 - line_4) < 1e-12 and torch.allclose(q_joint, world.q_joint)

# %% [markdown]
# Four axes have become two. For images, an expectation under $Q(z,z')$ is an average over encoded pairs, which a batch can estimate. The
# densities $Q(z)$ and $Q(z')$ inside are still unknown; lesson 3 chooses priors in which they cancel. **What it needs**: that pairs stay pairs. Shuffle $x'$ before encoding and $Q(z)Q(z')$ takes the place of $Q(z,z')$.
#
# ## Mutual information, minus the prior's error
#
# Add and subtract $\log Q(z,z')$, and two known quantities appear:
#
# $$L - C = I_Q(z;z') - \mathrm{KL}\big(Q(z,z')\,\|\,P(z,z')\big). \tag{E5}$$

# %% tags=["reproducible"]
information = (q_joint * (q_joint.log() - log_q_z - log_q_z_prime)).sum()
divergence = (q_joint * (q_joint.log() - log_prior)).sum()
line_6 = information - divergence + C
print(f"I = {information:.6f}, KL = {divergence:.6f};  (E5) {line_6:.6f},  residual {abs(line_6 - line_5):.1e}")
assert abs(line_6 - line_5) < 1e-12 and abs(information - world.mutual_information) < 1e-12

# %% [markdown]
# Maximising the ELBO asks for two things at once: latents that share information, **and** whose joint distribution looks like the prior.
# A change of the encoder that adds information helps only if it adds less to the KL. **What it needs**: that $Q(z)$ and $Q(z')$ are the marginals of
# $Q(z,z')$, not distributions of our own choosing.
#
# ## The proof that runs
#
# The library has the same seven lines as a function, here on our world and prior. Choose what to break, then step through the lines: the one whose
# step needed the assumption moves away from its predecessor. The menu offers
#
# - **dependent**: $z$ and $z'$ are drawn together, given $x$ and $x'$, but scored as if drawn apart
# - **decoder**: $P(x|z)$ is a decoder of its own, flatter than Bayes' rule makes it
# - **stale**: $P(x|z)$ is made from a blurred copy of the encoder
# - **constant**: $C$ is computed for uniform observations
# - **shuffled**: $Q(z)Q(z')$ stands where $Q(z,z')$ belongs
# - **aggregate**: a uniform distribution stands where $Q(z)$ belongs, in (E2) and in all lines that follow from it
#
# **Predict** for each which line will fail, before you choose it.
#
# <details><summary>Answers</summary>
#
# - dependent: (E3), since the draw is not scored by its own density
# - decoder: Bayes, since there is no encoder to put in
# - stale: cancel, since the copy's density meets the encoder's
# - constant: constant
# - shuffled: (E4)
# - aggregate: (E5). The lines before it carry the same wrong $Q(z)$ and agree with one another; (E5) takes the marginals of $Q(z,z')$.
# </details>

# %% tags=["reproducible"]
rpm.explore(rpm.lessons.lesson_02.proof(world, log_prior))

# %% [markdown]
# The widget's claim, asserted: with nothing broken all lines agree with the ones we computed by hand, and each broken assumption fails
# exactly one line.

# %% tags=["reproducible"]
by_hand = torch.stack([line_0, L, line_2, line_3, line_4, line_5, line_6])
lines = rpm.derivation.derive(world, log_prior)
assert torch.allclose(torch.stack([line.value for line in lines]), by_hand, atol=1e-12)
for broken in rpm.derivation.ASSUMPTIONS:
    lines = rpm.derivation.derive(world, log_prior, broken)
    failed = [line.name for line in lines if abs(line.residual) > 1e-11]
    print(f"{broken:10} fails: {', '.join(failed) or 'no line'}")
    assert len(failed) == (broken != "nothing")

# %% [markdown]
# ## The library's ELBO is this sum
#
# `world.elbo(log_prior)` returns the five terms of (E3) by name; the two recognition terms enter with a minus. Each depends on at most two
# of the four variables, so it sums over two axes instead of four. (`slack` is for a prior that does not sum to one, in lesson 4.)

# %% tags=["reproducible"]
elbo = world.elbo(log_prior)
for name, term in elbo._asdict().items():
    print(f"{name:22} {term:9.6f}")
signs = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
assert abs((signs * torch.stack(elbo[1:])).sum() - elbo.value) < 1e-12
assert abs(elbo.value - L) < 1e-12 and abs(world.gap(log_prior) - gap) < 1e-12

# %% [markdown]
# ## Exercises
#
# **1.** Return $C$ from the table $P_\text{true}(x,x')$.


# %% tags=["exercise"]
def constant(p_true):
    return ...


rpm.lessons.lesson_02.constant.check(constant)

# %% [markdown]
# **2.** Return $\mathrm{KL}(q\,\|\,p)$ of two tables of the same shape, here $q = Q(z|x)Q(z'|x')$ and $p = P(z,z'|x,x')$ for one pair.


# %% tags=["exercise"]
def gap_of_one_pair(q, p):
    return ...


rpm.lessons.lesson_02.gap.check(gap_of_one_pair)

# %% [markdown]
# **3. Find the bug.** This function should return $L - C$ of (E4). **Symptom**, the last line that it prints: under a prior that is uniform it finds exactly 0 nats, and (E5),
# $I_Q(z;z') - \mathrm{KL}(Q\,\|\,P)$, finds less. Repair it.


# %% tags=["exercise", "bug", "reproducible"]
def elbo_above_c(q_joint, log_prior):
    prior = log_prior.exp()
    side, side_prime = prior.sum(1).log(), prior.sum(0).log()
    inside = log_prior - side[:, None] - side_prime
    return (q_joint * inside).sum()


rpm.lessons.lesson_02.elbo_above_c.check(elbo_above_c)
tilted = rpm.FiniteRPM.ring(tilt=2.0).q_joint
uniform = torch.full_like(tilted, 1 / tilted.numel()).log()
by_e5 = rpm.mutual_information(tilted) - (tilted * (tilted.log() - uniform)).sum()
print(f"L - C under a uniform prior: {elbo_above_c(tilted, uniform):.4f}; by (E5): {by_e5:.4f}")

# %% [markdown]
# ## Quiz
#
# **1. Why may the encoder be deterministic, although (E3) contains log Q(z|x)?**
# <details><summary>because log Q(z|x) is then zero</summary>For a discrete z it is, as in lesson 0; for a continuous z it would be infinite. Neither matters, because it is gone.</details>
# <details><summary>because it cancels against the same term in the likelihood</summary>Yes: (E2) brings it in with a plus, the bound with a minus.</details>
# <details><summary>because the gap is then zero</summary>The gap is indeed zero then (E13), but that does not make the terms of (E3) finite.</details>
#
# **2. You encode x with the network and x′ with a momentum copy of it, positives and negatives alike. Which line fails?**
# <details><summary>the one in which the densities cancel</summary>No: each side cancels its own density, and Q(z′|x′) is the copy.</details>
# <details><summary>none</summary>Yes: (E1) never asked for one encoder. It would be another matter if the negatives alone came from a third network: their distribution would not be Q(z′).</details>
# <details><summary>(E5)</summary>It is algebra on Q(z,z′), whatever encoders made it.</details>
#
# **3. A larger I_Q(z;z′) makes the ELBO larger…**
# <details><summary>always</summary>Not if KL(Q‖P) grows by more: look at (E5).</details>
# <details><summary>if the prior can follow</summary>Yes: what counts is the information minus the prior's error.</details>
# <details><summary>never</summary>With the KL held fixed it does, nat for nat.</details>
#
# ## The three numbers of this world
#
# They all differ here, and each difference has a name. The evidence exceeds the ELBO by the gap, a KL divergence. InfoNCE, with the critic $f = P(z,z')/Q(z)Q(z')$ that this prior has,
# exceeds the ELBO by $\mathrm{KL}(Q(z)\,\|\,P(z))$: InfoNCE is the ELBO of the prior that lesson 3 makes of $f$, which has $P(z) = Q(z)$. Ours has not.

# %% tags=["reproducible"]
infonce = rpm.infonce(log_prior - log_q_z - log_q_z_prime, q_joint).value
side = (world.q_z * (world.q_z.log() - log_prior.logsumexp(1))).sum()  # KL(Q(z)||P(z))
three = {"InfoNCE": infonce, "ELBO − C": L - C, "log evidence − C": evidence - C}
print("  ".join(f"{name} {number:.4f}" for name, number in three.items()), "nats")
print(f"InfoNCE − (ELBO − C) = KL(Q(z) ‖ P(z)) = {side:.4f}")
print(f"log evidence − ELBO = gap = {gap:.4f}")
assert abs(infonce - (L - C) - side) < 1e-12

# %% [markdown]
# ## What we saw
#
# Seven lines, one number, residuals at rounding. $P_\text{true}(x)$ left as a constant and the recognition densities cancelled; what remains is the prior, judged by pairs of latents.
# So the objective *is* the choice of the prior: [lesson 3](03_infonce_is_the_elbo.ipynb) finds the choice that InfoNCE makes, and
# [lesson 4](04_one_prior_one_objective.ipynb) those of its relatives.
