# %% [markdown] tags=["slide"]
# # The ELBO: seven lines, each with its number
#
# How do you train the model of lesson 1? Its likelihood contains $P_\text{true}(x)$, the distribution that images are drawn from, which nobody can write down, and the density $Q(z|x)$, which a deterministic network doesn't have. This lesson derives the ELBO of the model, and shows that the first leaves it as a constant and the second cancels.
#
# The derivation has seven lines. We compute each line on a small model. All must give the same number, so a wrong step would be seen.
#
# **Afterwards you can** derive (E4) and (E5) from (E3); say which assumption each step needs; compute the gap of the bound; and, given a
# broken assumption, point to the line that fails.
#
# **You need** [lesson 1](01_the_model.ipynb), KL divergence, Jensen's inequality. **Time** 40 minutes.
#
# **Whose result**: the bound and its lines (E3) to (E5) are the paper's, where it derives the ELBO of the recognition-parameterised model; the gap as a number, and the assumptions that can be broken one by one, are this course's.
# Beside it: [notation](../docs/notation.md), [glossary](../docs/glossary.md), [questions and answers](../docs/faq.md).

# %% tags=["slide"]
import torch

import rpm_tutorial as rpm

device = rpm.setup()
world = rpm.FiniteRPM.ring(coupling=3.0, sharpness=3.0)
rpm.figures.seven_lines()

# %% [markdown]
# This is the map of the lesson, from the log evidence at the top to the mutual information at the bottom. There is no need to read it now: each arrow is a section below.
#
# ## The setting: one world, one prior
#
# The world is that of lesson 1: tables for $P_\text{true}(x,x')$ and for both encoders. The derivation holds for any prior that sums to one. We take one without any symmetry, so that no wrong line comes out right by accident.

# %% tags=["reproducible"]
tilt = torch.tensor(
    [[1.0, 0.0, 0.5, 0.0], [0.0, 1.5, 0.0, 0.2], [0.3, 0.0, 0.7, 1.0]],
    dtype=torch.float64,
)
log_prior = tilt - tilt.logsumexp((0, 1))  # log P(z,z'), sums to one
print(f"Σ P(z,z′) = {log_prior.exp().sum():.12f}")

# %% [markdown]
# Every term of the derivation is a function of some of $x, x', z, z'$. We give each table four axes in this order, of size 1 where it doesn't depend on the variable, so that tables add by broadcasting. The data draw $x, x'$ and the encoders draw $z, z'$, with probability
# $P_\text{true}(x,x')\,Q(z|x)\,Q(z'|x')$. An expectation $\mathbb E$ without index is a sum over all four with these weights.

# %% tags=["reproducible"]
log_q_z_given_x = world.recognition.log()[:, None, :, None]
log_q_z_prime_given_x_prime = world.recognition_prime.log()[None, :, None, :]
log_p_x_given_z = world.log_p_x_given_z.T[:, None, :, None]
log_p_x_prime_given_z_prime = world.log_p_x_prime_given_z_prime.T[None, :, None, :]
weights = (log_q_z_given_x + log_q_z_prime_given_x_prime).exp()
weights = weights * world.p_true[:, :, None, None]


def E(values):
    """The expectation under data and encoder, in nats."""
    return (weights * values).sum()


print("axes x, x′, z, z′:", tuple(weights.shape))
print(f"Σ weights = {weights.sum():.12f}")

# %% [markdown] tags=["slide"]
# ## The ELBO lies below the log evidence
#
# Take one pair. Write its probability, a sum over latents, as an average over what the encoders draw. Then take the logarithm. By Jensen's inequality, the logarithm of an average is at least the average of the logarithms:
#
# $$P(x,x') = \sum_{z,z'} P(x,x',z,z') = \mathbb E_{Q(z|x)Q(z'|x')}\left[\frac{P(x,x',z,z')}{Q(z|x)\,Q(z'|x')}\right]$$
#
# $$\log P(x,x') \;\ge\; \mathbb E_{Q(z|x)Q(z'|x')}\big[\log P(z,z') + \log P(x|z) + \log P(x'|z') - \log Q(z|x) - \log Q(z'|x')\big]. \tag{E3}$$
#
# Averaged over the data, the right side is the ELBO $L$ (as a line of the derivation, "(E3)" means this average), and the left side is the log evidence, which we can compute in a small world.

