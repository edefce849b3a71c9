# %% [markdown] tags=["slide"]
# # The evidence of a data set: InfoNCE on everything at once
#
# Lessons 1 to 4 worked mostly on small tables. Now, as in lesson 0, the observations are images, and the encoder is a deterministic network. On a data set of pairs nothing has to be
# approximated: the log evidence of tens of thousands of pairs is computed exactly, and the model is sampled.
#
# **Afterwards you can** say why the ELBO *is* the log evidence for a deterministic encoder; compute the log evidence of any data set of pairs, without
# making the table of all pairs; explain the $\log N$ ceiling in one line; draw $x'$ from the model, given $x$.
#
# **You need** [lesson 3](03_infonce_is_the_elbo.ipynb). **Time** 60 minutes, of which the computer takes one.
#
# **Whose result**: that the ELBO equals the marginal likelihood for a deterministic encoder (E13) is the paper's
# ([Aitchison and Ganev](https://arxiv.org/abs/2107.02495), announced in its abstract). That no limit is needed on a data set (E14), the reading of the ceiling by (E23), and the evaluation tile by tile are this course's.
# Beside it: [notation](../docs/notation.md), [glossary](../docs/glossary.md), [questions and answers](../docs/faq.md).

# %%
import math

import torch
from tqdm.auto import tqdm

import rpm_tutorial as rpm

device = rpm.setup()

# %% [markdown] tags=["slide"]
# ## A deterministic encoder closes the gap
#
# The ELBO $L$ is a lower bound on the mean log evidence $\mathbb E\log P(x,x')$. Every mean $\mathbb E$ here is over $P_\text{true}(x,x')$, the distribution of the data. Lesson 2 has the gap
# between the two: it is the mean of $\mathrm{KL}\big(Q(z|x)Q(z'|x')\,\|\,P(z,z'|x,x')\big)$, from the encoders to the model's posterior.
#
# A *deterministic* encoder puts all its mass on one point, $z = g(x)$, which is written $Q(z|x) = \delta(z - g(x))$. The model's likelihood $P(x|z) = Q(z|x)P_\text{true}(x)/Q(z)$ (E2) is then zero at
# any other $z$. The same holds for $x'$. So the posterior $P(z,z'|x,x')$ has all its mass on the one pair $g(x), g'(x')$, as the encoders have, and the KL is zero:
#
# $$Q(z|x) = \delta(z - g(x)),\quad Q(z'|x') = \delta(z' - g'(x')) \quad\Rightarrow\quad L = \mathbb E \log P(x, x'). \tag{E13}$$
#
# **Predict**: must $g$ be invertible for this?
#
# <details><summary>Answer</summary>
#
# No. Each $x$ must have one $z$, but several $x$ may share it. In the small world below six values of $x$ share three values of $z$.
# </details>

# %% tags=["reproducible", "slide"]
soft = rpm.FiniteRPM.ring(coupling=3.0, sharpness=3.0)


def harden(recognition):
    """All mass on the most probable latent."""
    size = recognition.shape[1]
    return torch.nn.functional.one_hot(recognition.argmax(1), size).double()


hardened = [harden(q) for q in (soft.recognition, soft.recognition_prime)]
hard = rpm.FiniteRPM(soft.p_true, *hardened)
score = torch.eye(3, 4, dtype=torch.float64)  # any critic log f: 3 values of z, 4 of z'
gaps = []
for name, small in {"soft": soft, "deterministic": hard}.items():
    prior = rpm.priors.infonce(score, small.q_joint)
    elbo, evidence = small.elbo(prior).value, small.log_evidence(prior)
    gaps.append(evidence - elbo)
    print(f"{name:14} ELBO {elbo:.6f}   evidence {evidence:.6f}   gap {gaps[-1]:.2g}")
assert gaps[0] > 0.01 and abs(gaps[1]) < 1e-12

# %% [markdown]
# A *tight* bound, one without a gap, need not belong to the better model. The two rows are two models, since the encoder is a part of the model. Without a gap the ELBO is the log evidence of *that* model, and does not say which model has more. Here the deterministic model has the higher ELBO and the lower evidence.
#
# ## Images, and a few seconds of training
#
# Fashion-MNIST: clothes, 28 × 28 pixels. A pair is two views of one image: two crops, mirrored, brightened and made noisy at random. The encoder is a small
# convolutional network. The critic is the cosine of the two latents over a temperature, as in SimCLR: $\log f = z^\top z'/\tau$ for latents of length 1. The class is called
# `VonMisesFisher`, because $e^{z^\top z'/\tau}$ is, up to a factor, the density of that name, the Gaussian's analogue on the sphere. It learns $\tau$ too.

