# %% [markdown] tags=["slide"]
# # The other RPM: one shared latent, and EM
#
# Three witnesses have each reported on thousands of events. Nobody says what kind of event each was, and nobody can say how an event turns into
# a report. **Can you find the kinds of events from the reports alone?** In this lesson each kind of event is a *class*, and you find the classes without a
# label and without a decoder.
#
# The model is due to Walker, Soulat, Yu and Sahani ([AISTATS 2023](https://arxiv.org/abs/2209.05661)), who coined the name *recognition-parametrised model*.
# All observations share one latent $z$, and the model is trained by EM (expectation-maximisation) instead of a contrastive loss.
#
# **Afterwards you can** say how this model and the course's model (E1) contain each other; run exact EM in it; say why two
# observations do not determine the classes and three do; train a classifier of digits from pairs without labels.
#
# **You need** [lesson 2](02_the_elbo.ipynb) for the ELBO and [lesson 5](05_the_evidence_of_a_data_set.ipynb) for the evidence; nothing from lessons 6 to 12. **Time** 50 minutes.
# Symbols are in the [notation](../docs/notation.md), words in the [glossary](../docs/glossary.md), objections in the
# [FAQ](../docs/faq.md).
#
# **Whose result is it?** The model (E22), its EM and the training on digits are Walker and co-authors'. The model (E1) is section 3 of
# Aitchison and Ganev's paper ([arXiv 2107.02495](https://arxiv.org/abs/2107.02495)). What two and three observations determine was known for other models of
# hidden classes; the sources stand where they are used. The two cells that compute how the models contain each other are this course's.

# %% [markdown]
# ## The data: one hidden class, several observations
#
# A hidden class $z$ is drawn, one of three, equally often. Given $z$, three observations $x_1, x_2, x_3$ are drawn independently, each from its own distribution $P_\text{true}(x_j|z)$. We see many *triples* $(x_1,x_2,x_3)$, that is, their distribution $P_\text{true}(x_1,x_2,x_3)$; the class is hidden.

# %% tags=["reproducible"]
import itertools
import math

import torch
from torch.nn.functional import one_hot
from tqdm.auto import tqdm

import rpm_tutorial as rpm

rpm.setup()
seed = 0
rng = torch.Generator().manual_seed(seed)
K = 3  # classes
drawn = [torch.randn(x, K, generator=rng, dtype=torch.float64) for x in (6, 5, 4)]
emissions = [(1.5 * table).softmax(0) for table in drawn]  # P_true(x_j|z), columns z
p_triple = torch.einsum("az,bz,cz->abc", *emissions) / K  # P_true(x_1,x_2,x_3)
p_pair = p_triple.sum(2)  # P_true(x_1,x_2)

# %% tags=["reproducible", "slide"]
rpm.figures.tables(
    {f"P_true(x{'₁₂₃'[j]}|z)": emissions[j].T for j in range(3)},
    x_label=("x₁", "x₂", "x₃"),
    y_label="z",
    caption="Each class (row) has its own distributions. They overlap: no x settles z.",
)

# %% [markdown] tags=["slide"]
# ## Two models that contain each other
#
# For $J$ observations and any latent $z$ the model of Walker and co-authors is
#
# $$P(x_1,\dots,x_J, z) = P(z) \prod_{j=1}^J \frac{F_j(z|x_j)\,P_0(x_j)}{F_j(z)}, \qquad F_j(z) = \sum_{x_j} F_j(z|x_j)\, P_0(x_j). \tag{E22}$$
#
# $F_j(z|x_j)$ is a **recognition factor**, what we call an encoder: a distribution over $z$ for each $x_j$. $P_0(x_j)$ is the data's own distribution of $x_j$, which we have called $P_\text{true}(x_j)$.
# Each fraction is the likelihood (E2) of lesson 1: Bayes' rule turns an encoder into $P(x_j|z)$, and nobody writes a decoder. $P(z)$ is the prior.
#
# The latent may have any structure. Take the two latents of (E1) together, as one latent $(z,z')$ with prior $P(z,z')$, and let each factor say something about its own part only:
# $F_1(z,z'|x) = Q(z|x)\,u(z')$ and $F_2(z,z'|x') = u(z)\,Q(z'|x')$, with any fixed distribution $u$. Then $F_1(z,z') = Q(z)\,u(z')$, so that $u$ cancels in the fraction, and (E22) becomes (E1).

