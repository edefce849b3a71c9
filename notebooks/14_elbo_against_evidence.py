# %% [markdown] tags=["slide"]
# # ELBO against evidence: which one to train
#
# One trains a bound when the quantity itself cannot be computed. If a latent has finitely many values, the *categories*, both are within reach: the ELBO, and the log evidence that it
# bounds. **Which should you train, and what does it cost to train the other?** This lesson tries both on the same data, from the same starts.
#
# **Afterwards you can** choose among restarts by their evidence, without labels; explain why two categorical latents collapse under the ELBO and
# not under the evidence; say why the ELBO makes encoders certain, when that costs evidence, and when the question does not arise.
#
# **You need** [lesson 13](13_the_other_rpm.ipynb), whose digits and networks we use again. **Time** 45 minutes.
# Symbols are in the [notation](../docs/notation.md), words in the [glossary](../docs/glossary.md), objections in the
# [FAQ](../docs/faq.md).
#
# **Whose result is it?** The ELBO (E3) and its value under the InfoNCE prior (E7) are sections 3 and 4 of Aitchison and Ganev's paper
# ([arXiv 2107.02495](https://arxiv.org/abs/2107.02495)). The shared latent (E22) is due to Walker and co-authors ([2023](https://arxiv.org/abs/2209.05661)). What the ELBO does to categories, and how the
# evidence mends it, is this course's.

# %% [markdown] tags=["slide"]
# ## The same digits and networks as in lesson 13
#
# Training sees pairs of different images of one digit, and no label. A network $F(z|x)$ with ten categories $z$ maps each image to probabilities. Many networks from random starts are trained
# side by side. The model is (E22) with one shared latent and a uniform $P(z)$, and its log evidence less $C$ is at most $\log 10$. The cells of this section are lesson 13's, except `train`, which takes the objective as an argument and pauses every few steps. Run them all; if you come from lesson 13, read `train` only.


# %%
import math
from functools import partial

import torch
from torch.nn.functional import one_hot
from tqdm.auto import tqdm

import rpm_tutorial as rpm

rpm.setup()
seed = 0
seeds = (0, 1, 2)  # each draws its own pairs, split and starts


# %% tags=["reproducible"]
class Pairs:
    """Training pairs of one class, without labels; test images with labels."""

    def __init__(self, seed, count=3000, train=1300):
        rng, data = torch.Generator().manual_seed(seed), rpm.datasets.digits()
        order = torch.randperm(len(data.x), generator=rng)
        x, labels = data.x[order[:train]], data.labels[order[:train]]
        first = torch.randint(train, (count,), generator=rng)
        peers = (labels[first][:, None] == labels).float()
        peers[torch.arange(count), first] = 0  # no image is its own peer
        second = peers.multinomial(1, generator=rng)[:, 0]
        self.x, self.x_prime, self.rng = x[first], x[second], rng
        self.x_test, self.labels_test = (side[order[train:]] for side in data)


# %%
network = rpm.encoders.mlp(64, 10, width=32)


def starts(count, seed):
    """The weights of `count` fresh networks, stacked."""
    torch.manual_seed(seed)
    networks = [rpm.encoders.mlp(64, 10, width=32) for _ in range(count)]
    return torch.func.stack_module_state(networks)[0]


def log_F(weights, x):
    """log F(z|x) of R networks, shape (R, n, 10)."""
    run = torch.func.vmap(lambda one: torch.func.functional_call(network, one, (x,)))
    return run(weights).log_softmax(2)


# %%
def evidence(f, f_prime):
    """log evidence - C of (E22) for each network, (R,), from log F(z|x) of n pairs."""
    n, categories = f.shape[1:]
    aggregate = [side.logsumexp(1, keepdim=True) - math.log(n) for side in (f, f_prime)]
    joint = f - aggregate[0] + f_prime - aggregate[1] - math.log(categories)
    return joint.logsumexp(2).mean(1)


