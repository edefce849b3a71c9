# %% [markdown] tags=["slide"]
# # The losses you use: which model does yours fit?
#
# Hardly anybody types `infonce`. You train with NT-Xent, the loss of CLIP, MoCo's queue, SupCon or SigLIP; you smooth labels, mine hard negatives or gather
# a batch from eight machines. Which model does your loss fit, and what is its value worth in nats?
#
# **Afterwards you can** write each of these losses as InfoNCE of a table, or say why it is not one; read its value in nats; and change a loss by changing
# what it assumes: who is a pair, who is a candidate, what is normalised.
#
# **You need** [lesson 4](04_one_prior_one_objective.ipynb) for priors and normalisers, and [lesson 6](06_finite_batches.ipynb) for batches. **Time** 45 minutes.
#
# **Whose result**: the losses are their authors', cited where they stand. The paper shows that InfoNCE is an ELBO; how the other losses relate to it is this course's, unless a source is named. Beside it: [the libraries' own losses](../docs/losses.md), compared with these tables; [notation](../docs/notation.md), [glossary](../docs/glossary.md), [questions and answers](../docs/faq.md).

# %%
import math

import torch
from torch.nn import functional as F

import rpm_tutorial as rpm

rpm.setup()

# %% [markdown] tags=["slide"]
# ## Three questions to any loss
#
# InfoNCE (E7) takes a table of scores $s = \log f$ and a table $Q(z,z')$ that says which row and which column are a pair. So ask of a loss:
#
# 1. **Who is a pair?** That is $Q(z,z')$, the weights of the table.
# 2. **Who is a candidate?** For InfoNCE the candidates follow $Q(z')$, the column sums of $Q(z,z')$, and $Z(z) = \mathbb E_{Q(z')}f$.
# 3. **What is normalised?** Each row, the whole table, or nothing.
#
# If each row is divided by the mean of $f$ over $Q(z')$, the column sums of question 1, the loss is minus an ELBO, but for a constant (E7). If the whole table is divided by one number so that it sums to one, the loss is minus an ELBO too (DV, E9). If the table is divided by anything else, it is no distribution: then the loss belongs to a relaxed prior, as NWJ does, or to none. We take a batch of eight pairs, unit vectors in four dimensions, with a temperature of 0.2, in float64, and hold
# each identity to $10^{-10}$.

# %% tags=["reproducible"]
rng = torch.Generator().manual_seed(0)
B, temperature = 8, 0.2
z = F.normalize(torch.randn(B, 4, generator=rng, dtype=torch.float64), dim=1)
noise = torch.randn(B, 4, generator=rng, dtype=torch.float64)
z_prime = F.normalize(z + 0.4 * noise, dim=1)
log_f = z @ z_prime.T / temperature
diagonal = torch.arange(B)


def agree(ours, theirs):
    print(f"{ours:.6f} and {theirs:.6f}: residual {abs(ours - theirs):.1e}")
    assert abs(ours - theirs) < 1e-10


# %% [markdown] tags=["slide"]
# ## Cross-entropy on the diagonal, and CLIP
#
# The plain loss is the cross-entropy of each row with its own column as the label. It is $\log B - I$, with $I$ InfoNCE: so a loss of zero means $\log B$ nats, and a loss of $\log B$ means zero nats. CLIP ([Radford et al. 2021](https://arxiv.org/abs/2103.00020)) averages rows and columns: two ELBOs (E12).

# %% tags=["reproducible", "slide-code"]
rows, columns = F.cross_entropy(log_f, diagonal), F.cross_entropy(log_f.T, diagonal)
agree(math.log(B) - rows, rpm.infonce(log_f).value)
agree(math.log(B) - (rows + columns) / 2, rpm.symmetric_infonce(log_f).value)

