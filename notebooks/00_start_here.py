# %% [markdown]
# # Start here: one number with three names
#
# You train an encoder on pairs with a contrastive loss, and the screen says **5.1 nats**. Nats *of what*? Is that good? Is it stuck at
# $\log N$, or is there more to learn? And what did you assume about your data when you set the temperature to 0.1?
#
# These are questions about a model, and the loss has one. Lesson 0 finds it on your own machine, in a minute of computing.
#
# **Afterwards you can** say what a nat of InfoNCE is; train an encoder with InfoNCE in a few lines; compute the same number as an ELBO and as a
# log evidence, and say when the three agree; tell which part of it pays for classes and which for single images; find your way through the lessons.
#
# **You need** PyTorch and basic probability: Bayes' rule, expectation, KL divergence. **Time** 25 minutes, of which the
# computer takes one. **How to read**: run the cells in order with Shift+Enter. A question is followed by its folded
# answer; an exercise checks itself; all numbers are in nats (natural logarithms: $\log 2$ nats are one bit).
#
# The source of it all is Aitchison and Ganev, *InfoNCE is variational inference in a recognition parameterised model*
# ([arXiv 2107.02495](https://arxiv.org/abs/2107.02495)). Equation numbers such as (E7) are this course's own, and the same everywhere. Beside the lessons stand
# the [notation](../docs/notation.md), a [glossary](../docs/glossary.md), [questions and answers](../docs/faq.md), and [what goes beyond the paper](../docs/new.md).

# %%
import math

import torch
from tqdm.auto import tqdm

import rpm_tutorial as rpm

device = rpm.setup()
rpm.figures.three_names()

# %% [markdown]
# **The claim.** Contrastive learning maximises **InfoNCE**. Variational inference maximises the **ELBO** of a model. Statistics maximises the **log
# evidence**, the log probability that the model gives to the data. Let $C$ be a constant of the data that no encoder and no critic can change.
#
# - InfoNCE *is* the ELBO less $C$: always.
# - The ELBO lies below the log evidence, and equals it when every $x$ leaves no doubt about its $z$. A deterministic network leaves none.
#
# So for the encoders that most people train, the three are one number. The paper proves it for infinitely many candidates; that it holds on any data
# set, for any $N$, is this course's addition.
#
# The next cell looks at your machine. Its last line checks the first half of the claim on a small random model: $L$ is the ELBO.

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
# latents fit; we write $s = \log f$. Ours is the cosine of the two latents over a temperature, $s = \cos(z, z')/0.2$, as in SimCLR and CLIP; lesson 8
# says why it is named after von Mises and Fisher. Rows are $z$, columns are $z'$, and the pairs that belong together lie on the diagonal.

# %%
torch.manual_seed(0)
encoder = rpm.encoders.mlp(inputs=64, dim=16)
critic = rpm.VonMisesFisher(temperature=0.2)
log_f = critic(rpm.encode(encoder, x), rpm.encode(encoder, x_prime)).detach()
pairs_alone, everything = log_f.diagonal().mean(), log_f.mean()
print(f"log_f has shape {tuple(log_f.shape)}; its diagonal averages")
print(f"{pairs_alone:.2f}, the whole table {everything:.2f}")

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
# in float64: an identity deserves to be checked to the last digit. The function that trained the network gives this value too, and in lesson 3 the exact
# ELBO of a toy world, up to $C$; its code stands below the value.

# %%
critic.double()
z, z_prime = rpm.encode(encoder, x).double(), rpm.encode(encoder, x_prime).double()
log_f = critic(z, z_prime).detach()
infonce = rpm.infonce(log_f).value
print(f"InfoNCE on {len(x)} held-out pairs: {infonce:.4f} nats per pair")
assert infonce > 2, "training should lift InfoNCE well above chance"
rpm.show_source(rpm.infonce)  # shows the code behind any name

# %% [markdown]
# ## Second name: ELBO
#
# A **recognition-parameterised model** (RPM) needs a prior $P(z, z')$ over latents, and uses the encoder, read backwards by
# Bayes' rule, as its likelihood. Lesson 1 builds it. Its ELBO is a sum of five expectations, (E3) in lesson 2. `world.elbo` adds them up for any prior
# and has no line about contrastive learning; that InfoNCE comes out is due to the prior we give it, $P(z_i, z'_j) = \frac1N \cdot \frac1N \cdot f_{ij}/Z_i$
# with $Z_i = \frac1N\sum_j f_{ij}$.
#
# The data set is the 500 pairs, each with probability 1/500: that distribution is called $P_\text{true}(x, x')$. The encoder sends 500 images to 500 different vectors, so number them:
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
# is said by the prior. The constant $C = \mathbb E\log P_\text{true}(x) + \mathbb E\log P_\text{true}(x')$ depends on the data alone: no encoder, no critic. Take it away and compare.