# %%
def train(objective, pairs, weights, steps=200, every=10):
    """Maximise the objective of each network; yield now and then, to be looked at."""
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-2, weight_decay=1e-3)
    for step in range(steps + 1):
        if step % every == 0:
            yield
        batch = torch.randint(len(pairs.x), (256,), generator=pairs.rng)
        both = log_F(weights, torch.cat([pairs.x[batch], pairs.x_prime[batch]]))
        optimizer.zero_grad()
        (-objective(*both.chunk(2, dim=1)).sum()).backward()
        optimizer.step()


# %% [markdown] tags=["slide"]
# ## The evidence chooses the restart
#
# Lesson 13 ended with twelve networks. About half of them, or more, had found the ten digits; the others agreed less with the labels. Only labels could tell them apart.
#
# **Predict**: can you tell them apart without labels, by the evidence of the pairs that they were trained on?
#
# <details><summary>Answer</summary>
#
# Yes. The networks fall into two groups by their evidence, with a space between them, and they are the same two groups as by labels.
# </details>


# %%
@torch.no_grad()
def look(weights, pairs):
    """Evidence of all training pairs, (R,); test images by digit and category."""
    f, f_prime = log_F(weights, pairs.x), log_F(weights, pairs.x_prime)
    f_test = log_F(weights, pairs.x_test)
    chosen = one_hot(f_test.argmax(2), 10).float()  # (R, n, 10)
    return evidence(f, f_prime), one_hot(pairs.labels_test, 10).float().T @ chosen


def agreement(counts):
    """The share of images whose category is their digit's, matched one to one."""
    return (counts[:, rpm.probes.match(counts)].trace() / counts.sum()).item()


# %% tags=["slide"]
runs = {}
for s in tqdm(seeds):
    pairs, weights = Pairs(s), starts(12, s)
    steps = train(evidence, pairs, weights, every=10 if s == seed else 200)
    history = [look(weights, pairs) for _ in steps]
    found, counts = history[-1]
    runs[s] = pairs, weights, history
    scores = torch.tensor([agreement(table) for table in counts])
    near = found > found.max() - 0.1
    print(f"seed {s}: {near.sum()} of 12 are within 0.1 nats of {found.max():.2f}")
    print("  evidence ", *(f"{v:.2f}" for v in found.sort().values))
    print("  agreement", *(f"{v:.2f}" for v in scores[found.argsort()]))
    assert scores[found.argmax()] > 0.9 and found.max() < math.log(10)
    assert 3 <= near.sum() <= 9  # nine seeds: 5 to 8
    assert scores[near].min() > scores[~near].max()  # nine seeds: > .93 and < .90

# %% [markdown]
# Both lines are sorted by the evidence of the training pairs, and the second shows how far each network agrees with the labels. You can keep the right network without them. A likelihood is made for this: it compares
# several fits of one model to one data set. The widget shows the runs of seed 0 step by step, sorted: restart 1 has the highest final evidence, restart 12 the lowest.

# %% tags=["slide"]
pairs, weights, history = runs[seed]
found, counts = (torch.stack(column) for column in zip(*history))
rpm.explore(rpm.lessons.lesson_14.restarts(found, counts))

# %% [markdown] tags=["slide"]
# ## The ELBO collapses two untied latents
#
# So far there was no choice to make: with one shared latent, EM makes the ELBO equal to the evidence. Now we take the course's model (E1) for the same pairs and the same networks. Each image has a latent of its own, $z$ or $z'$, with ten categories; the network gives $Q(z|x)$ and $Q(z'|x')$. The prior is the InfoNCE prior (E7) of the critic $\log f(z,z') = \beta\,[z = z']$, where $[\cdot]$ is 1 if true and 0 if not: $z' = z$ is favoured over every other category by a factor $e^\beta$. We call it *sticky*.
#
# We train this one model in two ways. One way is its ELBO, which is InfoNCE with all of $Q(z')$ as candidates ($I_\infty$ of [lesson 3](03_infonce_is_the_elbo.ipynb)). The other is its evidence, with the sum over $z$ and $z'$ inside the logarithm. Here $Z(z)=\mathbb E_{Q(z')}f(z,z')$ is the normaliser of (E7), and $Q(z,z')$ says how often data and encoders produce $z$ and $z'$ together:
#
# $$L - C = \mathbb E_{Q(z,z')}\Big[\log \frac{f(z,z')}{Z(z)}\Big], \qquad \text{log evidence} - C = \mathbb E_{P_\text{true}(x,x')}\Big[\log \sum_{z,z'} Q(z|x)\,Q(z'|x')\,\frac{f(z,z')}{Z(z)}\Big].$$
#
# The two differ in the place of the logarithm alone. By Jensen's inequality the first is never larger.