# %% [markdown] tags=["slide"]
# ## NT-Xent: all views are candidates
#
# SimCLR ([Chen et al. 2020](https://arxiv.org/abs/2002.05709)) puts both sides into one list of $2B$ views. Each view is a row. Its candidates are all other views, on both sides; it is not a candidate for itself.
#
# **Predict**: which $Q(z')$ is that, and which $f$?
#
# <details><summary>Answer</summary>
#
# $Q(z')$ is uniform on all $2B$ views, and $f(z,z) = 0$: the model says that a view is never its own partner. So the table has $-\infty$ on its diagonal, and the
# value is at most $\log 2B$.
# </details>

# %% tags=["reproducible", "slide-code"]
views = torch.cat([z, z_prime])
scores = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
partner = torch.arange(2 * B).roll(B)  # row i belongs to column i ± B
nt_xent = F.cross_entropy(scores, partner)
pairs = F.one_hot(partner, 2 * B).double() / (2 * B)
agree(math.log(2 * B) - nt_xent, rpm.infonce(scores, pairs).value)

# %% [markdown] tags=["slide"]
# So NT-Xent and the plain loss fit the same kind of model with different candidates. To compare two models, use the same loss for both.
#
# ## SupCon: a view with several partners
#
# SupCon ([Khosla et al. 2020](https://arxiv.org/abs/2004.11362)) takes all views of one class as partners, each with the same weight (in the form that its authors recommend, with the sum outside the logarithm). The loss is the same; only $Q(z,z')$ is different:
# row $i$ shares its mass $1/2B$ among its partners.

# %% tags=["reproducible", "slide"]
labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]).repeat(2)
same = (labels[:, None] == labels) & ~torch.eye(2 * B, dtype=torch.bool)
partners = same.double() / same.sum(1, keepdim=True)
log_p = scores.log_softmax(1).masked_fill(~same, 0)
supcon = -(partners * log_p).sum(1).mean()
objective = rpm.infonce(scores, partners / (2 * B)).value
agree(math.log(2 * B) - supcon, objective)
information = rpm.mutual_information(partners / (2 * B))
print(f"at most log of 16 views / 3 partners = {information:.4f} nats")
assert abs(information - math.log(16 / 3)) < 1e-12 and objective < information

# %% [markdown] tags=["slide"]
# Our scores are sharp, and know nothing of two of a view's three partners. So the value is negative: confidently wrong, and no bug.
# The ceiling fell with the number of partners, from $\log 16$ to $\log 16/3$ (a view is no partner of its own): a view with many partners says less about which of them comes with it. A duplicate, or a stranger who is really a partner (a
# *false negative*), is the same matter: give its cell a share of the row's mass in $Q(z,z')$, and the loss is still minus an ELBO, but for a constant.
#
# ## Label smoothing: some pairs are strangers
#
# With smoothing $\varepsilon$ ([Szegedy et al. 2015](https://arxiv.org/abs/1512.00567)) the target of a row is $1-\varepsilon$ on its partner and $\varepsilon/B$ on every column. **Predict**: which $Q(z,z')$ is that?
#
# <details><summary>Answer</summary>
#
# One in which a share $\varepsilon$ of the pairs are strangers: $(1-\varepsilon)\,\text{pairs} + \varepsilon\,Q(z)Q(z')$. The prior stays as it was.
# </details>

# %% tags=["reproducible", "slide"]
epsilon = 0.1
smoothed = F.cross_entropy(log_f, diagonal, label_smoothing=epsilon)
believed = (1 - epsilon) * torch.eye(B).double() / B + epsilon / B**2
agree(math.log(B) - smoothed, rpm.infonce(log_f, believed).value)
most = rpm.mutual_information(believed).item()
print(f"ceiling: {most:.3f} nats of log {B} = {math.log(B):.3f}")

# %% [markdown] tags=["slide"]
# Smoothing lowers the ceiling too. It changes what counts as data, so evaluate without it.
#
# ## DCL: the partner leaves the denominator
#
# Decoupled contrastive learning ([Yeh et al. 2021](https://arxiv.org/abs/2110.06848)) leaves the partner out of $Z$ (here $B-1$ strangers of the other side; the authors take those of both sides). Then the mean of the strangers' $f$ estimates $\mathbb E_{Q(z')}f$ without bias,
# and the value has no ceiling at $\log B$.

