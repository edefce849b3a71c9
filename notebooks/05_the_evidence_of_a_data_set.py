# %% [markdown]
# # The evidence of a data set: InfoNCE on everything at once
#
# Lessons 1 to 3 worked on tables. Now the observations are images, the encoder is a deterministic network, and nothing is lost: the
# log evidence of tens of thousands of pairs is computed exactly, and the model is sampled.
#
# **Afterwards you can** say why the bound is tight for a deterministic encoder; compute the log evidence of any data set of pairs, without
# making the table of all pairs; explain the $\log N$ ceiling in one line; draw $x'$ from the model, given $x$.
#
# **You need** [lesson 3](03_infonce_is_the_elbo.ipynb). **Time** 30 minutes, of which the computer takes one.
#
# **Whose result**: the tight bound (E13) is the paper's; that no limit is needed on a data set (E14), the ceiling (E23), and the tiles are this course's.
# Beside it: [notation](../docs/notation.md), [glossary](../docs/glossary.md), [questions and answers](../docs/faq.md).

# %%
import math

import torch
from tqdm.auto import tqdm

import rpm_tutorial as rpm

device = rpm.setup()

# %% [markdown]
# ## A deterministic encoder closes the gap
#
# The gap of the bound is $\mathrm{KL}\big(Q(z|x)Q(z'|x')\,\|\,P(z,z'|x,x')\big)$. If the encoder puts all its mass on one $z = g(x)$, then by (E2) no other $z$ can have
# produced $x$, and the model's posterior is that same point:
#
# $$Q(z|x) = \delta(z - g(x)) \quad\Rightarrow\quad L = \mathbb E \log P(x, x'). \tag{E13}$$
#
# **Predict**: must $g$ be invertible?
#
# <details><summary>Answer</summary>
#
# No. In the small world below, six values of $x$ share three of $z$. What matters is that $x$ leaves no doubt about $z$, not the reverse.
# </details>

# %% tags=["reproducible"]
soft = rpm.FiniteRPM.ring(coupling=3.0, sharpness=3.0)


def harden(recognition):
    """All mass on the most probable latent."""
    return torch.nn.functional.one_hot(recognition.argmax(1), recognition.shape[1]).double()


hard = rpm.FiniteRPM(soft.p_true, harden(soft.recognition), harden(soft.recognition_prime))
gaps = []
for name, small in {"soft": soft, "deterministic": hard}.items():
    prior = rpm.priors.infonce(torch.eye(3, 4, dtype=torch.float64), small.q_joint)
    gaps.append(small.log_evidence(prior) - small.elbo(prior).value)
    print(
        f"{name:14} ELBO {small.elbo(prior).value:.6f}   evidence {small.log_evidence(prior):.6f}   gap {gaps[-1]:.2g}"
    )
assert gaps[0] > 0.01 and abs(gaps[1]) < 1e-12

# %% [markdown]
# A tight bound is not a higher one. These are two models; tightness says only that the ELBO *is* the evidence.
#
# ## Images, and a few seconds of training
#
# Fashion-MNIST: clothes, 28 × 28 pixels. Two views of an image are two crops, mirrored, brightened and made noisy at random. The encoder is a small
# convolutional network, the critic a cosine over a temperature that is learned too.

# %%
images = rpm.datasets.fashion_mnist_or_digits()
rng = torch.Generator().manual_seed(0)
x, x_prime = rpm.datasets.two_views(images.x[:12], generator=rng)
rpm.figures.images({"x": x, "x′": x_prime}, caption="Each column is a pair: two views of one image.")

# %%
torch.manual_seed(0)
encoder, critic = rpm.encoders.conv(dim=16).to(device), rpm.VonMisesFisher(temperature=0.1).to(device)
pairs = rpm.datasets.view_pairs(images.x, batch_size=256, seed=0)
log = list(tqdm(rpm.train(encoder, critic, pairs, steps=150), total=150))

# %%
encoder.eval()
print(f"InfoNCE of the last batch: {log[-1].value:.2f} of at most log 256 = {math.log(256):.2f} nats")
assert log[-1].value > 2