# %%
def untied_elbo(f, f_prime, beta=6.0):
    """L - C for each network, (R,), from log Q(z|x) and log Q(z'|x') of n pairs."""
    q_joint = f.exp().mT @ f_prime.exp() / f.shape[1]  # Q(z,z')
    log_f = beta * torch.eye(10)
    return torch.stack([rpm.infonce(log_f, q / q.sum()).value for q in q_joint])


def untied_evidence(f, f_prime, beta=6.0):
    """log evidence - C of the same model."""
    table = (beta * torch.eye(10)).exp()
    Z = f_prime.exp().mean(1) @ table  # (R, 10)
    return ((f.exp() / Z[:, None]) @ table * f_prime.exp()).sum(2).log().mean(1)


def categories(weights, pairs):
    """e to the entropy of Q(z): how many categories are in use, from 1 to 10."""
    q_z = log_F(weights, pairs.x).exp().mean(1)
    return torch.special.entr(q_z).sum(1).exp()


# %% tags=["slide"]
shared = [categories(weights, pairs).tolist() for pairs, weights, _ in runs.values()]
used = {"one latent, evidence": shared}
for name, objective in (("evidence", untied_evidence), ("ELBO", untied_elbo)):
    used[name := f"two latents, {name}"] = []
    for s in tqdm(seeds, leave=False):
        pairs, weights = Pairs(s), starts(3, s)
        for _ in train(objective, pairs, weights):
            pass
        used[name].append(categories(weights, pairs).tolist())
used = {name: torch.tensor(sum(values, [])) for name, values in used.items()}
for name, values in used.items():
    print(f"{name:21} {values.min():.1f} to {values.max():.1f} categories", end=" ")
    print(f"over {len(values)} starts")
assert used["two latents, ELBO"].max() < 2 < 3 < used["two latents, evidence"].min()
assert used["two latents, evidence"].mean() < used["one latent, evidence"].mean()

# %% [markdown] tags=["slide"]
# The number of categories in use is $e$ to the entropy of $Q(z)$: 10 if all are equally frequent, 1 if one takes everything. Under the ELBO every code, the map from images to categories, becomes constant: one category for all images. Under the evidence of the *same* model, from the same starts, several categories stay. They are fewer than with one latent: with so few categories in use, some digits must share one. With a less sticky prior the ELBO still keeps fewer categories than the evidence on average, but not always one:

# %% tags=["slide"]
for beta in (2.0, 3.0):
    kept = {}
    for name, objective in (("evidence", untied_evidence), ("ELBO", untied_elbo)):
        pairs, weights = Pairs(seed), starts(6, seed)
        for _ in train(partial(objective, beta=beta), pairs, weights):
            pass
        kept[name] = categories(weights, pairs).detach()
        shown = ", ".join(f"{value:.1f}" for value in kept[name].sort().values)
        print(f"β = {beta:.0f}, {name:8} categories {shown}")
    assert kept["ELBO"].mean() < kept["evidence"].mean() and kept["ELBO"].max() < 4

# %% [markdown] tags=["slide"]
# ## The ELBO charges an encoder for being undecided
#
# Is a constant code the ELBO's maximum? No: a constant code has $L - C = 0$, and ten true classes have more. The trouble is the way there. An untrained encoder is undecided. Two independent draws
# $z \sim Q(z|x)$ and $z' \sim Q(z'|x')$ then rarely agree, and each disagreement costs $\beta$.
#
# **Predict** the value of $L - C$ for an encoder that knows nothing and gives each category a tenth: is it higher or lower than that of a constant code?
#
# <details><summary>Answer</summary>
#
# Lower, far below zero. A way up is to give up all categories but one.
# </details>