# %% tags=["reproducible", "slide"]
# log P(x,x',z,z'), (E1)
log_joint = log_prior + log_p_x_given_z + log_p_x_prime_given_z_prime
L = E(log_joint - log_q_z_given_x - log_q_z_prime_given_x_prime)  # (E3)
log_p = log_joint.logsumexp((2, 3))  # log P(x,x')
evidence = (world.p_true * log_p).sum()
print(f"log evidence {evidence:.6f}   ELBO {L:.6f}")
print(f"difference {evidence - L:.6f} nats per pair")
assert L < evidence

# %% [markdown] tags=["slide"]
# ## The gap is a KL divergence, exactly
#
# The difference of log evidence and ELBO is called the **gap**. The encoders draw $z$ and $z'$ from $Q(z|x)Q(z'|x')$. The model has a posterior of its own, $P(z,z'|x,x')$, what Bayes' rule makes of (E1).
#
# **Predict**: the gap is the KL between these two, averaged over the data. Which of them stands first?
#
# <details><summary>Answer</summary>
#
# The encoders, since the average is over what they draw: $\mathrm{KL}\big(Q(z|x)Q(z'|x')\,\|\,P(z,z'|x,x')\big)$. It is zero where the two agree. They do for a
# deterministic encoder (lesson 5). They do for any encoder under the prior $Q(z)Q(z')$: then the two sides of the model are independent, and the posterior of each is its encoder.
# </details>
#
# By Bayes' rule $\log P(x,x') = \log P(x,x',z,z') - \log P(z,z'|x,x')$ for all $z, z'$. Average both sides under $Q(z|x)Q(z'|x')$, and add and subtract
# $\log Q(z|x)Q(z'|x')$: the right side becomes (E3) plus that KL.

# %% tags=["reproducible", "slide"]
log_posterior = log_joint - log_p[:, :, None, None]  # log P(z,z'|x,x'), Bayes' rule
gap = E(log_q_z_given_x + log_q_z_prime_given_x_prime - log_posterior)
line_0 = evidence - gap  # line 1 is L, (E3)
print(f"evidence − KL = {line_0:.6f},  (E3) = {L:.6f}")
print(f"residual {abs(line_0 - L):.1e}")
assert abs(line_0 - L) < 1e-12
independent = world.q_z.log()[:, None] + world.q_z_prime.log()  # the prior Q(z)Q(z')
assert abs(world.gap(independent)) < 1e-12

# %% [markdown] tags=["slide"]
# **What it needs**: that $z$ and $z'$ are drawn independently, given $x$ and $x'$, because (E3) subtracts $\log Q(z|x) + \log Q(z'|x')$. If $z$ and $z'$ were made from the same random noise, this sum would not be the log probability of the draw.
#
# ## Bayes' rule goes in
#
# So far this was variational inference in any model of the form (E1); only the two examples of a zero gap used more. Now we use that the likelihood is defined by (E2), $\log P(x|z) = \log Q(z|x) + \log P_\text{true}(x) - \log Q(z)$. Put this in for $x$ and for $x'$.

# %% tags=["reproducible", "slide"]
log_p_x = world.p_x.log()[:, None, None, None]
log_p_x_prime = world.p_x_prime.log()[None, :, None, None]
log_q_z, log_q_z_prime = world.q_z.log()[:, None], world.q_z_prime.log()
bayes = log_q_z_given_x + log_p_x - log_q_z
bayes_prime = log_q_z_prime_given_x_prime + log_p_x_prime - log_q_z_prime
log_q = log_q_z_given_x + log_q_z_prime_given_x_prime
line_2 = E(log_prior + bayes + bayes_prime - log_q)
print(f"with Bayes' rule {line_2:.6f},  residual {abs(line_2 - L):.1e}")
assert abs(line_2 - L) < 1e-12