# %% tags=["reproducible", "slide"]
strangers = log_f.masked_fill(torch.eye(B, dtype=torch.bool), -torch.inf)
dcl = (strangers.logsumexp(1) - log_f.diagonal()).mean()
with_partner = F.cross_entropy(log_f, diagonal, reduction="none")
agree(dcl, with_partner.expm1().log().mean())
decoupled = math.log(B - 1) - dcl
no_partner = (1 - torch.eye(B).double()) / (B - 1)  # the weights of candidates
agree(decoupled, rpm.infonce(log_f, q_z_prime=no_partner).value)
sharp, sharp_strangers = 20 * log_f, 20 * strangers
far = (sharp.diagonal() - sharp_strangers.logsumexp(1)).mean() + math.log(B - 1)
infonce = rpm.infonce(log_f).value
print(f"InfoNCE {infonce:.3f}, decoupled {decoupled:.3f} nats")
print(f"at a twentieth of the temperature: {far:.1f}, of log 8 = {math.log(8):.2f}")
assert far > math.log(B) and decoupled > infonce

# %% [markdown] tags=["slide"]
# Row by row, $e^{\text{DCL}} = e^{\text{cross-entropy}} - 1$: nearly the same where the loss is large, and without a floor where it goes to zero.
# The rows of $Q(z')f/Z$ no longer sum to one over the batch, so this number is not the evidence of any model of the batch. It is an estimate of $I_\infty$, which is InfoNCE with all of $Q(z')$ as candidates ([lesson 3](03_infonce_is_the_elbo.ipynb)): $Z$ is right on average, its logarithm too low
# (Jensen's inequality), and so the value is too *high* on average. Use DCL to train, and `rpm.dataset_evidence` to say what was learned.
#
# ## MoCo: a queue is another Q(z′)
#
# MoCo ([He et al. 2020](https://arxiv.org/abs/1911.05722)) keeps a queue of $K$ earlier keys (its word for latents $z'$), and a momentum encoder so that they age slowly. A row has its partner and the queue as
# candidates; the keys get no gradient. If they follow $Q(z')$, that is InfoNCE with $K$ strangers. If the encoder has moved on, they follow an older $\tilde Q(z')$, whose mean of $f$ is
# $\tilde Z(z)$. Then the rows sum to $Z/\tilde Z$, and for a long queue the value is off by $-\mathbb E\log \tilde Z(z)/Z(z)$. To see it, let all latents lie around one direction, and turn those in the queue away from it, as if an older encoder had made them:


# %% tags=["reproducible"]
def moco(z, z_prime, queue):
    """log (1 + K) minus MoCo's loss, in nats."""
    own = (z * z_prime).sum(1, keepdim=True) / temperature
    logits = torch.cat([own, z @ queue.T / temperature], 1)
    first = torch.zeros(len(z)).long()  # the partner is column 0
    return math.log(logits.shape[1]) - F.cross_entropy(logits, first)


def cone(n):
    """n pairs around the first axis."""
    middle = torch.tensor([2.0, 0, 0, 0], dtype=torch.float64)
    z = torch.randn(n, 4, generator=rng, dtype=torch.float64) + middle
    noise = torch.randn(n, 4, generator=rng, dtype=torch.float64)
    return F.normalize(z, dim=1), F.normalize(z + 0.4 * noise, dim=1)


# %% tags=["reproducible", "slide"]
(a, a_prime), (_, keys) = cone(256), cone(4096)
fresh = (a @ keys.T / temperature).logsumexp(1)  # log Z(z), up to log K
for degrees in (0, 20, 60):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[c, -s], [s, c]])
    off = moco(a, a_prime, keys @ turn) - moco(a, a_prime, keys)
    stale = ((a @ (keys @ turn).T / temperature).logsumexp(1) - fresh).mean()
    print(f"{degrees:2} degrees: off by {off:+.3f}, −E log Z̃/Z = {-stale:+.3f} nats")
    assert abs(off + stale) < 0.01 + 0.05 * abs(stale)
