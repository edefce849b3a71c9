# %% [markdown]
# # Start here: one number with three names
#
# Contrastive learning maximises **InfoNCE**. Variational inference maximises the **ELBO**. Statistics maximises the
# **log evidence**. Up to a constant of the data, they are one number, and you will have seen it on your own machine in a minute.
#
# **Afterwards you can** train an encoder with InfoNCE in a few lines; compute the same number as an ELBO and as a log
# evidence, and check that the three agree to rounding; say what changes all three at once; find your way through the lessons.
#
# **You need** PyTorch and basic probability: Bayes' rule, expectation, KL divergence. **Time** 20 minutes, of which the
# computer takes one. **How to read**: run the cells in order with Shift+Enter. A question is followed by its folded
# answer; an exercise checks itself; all numbers are in nats (natural logarithms).
#
# The source of it all is Aitchison and Ganev, *InfoNCE is variational inference in a recognition parameterised model*
# ([arXiv 2107.02495](https://arxiv.org/abs/2107.02495)). Equation numbers such as (E7) are this course's own, and the same everywhere.

# %%
import math

import torch
from tqdm.auto import tqdm

import rpm_tutorial as rpm

device = rpm.setup()

# %% [markdown]
# The next cell looks at your machine. Its last line is the claim of this course, checked on a small random model: $L$ is the ELBO, and $C$ a constant of
# the data.

# %% tags=["nbval-ignore-output"]
print(rpm.self_check())

# %% [markdown]
# ## A pair is two views of one thing
#
# Contrastive learning starts from pairs $(x, x')$ that belong together. Here both come from one handwritten digit, each
# shifted, cropped, and made noisy at random. What the two views share is the digit; what differs is nuisance.

# %%
digits = rpm.datasets.digits()
rng = torch.Generator().manual_seed(0)
x, x_prime = rpm.datasets.two_views(digits.x[1297:], flip=False, generator=rng)  # 500 pairs, held out
rpm.figures.images({"x": x[:12], "x′": x_prime[:12]}, caption="Each column is a pair: two views of one digit.")

# %% [markdown]
# ## A batch of pairs is a table of scores
#
# An **encoder** turns each view into a latent vector, $z$ and $z'$. A **critic** $f(z, z') > 0$ scores how well two
# latents fit; we write $s = \log f$. Ours is the cosine of the two latents over a temperature, $s = \cos(z, z')/0.2$, as in SimCLR and CLIP; lesson 7
# says why it is named after von Mises and Fisher. Rows are $z$, columns are $z'$, and the pairs that belong together lie on the diagonal.

# %%
torch.manual_seed(0)
encoder = rpm.encoders.mlp(inputs=64, dim=16)
critic = rpm.VonMisesFisher(temperature=0.2)
log_f = critic(rpm.encode(encoder, x), rpm.encode(encoder, x_prime)).detach()
print(
    f"log_f has shape {tuple(log_f.shape)}; its diagonal averages {log_f.diagonal().mean():.2f}, the whole table {log_f.mean():.2f}"
)

# %% [markdown]
# InfoNCE asks how much better the right partner scores than a random one. With $N$ pairs,
#
# $$I_N = \frac1N\sum_i \Big[\, s_{ii} - \log \frac1N \sum_j f_{ij} \Big].$$
#
# The first term is the **score**, the second the **log normaliser**.
#
# **Predict**: what is $I_N$ for this untrained encoder, on 500 pairs: negative, about 0, or near $\log 500 = 6.2$?
#
# <details><summary>Answer</summary>
#
# Barely above 0. An untrained encoder keeps a little of what the two views share, so a pair scores slightly better than
# chance. Chance is 0: if all scores are equal, both terms are the same.
# </details>

# %%
before = rpm.infonce(log_f)
print(
    f"InfoNCE = {before.score:.3f} (score) − {before.log_normaliser:.3f} (log normaliser) = {before.value:.3f} nats per pair"
)
assert 0 < before.value < 1.5

# %% [markdown]
# You may know it as a cross-entropy, in which each row has to find its own column. That loss is $\log N - I_N$: it falls to 0 where $-I_N$ falls
# to $-\log N$.