# %% [markdown]
# ## On a data set, InfoNCE is a log probability
#
# Let the data be $N$ pairs, each with probability $1/N$. Then (E2) puts mass only on these observations, and the model is a table over all $N^2$
# combinations, including the $N^2 - N$ that never occurred:
#
# $$P(x_i, x'_j) = \frac{1}{N^2}\,\frac{f_{ij}}{Z_i}, \qquad Z_i = \frac1N\sum_j f_{ij}. \tag{E14}$$
#
# Where it comes from: if $k$ images share the latent $z_i$, then $Q(z_i) = k/N$ and $P(x_i|z_i) = 1/k$, so $Q(z_i)P(x_i|z_i) = 1/N$ in any case, and likewise for $x'_j$. Put
# the InfoNCE prior (E7) into (E1), and $\frac1N \cdot \frac1N \cdot f_{ij}/Z_i$ is left.
#
# First on 1 000 pairs in float64, where the table fits: fresh views of training images.

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
assert abs(P.sum() - 1) < 1e-12 and torch.allclose(P.sum(1), torch.full((n,), 1 / n, dtype=torch.float64))

# %% [markdown]
# Its logarithm, averaged over the pairs that did occur, is the log evidence; $C = -2\log N$. So
#
# $$\frac1N\sum_i \log P(x_i, x'_i) + 2 \log N = I_N.$$

# %%
log_evidence = P.diagonal().log().mean()
infonce = rpm.infonce(log_f).value
print(f"(1/N) Σ log P + 2 log N = {log_evidence + 2 * math.log(n):.6f}")
print(f"full-batch InfoNCE      = {infonce:.6f}   residual {abs(log_evidence + 2 * math.log(n) - infonce):.1e}")
assert abs(log_evidence + 2 * math.log(n) - infonce) < 1e-9

# %% [markdown]
# No limit of infinitely many samples, no bound: the full-batch loss *is* minus a log likelihood, shifted by $2\log N$. The model takes the observations as given,
# $P(x_i) = 1/N$, and is judged on how it pairs them.
#
# ## The ceiling says no more than P ≤ 1/N
#
# InfoNCE never exceeds $\log N$. Read as a likelihood, that is plain: each row of the table has $1/N$ to
# give; the pair on the diagonal gets at most all of it.
#
# $$P(x_i, x'_i) \le \tfrac1N \quad\Rightarrow\quad I_N = \tfrac1N \textstyle\sum_i \log P(x_i,x'_i) + 2\log N \le \log N.$$

# %%
print(f"largest P(x_i, x'_i) = {P.diagonal().max() * n:.4f} / N")
assert (P.diagonal() <= 1 / n).all() and infonce <= math.log(n)

# %% [markdown]
# The same ceiling from the other side. Let $I_\text{true}(x;x')$ be the mutual information of the *observations*. The evidence falls short of it by the model's error:
#
# $$\mathbb E \log P(x,x') - C = I_\text{true}(x;x') - \mathrm{KL}\big(P_\text{true}(x,x')\,\|\,P(x,x')\big). \tag{E23}$$
#
# (Add and subtract $\mathbb E\log P_\text{true}(x,x')$: minus $C$ it is $I_\text{true}$, and what $\log P$ falls short of it is the KL.) $N$ distinct pairs carry $I_\text{true} = \log N$.

# %%
p_true = torch.eye(n, dtype=torch.float64) / n
information = rpm.mutual_information(p_true)  # of the data: log N
divergence = torch.nn.functional.kl_div(P.log(), p_true, reduction="sum")  # KL(P_true || P)
print(f"I_true − KL = {information:.6f} − {divergence:.6f} = {information - divergence:.6f}")
assert abs(information - math.log(n)) < 1e-9 and abs(information - divergence - infonce) < 1e-9

# %% [markdown]
# ## All pairs, without the table
#
# For 60 000 pairs the table would have 3.6 thousand million cells: 14.4 GB in float32, and once more for its gradient. But each row
# needs its sum only. `rpm.dataset_evidence` visits the table tile by tile, keeps one number a row, and still carries exact gradients. On the 1 000 pairs
# we can compare:

# %%
z.requires_grad_()
tiled, table = rpm.dataset_evidence(z, z_prime, critic).infonce, rpm.infonce(critic(z, z_prime)).value
gradients = [torch.autograd.grad(value, z)[0] for value in (tiled, table)]
print(f"tiled {tiled:.9f}   table {table:.9f}   residual {abs(tiled - table):.1e}")
print(f"largest difference of the gradients: {(gradients[0] - gradients[1]).abs().max():.1e}")
assert abs(tiled - table) < 1e-9 and torch.allclose(*gradients, rtol=1e-9, atol=1e-12)

# %% [markdown]
# Now many. By default 40 000 pairs, which takes seconds; the time grows with $N^2$, so `n = 60_000` takes 2¼ times as long. Views are
# made and encoded in portions, and only the latents are kept.


# %%
def encode_pairs(x):
    """z and z' of two fresh views of each image, a thousand images at a time."""
    pairs = (rpm.datasets.two_views(portion, generator=rng) for portion in tqdm(x.split(1000)))
    latents = [[rpm.encode(encoder, view) for view in pair] for pair in pairs]
    return (torch.cat(side) for side in zip(*latents))


n = min(40_000, len(images.x))
z, z_prime = encode_pairs(images.x[:n])
critic = critic.float()

# %%
with torch.no_grad():
    evidence = rpm.dataset_evidence(z, z_prime, critic)
print(f"{evidence.n} pairs: InfoNCE {evidence.infonce:.3f} of at most log N = {math.log(n):.3f} nats")
print(f"log evidence {evidence.log_evidence:.3f} nats per pair; chance is −2 log N = {-2 * math.log(n):.3f}")
assert evidence.infonce <= math.log(n)

# %% [markdown]
# For millions of pairs $N^2$ is too many. Then some rows stand for all, and in each row some candidates stand for all the others: the
# pair's own $z'$ is counted once, each of the $M$ sampled ones $(N-1)/M$ times. A batch that weighs all its candidates alike estimates
# something else, the InfoNCE of a small data set, which cannot exceed the logarithm of its size. The logarithm of a sampled sum is too low on
# average, so the estimate is slightly too high, by an amount of order $1/M$.

# %%
estimate = rpm.sampled_evidence(z, z_prime, critic, rows=4096, negatives=1024, generator=rng)
with torch.no_grad():
    batch = rpm.infonce(critic(z[:64], z_prime[:64])).value
print(
    f"InfoNCE of all {n} pairs: exact {evidence.infonce:.3f}, estimated {estimate.infonce:.3f} ± {estimate.standard_error:.3f}"
)
print(f"one batch of 64 pairs: {batch:.3f}, at most log 64 = {math.log(64):.3f}")
assert abs(estimate.infonce - evidence.infonce) < 4 * estimate.standard_error and batch < estimate.infonce

# %% [markdown]
# These are views of images that the encoder was trained on. The test images tell how much of it is memory.

# %%
test = rpm.datasets.fashion_mnist_or_digits("test").x
k = min(10_000, len(test))
held_out = rpm.dataset_evidence(*encode_pairs(test[:k]), critic).infonce.item()
trained = rpm.dataset_evidence(z[:k], z_prime[:k], critic).infonce.item()
print(f"InfoNCE on {k} pairs: training images {trained:.3f}, test images {held_out:.3f} nats")
assert abs(trained - held_out) < 0.1  # 0.02 to 0.04 for five seeds

# %% [markdown]
# Next to none: 150 steps see each image of Fashion-MNIST less than once. (The digits, where they stand in, have no test images of their own.)
#
# ## The ceiling matters while N is small
#
# The same encoder and critic, evaluated on more and more pairs. **Predict**: does InfoNCE follow $\log N$ up, or level off?
#
# <details><summary>Answer</summary>
#
# Both: it rises while $\log N$ is low, each time by less than $\log N$ does, and then levels off.
# </details>