# %% tags=["slide"]
images = rpm.datasets.fashion_mnist_or_digits()
rng = torch.Generator().manual_seed(0)
x, x_prime = rpm.datasets.two_views(images.x[:12], generator=rng)
rpm.figures.images(
    {"x": x, "x′": x_prime}, caption="Each column is a pair: two views of one image."
)

# %%
torch.manual_seed(0)
encoder, critic = (
    rpm.encoders.conv(dim=16).to(device),
    rpm.VonMisesFisher(temperature=0.1).to(device),
)
pairs = rpm.datasets.view_pairs(images.x, batch_size=256, seed=0)
log = list(tqdm(rpm.train(encoder, critic, pairs, steps=150), total=150))

# %%
encoder.eval()  # fixes batch norm: from here on g is one function of x
print(
    f"InfoNCE of the last batch: {log[-1].value:.2f} nats, at most {math.log(256):.2f}"
)
assert log[-1].value > 2

# %% [markdown] tags=["slide"]
# ## On a data set, InfoNCE is a log probability
#
# Take $N$ pairs $(x_i, x'_i)$, and let $P_\text{true}$ be the list of them, each with probability $1/N$. With $f_{ij} = f(z_i, z'_j)$ the model is then a table over all $N^2$ combinations, including the $N^2 - N$ that never occurred:
#
# $$P(x_i, x'_j) = \frac{1}{N^2}\,\frac{f_{ij}}{Z_i}, \qquad Z_i = \frac1N\sum_j f_{ij}. \tag{E14}$$
#
# Where it comes from: the model is $P(x|z)P(x'|z')$ times the prior $Q(z)Q(z')f/Z$ of (E7). If $k$ images share the latent $z_i$, then $Q(z_i) = k/N$ and, by (E2), $P(x_i|z_i) = 1/k$. So
# $Q(z_i)P(x_i|z_i) = 1/N$ for any $k$, and likewise for $x'_j$. What is left is $\frac1N \cdot \frac1N \cdot f_{ij}/Z_i$.
#
# Here both $P_\text{true}$ and $Q(z')$ come from the pairs that are evaluated. So another list of pairs is another model, with the same encoder and critic in it.
#
# First 1 000 pairs in float64, where the table fits in memory: new views of images from the training set.

# %%
n = 1000
x, x_prime = rpm.datasets.two_views(images.x[:n], generator=rng)
z, z_prime = rpm.encode(encoder, x).double(), rpm.encode(encoder, x_prime).double()
critic = critic.double()
with torch.no_grad():
    log_f = critic(z, z_prime).cpu()
Z = log_f.exp().mean(1)  # Z_i
P = log_f.exp() / Z[:, None] / n**2  # P(x_i, x'_j)
print(f"Σ P = {P.sum():.12f};  each row sums to {P.sum(1).min() * n:.9f} / {n}")
assert abs(P.sum() - 1) < 1e-12 and torch.allclose(
    P.sum(1), torch.full((n,), 1 / n, dtype=torch.float64)
)

# %% [markdown] tags=["slide"]
# Average $\log P(x_i, x'_i)$ over the $N$ pairs that did occur: that is the log evidence. The constant of lesson 2, $C = \mathbb E\log P_\text{true}(x) + \mathbb E\log P_\text{true}(x')$, is $-2\log N$
# here, since each $x_i$ and each $x'_i$ has probability $1/N$. So
#
# $$\frac1N\sum_i \log P(x_i, x'_i) + 2 \log N = I_N,$$
#
# InfoNCE of all $N$ pairs at once.

# %% tags=["slide-code"]
log_evidence = P.diagonal().log().mean()
infonce = rpm.infonce(log_f).value
shifted = log_evidence + 2 * math.log(n)
print(f"(1/N) Σ log P + 2 log N = {shifted:.6f}")
print(
    f"full-batch InfoNCE      = {infonce:.6f}   residual {abs(shifted - infonce):.1e}"
)
assert abs(shifted - infonce) < 1e-9