# %% [markdown] tags=["slide"]
# **What it needs**: that the likelihood is Bayes' rule applied to an encoder. A VAE's decoder is not made in this way, so for a VAE the derivation ends here.
#
# ## The recognition densities cancel
#
# $\log Q(z|x)$ appears twice with opposite signs: once in the likelihood and once in the bound. So does $\log Q(z'|x')$.
#
# $$L = \mathbb E\big[\log P(z,z') - \log Q(z) - \log Q(z') + \log P_\text{true}(x) + \log P_\text{true}(x')\big]$$

# %% tags=["reproducible", "slide"]
line_3 = E(log_prior + log_p_x - log_q_z + log_p_x_prime - log_q_z_prime)
print(f"after cancelling {line_3:.6f},  residual {abs(line_3 - line_2):.1e}")
assert abs(line_3 - line_2) < 1e-12

# %% [markdown] tags=["slide"]
# This is the step that lets the encoder be the network of contrastive learning. $Q(z|x)$ is gone, so the encoder may be a deterministic network: it puts all probability on one point, and has no finite density there. It is the limit of ever narrower encoders, and for each of these the two terms cancel before the limit is taken.
#
# **What it needs**: that the encoder in the likelihood is the encoder that draws $z$. Were the likelihood made of a blurred or older copy, the two terms would differ. (One encoder for $x$ and another for $x'$ is no problem: each side cancels its own.)
#
# ## The data terms are a constant
#
# $\log P_\text{true}(x)$ does not depend on $z$. Its average is fixed by the data, whatever we train: it is minus the entropy $H(x)$ of the observations.
#
# $$C = \mathbb E\log P_\text{true}(x) + \mathbb E\log P_\text{true}(x') = -H(x) - H(x').$$

# %% tags=["reproducible", "slide"]
H_x = -(world.p_x * world.p_x.log()).sum()  # entropy of x
H_x_prime = -(world.p_x_prime * world.p_x_prime.log()).sum()
C = -H_x - H_x_prime
line_4 = E(log_prior - log_q_z - log_q_z_prime) + C
print(f"C = {C:.6f};  with C outside {line_4:.6f}")
print(f"residual {abs(line_4 - line_3):.1e}")
assert abs(line_4 - line_3) < 1e-12 and abs(C - world.constant) < 1e-12

# %% [markdown] tags=["slide"]
# For the distribution that images are drawn from we cannot compute $C$ (for a list of $N$ distinct pairs it is $-2\log N$, lesson 0). It is the same for all encoders and all priors, so we can train and compare them without it. "Up to a constant" means $C$ in
# this whole course.
#
# **What it needs**: that $H(x)$ and $H(x')$ are entropies of the data that the pairs come from. Change the augmentation, and $x$ has another distribution and $C$ another value.
#
# ## Only Q(z,z′) is left of the data
#
# With $C$ outside, the line is $L = \mathbb E\big[\log P(z,z') - \log Q(z) - \log Q(z')\big] + C$. What is left in the bracket depends on $z$ and $z'$ alone. So sum the weights over $x$ and $x'$ first. That sum is $Q(z,z')$, the aggregate joint of lesson 1.
#
# $$L - C = \mathbb E_{Q(z,z')}\big[\log P(z,z') - \log Q(z) - \log Q(z')\big] \tag{E4}$$

# %% tags=["reproducible", "slide"]
q_joint = weights.sum((0, 1))  # Q(z,z'): what is left when x and x' are summed out
line_5 = (q_joint * (log_prior - log_q_z - log_q_z_prime)).sum() + C
print(f"(E4) {line_5:.6f},  residual {abs(line_5 - line_4):.1e}")
assert abs(line_5 - line_4) < 1e-12 and torch.allclose(q_joint, world.q_joint)