# %%
counts = [k for k in (10, 30, 100, 300, 1000, 3000, 10_000) if k < n]
values = [rpm.dataset_evidence(z[:k], z_prime[:k], critic).infonce.item() for k in counts]
counts, values = [*counts, n], [*values, evidence.infonce.item()]
assert all(value <= math.log(k) for value, k in zip(values, counts))
assert values[1] > 0.7 * math.log(30) and values[-1] < 0.5 * math.log(n)  # five seeds: 0.77 to 0.86, and 0.33
short = [math.log(k) - value for k, value in zip(counts, values)]
print("below log N by", ", ".join(f"{gap:.2f} at {k}" for k, gap in list(zip(counts, short))[:3]), "pairs")
assert short[0] < short[2] < short[-1], "the ceiling is nearest on few pairs, and is never followed"

# %%
rpm.figures.lines(
    counts,
    {"InfoNCE": values, "log N": [math.log(k) for k in counts]},
    x_log=True,
    x_label="number of pairs N",
    y_label="nats per pair",
    caption="On few pairs the ceiling log N holds InfoNCE down; with more pairs it falls behind, and levels off at what the model knows.",
)

# %% [markdown]
# On ten pairs the ceiling is so near that a better encoder could hardly show it; on tens of thousands it is far away. Judge an encoder on as many pairs as you have.
#
# ## The model can be sampled: x′ given x
#
# Dividing (E14) by $P(x_i) = 1/N$ leaves $P(x'_j|x_i)$, a softmax over candidates. Draw from it: what does the model expect to see beside this image?

# %%
m = 2000  # candidates
with torch.no_grad():
    p = critic(z[:m], z_prime[:m]).softmax(1).cpu()  # P(x'_j | x_i)
drawn = torch.multinomial(p, 8, replacement=True, generator=torch.Generator().manual_seed(2))
same_class = images.labels[:m, None] == images.labels[:m]
alike = (p * same_class).sum(1).mean() - p.diagonal().mean()  # without the image's own other view
print(
    f"mass on the own other view {p.diagonal().mean():.1%}, on others of its class {alike:.1%}; by chance {same_class.double().mean():.1%}"
)
assert alike > 0.5  # 0.54 to 0.57 for five seeds

# %%
rows = {f"x and x′, {k + 1}": torch.cat([images.x[[k]], images.x[drawn[k]]]) for k in range(5)}
rpm.figures.images(
    rows, caption="First column: x. The others: eight draws of x′ from the model, shown without their augmentation."
)

# %% [markdown]
# The model was never told a class. It learned which images can be views of one another, and what it confuses is what its encoder finds alike.
#
# ## Temperature against evidence
#
# Choose a temperature and an image. No temperature changes the order of the candidates; it changes how much is staked on each, which the bars show. A cold model bets everything on a
# few, a warm one spreads out. The curve above is the evidence over 1 000 pairs: it says which bet pays better on average.
#
# The pictures are drawn without their augmentation. The encoder saw two different crops, so that finding ✓, the image's own other view, is harder than it looks.
#
# **Predict**: one temperature gives the highest $P(x'_i|x_i)$ for more images than any other. Does it also have the highest evidence?
#
# <details><summary>Answer</summary>
#
# No: the favourite is colder. The evidence averages log P, and a confident miss costs more than a confident hit earns. The cell below the widget counts.
# </details>

# %%
k = 1000
render = rpm.lessons.lesson_05.retrieval(z[:k], z_prime[:k], images.x[:k], images.x[:k])
rpm.explore(render)

# %%
temperatures = [0.02, 0.05, 0.1, 0.2, 0.5]
critics = [rpm.VonMisesFisher(t).to(device) for t in temperatures]
with torch.no_grad():
    log_p = torch.stack([c(z[:k], z_prime[:k]).log_softmax(1).diagonal().cpu() for c in critics]) - math.log(k)
favourite = log_p.argmax(0).bincount(minlength=5) / k  # of how many images each temperature is the best
for t, evidence_t, share in zip(temperatures, log_p.mean(1), favourite):
    print(f"temperature {t:4}: log evidence {evidence_t:.2f}, best for {share:.0%} of the images")