# %%
print(f"C          {world.constant:.4f} = −2 log {n}")
print(f"ELBO − C   {elbo.value - world.constant:.4f}")
print(f"InfoNCE    {infonce:.4f}, residual {abs(elbo.value - world.constant - infonce):.1e}")
assert abs(elbo.value - world.constant - infonce) < 1e-11

# %% [markdown]
# The loss that practitioners minimise is minus an evidence lower bound. Nothing was approximated: the residual is rounding.
#
# ## Isn't this circular?
#
# The encoder was an identity table, four terms were zero, and we typed the prior in. Of course InfoNCE came out. What was there to find?
#
# - *The prior is a distribution.* Its $N^2$ probabilities sum to one, with nothing left over: that is what the $1/N$ and the $Z_i$ are for. Another normaliser gives another
#   distribution, or none, and another number: the next cell tries two.
# - *Nobody wrote a decoder.* The likelihoods $P(x|z)$ are proper distributions over images all the same (lesson 1).
# - *The data term is a constant.* An ELBO contains $\log P(x|z)$, and so the unknown density of images. It leaves as $C$ (lesson 2), also when the encoder is no
#   identity table: the next section ends with one that leaves doubt.
#
# One thing really is circular, and you should know it. $P_\text{true}$ and the candidates come from the pairs that are evaluated. Ten pairs and 40 000 pairs are two models
# with two constants, so their numbers cannot be compared: compare models on the same pairs.

# %%
one_Z = rpm.priors.donsker_varadhan(log_f, world.q_joint)  # one Z for all z
other = world.elbo(one_Z).value - world.constant
no_Z = log_f - 2 * math.log(n)
print(f"one Z for all: Σ P(z,z′) = {one_Z.exp().sum():.4f}, ELBO − C = {other:.4f}")
print(f"no Z at all:   Σ P(z,z′) = {no_Z.exp().sum():.4f}")
assert other < infonce - 0.01 and no_Z.exp().sum() > 2

# %% [markdown]
# One normaliser for all $z$ is another prior, hence another model, with a lower ELBO on these pairs; lesson 3 knows its name. Without a normaliser there is no distribution, no
# model, and nothing that a bound could bound.
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
# An encoder that leaves doubt keeps the first equality and loses the second. Here is one: six values of $x$, three of $z$, and $Q(z|x)$ spread over
# them. InfoNCE is now an expectation over $z$ and $z'$, too. The evidence is larger than both by a KL divergence that lesson 2 computes.

# %% tags=["reproducible"]
soft = rpm.FiniteRPM.ring(coupling=3.0, sharpness=3.0)
scores = torch.eye(3, 4, dtype=torch.float64)
soft_prior = rpm.priors.infonce(scores, soft.q_joint)
soft_infonce = rpm.infonce(scores, soft.q_joint).value
soft_elbo = soft.elbo(soft_prior).value - soft.constant
soft_evidence = soft.log_evidence(soft_prior) - soft.constant
print(f"InfoNCE {soft_infonce:.4f} = ELBO − C {soft_elbo:.4f}")
print(f"log evidence − C {soft_evidence:.4f}")
assert abs(soft_infonce - soft_elbo) < 1e-12 and soft_elbo < soft_evidence - 1e-3

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
    caption="Three curves lie on one another. Their peak is the prior that explains "
    "the held-out pairs best; dotted, the trained one.",
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
# ## Twice the evidence: what does the probe do?
#
# **Predict**: let the dashboard run to its last step. The held-out InfoNCE doubles between step 100 and step 2 000. What does the probe do, and why?
#
# <details><summary>Answer</summary>
#
# It hardly moves. A probe asks for the class, and the class is soon paid for: ten classes are worth $\log 10 = 2.30$ nats at most. What comes after that tells apart
# images of one class, which no probe asks for.
# </details>
#
# An exact identity says why. For any label $c$ of a pair, here the digit, knowing $x'$ includes knowing its label, so
#
# $$\log P(x'|x) = \log P(c|x) + \log P(x'|x, c). \tag{E24}$$
#
# Average it over the pairs and subtract from each term its value at chance. Then InfoNCE is **label nats** plus **instance nats**: what the model knows of the class, at most
# 2.30 nats, and what it knows of the image within its class. `rpm.label_evidence` computes both. The next cell repeats the dashboard's training in one go.

# %%
torch.manual_seed(1)
again = rpm.Trainer(
    rpm.encoders.mlp(inputs=64, dim=16),
    rpm.VonMisesFisher(temperature=0.2),
    rpm.datasets.view_pairs(digits.x[:1297], batch_size=256, flip=False, seed=1),
    steps=2000,
)
labels, split = digits.labels[1297:], {}
order = labels.argsort(stable=True)
fit, new = order[::2], order[1::2]  # two halves with as many of each digit
for row in tqdm(again, total=2000):
    if row.step in (100, 200, 400, 700, 1000, 1500, 2000):
        z, z_prime = rpm.encode(again.encoder, x), rpm.encode(again.encoder, x_prime)
        probe = rpm.probes.linear_probe(z[fit], labels[fit], z_prime[new], labels[new])
        split[row.step] = rpm.label_evidence(z, z_prime, again.critic, labels), probe