# %% [markdown] tags=["slide"]
# No limit of infinitely many samples is taken, and there is no inequality: the full-batch loss is $-I_N = -\frac1N\sum_i\log P(x_i,x'_i) - 2\log N$, the negative log likelihood per pair, shifted by a constant. The model takes the observations as given,
# $P(x_i) = 1/N$, and is judged on how it pairs them.
#
# ## The ceiling log N follows from P ≤ 1/N
#
# InfoNCE on $N$ pairs never exceeds $\log N$, its *ceiling*. As a likelihood that is plain. Each row of the table sums to $P(x_i) = 1/N$, so that no cell of it is larger:
#
# $$P(x_i, x'_i) \le \tfrac1N \quad\Rightarrow\quad I_N = \tfrac1N \textstyle\sum_i \log P(x_i,x'_i) + 2\log N \le \log N.$$

# %% tags=["slide"]
print(f"largest P(x_i, x'_i) = {P.diagonal().max() * n:.4f} / N")
assert (P.diagonal() <= 1 / n).all() and infonce <= math.log(n)

# %% [markdown] tags=["slide"]
# The same ceiling follows from information. Let $I_\text{true}(x;x')$ be the mutual information of the *observations* under $P_\text{true}$. The log evidence minus $C$ is that information minus the model's error:
#
# $$\mathbb E \log P(x,x') - C = I_\text{true}(x;x') - \mathrm{KL}\big(P_\text{true}(x,x')\,\|\,P(x,x')\big). \tag{E23}$$
#
# To see it, add and subtract $\mathbb E\log P_\text{true}(x,x')$ on the left. By definition $\mathbb E\log P_\text{true}(x,x') - C$ is $I_\text{true}$, and $\mathbb E\log P_\text{true}(x,x') - \mathbb E\log P(x,x')$ is
# the KL. In a list with $N$ different $x$ and $N$ different $x'$, $x$ picks out one of $N$ equally frequent $x'$, so $I_\text{true} = \log N$. The KL is never negative, so $I_N \le \log N$.

# %% tags=["slide"]
p_true = torch.eye(n, dtype=torch.float64) / n
information = rpm.mutual_information(p_true)  # of the data: log N
divergence = (p_true.diagonal() * (p_true / P).diagonal().log()).sum()  # KL(P_true‖P)
residual = abs(information - divergence - infonce)
print(f"I_true {information:.6f},  KL {divergence:.6f}")
print(f"I_true − KL = InfoNCE = {infonce:.6f}, residual {residual:.1e}")
assert abs(information - math.log(n)) < 1e-9 and residual < 1e-9

# %% [markdown] tags=["slide"]
# ## All pairs, without the table
#
# For 60 000 pairs the table would have 3.6 billion cells: 14.4 GB in float32, and as much again for its gradient. But of each row
# only the sum and the pair's own score are needed. `rpm.dataset_evidence` visits the table tile by tile, and keeps one running sum a row. The backward pass visits the tiles once more, so that the gradients are exact too. On the 1 000 pairs we can compare:

# %%
z.requires_grad_()
tiled, table = (
    rpm.dataset_evidence(z, z_prime, critic).infonce,
    rpm.infonce(critic(z, z_prime)).value,
)
gradients = [torch.autograd.grad(value, z)[0] for value in (tiled, table)]
print(f"tiled {tiled:.9f}   table {table:.9f}   residual {abs(tiled - table):.1e}")
off = (gradients[0] - gradients[1]).abs().max()
print(f"largest difference of the gradients: {off:.1e}")
assert abs(tiled - table) < 1e-9 and torch.allclose(*gradients, rtol=1e-9, atol=1e-12)

# %% [markdown]
# Now many: 40 000 pairs take seconds. The time grows with $N^2$, so that `n = 60_000` takes 2¼ times as long. The images are encoded a thousand at a time, and only their latents are kept.


# %%
def encode_pairs(x):
    """z and z' of two fresh views of each image, a thousand images at a time."""
    pairs = (
        rpm.datasets.two_views(portion, generator=rng)
        for portion in tqdm(x.split(1000))
    )
    latents = [[rpm.encode(encoder, view) for view in pair] for pair in pairs]
    return (torch.cat(side) for side in zip(*latents))


n = min(40_000, len(images.x))
z, z_prime = encode_pairs(images.x[:n])
critic = critic.float()

# %% tags=["slide"]
with torch.no_grad():
    evidence = rpm.dataset_evidence(z, z_prime, critic)