assert off > 0.1, "strangers that are too easy make the value too high"

# %% [markdown] tags=["slide"]
# Keys that lie farther from today's $z$ are easy to tell from a partner: the value is too high, and the loss does not show it. The slow encoder is there to keep this error small.
#
# ## Hard negatives: candidates from another distribution, mended by weights
#
# Hard negatives are drawn more often where they score high, from $\tilde Q(z') \ne Q(z')$. [Robinson et al. 2021](https://arxiv.org/abs/2010.04592) reweight a batch towards $\tilde Q \propto Q\,e^{\beta s}$, row by
# row. As with a stale queue, $Z$ becomes $\tilde Z = \mathbb E_{\tilde Q}f$. Here $\tilde Z > Z$, since the candidates are drawn where $f$ is high; the rows sum to $Z/\tilde Z < 1$, and the value is below InfoNCE's by $\mathbb E\log\tilde Z/Z$. Hard negatives may still train better. To get a value in nats, correct it by importance weights: $\mathbb E_{Q}f = \mathbb E_{\tilde Q}\big[f\,Q/\tilde Q\big]$. We draw such candidates in the small world of lesson 1, where all is known, with $\beta = 1$ and the optimal critic:

# %% tags=["reproducible", "slide"]
world = rpm.FiniteRPM.ring(coupling=3.0, sharpness=3.0)
q, q_z_prime = world.q_joint, world.q_z_prime
s = (q / world.q_z[:, None] / q_z_prime).log()  # the optimal critic
hard = (s + q_z_prime.log()).softmax(1)  # Q~(z') at beta = 1, a row for each z
drawn = torch.multinomial(hard, 20_000, replacement=True, generator=rng)
f = s.exp().gather(1, drawn)
weights = (q_z_prime / hard).gather(1, drawn)
score, infonce_of_world = (q * s).sum(), rpm.infonce(s, q).value
as_they_are = score - world.q_z @ f.mean(1).log()
mended = score - world.q_z @ (weights * f).mean(1).log()
print(f"InfoNCE {infonce_of_world:.3f}, with hard candidates {as_they_are:.3f}")
print(f"weighted {mended:.3f} nats")
assert as_they_are < infonce_of_world - 0.1 and abs(mended - infonce_of_world) < 0.01

# %% [markdown] tags=["slide"]
# ## SigLIP: a yes or no for each cell
#
# SigLIP ([Zhai et al. 2023](https://arxiv.org/abs/2303.15343)) asks of every cell of the batch "a pair?", with the logistic loss of $s + b$. Nothing is normalised. There is one "yes" and there are $B-1$ times "no" for
# each row, so the scores $s^*$ with the least loss have, with the density ratio $r = Q(z,z')/Q(z)Q(z')$ of lesson 3, the log odds
#
# $$s^*(z,z') + b = \log\frac{Q(z,z')}{(B-1)\,Q(z)Q(z')} = \log r(z,z') - \log(B-1).$$
#
# **Predict**: SigLIP starts with $b = -10$. For which batch is that the right offset, if the scores start near $\log r = 0$?
#
# <details><summary>Answer</summary>
#
# For $B - 1 = e^{10}$, about 22 000 pairs.
# </details>

# %% tags=["reproducible"]
logits = (s - math.log(B - 1)).requires_grad_()
product = world.q_z[:, None] * q_z_prime
siglip = -(q * F.logsigmoid(logits) + (B - 1) * product * F.logsigmoid(-logits)).sum()
(slope,) = torch.autograd.grad(siglip, logits)
print(f"largest slope at log r − log(B − 1): {slope.abs().max():.1e}")
assert slope.abs().max() < 1e-15
agree(-siglip.detach(), rpm.estimators.siglip(logits.detach(), q, k=B - 1).value)
agree(rpm.infonce(logits.detach(), q).value, world.mutual_information)