# %%
cross_entropy = torch.nn.functional.cross_entropy(log_f, torch.arange(len(x)))
assert abs(math.log(len(x)) - cross_entropy - before.value) < 1e-5

# %% [markdown]
# ## Training raises the diagonal
#
# One loop does it. It takes an encoder, a critic, and a stream of pairs, and yields a row of numbers a step. The digits
# held out above are not among the pairs.

# %%
pairs = rpm.datasets.view_pairs(digits.x[:1297], batch_size=256, flip=False, seed=0)
log = list(tqdm(rpm.train(encoder, critic, pairs, steps=400), total=400))

# %%
rpm.figures.lines(
    [row.step for row in log],
    {"InfoNCE": [row.value for row in log]},
    ceiling=("log 256", math.log(256)),
    x_label="step",
    y_label="InfoNCE of the batch (nats per pair)",
    caption="InfoNCE rises and flattens below its ceiling, the logarithm of the batch size.",
)

# %% [markdown]
# ## First name: InfoNCE
#
# The number to keep comes from pairs that training has not seen, all 500 of them in one table. From here on we compute
# in float64: an identity deserves to be checked to the last digit.

# %%
critic.double()
z, z_prime = rpm.encode(encoder, x).double(), rpm.encode(encoder, x_prime).double()
log_f = critic(z, z_prime).detach()
infonce = rpm.infonce(log_f).value
print(f"InfoNCE on {len(x)} held-out pairs: {infonce:.4f} nats per pair")
assert infonce > 2, "training should lift InfoNCE well above chance"

# %% [markdown]
# ## Second name: ELBO
#
# A **recognition-parameterised model** (RPM) needs a prior $P(z, z')$ over latents, and uses the encoder, read backwards by
# Bayes' rule, as its likelihood. Lesson 1 builds it. Its ELBO is a sum of five expectations, (E3) in lesson 2. `world.elbo` adds them up for any prior
# and has no line about contrastive learning; that InfoNCE comes out is due to the prior we give it, $P(z_i, z'_j) = \frac1N \cdot \frac1N \cdot f_{ij}/Z_i$
# with $Z_i = \frac1N\sum_j f_{ij}$.
#
# The data set is the 500 pairs, each with probability 1/500. The encoder sends 500 images to 500 different vectors, so number them:
# "latent k" is the vector $z_k$, and the encoder $Q(z|x)$ is a table with a single 1 in each row, `one_each`. Where the vectors lie enters through
# `log_f` alone, and that means through the prior.

# %%
n = len(x)
one_each = torch.eye(n, dtype=torch.float64)
world = rpm.FiniteRPM(p_true=one_each / n, recognition=one_each)
prior = rpm.priors.infonce(log_f, world.q_joint)  # log P(z,z') = log (1/n · 1/n · f / Z)
elbo = world.elbo(prior)
for name, term in elbo._asdict().items():
    if name != "slack":  # for priors that do not sum to one, see lesson 3
        print(f"{name:22} {term:9.4f}")

# %% [markdown]
# Four terms are zero, since every image has a latent to itself: given one, the other is certain, and $\log 1 = 0$. What the model has to say
# is said by the prior. $C = \mathbb E\log P_\text{true}(x) + \mathbb E\log P_\text{true}(x')$ depends on the data alone: no encoder, no critic. Take it away and compare.

# %%
print(f"C          {world.constant:.4f} = −2 log {n}")
print(f"ELBO − C   {elbo.value - world.constant:.4f}")
print(f"InfoNCE    {infonce:.4f}, residual {abs(elbo.value - world.constant - infonce):.1e}")
assert abs(elbo.value - world.constant - infonce) < 1e-11

# %% [markdown]
# The loss that practitioners minimise is minus an evidence lower bound. Nothing was approximated: the residual is rounding.
#
# ## Third name: log evidence
#
# The model also assigns a probability to every pair, $P(x, x')$, by summing over all latents. Its logarithm, averaged over
# the data, is the log evidence: the number by which statisticians compare models. An ELBO lies below it.
#
# **Predict**: by how much, here?
#
# <details><summary>Answer</summary>
#
# By nothing. Our encoder is deterministic: given $x$ it leaves no doubt about $z$, so the bound is tight (E13).
# </details>