print(f"{n} pairs: InfoNCE {evidence.infonce:.3f} nats, at most {math.log(n):.3f}")
chance = -2 * math.log(n)  # a critic that scores all pairs alike
print(f"log evidence {evidence.log_evidence:.3f} nats per pair; by chance {chance:.3f}")
assert evidence.infonce <= math.log(n)

# %% [markdown]
# For millions of pairs $N^2$ is too many. Then `rpm.sampled_evidence` averages over some of the rows, and estimates each $Z_i$ from $M$ sampled candidates. The pair's own $z'$ is in the sum once. The $M$ sampled ones stand for all $N-1$ others, so each counts $(N-1)/M$ times. Then $Z_i \ge f_{ii}/N$ still holds. So the ceiling stays $\log N$. A batch of 64 pairs, which weighs its 64 candidates alike, gives another number: the InfoNCE of these 64 pairs as a data set of their own, at most $\log 64$.
#
# The estimate is slightly too high, by an amount of order $1/M$: the logarithm of a sampled $Z_i$ is too low on average (Jensen), and it enters with a minus.

# %%
estimate = rpm.sampled_evidence(
    z, z_prime, critic, rows=4096, negatives=1024, generator=rng
)
with torch.no_grad():
    batch = rpm.infonce(critic(z[:64], z_prime[:64])).value
found, error = estimate.infonce, estimate.standard_error
print(
    f"all {n} pairs: exact {evidence.infonce:.3f}, estimated {found:.3f} ± {error:.3f}"
)
print(f"one batch of 64 pairs: {batch:.3f}, at most log 64 = {math.log(64):.3f}")
assert (
    abs(estimate.infonce - evidence.infonce) < 4 * estimate.standard_error
    and batch < estimate.infonce
)

# %% [markdown] tags=["slide"]
# These were new views of images that the encoder was trained on. Does the encoder remember those images? Compare with images that it never saw.

# %% tags=["slide"]
test = rpm.datasets.fashion_mnist_or_digits("test").x
k = min(10_000, len(test))
held_out = rpm.dataset_evidence(*encode_pairs(test[:k]), critic).infonce.item()
trained = rpm.dataset_evidence(z[:k], z_prime[:k], critic).infonce.item()
print(f"InfoNCE on {k} pairs: of training images {trained:.3f} nats,")
print(f"of test images {held_out:.3f} nats")
assert abs(trained - held_out) < 0.1  # 0.02 to 0.04 for five seeds

# %% [markdown] tags=["slide"]
# There is no sign of memory: the test images score about the same. In 150 steps of 256 images, each image of Fashion-MNIST is seen 0.64 times on average. (If Fashion-MNIST is not on this machine, digits stand in for it. They have no test images of their own, and the comparison then says nothing.)
#
# ## The ceiling matters while N is small
#
# Evaluate the same encoder and critic on more and more pairs. Each list of pairs is a data set, and so a model, of its own; what they share is $g$ and $f$. **Predict**: does InfoNCE
# follow $\log N$ up, or level off?
#
# <details><summary>Answer</summary>
#
# It levels off. While $N$ is small it rises, at each step by less than $\log N$ does.
# </details>

# %%
counts = [k for k in (10, 30, 100, 300, 1000, 3000, 10_000) if k < n]
values = [
    rpm.dataset_evidence(z[:k], z_prime[:k], critic).infonce.item() for k in counts
]
counts, values = [*counts, n], [*values, evidence.infonce.item()]
assert all(value <= math.log(k) for value, k in zip(values, counts))
assert values[1] > 0.7 * math.log(30) and values[-1] < 0.5 * math.log(
    n
)  # five seeds: 0.77 to 0.86, and 0.32 to 0.33
short = [math.log(k) - value for k, value in zip(counts, values)]
few = [f"{gap:.2f} at {k}" for k, gap in list(zip(counts, short))[:3]]
print("below log N by", ", ".join(few), "pairs")
assert short[0] < short[2] < short[-1], (
    "the ceiling is nearest on few pairs, and is never followed"
)

# %% tags=["slide"]
rpm.figures.lines(
    counts,
    {"InfoNCE": values, "log N": [math.log(k) for k in counts]},
    x_log=True,
    x_label="number of pairs N",
    y_label="nats per pair",
    caption="On ten pairs InfoNCE lies close under its ceiling log N. With more pairs "
    "the distance grows, and InfoNCE levels off.",
)