# %% [markdown] tags=["slide"]
# This is noise-contrastive estimation: it fits $r$ itself, level included, and its value is no ELBO. But its optimum is $\log r$ less a number, an optimal critic of InfoNCE. So hand its scores to
# `rpm.infonce` or `rpm.dataset_evidence`, which don't see the offset, and they say what it is worth.
#
# ## Logit scale, accumulation and gathering
#
# - **The logit scale** is one over the temperature, a parameter of the prior. If it drifts to its clamp, for example 100, the evidence of many held-out pairs as a function of it says whether the data want that ([lesson 5](05_the_evidence_of_a_data_set.ipynb)).
# - **Gradient accumulation** averages small batches, each with its own candidates and ceiling: four batches of 64 never exceed $\log 64$.
# - **Gathering** makes one batch of all machines' pairs; its ceiling is the logarithm of their total number (`rpm.distributed`).

# %% tags=["reproducible", "slide"]
large = 256
z = F.normalize(torch.randn(large, 4, generator=rng, dtype=torch.float64), dim=1)
noise = torch.randn(large, 4, generator=rng, dtype=torch.float64)
z_prime = F.normalize(z + 0.05 * noise, dim=1)
table = z @ z_prime.T / 0.02
gathered = rpm.infonce(table).value
parts = [rpm.infonce(table[k : k + 64, k : k + 64]).value for k in range(0, large, 64)]
accumulated = sum(parts) / 4
print(f"gathered {gathered:.3f} of log 256 = {math.log(256):.3f}")
print(f"accumulated {accumulated:.3f} of log 64 = {math.log(64):.3f}")
assert accumulated < gathered < math.log(256) and accumulated < math.log(64)

# %% [markdown] tags=["slide"]
# ## VICReg, Barlow Twins, BYOL: no strangers at all
#
# These have no candidates. VICReg pulls the two views together, BYOL the prediction of one to the other (both of length 1): $-\lVert z-z'\rVert^2$ is the score of the random walk, up to its scale, from which InfoNCE subtracts $\log Z(z)$. Alone, it would be best for a
# constant encoder. Barlow Twins asks that each coordinate of $z$ correlate with its partner's. What stands in the place of $\log Z$:
#
# - VICReg ([Bardes et al. 2021](https://arxiv.org/abs/2105.04906)) keeps each coordinate's standard deviation above one by a hinge (a penalty below one, none above), and covariances near zero; Barlow Twins ([Zbontar et al. 2021](https://arxiv.org/abs/2103.03230)) standardises the coordinates and makes the cross-correlation of the sides the identity. Both keep the latents spread out, but only in their variances and covariances.
# - BYOL ([Grill et al. 2020](https://arxiv.org/abs/2006.07733)) and SimSiam ([Chen and He 2020](https://arxiv.org/abs/2011.10566)) have nothing there: a predictor and a stopped gradient, and in BYOL a slowly moving target, keep them from the constant in practice, by how they train, not by what they minimise.
#
# So none of them is an ELBO of our family, and their losses have no unit. Their encoders can be judged all the same. The cell does so, and shows that the pull alone is best for a constant, which is worth nothing:

# %% tags=["reproducible", "slide"]
walk = rpm.RandomWalk(scale=0.1).double()
constant = torch.zeros(large, 4, dtype=torch.float64)
with torch.no_grad():
    cases = {"these latents": (z, z_prime), "a constant": (constant, constant)}
    for name, pair in cases.items():
        pull = (pair[0] - pair[1]).square().sum(1).mean()
        nats = rpm.infonce(walk(*pair)).value
        print(f"{name:13}: squared distance {pull:.3f}, InfoNCE {nats:.3f} nats")
assert pull == 0 and abs(nats) < 1e-12, "best for the pull alone, worth nothing"