# %% tags=["slide"]
pairs, weights, history = runs[seed]
winner = int(history[-1][0].argmax())
best = {name: w.detach()[winner : winner + 1] for name, w in weights.items()}
codes = {"knows nothing": torch.full((1, 3000, 10), -math.log(10))}
codes["is constant"] = torch.tensor([0.0] + [-torch.inf] * 9).expand(1, 3000, 10)
codes = {name: (code, code) for name, code in codes.items()}
codes["finds ten classes"] = log_F(best, pairs.x), log_F(best, pairs.x_prime)
value = {}
for name, code in codes.items():
    value[name] = untied_elbo(*code).item(), untied_evidence(*code).item()
    print(f"an encoder that {name:17} L − C = {value[name][0]:+.2f}", end=", ")
    print(f"log evidence − C = {value[name][1]:+.2f}")
assert value["knows nothing"][0] < -2 and abs(value["knows nothing"][1]) < 1e-4
assert abs(value["is constant"][0]) < 1e-4 and value["finds ten classes"][0] > 1.5

# %% [markdown] tags=["slide"]
# The *evidence* of the encoder that knows nothing is zero: its latents say nothing, so the model takes $x$ and $x'$ for independent. Nothing pushes it towards one category. So the
# collapse comes neither from the prior nor from having two latents. It comes from the product $Q(z|x)Q(z'|x')$ in the place of the posterior. Train on the same ELBO again, but start from the network that found the ten classes with one shared latent. It keeps them:

# %% tags=["slide"]
weights = {name: w.clone().requires_grad_() for name, w in best.items()}
before = categories(weights, pairs).item()
for _ in train(untied_elbo, pairs, weights):
    pass
after = categories(weights, pairs).item()
ends = untied_elbo(log_F(weights, pairs.x), log_F(weights, pairs.x_prime)).item()
print(f"categories {before:.1f} before and {after:.1f} after; L − C = {ends:.2f} nats")
assert after > 9 and ends > 1.5

# %% [markdown] tags=["slide"]
# ## The ELBO hardens recognition, the evidence keeps it soft
#
# That the ELBO charges for doubt has a second effect. It shows in a smaller world, a *ring*: eight values of $x$ and of $x'$ on a circle, where $x'$ tends to lie near $x$. One table $Q(z|x)$
# with four categories encodes both, with the sticky prior. For any encoder, by (E3) and (E23),
#
# $$L - C \;\le\; \text{log evidence} - C \;\le\; I_{\text{true}}(x;x'),$$
#
# and the first is an equality for *certain* codes, in which each $x$ has one category (E13). So becoming certain closes the gap between the two. In this way the ELBO may rise even if the evidence stays, or falls.
#
# For a fair comparison we take the *best* result of each objective, because single starts differ, as we saw above. For the ELBO we need no starts: its trainings end near certain codes. There are $4^8 = 65\,536$ of these, and we try them all. For the evidence we take eight random starts, and one near the best certain code. Why certain codes? With an encoder for each side, $L - C$ is linear in the table $Q(z|x)$ and convex in $Q(z'|x')$. Such a function is largest at a corner, where every row has a single 1: its maximum *is* reached by certain codes. The second cell below checks both properties at random tables. With one table for both sides, as here, that is no proof. So the last cell of this section looks at where trainings on the ELBO end.
#
# **Predict**: by how much does the encoder trained on the evidence beat the best certain code, in evidence? Does it depend on $\beta$?
#
# <details><summary>Answer</summary>
#
# At $\beta = 1$ it does not, not even from a start near that code. The stickier the prior, the larger the gain.
# </details>


# %%
p_ring = rpm.FiniteRPM.ring(coupling=4.0, x=8, x_prime=8, tilt=0).p_true
identity = torch.eye(4, dtype=torch.float64)