# %% tags=["reproducible", "slide"]
start = rpm.SharedLatentRPM.random(p_pair, K, seed=seed)  # two random factors
ours = rpm.FiniteRPM(p_pair, *start.factors)  # (E1), with the factors as its encoders
log_f = torch.randn(K, K, generator=rng, dtype=torch.float64)
log_prior = rpm.priors.infonce(log_f, ours.q_joint)  # log P(z,z') of some critic
u = torch.ones(K, dtype=torch.float64) / K
F_1 = torch.einsum("xz,w->xzw", start.factors[0], u)  # F_1(z,z'|x) = Q(z|x) u(z')
F_2 = torch.einsum("xw,z->xzw", start.factors[1], u)  # F_2(z,z'|x') = u(z) Q(z'|x')
factors = [F_1.flatten(1), F_2.flatten(1)]  # nine values of the one latent (z,z')
theirs = rpm.SharedLatentRPM(p_pair, factors, log_prior.exp().flatten())  # (E22)
residual = (ours.log_p(log_prior) - theirs.log_p).abs().max()
print(f"(E1) as an instance of (E22): log P(x,x′) agrees to {residual:.1e}")
assert residual < 1e-12

# %% [markdown]
# In the other direction, give the prior of (E1) no mass where $z$ and $z'$ differ: $P(z,z') = P(z)$ if $z' = z$, and 0 otherwise. The two latents are then *tied*.
# They are one shared latent, and (E1) becomes (E22) with $J = 2$. Both models give every pair the same probability, and have the same constant $C$.

# %% tags=["reproducible"]
diagonal = start.prior.diag().log()  # log P(z,z'): -inf unless z' = z
residual = (ours.log_p(diagonal) - start.log_p).abs().max()
print(f"(E22) as (E1) with tied latents: log P(x₁,x₂) agrees to {residual:.1e}")
of_ours, of_theirs = ours.log_evidence(diagonal), start.log_evidence
print(f"log evidence {of_ours:.6f} = {of_theirs:.6f} nats", end=", ")
print(f"C = {ours.constant:.6f} = {start.constant:.6f} nats")
assert residual < 1e-12 and abs(ours.constant - start.constant) < 1e-12

# %% [markdown] tags=["slide"]
# ## A tied pair needs a joint posterior
#
# The ELBO of lesson 2 (E3) replaces the posterior by a product, $Q(z|x)\,Q(z'|x')$.
#
# **Predict**: what is the value of that ELBO if the latents are tied?
#
# <details><summary>Answer</summary>
#
# Minus infinity. A product of two uncertain encoders gives some probability to $z' \ne z$, where the prior has none. Only two encoders that are certain, and agree on every
# pair, would escape.
# </details>
#
# So the shared latent gets one posterior given *all* observations, $q(z|x_1,\dots,x_J)$, and the bound is
#
# $$\mathbb E \log P(x_1,\dots,x_J) \;\ge\; \mathbb E\big[\log P(x_1,\dots,x_J,z) - \log q(z|x_1,\dots,x_J)\big],$$
#
# with the mean over the data and over $q$. It falls short by the KL of $q$ to the model's own posterior $P(z|x_1,\dots,x_J)$. That posterior can be computed, so we take it as $q$:
#
# $$q(z|x_1,\dots,x_J) \propto P(z)\prod_j \frac{F_j(z|x_j)}{F_j(z)}.$$
#
# It is a product of tables, divided by its sum over $z$. Computing it is the **E-step** of EM.

# %% tags=["reproducible", "slide"]
q = start.posterior  # the E-step: q(z|x_1,x_2), shape (6, 5, 3)
guess = torch.rand(q.shape, generator=rng, dtype=torch.float64)
guess = guess / guess.sum(-1, keepdim=True)  # any other q
gap = (p_pair[..., None] * guess * (guess / q).log()).sum()  # its KL to the posterior
print(f"product of encoders (E3) {ours.elbo(diagonal).value:.3f}")
print(f"a guessed q {start.elbo(guess):.6f}, of which the KL is {gap:.6f}")
print(f"the E-step's q {start.elbo(q):.6f}, log evidence {start.log_evidence:.6f} nats")
assert ours.elbo(diagonal).value == -math.inf
assert abs(start.elbo(q) - start.log_evidence) < 1e-12
assert abs(start.log_evidence - start.elbo(guess) - gap) < 1e-12