assert 0 < log_p.mean(1).argmax() < 4, "both ends are worse than the middle"
assert favourite.argmax() < log_p.mean(1).argmax(), "the favourite of most is too cold for all: so for five seeds"

# %% [markdown]
# ## Exercises
#
# **1.** Return $\log P(x_i, x'_i)$ of each pair, shape (N,), from the table `log_f`, shape (N, N).


# %% tags=["exercise"]
def log_p(log_f):
    return ...


rpm.lessons.lesson_05.log_p.check(log_p)

# %% [markdown]
# **2.** What is the smallest number of pairs on which InfoNCE can reach 5 nats?

# %% tags=["exercise"]
pairs_needed = ...
rpm.lessons.lesson_05.pairs_needed.check(pairs_needed)

# %% [markdown]
# **3. Find the bug.** This function should return $\log\sum_j f_{ij}$ of each row, visiting four columns at a time, as `rpm.dataset_evidence` does with larger tiles. **Symptom**, the last
# line that it prints: the same scores in another order have another sum. Repair it.


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
print(f"falling: {by_tiles(rising.flip(1)).item():.4f}; rising: {by_tiles(rising).item():.4f}")

# %% [markdown]
# ## Quiz
#
# **1. InfoNCE on 1 000 pairs is 6.9 nats, and log 1000 = 6.91. What do you conclude?**
# <details><summary>the encoder cannot be better</summary>On these 1 000 pairs it is nearly certain of each partner. On 60 000 it may not be: the ceiling hides it.</details>
# <details><summary>the number says little; evaluate on more pairs</summary>Yes: at the ceiling, all good models look alike.</details>
# <details><summary>the mutual information is 6.9 nats</summary>It may be far larger: no method of this kind can report more than log N from N pairs.</details>
#
# **2. Why is there no integral over z in P(x_i, x′_j)?**
# <details><summary>because it is approximated by one sample</summary>Nothing is approximated: the sum over z has one term.</details>
# <details><summary>because a deterministic encoder leaves one z for each x</summary>Yes: P(x|z) is zero unless z = g(x).</details>
# <details><summary>because the prior is uniform</summary>The prior is anything but uniform: it is where the critic lives.</details>
#
# **3. Model A has a log evidence of −15 nats per pair on 10 000 pairs, model B one of −17 on 60 000 others. A is better…**
# <details><summary>yes, by two nats</summary>No: C = −2 log N is −18.4 for A and −22.0 for B, so the numbers have different zeros.</details>
# <details><summary>no, B: its InfoNCE is 5.0 against 3.4</summary>Taking C away is right, but the pairs differ, and so does the ceiling.</details>
# <details><summary>one cannot tell</summary>Yes: evidence compares models of the same data. Evaluate both on the same pairs.</details>
#
# ## The three numbers of this world
#
# The world is the 1 000 pairs, and the network leaves no doubt about $z$. So the three are one, each from its own code.

# %%
world = rpm.FiniteRPM(p_true, torch.eye(len(p_true), dtype=torch.float64))
prior = rpm.priors.infonce(log_f, world.q_joint)
bound, evidence = world.elbo(prior).value - world.constant, world.log_evidence(prior) - world.constant
print(f"InfoNCE {infonce:.4f}  ELBO − C {bound:.4f}  log evidence − C {evidence:.4f} nats, on {len(p_true)} pairs")
assert max(abs(bound - infonce), abs(evidence - infonce)) < 1e-9

# %% [markdown]
# ## What we saw
#
# On a data set of $N$ pairs, InfoNCE is the log likelihood plus $2 \log N$, exactly, for any deterministic encoder. Its ceiling is the statement that a probability
# cannot exceed its row. The model can be sampled, and its evidence on the whole data set takes seconds.
#
# Bring your own pairs, encoder and critic to `rpm.dataset_evidence`, and let the evidence choose among priors. What a batch shows instead of
# the whole data set, and what it hides, is [lesson 6](06_finite_batches.ipynb).