# %% [markdown] tags=["slide"]
# On ten pairs the ceiling is so near that a better encoder could hardly score higher; on thirty it is half a nat away, and on tens of thousands it is several nats away. So judge an encoder on as many pairs as
# you have, and compare two encoders on the same pairs.
#
# ## The model can be sampled: x′ given x
#
# Divide (E14) by $P(x_i) = 1/N$, and $P(x'_j|x_i)$ is left: a softmax of row $i$ over the candidates $j$. Draw from it, with 2 000 pairs as the data set. For a given image $x$, which $x'$ does the model expect?

# %% tags=["slide"]
m = 2000  # candidates
with torch.no_grad():
    p = critic(z[:m], z_prime[:m]).softmax(1).cpu()  # P(x'_j | x_i)
drawn = torch.multinomial(
    p, 8, replacement=True, generator=torch.Generator().manual_seed(2)
)
same_class = images.labels[:m, None] == images.labels[:m]
alike = (p * same_class).sum(
    1
).mean() - p.diagonal().mean()  # without the image's own other view
own, by_chance = p.diagonal().mean(), same_class.double().mean()
print(f"probability of the own other view {own:.1%},")
print(f"of others of its class {alike:.1%}; the class by chance {by_chance:.1%}")
assert alike > 0.5  # 0.54 to 0.57 for five seeds

# %% tags=["slide"]
rows = {
    f"x and x′, {k + 1}": torch.cat([images.x[[k]], images.x[drawn[k]]])
    for k in range(5)
}
rpm.figures.images(
    rows,
    caption="First column: x. The others: eight draws of x′ from the model, "
    "shown without their augmentation.",
)

# %% [markdown] tags=["slide"]
# The model was never told a class. Still, on average more than half of its probability lies on the class of $x$, because the encoder puts the views of such images close together.
#
# ## Temperature against evidence
#
# Choose a temperature and an image. The bars show the probability $P(x'|x)$ of the eight $x'$ that the model finds most probable, and of ✓, the image's own other view. No temperature changes their order. It changes how the probability is spread: at a low temperature nearly all of it lies on a few $x'$, at a high one on many.
#
# Two lines on top show $\log P(x,x') = \log P(x'|x) - \log 1000$ at each temperature. Dotted: $\log P(x_i,x'_i)$ of this one pair. Dashed: its mean over all 1 000 pairs, the log evidence. (The pictures are drawn whole. The encoder
# saw two different crops of them, so ✓ is harder to find than it looks.)
#
# **Predict**: each image has a temperature at which its dotted line is highest. Take the temperature that is best for more images than any other. Is it lower than the temperature at the peak of the dashed line, the same, or higher?
#
# <details><summary>Answer</summary>
#
# Lower. If ✓ is already the most probable $x'$, a lower temperature gains little, since $P(x'|x)$ can rise to 1 at most. If it is not, a very low temperature can lose many nats, and the mean of the logarithms counts those. The cell below the widget counts all images.
# </details>

# %% tags=["slide"]
k = 1000
render = rpm.lessons.lesson_05.retrieval(z[:k], z_prime[:k], images.x[:k], images.x[:k])
rpm.explore(render)

# %%
temperatures = [0.02, 0.05, 0.1, 0.2, 0.5]
critics = [rpm.VonMisesFisher(t).to(device) for t in temperatures]
with torch.no_grad():
    tables = [c(z[:k], z_prime[:k]).log_softmax(1) for c in critics]
log_p = torch.stack([table.diagonal().cpu() for table in tables]) - math.log(k)
best = log_p.argmax(0)  # for each image
favourite = best.bincount(minlength=5) / k  # the share of the images
for t, evidence_t, share in zip(temperatures, log_p.mean(1), favourite):
    print(f"temperature {t:4}: log evidence {evidence_t:.2f},", end=" ")
    print(f"best for {share:.0%} of images")
assert 0 < log_p.mean(1).argmax() < 4, "both ends are worse than the middle"
# so for five seeds of the training
assert favourite.argmax() < log_p.mean(1).argmax(), "the favourite is too cold for all"

# %% [markdown] tags=["slide"]
# ## Exercises
#
# **1.** Return $\log P(x_i, x'_i)$ of each pair, shape (N,), from the table `log_f`, shape (N, N).


# %% tags=["exercise"]
def log_p(log_f):
    return ...


rpm.lessons.lesson_05.log_p.check(log_p)