# %% [markdown] tags=["slide"]
# ## EM can only climb
#
# The **M-step** keeps $q$ and improves the model. For tables the best model is found by counting each data point with the weight $q(z|x_1,\dots,x_J)$, as if the class were seen that often. So it has a closed form: each factor becomes the mean posterior given its observation, and the prior becomes the mean posterior,
#
# $$F_j(z|x_j) \leftarrow \mathbb E\big[q(z|x_1,\dots,x_J)\,\big|\,x_j\big], \qquad P(z) \leftarrow \mathbb E\,q(z|x_1,\dots,x_J).$$
#
# The E-step lifts the bound to the evidence. The M-step lifts the bound further, and the evidence lies above the bound. So the evidence never falls.
#
# How far can it rise? As in (E23), log evidence − $C$ is at most what the observations share, with $C = \sum_j \mathbb E\log P_0(x_j)$. For two observations that is their mutual information;
# for more it is their **total correlation**, the sum of their entropies less the entropy of all.

# %% tags=["reproducible", "slide"]
model, path, gaps = rpm.SharedLatentRPM.random(p_triple, K, seed=seed), [], []
for _ in range(100):
    q = model.posterior  # E-step
    path.append((model.log_evidence - model.constant).item())
    gaps.append((model.log_evidence - model.elbo(q)).abs().item())
    model = model.m_step(q)  # M-step
ceiling = model.total_correlation.item()
rises = [after - before for before, after in zip(path, path[1:])]
print(f"log evidence − C from {path[0]:.4f} to {path[-1]:.4f} of {ceiling:.4f} nats")
print(f"smallest rise {min(rises):.1e}, largest gap after an E-step {max(gaps):.1e}")
assert min(rises) > -1e-12 and max(gaps) < 1e-12 and path[-1] < ceiling + 1e-12

# %% tags=["reproducible"]
rpm.figures.lines(
    range(1, 101),
    {"log evidence − C": path},
    ceiling=("total correlation", ceiling),
    x_log=True,
    x_label="EM step",
    y_label="nats per triple",
    caption="The evidence rises at every step, towards what the observations share.",
)

# %% [markdown] tags=["slide"]
# With a table for each $F_j$ this is EM for *latent class analysis*, which is decades older (Goodman, 1974). The recognition factors matter
# once $x_j$ is an image: then $F_j$ is a network, and there is still no decoder.
#
# ## Two observations do not determine the classes
#
# A model that reaches the ceiling gives the data distribution exactly: the KL in (E23) is zero. Does it have the true classes, too? Take pairs $(x_1,x_2)$ and the true factors, $F_j(z|x_j) = P_\text{true}(z|x_j)$. Blur one factor
# and sharpen the other by the same amount $\varepsilon$:
#
# $$F_1' = (1-\varepsilon)\, F_1 + \varepsilon/K, \qquad F_2' = (F_2 - \varepsilon/K)/(1-\varepsilon).$$
#
# **Predict**: by how much does the evidence of the pairs fall?
#
# <details><summary>Answer</summary>
#
# It does not fall. Write the pairs as a product of matrices, $P(x_1,x_2) = A\,D\,B^\top$: the columns of $A$ are $P(x_1|z)$, those of $B$ are $P(x_2|z)$, and the diagonal matrix $D$ has the class frequencies. Any invertible $M$ can be slipped in between,
# $(AM)(M^{-1}DB^\top)$. If both parts stay non-negative, they are another model of the same pairs. The blurring is such an $M$.
# </details>

# %% tags=["reproducible", "slide"]
F_1, F_2, F_3 = (a / a.sum(1, keepdim=True) for a in emissions)  # the true F_j(z|x_j)
eps = 0.9 * K * F_2.min()  # beyond K * F_2.min(), F_2' has a negative entry
blurred, sharpened = (1 - eps) * F_1 + eps / K, (F_2 - eps / K) / (1 - eps)
true = rpm.SharedLatentRPM(p_pair, [F_1, F_2])
moved = rpm.SharedLatentRPM(p_pair, [blurred, sharpened])
differ = (true.log_p - moved.log_p).abs().max()
print(f"ε = {eps:.3f}: F₁ moved by up to {(F_1 - blurred).abs().max():.3f}", end=", ")
print(f"log P(x₁,x₂) by {differ:.1e}")
reached, shared = moved.log_evidence - moved.constant, moved.total_correlation
print(f"log evidence − C is {reached:.6f} of {shared:.6f} nats")
assert differ < 1e-12 and abs(reached - shared) < 1e-12
assert (F_1 - blurred).abs().max() > 0.01