# %% [markdown] tags=["slide"]
# Four axes have become two. For images, an expectation under $Q(z,z')$ is an average over encoded pairs, which a batch can estimate. The
# densities $Q(z)$ and $Q(z')$ in the bracket are still unknown; lesson 3 finds a prior in which they cancel.
#
# **What it needs**: that each $z$ is paired with the $z'$ of its own pair. Shuffle the $x'$ of a batch, and you average under $Q(z)Q(z')$ instead.
#
# ## Mutual information, minus the prior's error
#
# Add and subtract $\log Q(z,z')$ in the bracket, and two known quantities appear. One is the mutual information of the latents, $I_Q(z;z') = \mathbb E_{Q(z,z')} \log \frac{Q(z,z')}{Q(z)Q(z')}$: how many nats $z$ tells about $z'$, when the encoders draw both from a pair of the data. The other is a KL.
#
# $$L - C = I_Q(z;z') - \mathrm{KL}\big(Q(z,z')\,\|\,P(z,z')\big). \tag{E5}$$

# %% tags=["reproducible", "slide"]
information = (q_joint * (q_joint.log() - log_q_z - log_q_z_prime)).sum()
divergence = (q_joint * (q_joint.log() - log_prior)).sum()
line_6 = information - divergence + C
print(f"I = {information:.6f}, KL = {divergence:.6f};  (E5) {line_6:.6f}")
print(f"residual {abs(line_6 - line_5):.1e}")
assert abs(line_6 - line_5) < 1e-12
assert abs(information - world.mutual_information) < 1e-12

# %% [markdown] tags=["slide"]
# Maximising the ELBO asks for two things at once: latents that share information, **and** latents whose joint distribution looks like the prior.
# A change of the encoder that adds information helps only if it adds less to the KL.
#
# **What it needs**: that $Q(z)$ and $Q(z')$ are the marginals of $Q(z,z')$. With a distribution of our own choosing in place of $Q(z)$, say a uniform one, the first term would be no mutual information.
#
# ## The proof that runs
#
# The library has the same seven lines as a function, here on our world and prior. Choose an assumption to break, then step through the lines: the line that needed it moves away from the line before. The menu offers
#
# - **dependent**: $z$ and $z'$ are not independent, given $x$ and $x'$, but are scored as if they were
# - **decoder**: $P(x|z)$ is a decoder of its own, flatter than Bayes' rule makes it
# - **stale**: $P(x|z)$ is made from a blurred copy of the encoder
# - **constant**: $C$ is computed for uniform observations
# - **shuffled**: $Q(z)Q(z')$ stands where $Q(z,z')$ belongs
# - **aggregate**: a uniform distribution stands where $Q(z)$ belongs, in (E2) and in the lines made from it, down to (E4)
#
# The lines are named evidence − KL, (E3), Bayes, cancel, constant, (E4), (E5), in the order of the sections. **Predict** for each assumption which line will fail, before you choose it.
#
# <details><summary>Answers</summary>
#
# - dependent: (E3), since (E3) subtracts a log density from which $z$ and $z'$ were not drawn
# - decoder: Bayes, since (E2) is not the likelihood any more
# - stale: cancel, since the copy's density stands against the encoder's
# - constant: the line named *constant*, in which $C$ is put outside, since the data are not uniform
# - shuffled: (E4), where $Q(z,z')$ enters
# - aggregate: (E5). The lines before it carry the same wrong $Q(z)$ and agree with one another; (E5) takes the marginals of $Q(z,z')$.
# </details>

# %% tags=["reproducible", "slide"]
rpm.explore(rpm.lessons.lesson_02.proof(world, log_prior))

# %% [markdown]
# The next cell checks the widget's claim: with nothing broken, all lines agree with those that we computed by hand. With one assumption broken, exactly one line fails.

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
# `world.elbo(log_prior)` returns the five terms of (E3) by name; the two recognition terms enter with a minus. (`slack`, a sixth, is zero for each prior that sums to one; lesson 4 has one that doesn't.)

# %% tags=["reproducible"]
elbo = world.elbo(log_prior)
for name, term in elbo._asdict().items():
    print(f"{name:22} {term:9.6f}")