# %%
for step in (100, 400, 2000):
    nats, probe = split[step]
    parts = f"{nats.label:.2f} label + {nats.instance:.2f} instance"
    print(f"step {step:4}: {parts} = {nats.infonce:.2f} nats; probe {probe:.2f}")
first, middle, last = (split[step] for step in (100, 400, 2000))
assert last[0].infonce > 1.9 * first[0].infonce  # five seeds: 2.4-2.5, then 5.0-5.1
assert abs(last[1] - first[1]) < 0.08  # five seeds: 0.80 to 0.83, then 0.80 to 0.84
gained = [last[0].label - middle[0].label, last[0].instance - middle[0].instance]
assert 2 * gained[0] < gained[1] and last[0].label < math.log(10)  # 0.2 and 0.8 nats

# %%
found = [nats for nats, _ in split.values()]
rpm.figures.lines(
    list(split),
    {"label": [nats.label for nats in found], "instance": [nats.instance for nats in found]},
    ceiling=("log 10", math.log(10)),
    x_label="step",
    y_label="nats per pair, held out",
    caption="Label nats flatten below their ceiling log 10; instance nats go on rising.",
)

# %% [markdown]
# So the held-out InfoNCE of your own training is two numbers in one. The label nats say how well the critic finds the right class among the
# candidates; the instance nats, how well it finds the one image within its class. Labels are needed for the held-out pairs only. Neither is the
# accuracy of a probe: a probe reads the latent by means of its own, and may move otherwise.
#
# ## Find your way
#
# | lesson | you will be able to |
# |---|---|
# | [1 The model](01_the_model.ipynb) | build an RPM from an encoder, without a decoder |
# | [2 The ELBO](02_the_elbo.ipynb) | derive the bound line by line, and say what each line assumes |
# | [3 InfoNCE is the ELBO](03_infonce_is_the_elbo.ipynb) | choose a prior and name the objective it gives |
# | [5 The evidence of a data set](05_the_evidence_of_a_data_set.ipynb) | compute the log evidence of tens of thousands of pairs and sample from the model |
# | [6 Finite batches](06_finite_batches.ipynb) | predict the bias and variance of a batch, and say what its ceiling means |
# | [7 Why not mutual information](07_why_not_mutual_information.ipynb) | ruin a representation without changing its MI, and see the ELBO notice |
# | [8 A prior is an assumption](08_a_prior_is_an_assumption.ipynb) | let the evidence choose a prior, and say when axes can be found |
# | [9 Learning from images](09_learning_from_images.ipynb) | train on images, read the held-out evidence beside the probe, stop and resume |
# | [10 Sequences](10_sequences.ipynb) | read CPC as a chain, and let an encoder find the law of motion |
# | [12 Hidden states](12_hidden_states.ipynb) | say where a hidden ball is and how sure you are, and whether the band is honest |
# | [13 The other RPM](13_the_other_rpm.ipynb) | run exact EM with one shared latent, and let the evidence choose the restart |
# | [16 Your own prior](16_your_own_prior.ipynb) | bring pairs, an encoder and a critic of your own, and let the evidence choose |

# %%
rpm.figures.course_map()

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
# ## The three numbers of this world
#
# The world is the 500 held-out pairs, and the trained encoder leaves no doubt about $z$: the three are one. Lessons 1 to 6 end with the
# three numbers of their own worlds, which need not agree.

# %%
print("  ".join(f"{name} {number:.4f}" for name, number in names.items()), "nats")

# %% [markdown]
# ## What we saw
#
# InfoNCE on 500 real pairs, the ELBO of a model, and its log evidence came out equal to rounding, by three separate pieces of code, at
# every temperature; with an encoder that leaves doubt, the evidence alone is larger. Back to the four questions:
#
# - **5.1 nats of what?** Of log probability: averaged in logarithms, the model gives the right $x'$ some $e^{5.1} \approx 160$ times the
#   probability that chance gives it. Part of that pays for the class, the rest for the single image.
# - **Is it good?** Compare it with other models on the same pairs. It cannot exceed what $x$ tells of $x'$ in the data (lesson 5).
# - **Is it stuck at log N?** No value exceeds $\log N$, since no probability exceeds one. Near it, evaluate on more pairs (lessons 5 and 6).
# - **What does the temperature assume?** How far from $z$ the prior lets $z'$ lie; the evidence can judge it (lessons 5 and 8).
#
# Why the three must agree starts with a likelihood that nobody had to write: [lesson 1](01_the_model.ipynb).