# %% [markdown] tags=["slide"]
# Maximum likelihood has a whole family of answers here. More pairs do not help, because all these answers explain the pairs equally well.
#
# ## Three observations do
#
# With a third observation the classes can be read off the data, without any EM. Give each value of $x_3$ a weight $w(x_3)$, and sum $x_3$ out. With $G$ for the matrix $P(x_3|z)$, and $T_1$ for the case in which every weight is 1,
#
# $$T_w = \sum_{x_3} w(x_3)\,P(x_1,x_2,x_3) = A\,D\,\mathrm{diag}(G^\top w)\,B^\top, \qquad T_1 = A\,D\,B^\top.$$
#
# Divide one by the other, with $^+$ for the pseudo-inverse, and $D$ and $B$ are gone:
#
# $$T_w\, T_1^{+} = A\,\mathrm{diag}(G^\top w)\,A^{+}.$$
#
# So the columns of $A$, the distributions $P(x_1|z)$, are the $K$ eigenvectors with non-zero eigenvalue of a matrix of the data, each scaled to sum to one. Their order stays unknown. This needs $A$ and $B$ of rank $K$, the number of classes, and entries of $G^\top w$ that all differ: for random $w$ they do,
# unless two classes have the same $P(x_3|z)$. (Three views suffice by a theorem of Kruskal, 1977; the eigenvectors are due to Leurgans, Ross and Abel, 1993.)

# %% tags=["reproducible", "slide"]
def in_order(found):
    """Columns P(x_1|z) in the order of the true classes that they are closest to."""
    return found[:, rpm.probes.match(-torch.cdist(emissions[0].T, found.T, p=1))]


w = torch.rand(4, generator=rng, dtype=torch.float64)
T_w, T_1 = p_triple @ w, p_pair
values, vectors = torch.linalg.eig(T_w @ torch.linalg.pinv(T_1, rtol=1e-10))
A = vectors[:, values.abs().argsort(descending=True)[:K]].real  # the other three are 0
A = in_order(A / A.sum(0))  # a distribution over x_1 for each z
error = (A - emissions[0]).abs().max()
true = rpm.SharedLatentRPM(p_triple, [F_1, F_2, F_3])
moved = rpm.SharedLatentRPM(p_triple, [blurred, sharpened, F_3])
cost = true.log_evidence - moved.log_evidence
print(f"P(x₁|z) recovered from triples to {error:.1e}")
print(f"on triples the blurred model is {cost:.4f} nats worse than the true one")
assert error < 1e-8 and cost > 0.001

# %% [markdown] tags=["slide"]
# ## EM finds what the data determine, and no more
#
# Now we run EM on pairs and on triples, from three random starts each. We measure how far its classes are off by the total variation $\tfrac12\sum_{x_1}|P(x_1|z) - P_\text{true}(x_1|z)|$ of
# the worst class: 0 is perfect, 1 is as wrong as can be.
#
# **Predict**: all six runs come within a thousandth of their ceiling. How far off are their classes?
#
# <details><summary>Answer</summary>
#
# On triples hardly at all, from every start. On pairs it depends on the start: from one start they are close, from another off by more than a quarter. The evidence of the pairs cannot tell these apart.
# </details>

# %%
def em_path(p_true, start):
    """After 1, 2, 4, ... 1024 steps: log evidence - C over its ceiling; P(x_1|z)."""
    model, path = rpm.SharedLatentRPM.random(p_true, K, seed=start), []
    for step in range(1, 1025):
        model = model.m_step(model.posterior)
        if math.log2(step).is_integer():
            share = (model.log_evidence - model.constant) / model.total_correlation
            found = model.factors[0] * model.p_x[0][:, None] / model.f_z[0]
            path.append((share.item(), in_order(found)))
    return path


# %% tags=["reproducible", "slide"]
paths = {"pairs": [], "triples": []}
for name, start in tqdm([*itertools.product(paths, range(3))], leave=False):
    paths[name].append(em_path({"pairs": p_pair, "triples": p_triple}[name], start))