# %%
evidence = world.log_evidence(prior)
names = {"InfoNCE": infonce, "ELBO − C": elbo.value - world.constant, "log evidence − C": evidence - world.constant}
assert abs(evidence - elbo.value) < 1e-11
rpm.figures.dots(
    {name: value.item() for name, value in names.items()},
    x_label="nats per pair, C taken away",
    caption="InfoNCE, ELBO and log evidence of the trained encoder on 500 held-out pairs: one number.",
)

# %% [markdown]
# ## What changes one changes all three
#
# The temperature sets how sharp the prior is: low is sharp. Training has learned one, starting from 0.2. Here we vary it, the encoder held
# fixed, and compute the three numbers again, each by its own code.

# %%
temperatures = torch.logspace(-1.5, 0.5, 13, dtype=torch.float64).tolist()
curves = {name: [] for name in names}
for temperature in temperatures:
    log_f = rpm.VonMisesFisher(temperature)(z, z_prime).detach()
    prior = rpm.priors.infonce(log_f, world.q_joint)
    curves["InfoNCE"].append(rpm.infonce(log_f).value.item())
    curves["ELBO − C"].append((world.elbo(prior).value - world.constant).item())
    curves["log evidence − C"].append((world.log_evidence(prior) - world.constant).item())

# %%
best = temperatures[max(range(13), key=lambda k: curves["log evidence − C"][k])]
spread = torch.tensor(list(curves.values()), dtype=torch.float64).std(0).max()
trained = critic.temperature.item()
print(f"largest spread of the three: {spread:.1e} nats; trained temperature {trained:.2f}, best of these {best:.2f}")
assert spread < 1e-11 and best < trained
rpm.figures.lines(
    temperatures,
    curves,
    x_log=True,
    mark=trained,
    x_label="temperature",
    y_label="nats per pair, C taken away",
    caption="Three curves lie on one another. Their peak is the prior that explains the held-out pairs best; dotted, the trained one.",
)

# %% [markdown]
# The best of these temperatures lies below the trained one, which is still falling after 400 steps: watch it in the dashboard below. Choosing a temperature
# by held-out InfoNCE is choosing a prior by its evidence. That sentence is what the identity buys: a design decision of contrastive learning becomes a
# modelling assumption that data can judge.
#
# ## Train one yourself
#
# The next cell makes a new model and trains it for 100 steps. The rest is yours: **Resume** trains on while you read, the sliders
# change the training as it runs, **Stop** saves it, **Reset** begins again. The other cells stay usable meanwhile.

# %%
torch.manual_seed(1)
trainer = rpm.Trainer(
    rpm.encoders.mlp(inputs=64, dim=16),
    rpm.VonMisesFisher(temperature=0.2),
    rpm.datasets.view_pairs(digits.x[:1297], batch_size=256, flip=False, seed=1),
    steps=2000,
)
dashboard = rpm.TrainingDashboard(trainer, x, x_prime, digits.labels[1297:], checkpoint="lesson_00.pt")
dashboard.advance(100)
dashboard

# %% [markdown]
# It draws InfoNCE on the batches, InfoNCE on the held-out pairs, and the accuracy of a **probe**: a logistic regression that reads the digit from $z$.
#
# **Predict**: pause, set the temperature to 2, and resume. Which of the three fall at once, and do they come back?
#
# <details><summary>Answer</summary>
#
# InfoNCE falls, on the batches and on held-out pairs alike: a prior this broad can hardly tell a partner from a stranger, whatever the
# latents are. It comes back slowly, because the temperature is learned; watch its value above the plot. The probe reads the latents
# alone and barely notices: the temperature belongs to the prior, not to the encoder.
# </details>