signs = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
assert abs((signs * torch.stack(elbo[1:])).sum() - elbo.value) < 1e-12
assert abs(elbo.value - L) < 1e-12 and abs(world.gap(log_prior) - gap) < 1e-12

# %% [markdown] tags=["slide"]
# ## Exercises
#
# **1.** Return $C$ from the table $P_\text{true}(x,x')$.


# %% tags=["exercise"]
def constant(p_true):
    return ...


rpm.lessons.lesson_02.constant.check(constant)

# %% [markdown] tags=["slide"]
# **2.** Return $\mathrm{KL}(q\,\|\,p)$ of two tables of the same shape, here $q = Q(z|x)Q(z'|x')$ and $p = P(z,z'|x,x')$ for one pair.


# %% tags=["exercise"]
def gap_of_one_pair(q, p):
    return ...


rpm.lessons.lesson_02.gap.check(gap_of_one_pair)

# %% [markdown] tags=["slide"]
# **3. Find the bug.** This function should return $L - C$ of (E4). **Symptom** (see the last line that the cell prints): under a uniform prior the function returns exactly 0 nats, but (E5), $I_Q(z;z') - \mathrm{KL}(Q\,\|\,P)$, gives less. Repair it.


# %% tags=["exercise", "bug", "reproducible"]
def elbo_above_c(q_joint, log_prior):
    prior = log_prior.exp()
    side, side_prime = prior.sum(1).log(), prior.sum(0).log()
    inside = log_prior - side[:, None] - side_prime
    return (q_joint * inside).sum()


rpm.lessons.lesson_02.elbo_above_c.check(elbo_above_c)
tilted = rpm.FiniteRPM.ring(tilt=2.0).q_joint  # Q(z,z') of another small world
uniform = torch.full_like(tilted, 1 / tilted.numel()).log()
by_e5 = rpm.mutual_information(tilted) - (tilted * (tilted.log() - uniform)).sum()
found = elbo_above_c(tilted, uniform)
print(f"L - C under a uniform prior: {found:.4f}; by (E5): {by_e5:.4f}")

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
# <details><summary>if KL(Q‖P) grows by less</summary>Yes: what counts is the information minus the prior's error.</details>
# <details><summary>never</summary>With the KL held fixed it does, nat for nat.</details>
#
# ## The three numbers of this world
#
# They all differ here, and each difference has a name. The evidence exceeds the ELBO by the gap. InfoNCE needs a critic; take $f = P(z,z')/Q(z)Q(z')$, made of our prior. With this $f$, InfoNCE is $L - C$ under the prior $Q(z)\,P(z'|z)$ (lesson 3); ours is $P(z)\,P(z'|z)$, and differs in the first factor only. This costs our ELBO $\mathrm{KL}(Q(z)\,\|\,P(z))$.

# %% tags=["reproducible"]
infonce = rpm.infonce(log_prior - log_q_z - log_q_z_prime, q_joint).value
side = (world.q_z * (world.q_z.log() - log_prior.logsumexp(1))).sum()  # KL(Q(z)||P(z))
three = {"InfoNCE": infonce, "ELBO − C": L - C, "log evidence − C": evidence - C}
print("  ".join(f"{name} {number:.4f}" for name, number in three.items()), "nats")
print(f"InfoNCE − (ELBO − C) = KL(Q(z) ‖ P(z)) = {side:.4f}")
print(f"log evidence − ELBO = gap = {gap:.4f}")
assert abs(infonce - (L - C) - side) < 1e-12

# %% [markdown] tags=["slide"]
# ## What we saw
#
# Seven lines gave one number, up to rounding. $P_\text{true}(x)$ left as a constant, and the densities of the encoders cancelled. What remains compares the prior with pairs of latents.
# So the objective *is* the choice of the prior: [lesson 3](03_infonce_is_the_elbo.ipynb) finds the choice that InfoNCE makes, and
# [lesson 4](04_one_prior_one_objective.ipynb) those of its relatives.