off = {}
for name, runs in paths.items():
    ends = [(a - emissions[0]).abs().sum(0).max().item() / 2 for (*_, (_, a)) in runs]
    shares = [share for (*_, (share, _)) in runs]
    off[name] = torch.tensor(ends)
    print(f"EM on {name:7} reaches {min(shares):.4f} of its ceiling, rounded;", end=" ")
    print("classes are off by", ", ".join(f"{value:.3f}" for value in ends))
    assert min(shares) > 0.999
assert off["triples"].max() < 0.01 and off["pairs"].max() > 0.25

# %% [markdown]
# In the widget you choose what EM sees, its start, and the number of its steps. From start 2, EM on pairs ends farthest from the true classes.

# %% tags=["slide"]
rpm.explore(rpm.lessons.lesson_13.classes(emissions[0], paths))

# %% [markdown] tags=["slide"]
# ## Pairs are nearly enough where classes hardly overlap in both observations
#
# Every move $M$ has a limit: no entry may become negative. Take the simplest kind of move, which mixes a share $\varepsilon$ of class $i$ into class $j$ (class $j$ *borrows* from class $i$): column $j$ of $A$ becomes
# $(1-\varepsilon)A_j + \varepsilon A_i$. To keep the pairs as they are, what stands beside $A_i$ in the product, $D_iB_i$, has to become $D_iB_i - \frac{\varepsilon}{1-\varepsilon}D_jB_j$, with $D_i$ the frequency of class $i$ and $B_i$ its column of $B$. That must not be negative.
# For equally frequent classes the largest possible $\varepsilon$ therefore satisfies
#
# $$\frac{\varepsilon}{1-\varepsilon} = \min_{x_2} \frac{P(x_2|i)}{P(x_2|j)}.$$
#
# If some $x_2$ occurs in class $j$ and never in class $i$, this is zero, and class $j$ can borrow nothing. The mirror move, in which the classes of $x_2$ borrow, has the same limit with $x_1$ in the place of $x_2$. So both observations have to be clear. The cell makes $x_2$ clearer step by step, and prints the limit for the two classes between which most can be borrowed. Its last line is the limit of the mirror move, which stays the same, as $x_1$ does.

# %% tags=["reproducible", "slide"]
own = torch.eye(K, dtype=torch.float64)[torch.arange(5) % K]  # a class for each x₂
own, limits = own / own.sum(0), []
for clear in (0, 0.5, 0.9, 0.99):
    B = (1 - clear) * emissions[1] + clear * own
    pairs_of_classes = itertools.permutations(range(K), 2)
    ratio = max((B[:, i] / B[:, j]).min() for i, j in pairs_of_classes).item()
    limits.append(ratio / (1 + ratio))
    print(f"x₂ has a value of its class's own in {clear:3.0%} of cases:", end=" ")
    print(f"a class can borrow at most ε = {limits[-1]:.4f}")
A, pairs_of_classes = emissions[0], itertools.permutations(range(K), 2)
mirror = max((A[:, i] / A[:, j]).min() for i, j in pairs_of_classes).item()
print(f"the mirror move, as x₁ stays what it is: ε = {mirror / (1 + mirror):.4f}")
assert mirror > 0.05
assert limits == sorted(limits, reverse=True) and limits[-1] < 0.01

# %% [markdown] tags=["slide"]
# Images of digits are of this kind: each image alone shows its class. So we may hope to learn digits from pairs.
#
# ## Peer supervision: digits from pairs, without labels
#
# Nobody tells us which digit an image shows. All we get are pairs of different images of the same digit; Walker and co-authors call this *peer supervision*. (To know that two images show the same digit is a hint. It is weaker than a label, because it does not say which digit. That there are ten digits is our assumption.) One network $F(z|x)$ with ten categories encodes both images. It has to find out what they have in common. The evidence less $C$ is at most $\log 10$: ten categories hold no more.


# %% tags=["reproducible", "slide"]
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


pairs = Pairs(seed)
rows = {"x": pairs.x[:10], "x′": pairs.x_prime[:10]}
rpm.figures.images(rows, caption="Ten training pairs: a column shows one digit twice.")