# %% [markdown] tags=["slide"]
# ## What VICReg would be, if its entropies were exact
#
# Take a prior $P(z,z')$ of which $Q$ is no part. Then (E4) says
#
# $$L - C = \mathbb E_Q\log P(z,z') + H(z) + H(z'),$$
#
# with the entropies of $Q(z)$ and $Q(z')$: the prior pulls partners together, the entropies keep the latents apart. *Latent distribution matching*
# ([Mikulasch and Zenke 2026](https://arxiv.org/abs/2605.03517)) reads these losses so, each with a prior and an estimate of entropy.

# %% tags=["reproducible"]
any_scores = torch.randn(q.shape, generator=rng, dtype=torch.float64)
log_prior = any_scores.flatten().log_softmax(0).view(q.shape)
entropies = -sum((p * p.log()).sum() for p in (world.q_z, q_z_prime))
bound = world.elbo(log_prior).value - world.constant
agree(bound, (q * log_prior).sum() + entropies)

# %% [markdown]
# That much is exact. With a random walk for $P$, the pull of VICReg is $-\mathbb E\log P$ up to a number. Its other terms, one of variances and one of covariances for each side, take the place of the entropies, as approximations. For
# Gaussian latents with correlations $R$, an entropy loses $-\tfrac12\log\det R$ nats to them, and $\tfrac14\sum_{i\ne j}R_{ij}^2$ is that to second order: a
# penalty on squares, as VICReg's. **Predict**: three coordinates correlate by 0.4 each, then by −0.4. Which loses more entropy?
#
# <details><summary>Answer</summary>
#
# Negative correlations: three coordinates that all oppose each other nearly lie in a plane. The squares do not see the sign.
# </details>

# %% tags=["reproducible", "slide"]
for r in (0.1, 0.4, -0.4):
    R = torch.full((3, 3), r, dtype=torch.float64).fill_diagonal_(1)
    lost, squares = -R.logdet() / 2, 6 * r**2 / 4
    print(f"correlations of {r:4}: {lost:.4f} nats lost, squares say {squares:.4f}")
    if r == 0.1:
        assert abs(squares - lost) < 0.1 * lost, "good for small correlations"
assert squares < 0.6 * lost, "and blind to a plane"

# %% [markdown]
# Nor does VICReg's hinge count what a standard deviation above one adds, and no second moment sees what is not Gaussian: [two sets of latents](../docs/losses.md) to which VICReg gives one value are worth
# different nats. BYOL and SimSiam have no term for the entropies at all.

# %% [markdown] tags=["slide"]
# ## A table to decide by
#
# | your loss | who is a pair | who is a candidate | normalised | in nats |
# |---|---|---|---|---|
# | cross-entropy on the diagonal | row $i$, column $i$ | the other side | each row | $\log B$ − loss = InfoNCE |
# | CLIP | the same | the other side | rows, columns | $\log B$ − loss, the mean of two ELBOs |
# | NT-Xent | $i$, $i \pm B$ | all views, $f(z,z)=0$ | each row | $\log 2B$ − loss = InfoNCE |
# | SupCon | all of a class | all views, $f(z,z)=0$ | each row | $\log 2B$ − loss = InfoNCE, its ceiling lower |
# | label smoothing | $1-\varepsilon$ pairs, $\varepsilon$ strangers | the other side | each row | $\log B$ − loss = InfoNCE, its ceiling lower |
# | MoCo | row $i$, its key | the key and a queue | by $\tilde Z$ | $\log(1+K)$ − loss, wrong by the queue's age |
# | hard negatives | row $i$, column $i$ | $\tilde Q(z')$ | by $\tilde Z > Z$ | too low; weights $Q/\tilde Q$ mend it |
# | DCL | row $i$, column $i$ | strangers alone | by their mean | $\log(B-1)$ − loss, an estimate of $I_\infty$, too high on average |
# | SigLIP | row $i$, column $i$ | strangers alone | nothing | no ELBO; at its optimum $s + b + \log(B-1) = \log r$ |
# | VICReg, Barlow Twins, BYOL | row $i$, column $i$ | none | nothing | no ELBO, no unit |
#
# Each row was tried on the losses as their libraries have them, and [the residuals are listed](../docs/losses.md). Where a row's candidates are not all columns alike, `q_z_prime` of
# `rpm.infonce` weighs them; a queue for a whole data set is `candidates` of `rpm.dataset_evidence`, and NT-Xent its `normalise="views"`.
#
# Whatever you trained with: encode held-out pairs, hand them to `rpm.dataset_evidence` with a critic (your loss's own; or, if it has none, a cosine or a random walk at its best temperature or scale, lesson 9), and compare nats with nats. `rpm.report` and `rpm-tutorial evidence` do that for files of embeddings, with four critics.
#
# ## Exercises
#
# **1. Smoothing by hand.** Return InfoNCE of a batch under label smoothing $\varepsilon$: that is, $\log B$ minus the smoothed cross-entropy, from `log_f` of shape $(B, B)$.