# %% [markdown] tags=["slide"]
# **2.** What is the smallest number of pairs on which InfoNCE can reach 5 nats?

# %% tags=["exercise"]
pairs_needed = ...
rpm.lessons.lesson_05.pairs_needed.check(pairs_needed)

# %% [markdown] tags=["slide"]
# **3. Find the bug.** This function should return $\log\sum_j f_{ij}$ of each row, visiting four columns at a time, as `rpm.dataset_evidence` does with larger tiles. To keep $e^{\log f}$ from overflowing it sums
# $f / e^\text{largest}$, where `largest` is the largest $\log f$ so far. **Symptom**, the last line that it prints: the same scores in another order have another sum. Repair it.


# %% tags=["exercise", "bug", "reproducible"]
def by_tiles(log_f):
    largest = torch.full_like(log_f[:, 0], -torch.inf)
    total = torch.zeros_like(largest)
    for tile in log_f.split(4, dim=1):
        new = torch.maximum(largest, tile.amax(1))
        total = total + (tile - new[:, None]).exp().sum(1)
        largest = new
    return largest + total.log()


rpm.lessons.lesson_05.by_tiles.check(by_tiles)
rising = torch.arange(12.0)[None]
falling, rises = by_tiles(rising.flip(1)).item(), by_tiles(rising).item()
print(f"falling: {falling:.4f}; rising: {rises:.4f}")

# %% [markdown]
# ## Quiz
#
# **1. InfoNCE on 1 000 pairs is 6.9 nats, and log 1000 = 6.91. What do you conclude?**
# <details><summary>the encoder cannot be better</summary>On these 1 000 pairs it is nearly certain of each partner. On 60 000 it may not be: the ceiling hides it.</details>
# <details><summary>the number says little; evaluate on more pairs</summary>Yes: near the ceiling all good models look alike.</details>
# <details><summary>the mutual information is 6.9 nats</summary>That of the list is log N whatever the model is. That of the distribution from which the pairs were drawn may be far larger: no method of this kind can report more than log N from N pairs.</details>
#
# **2. Why is there no integral over z in P(x_i, x′_j)?**
# <details><summary>because it is approximated by one sample</summary>Nothing is approximated: the sum over z has one term.</details>
# <details><summary>because a deterministic encoder leaves one z for each x</summary>Yes: P(x|z) is zero unless z = g(x).</details>
# <details><summary>because the prior is uniform</summary>The prior is not uniform: it is $Q(z)Q(z')$ times the critic, normalised (E7).</details>
#
# **3. Model A has a log evidence of −15 nats per pair on 10 000 pairs, model B one of −17 on 60 000 others. A is better…**
# <details><summary>yes, by two nats</summary>No: C = −2 log N is −18.4 for A and −22.0 for B, so the numbers have different zeros.</details>
# <details><summary>no, B: its InfoNCE is 5.0 against 3.4</summary>Taking C away is right, but the pairs differ, and so does the ceiling.</details>
# <details><summary>one cannot tell</summary>Yes: evidence compares models of the same data. Evaluate both on the same pairs.</details>
#
# ## The three numbers of this world
#
# The world is the list of 1 000 pairs, and the encoder is deterministic. So InfoNCE, the ELBO less $C$ and the log evidence less $C$ are one number; each is computed by its own code.

# %%
world = rpm.FiniteRPM(p_true, torch.eye(len(p_true), dtype=torch.float64))
prior = rpm.priors.infonce(log_f, world.q_joint)
bound = world.elbo(prior).value - world.constant
evidence = world.log_evidence(prior) - world.constant
three = {"InfoNCE": infonce, "ELBO − C": bound, "log evidence − C": evidence}
print("  ".join(f"{name} {value:.4f}" for name, value in three.items()), "nats a pair")
assert max(abs(bound - infonce), abs(evidence - infonce)) < 1e-9

# %% [markdown] tags=["slide"]
# ## What we saw
#
# On a data set of $N$ pairs, all $x$ and all $x'$ different, InfoNCE is the log evidence plus $2 \log N$, exactly, for any deterministic encoder. Its ceiling says that no cell of the model's table exceeds the sum of its row. The model can be sampled, and
# its evidence on tens of thousands of pairs takes seconds.
#
# Bring your own pairs, encoder and critic to `rpm.dataset_evidence`, and let the evidence choose among priors. What a batch shows of the whole data set, and what it hides, is [lesson 6](06_finite_batches.ipynb).