# %% [markdown]
# Twelve networks from twelve random starts are trained side by side: `torch.func` stacks their parameters, and one call evaluates all of them. `log_joint` is (E22) with a
# uniform $P(z)$, in logarithms and less $C$; its log-sum-exp over $z$, averaged over the pairs, is the log evidence less $C$.


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
def log_joint(f, f_prime):
    """log P(x,x',z) - log P_0(x) P_0(x'), (R, n, 10), from log F(z|x) of n pairs."""
    n, categories = f.shape[1:]
    aggregate = [side.logsumexp(1, keepdim=True) - math.log(n) for side in (f, f_prime)]
    return -math.log(categories) + f - aggregate[0] + f_prime - aggregate[1]


def evidence(f, f_prime):
    """log evidence - C of each network, (R,): the sum over z inside the logarithm."""
    return log_joint(f, f_prime).logsumexp(2).mean(1)


# %% [markdown]
# What is the M-step of a network? There is no closed form, so we take one gradient step on the bound, with $q$ held fixed. Right after an E-step this gradient *equals* the gradient of the evidence: the two differ by a KL, which is zero there, so at its minimum, and its gradient is zero too. So a training on the evidence is EM, with one gradient step as its M-step. (Our training takes AdamW's steps, each on a batch of 256 with the batch's own $F(z)$. So, unlike in EM on tables, the evidence may also fall.) The cell checks this, and that the function agrees with the library's tables (a data set of $n$ pairs is a table with $1/n$ on its diagonal, as in lesson 5).

# %% tags=["reproducible"]
weights = {k: v.detach().double().requires_grad_() for k, v in starts(1, seed).items()}
f, f_prime = (log_F(weights, x[:200].double()) for x in (pairs.x, pairs.x_prime))
table = torch.eye(200, dtype=torch.float64) / 200
table = rpm.SharedLatentRPM(table, [f[0].exp(), f_prime[0].exp()])
residual = abs(table.log_evidence - table.constant - evidence(f, f_prime)[0])
joint = log_joint(f, f_prime)
q = joint.softmax(2).detach()  # the E-step, then held fixed
bound = (q * (joint - q.log())).sum(2).mean()
of_bound = torch.autograd.grad(bound, weights.values(), retain_graph=True)
of_evidence = torch.autograd.grad(evidence(f, f_prime).sum(), weights.values())
difference = max((a - b).abs().max().item() for a, b in zip(of_bound, of_evidence))
print(f"evidence of networks and of tables: {residual:.1e} nats apart")
print(f"gradients of bound and of evidence: {difference:.1e} apart")
assert residual < 1e-12 and difference < 1e-12

# %% [markdown] tags=["slide"]
# **Predict**: a category has no name, so we match categories with digits one to one, by the labels of test images, and count how many images then agree. How many of the twelve networks agree with more than nine labels in ten?
#
# <details><summary>Answer</summary>
#
# About half of them, or more. The others have a lower agreement, as if two digits shared a category and one digit took two: the widget of lesson 14 shows it.
# </details>

# %%
weights = starts(12, seed)
optimizer = torch.optim.AdamW(weights.values(), lr=1e-2, weight_decay=1e-3)
for _ in tqdm(range(200), leave=False):
    batch = torch.randint(len(pairs.x), (256,), generator=pairs.rng)
    both = log_F(weights, torch.cat([pairs.x[batch], pairs.x_prime[batch]]))
    optimizer.zero_grad()
    (-evidence(*both.chunk(2, dim=1)).sum()).backward()  # E-step and M-step in one
    optimizer.step()

# %% tags=["slide"]
def agreement(chosen, labels):
    """The share of images whose category is their digit's, matched one to one."""
    counts = one_hot(labels, 10).float().T @ one_hot(chosen, 10).float()
    return (counts[:, rpm.probes.match(counts)].trace() / counts.sum()).item()


with torch.no_grad():
    chosen = log_F(weights, pairs.x_test).argmax(2)
found = sorted(agreement(one, pairs.labels_test) for one in chosen)
print("agreement with the labels:", ", ".join(f"{share:.2f}" for share in found))
print(f"{sum(share > 0.9 for share in found)} of 12 networks found the ten digits")
assert found[-1] > 0.93 and found[0] < 0.9  # nine seeds: best .95-.98, worst < .9