# %% [markdown]
# ## Find your way
#
# | lesson | you will be able to |
# |---|---|
# | [1 The model](01_the_model.ipynb) | build an RPM from an encoder, without a decoder |
# | [2 The ELBO](02_the_elbo.ipynb) | derive the bound line by line, and say what each line assumes |
# | [3 InfoNCE is the ELBO](03_infonce_is_the_elbo.ipynb) | choose a prior and name the objective it gives |
# | [4 The evidence of a data set](04_the_evidence_of_a_data_set.ipynb) | compute the log evidence of tens of thousands of pairs and sample from the model |
# | [5 Finite batches](05_finite_batches.ipynb) | predict the bias and variance of a batch, and say what its ceiling means |
# | [6 Why not mutual information](06_why_not_mutual_information.ipynb) | ruin a representation without changing its MI, and see the ELBO notice |
# | [7 A prior is an assumption](07_a_prior_is_an_assumption.ipynb) | let the evidence choose a prior, and say when axes can be found |
# | [8 Learning from images](08_learning_from_images.ipynb) | train on images, read the held-out evidence beside the probe, stop and resume |
# | [9 Sequences](09_sequences.ipynb) | read CPC as a chain, and let an encoder find the law of motion |
# | [10 The other RPM](10_the_other_rpm.ipynb) | run exact EM with one shared latent, and let the evidence choose the restart |
# | [11 Your own prior](11_your_own_prior.ipynb) | bring pairs, an encoder and a critic of your own, and let the evidence choose |
#
# `rpm.show_source(...)` shows the code behind any name. The function that trained the network, gave the exact value on 500 pairs, and in
# lesson 3 gives the exact ELBO of a toy world, up to C, is this one:

# %%
rpm.show_source(rpm.infonce)

# %% [markdown]
# ## Exercises
#
# Replace each `...` and run the cell: it tells you at once. Stuck? Call `.hint()`, then `.hint(2)`, `.hint(3)`.
#
# **1.** The dashed line of the training curve is a ceiling. Return the largest value that InfoNCE can have on `n` pairs, in nats (`math.log` is imported).


# %% tags=["exercise"]
def ceiling(n):
    return ...


rpm.lessons.lesson_00.ceiling.check(ceiling)

# %% [markdown]
# **2.** Someone reports the InfoNCE of all `n` pairs of a data set. Return the log evidence per pair.


# %% tags=["exercise"]
def log_evidence(infonce, n):
    return ...


rpm.lessons.lesson_00.log_evidence.check(log_evidence)

# %% [markdown]
# ## Quiz
#
# Open the option that you believe; each explains itself.
#
# **1. On a data set, InfoNCE and the log evidence per pair differ by…**
# <details><summary>the mutual information of the views</summary>No: nothing about the views is needed to convert one into the other. What is needed is how many pairs there are.</details>
# <details><summary>a constant that the data set's size fixes</summary>Yes: 2 log N, which is −C for N distinct pairs. Encoder and critic do not enter.</details>
# <details><summary>the KL gap of the bound</summary>The gap is zero here, because the encoder is deterministic; and the two still differ, by C.</details>
#
# **2. An encoder that maps every image to one point has an InfoNCE of…**
# <details><summary>minus infinity</summary>No: the right partner scores as well as all others, neither better nor worse.</details>
# <details><summary>zero</summary>Yes: all scores are equal, so the score and the log normaliser are the same number. The model then takes x and x′ for independent.</details>
# <details><summary>log N</summary>That is the other end: each x is certain of its partner.</details>
#
# **3. The temperature of the loss is…**
# <details><summary>an optimisation trick without a meaning in the model</summary>It does help optimisation, but it has a meaning: it sets how far P(z′|z) reaches around z.</details>
# <details><summary>part of the prior</summary>Yes: another temperature is another P(z,z′), hence another model, and the evidence compares them.</details>
# <details><summary>part of the likelihood</summary>No: the likelihood is made of the encoder and the data alone, as lesson 1 shows.</details>
#
# ## What we saw
#
# InfoNCE on 500 real pairs, the ELBO of a model, and its log evidence came out equal to rounding, by three separate pieces of code, at
# every temperature. Why this must be so starts with a likelihood that nobody had to write: [lesson 1](01_the_model.ipynb).