def train_on_ring(measure, beta, seed, start=0.0, steps=300):
    """log evidence - C and L - C of the Q(z|x) at which `measure` is largest."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(8, 4, generator=rng, dtype=torch.float64) + 6 * start
    optimizer = torch.optim.Adam([logits.requires_grad_()], lr=0.05)
    for _ in range(steps):
        world = rpm.FiniteRPM(p_ring, logits.softmax(1))
        prior = rpm.priors.infonce(beta * identity, world.q_joint)
        optimizer.zero_grad()
        (-measure(world, prior)).backward()
        optimizer.step()
    reached = world.log_evidence(prior), world.elbo(prior).value
    return [(value - world.constant).item() for value in reached]


# %% tags=["reproducible"]
def ring_elbo(of_x, of_x_prime):
    world = rpm.FiniteRPM(p_ring, of_x, of_x_prime)
    return world.elbo(rpm.priors.infonce(3.0 * identity, world.q_joint)).value


rng = torch.Generator().manual_seed(seed)
draws = torch.randn(50, 3, 8, 4, generator=rng, dtype=torch.float64).softmax(3)
linear, convex = [], []
for a, b, c in draws:
    mean = (ring_elbo(a, c) + ring_elbo(b, c)) / 2
    linear.append(abs(mean - ring_elbo((a + b) / 2, c)).item())
    mean = (ring_elbo(c, a) + ring_elbo(c, b)) / 2
    convex.append((mean - ring_elbo(c, (a + b) / 2)).item())
print(f"halfway between two Q(z|x): off the mean by at most {max(linear):.0e}")
print(f"halfway between two Q(z′|x′): below the mean by {min(convex):.0e} or more")
assert max(linear) < 1e-12 and min(convex) > 0

# %% tags=["reproducible", "slide"]
certain = torch.cartesian_prod(*[torch.arange(4)] * 8)  # each row a code
hard = one_hot(certain, 4).double()
tables = hard.mT @ p_ring @ hard  # Q(z,z') of each


def best_certain(beta):
    """The certain code with the highest L - C (E7), and that value."""
    log_Z = (tables.sum(1) @ (beta * identity).exp()).log()
    matches = tables.diagonal(dim1=1, dim2=2).sum(1)
    return (beta * matches - (tables.sum(2) * log_Z).sum(1)).max(0)


elbo, at = best_certain(3.0)
world = rpm.FiniteRPM(p_ring, hard[at])
prior = rpm.priors.infonce(3.0 * identity, world.q_joint)
same = world.log_evidence(prior) - world.constant
print(f"best of {len(hard)} certain codes: {certain[at].tolist()}")
print(f"L − C = {elbo:.3f} = log evidence − C = {same:.3f} nats")
assert abs(elbo - same) < 1e-9

# %% tags=["reproducible", "slide"]
gains, ends = {}, {}
for beta in (1.0, 2.0, 3.0):
    of = rpm.FiniteRPM.log_evidence
    limit, at = best_certain(beta)
    tried = [train_on_ring(of, beta, s) for s in tqdm(range(8), leave=False)]
    tried.append(train_on_ring(of, beta, 0, start=hard[at]))
    ends[beta], gains[beta] = max(tried), max(tried)[0] - limit.item()
    print(f"β = {beta:.0f}: log evidence − C: best certain code {limit:.3f};", end=" ")
    print(f"trained from random starts {max(tried[:8])[0]:.3f},", end=" ")
    print(f"from that code {tried[-1][0]:.3f}, gain {gains[beta]:+.3f} nats")
assert gains[1.0] < 0.01 < gains[2.0] < 0.06 and 0.1 < gains[3.0] < 0.2

# %% tags=["reproducible"]
information = rpm.mutual_information(p_ring).item()
on_elbo = [
    train_on_ring(lambda world, prior: world.elbo(prior).value, 3.0, s)
    for s in tqdm(range(8), leave=False)
]
gap = max(top - bound for top, bound in on_elbo)
print(f"eight trainings on the ELBO end within {gap:.3f} nats of their evidence")
found = sorted((top for top, _ in on_elbo), reverse=True)
print("they reach", ", ".join(f"{top:.2f}" for top in found), end="; ")
print(f"the best certain code has {elbo:.2f}, the data share {information:.2f} nats")
assert gap < 0.03 and max(bound for _, bound in on_elbo) < elbo + 1e-3

# %% [markdown] tags=["slide"]
# The eight trainings on the ELBO end well below the best certain code. So a comparison of single starts would mix two things: poor starts, which eight restarts did not mend here, and the objective. What remains is the gain above: at $\beta = 2$ and 3 the evidence keeps doubt that its model can use. At $\beta = 1$,
# where the prior allows $z' \ne z$ more often, no start, not even one near the best certain code, found a use for doubt.
#
# So: are your latents categorical, and can you afford the sum over them? Then train the evidence, from several starts. Are your encoders deterministic, as in InfoNCE? Then the two are one
# (E13), and the question does not arise.
#
# ## Exercises
#
# **1.** The sticky prior, and an encoder that knows nothing: each of `k` categories with probability $1/k$, whatever $x$ is. Return $L - C$.


# %% tags=["exercise"]
def knows_nothing(beta, k):
    return ...


rpm.lessons.lesson_14.knows_nothing.check(knows_nothing)

# %% [markdown] tags=["slide"]
# **2.** The same prior, and an encoder that finds `k` equally frequent classes without doubt, so that $z = z'$ in every pair. Return $L - C$.


# %% tags=["exercise"]
def found_all(beta, k):
    return ...


rpm.lessons.lesson_14.found_all.check(found_all)

# %% [markdown] tags=["slide"]
# ## Quiz
#
# **1. Twelve restarts of one model, no labels. You keep the network with…**
# <details><summary>the most even categories</summary>A network that splits one digit and merges two uses its ten categories nearly as evenly, and evenness does not ask whether the two images of a pair agree.</details>
# <details><summary>the highest evidence of the training pairs</summary>Yes: it is one model and one data set, so the likelihood compares the fits.</details>
# <details><summary>the most certain categories</summary>A merged category can be certain too. The evidence asks whether both images of a pair agree, and how much that says.</details>
#
# **2. Two untied categorical latents collapse on digits under the ELBO. What would help?**
# <details><summary>more pairs</summary>The price of an undecided encoder does not depend on their number.</details>
# <details><summary>maximising the evidence of the same model</summary>Yes: an encoder that knows nothing then starts at zero, level with the constant code, and can only rise from there.</details>
# <details><summary>adding the mutual information of z and z′</summary>It is zero for an encoder that knows nothing and for a constant code alike, so at the start it does not tell them apart. (No cell tries it.)</details>
#
# **3. You train SimCLR, whose encoder gives each image one latent. Should you switch from InfoNCE to the evidence?**
# <details><summary>yes, it is never smaller</summary>Here it is not larger either: for a deterministic encoder the bound is tight (E13).</details>
# <details><summary>there is nothing to switch to: on a set of pairs InfoNCE is the log evidence, up to C</summary>Yes, by (E14).</details>
# <details><summary>no, the evidence keeps encoders undecided</summary>It keeps doubt where there is some to keep. A deterministic encoder has none.</details>
#
# ## What we saw
#
# The evidence of the training pairs chose among restarts as labels would have. Where recognition is uncertain, the ELBO charges for each disagreement of two independent draws: from random starts, encoders collapse on the digits and become certain on the ring. The evidence of the same model keeps several categories, though not all ten, and keeps doubt on the ring where doubt is of use. How much that is worth depends on the prior, from nothing to a sixth of a nat on the ring.
#
# The three numbers of the ring at $\beta = 3$, for the best certain code and for the best training on the evidence:

# %% tags=["reproducible"]
top, bound = ends[3.0]
print(f"best certain code: InfoNCE = ELBO − C = log evidence − C = {elbo:.3f} nats")
print(f"trained on the evidence: InfoNCE = ELBO − C = {bound:.3f},", end=" ")
print(f"log evidence − C = {top:.3f} nats a pair")
assert bound < elbo < top < information

# %% [markdown]
# Next: the losses that you use, each with the prior that it assumes ([lesson 15](15_the_losses_you_use.ipynb)).