# %% [markdown] tags=["slide"]
# The best networks classify digits that nobody ever named. This score needs labels. Without them, how would you know which of the twelve to keep? The training pairs can tell: see [lesson 14](14_elbo_against_evidence.ipynb).
#
# ## The two models side by side
#
# | | Aitchison and Ganev (E1) | Walker et al. (E22) |
# |---|---|---|
# | likelihood | Bayes' rule from $Q(z\|x)$, no decoder | the same, from $F_j(z\|x_j)$ |
# | latents, as a rule | one for each observation, joined by $P(z,z')$ | one for all, with $P(z)$ |
# | variational posterior | the encoders themselves, $Q(z\|x)Q(z'\|x')$ | a posterior given all observations, $q(z\|x_1,\dots,x_J)$ |
# | what cancels in the ELBO | the encoders' densities (E4) | nothing; the bound equals the evidence after each E-step |
# | what you choose | the prior: critic and normaliser | the kind of latent, and the factors |
#
# ## Exercises
#
# **1.** The E-step for $n$ pairs. From `prior` (Z,), the factors `f` and `f_prime` (n, Z) at the observed $x$ and $x'$, and their aggregates `f_z` and `f_prime_z` (Z,), return the posterior $q(z|x,x')$, shape (n, Z).


# %% tags=["exercise"]
def posterior(prior, f, f_prime, f_z, f_prime_z):
    return ...


rpm.lessons.lesson_13.posterior.check(posterior)

# %% [markdown] tags=["slide"]
# **2.** The M-step. From `p_true` (X, X′) and `q` (X, X′, Z), return the new factor $F_1(z|x)$, shape (X, Z).


# %% tags=["exercise"]
def m_step(p_true, q):
    return ...


rpm.lessons.lesson_13.m_step.check(m_step)

# %% [markdown] tags=["slide"]
# ## Quiz
#
# **1. The ELBO (E3) with tied latents is −∞ because…**
# <details><summary>the model (E22) is no special case of (E1)</summary>It is one: with tied latents both give every pair the same probability, as the second check shows.</details>
# <details><summary>the product Q(z|x)Q(z′|x′) puts mass where the prior has none</summary>Yes. The model is fine, the product is not.</details>
# <details><summary>the evidence is −∞</summary>It is finite: it sums over the diagonal only, where the prior has its mass.</details>
#
# **2. EM on pairs reaches its ceiling, the mutual information I_true(x₁;x₂). Then its factors…**
# <details><summary>are the true ones, up to the names of the classes</summary>Only if the classes hardly overlap. Otherwise blur can be moved from one factor to the other at no cost.</details>
# <details><summary>model the pairs perfectly, and may still not be the true ones</summary>Yes. A third observation would settle it.</details>
# <details><summary>must be certain of the class</summary>The true factors of this lesson's world are uncertain, and reach the ceiling.</details>
#
# **3. In peer supervision, what does the model know that an unlabelled set of images does not say?**
# <details><summary>the digit of some images</summary>It never sees one. Its categories have no names, and labels only score them.</details>
# <details><summary>which two images show the same digit, and that there are ten</summary>Yes. The pairs are the supervision, and the number of categories is our assumption.</details>
# <details><summary>what a digit looks like</summary>That would be a decoder, P(x|z) as pixels. Here Bayes' rule makes the likelihood from F(z|x) and the images.</details>
#
# ## What we saw
#
# The kinds of events can be found from the reports alone, up to their names: if there are three reports of each, and the classes differ enough in them; or, nearly, from two if each of the two alone leaves little doubt. The model that finds them has the course's
# likelihood and one shared latent. EM trains it, because a posterior given all observations is a product of tables, and then the bound *is* the evidence.
#
# The three numbers of this world, for pairs: the ELBO (E3) of tied latents is minus infinity. So is InfoNCE with the critic $f=[z=z']$ (1 if equal, 0 if not), because here $P(z) = Q(z)$ and the tied prior is the one of (E7). The bound with a joint posterior and the log evidence agree.

# %% tags=["reproducible"]
best = rpm.SharedLatentRPM(p_pair, [F_1, F_2])
bound, top = (v - best.constant for v in (best.elbo(best.posterior), best.log_evidence))
tied = rpm.FiniteRPM(p_pair, F_1, F_2).elbo(best.prior.diag().log()).value
print(f"ELBO (E3) − C {tied:.0f}; after an E-step {bound:.4f}", end=", ")
print(f"log evidence − C {top:.4f} nats a pair")
assert tied == -math.inf and abs(bound - top) < 1e-12

# %% [markdown]
# Elsewhere the ELBO is finite, and still not the evidence. Which of the two should you train? [Lesson 14](14_elbo_against_evidence.ipynb).