# %% tags=["exercise"]
def smoothed_infonce(log_f, epsilon):
    return ...


rpm.lessons.lesson_15.smoothed_infonce.check(smoothed_infonce)

# %% [markdown] tags=["slide"]
# **2. A likelihood from SigLIP.** Given SigLIP's logits of $B$ pairs, bias included, return the probability that it gives each row's own column among the $B$ columns, as InfoNCE's model would: shape $(B,)$.


# %% tags=["exercise"]
def own_column(logits):
    return ...


rpm.lessons.lesson_15.own_column.check(own_column)

# %% [markdown]
# ## Quiz
#
# **1. Your NT-Xent loss is 2.1 on a batch of 256 pairs. In nats of InfoNCE that is…**
# <details><summary>−2.1</summary>That leaves the constant out: equal scores, which know nothing, have a loss of log 511.</details>
# <details><summary>log 512 − 2.1, about 4.1</summary>Yes: 512 views are candidates.</details>
# <details><summary>log 256 − 2.1, about 3.4</summary>In NT-Xent both sides are candidates.</details>
#
# **2. DCL reads 9 nats on a batch of 512 pairs. Is that a bug?**
# <details><summary>Yes, nothing exceeds log 512</summary>The evidence of a model of the batch never does. But DCL's rows do not sum to one, so its value is no such evidence.</details>
# <details><summary>No: without the partner in the denominator there is no ceiling</summary>Yes. It is an estimate of $I_\infty$, too high on average, and can be negative as well.</details>
#
# **3. SigLIP's loss falls when you double the batch. So the model got better?**
# <details><summary>Yes</summary>Its value is a mean over cells or rows whose mix of yes and no has changed.</details>
# <details><summary>That can't be told from it</summary>Yes: compare the evidence of its scores on the same held-out pairs.</details>
#
# ## The three numbers of this world
#
# The eight pairs of the first table, each with latents of its own, as from a deterministic encoder: InfoNCE, the ELBO and the log evidence are one.

# %% tags=["reproducible"]
p_true = torch.eye(B).double() / B
pairs = rpm.FiniteRPM(p_true, torch.eye(B).double(), torch.eye(B).double())
prior = rpm.priors.infonce(log_f, pairs.q_joint)
bound = pairs.elbo(prior).value - pairs.constant
evidence = pairs.log_evidence(prior) - pairs.constant
print(f"InfoNCE {infonce:.4f}  ELBO − C {bound:.4f}  evidence − C {evidence:.4f} nats")
assert max(abs(infonce - bound), abs(infonce - evidence)) < 1e-10

# %% [markdown] tags=["slide"]
# ## What we saw
#
# Many of these losses are InfoNCE of another table: they differ in who is a pair and who is a candidate, and a logarithm minus their value is InfoNCE in nats. Some are not: SigLIP fits the ratio without a normaliser,
# DCL and a stale queue are normalised by something else, VICReg and BYOL have no strangers. All leave an encoder behind, and evidence can judge it. Next, [a prior of your own](16_your_own_prior.ipynb).
