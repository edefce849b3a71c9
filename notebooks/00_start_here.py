# %% [markdown] tags=["slide"]
# # Start here: one number with three names
#
# You train an encoder on pairs with a contrastive loss, and the screen says **5.1 nats**. Nats *of what*? Is that good? Is it stuck at
# $\log N$, or is there more to learn? And what did you assume about your data when you set the temperature to 0.1?
#
# Behind the loss stands a probabilistic model, and these are questions about it. This lesson finds the model on your own machine, in a minute of computing.
#
# **Afterwards you can** say what a nat of InfoNCE is; train an encoder with InfoNCE in a few lines; compute the same number as an ELBO and as a
# log evidence, and say when the three agree; tell how much of it is knowledge of the class, and how much of the single image; find your way through the lessons.
#
# **You need** PyTorch and basic probability: Bayes' rule, expectation, KL divergence. **Time** 55 minutes, of which the
# computer takes one. **How to read**: run the cells in order with Shift+Enter. A question is followed by its folded
# answer; an exercise checks itself; all numbers are in nats (natural logarithms: $\log 2$ nats are one bit).
#
# The source of it all is Aitchison and Ganev, *InfoNCE is variational inference in a recognition parameterised model*
# ([arXiv 2107.02495](https://arxiv.org/abs/2107.02495)). Equation numbers such as (E7) are this course's own, and the same everywhere. Beside the lessons stand
# the [notation](../docs/notation.md), a [glossary](../docs/glossary.md), [questions and answers](../docs/faq.md), and [what goes beyond the paper](../docs/new.md).

# %% tags=["slide"]
import math

import torch
from tqdm.auto import tqdm

import rpm_tutorial as rpm

device = rpm.setup()
rpm.figures.three_names()

# %% [markdown] tags=["slide"]
# **The claim.** Contrastive learning maximises **InfoNCE**. Variational inference maximises the **ELBO** of a model, its evidence lower bound. Statistics maximises the **log
# evidence**, the log probability that the model gives to the data. Let $(x, x')$ be a pair of inputs, $z$ and $z'$ what the encoders make of them, and $C$ a constant of the data that no encoder can change. A **critic** is a function that scores how well $z$ and $z'$ fit together.
#
# - InfoNCE *is* the ELBO of one model, less $C$: for every encoder and every critic. This lesson builds that model.
# - The ELBO is never above the log evidence, and equals it when the encoder leaves no doubt, that is, when each $x$ has one certain $z$ and each $x'$ one certain $z'$. A deterministic network leaves none.
#
# So for the encoders that most people train, the three are one number once $C$ is taken away.
#
# **Whose result**: both halves of the claim are in the paper's abstract, for infinitely many negatives. That they hold on any data set of any number of pairs $N$, and that InfoNCE splits into nats for the class and nats for the single image (E24), are this course's.
#
# The next cell looks at your machine. Its last line checks the first half of the claim on a small random model; it writes $L$ for the ELBO.

# %% tags=["nbval-ignore-output"]
print(rpm.self_check())

# %% [markdown]
# ## A pair is two views of one thing
#
# Contrastive learning starts from pairs $(x, x')$ that belong together. Here both come from one handwritten digit, each
# shifted, cropped, and made noisy at random. What the two views share is the digit; what differs is nuisance.

# %% tags=["slide"]
digits = rpm.datasets.digits()
rng = torch.Generator().manual_seed(0)
held_out = digits.x[1297:]  # 500 digits; training uses the others
x, x_prime = rpm.datasets.two_views(held_out, flip=False, generator=rng)
rpm.figures.images(
    {"x": x[:12], "x′": x_prime[:12]},
    caption="Each column is a pair: two views of one digit.",
)

# %% [markdown] tags=["slide"]
# ## A batch of pairs is a table of scores
#
# An **encoder** turns each view into a latent vector, $z$ and $z'$. A **critic** $f(z, z') > 0$ scores how well two
# latents fit; its logarithm $s = \log f$ is their **score**. Ours is the cosine of the two latents over a temperature, $s = \cos(z, z')/0.2$, as in SimCLR and CLIP. The library calls it
# `VonMisesFisher`: a density $\propto e^{\kappa \cos(z,z')}$ around $z$ is a von Mises–Fisher distribution, which is to the sphere what a Gaussian is to the line, and the temperature is $1/\kappa$.
#
# All pairs of latents have a score, so $N$ pairs make a table. Rows are $z_i$, columns $z'_j$, and the pairs that belong together lie on the diagonal.

# %%
torch.manual_seed(0)
encoder = rpm.encoders.mlp(inputs=64, dim=16)
critic = rpm.VonMisesFisher(temperature=0.2)
log_f = critic(rpm.encode(encoder, x), rpm.encode(encoder, x_prime)).detach()
pairs_alone, everything = log_f.diagonal().mean(), log_f.mean()
print(f"log_f has shape {tuple(log_f.shape)}; its diagonal averages")
print(f"{pairs_alone:.2f}, the whole table {everything:.2f}")

# %% [markdown] tags=["slide"]
# InfoNCE asks how much better the right partner scores than a partner picked at random. Write $f_{ij}$ for $f(z_i, z'_j)$ and $s_{ij}$ for its logarithm. With $N$ pairs,
#
# $$I_N = \frac1N\sum_i \Big[\, s_{ii} - \log \frac1N \sum_j f_{ij} \Big].$$
#
# The first term is the mean score of the pairs. The second is the mean **log normaliser**: for each $z_i$, the logarithm of the average $f$ over all $N$ **candidates** $z'_j$, the right one among them.
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
print(f"mean score of the pairs {before.score:.3f}")
print(f"mean log normaliser     {before.log_normaliser:.3f}")
print(f"InfoNCE                 {before.value:.3f} nats per pair")
assert 0 < before.value < 1.5

# %% [markdown]
# You may know it as a cross-entropy, in which each row has to find its own column. That loss is $\log N - I_N$: it is 0 where $I_N = \log N$.

# %%
cross_entropy = torch.nn.functional.cross_entropy(log_f, torch.arange(len(x)))
assert abs(math.log(len(x)) - cross_entropy - before.value) < 1e-5

# %% [markdown]
# ## Training raises the diagonal
#
# Training is one loop, `rpm.train`. It takes an encoder, a critic, and a stream of pairs, and yields a row of numbers a step. The digits
# held out above are not among the pairs.

# %% tags=["slide"]
pairs = rpm.datasets.view_pairs(digits.x[:1297], batch_size=256, flip=False, seed=0)
log = list(tqdm(rpm.train(encoder, critic, pairs, steps=400), total=400))
rpm.figures.lines(
    [row.step for row in log],
    {"InfoNCE": [row.value for row in log]},
    ceiling=("log 256", math.log(256)),
    x_label="step",
    y_label="InfoNCE of the batch (nats per pair)",
    caption="InfoNCE rises and flattens below its ceiling, log 256.",
)

# %% [markdown]
# ## First name: InfoNCE
#
# From here on InfoNCE is computed on pairs that training has not seen, all 500 of them in one table. For the identities that follow we compute in float64, to check them to the last digit. `rpm.infonce` is the function that training used. Its code stands below the value: the two terms of the formula.

# %%
critic.double()
z, z_prime = rpm.encode(encoder, x).double(), rpm.encode(encoder, x_prime).double()
log_f = critic(z, z_prime).detach()
infonce = rpm.infonce(log_f).value
print(f"InfoNCE on {len(x)} held-out pairs: {infonce:.4f} nats per pair")
assert infonce > 2, "training should lift InfoNCE well above chance"
rpm.show_source(rpm.infonce)  # shows the code behind any name

# %% [markdown] tags=["slide"]
# ## Second name: ELBO
#
# A latent-variable model has a prior $P(z, z')$ over latents, and a likelihood $P(x|z)$ of an observation given its latent. In a
# **recognition-parameterised model** (RPM) the likelihood is not learned: it is what Bayes' rule makes of the encoder $Q(z|x)$. Lesson 1 builds it. Its ELBO is a sum of five expectations, (E3) in lesson 2.
# `world.elbo` adds them up for any prior, and has no line about contrastive learning. InfoNCE comes out because of the prior that we give it, with $Z_i = \frac1N\sum_j f_{ij}$:
#
# $$P(z_i, z'_j) = \frac1N \cdot \frac1N \cdot \frac{f_{ij}}{Z_i}.$$
#
# The distribution of the data is called $P_\text{true}(x, x')$. Here it is the list of 500 pairs, each with probability 1/500. The encoder sends the 500 images $x$ to 500 different vectors, and the 500 images $x'$ likewise, so we number them: latent k of $x$ is the vector $z_k$, latent k of $x'$ is $z'_k$, and both $Q(z|x)$ and $Q(z'|x')$ are tables with a single 1 in each row, `one_each`. The table doesn't say where the vectors lie. That enters through `log_f`, which means through the prior.

# %%
n = len(x)
one_each = torch.eye(n, dtype=torch.float64)
world = rpm.FiniteRPM(p_true=one_each / n, recognition=one_each)
prior = rpm.priors.infonce(log_f, world.q_joint)  # log P(z,z')
elbo = world.elbo(prior)
for name, term in elbo._asdict().items():
    if name != "slack":  # 0 for every prior that sums to one (lesson 4)
        print(f"{name:22} {term:9.4f}")

# %% [markdown]
# The terms are averages over the data, and `value` is their sum, the last two with a minus. Four are zero, since every image has a latent to itself: the image determines the latent, the latent determines the image, and $\log 1 = 0$. Only the term of the prior is left.
#
# The constant is $C = \mathbb E\log P_\text{true}(x) + \mathbb E\log P_\text{true}(x')$. It contains no encoder and no critic. On this list $P_\text{true}(x) = 1/500$ for each $x$, so $C = -2\log 500$. Take it away and compare.

# %%
above_C = elbo.value - world.constant
residual = abs(above_C - infonce)
print(f"C          {world.constant:.4f} = −2 log {n}")
print(f"ELBO − C   {above_C:.4f}")
print(f"InfoNCE    {infonce:.4f}, residual {residual:.1e}")
assert residual < 1e-11

# %% [markdown] tags=["slide"]
# The loss that practitioners minimise is minus an evidence lower bound, up to a constant: $C$, and $\log N$ if it is written as a cross-entropy. Nothing was approximated: the residual is rounding.
#
# ## Isn't this circular?
#
# The encoder was an identity table, four terms were zero, and we typed the prior in. Of course InfoNCE came out. What was there to find?
#
# - *The prior is a distribution.* Its $N^2$ probabilities sum to one: that is what the $1/N$ and the $Z_i$ are for. With another normaliser InfoNCE does not come out; with none at all the table is no distribution: the next cell tries both.
# - *Nobody wrote a decoder.* The likelihoods $P(x|z)$ are proper distributions over images nevertheless (lesson 1).
# - *The data term is a constant.* The ELBO of an RPM contains $\log P(x|z)$, which Bayes' rule makes of the encoder and of $P_\text{true}(x)$; beyond a list of images, $P_\text{true}(x)$ is unknown. Lesson 2 shows that this term is the constant $C$, for every encoder. The identity table is not needed: the next section ends with an
#   encoder that leaves doubt.
#
# One thing really is circular, and you should know it. $P_\text{true}$ and the candidates are the very pairs that are evaluated. Ten pairs and 40 000 pairs are two different $P_\text{true}$, so they give two models with two constants. So compare models on the same pairs, and never numbers of different data sets.

# %%
one_Z = rpm.priors.donsker_varadhan(log_f, world.q_joint)  # one Z for all z
other = world.elbo(one_Z).value - world.constant
no_Z = log_f - 2 * math.log(n)  # log (1/n · 1/n · f)
total, total_without = one_Z.exp().sum(), no_Z.exp().sum()
print(f"one Z for all: Σ P(z,z′) = {total:.4f}, ELBO − C = {other:.4f}")
print(f"no Z at all:   Σ P(z,z′) = {total_without:.4f}")
assert other < infonce - 0.01 and total_without > 2

# %% [markdown] tags=["slide"]
# One normaliser for all $z$ gives another prior, hence another model, with a lower ELBO on these pairs (lesson 4). Without a normaliser the table sums to more than one: it is no distribution, so there is no
# model whose evidence one could bound.
#
# ## Third name: log evidence
#
# The model also assigns a probability to every pair, $P(x, x')$, by summing over all latents. Its logarithm, averaged over
# the data, is the log evidence: the number by which statisticians compare models. An ELBO lies below it.
#
# **Predict**: by how much does our ELBO lie below the log evidence?
#
# <details><summary>Answer</summary>
#
# By nothing. Our encoder is deterministic: given $x$ it leaves no doubt about $z$, and then the bound is tight, which means equal to what it bounds (E13, lesson 5).
# </details>

# %% tags=["slide"]
evidence = world.log_evidence(prior)
names = {
    "InfoNCE": infonce,
    "ELBO − C": elbo.value - world.constant,
    "log evidence − C": evidence - world.constant,
}
assert abs(evidence - elbo.value) < 1e-11
rpm.figures.dots(
    {name: value.item() for name, value in names.items()},
    x_label="nats per pair, C taken away",
    caption="The trained encoder on 500 held-out pairs: three names, one number.",
)

# %% [markdown]
# For an encoder that leaves doubt, InfoNCE still equals the ELBO less $C$, but the log evidence is in general larger. Here is one in a world of tables: six values of $x$ and seven of $x'$, three of $z$ and four of $z'$, and each row of $Q(z|x)$ is spread over all three. The scores are a 3 × 4 table, with 1 on the diagonal and 0 elsewhere. A pair $(x, x')$ no longer has one score
# but several, so InfoNCE averages them over $z$ and $z'$. The evidence is larger than both, by a KL divergence that lesson 2 computes.

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

# %% [markdown] tags=["slide"]
# ## What changes one changes all three
#
# The temperature sets how sharp the prior is: low is sharp. The temperature is a trained parameter: it started at 0.2, and training has lowered it. Here we vary it, the encoder held
# fixed, and compute the three numbers again, each by its own code.

# %%
temperatures = torch.logspace(-1.5, 0.5, 13, dtype=torch.float64).tolist()
curves = {name: [] for name in names}
for temperature in temperatures:
    log_f = rpm.VonMisesFisher(temperature)(z, z_prime).detach()
    prior = rpm.priors.infonce(log_f, world.q_joint)
    elbo, evidence = world.elbo(prior).value, world.log_evidence(prior)
    curves["InfoNCE"].append(rpm.infonce(log_f).value.item())
    curves["ELBO − C"].append((elbo - world.constant).item())
    curves["log evidence − C"].append((evidence - world.constant).item())

# %% tags=["slide"]
best = temperatures[max(range(13), key=lambda k: curves["log evidence − C"][k])]
spread = torch.tensor(list(curves.values()), dtype=torch.float64).std(0).max()
trained = critic.temperature.item()
print(f"largest spread of the three: {spread:.1e} nats")
print(f"trained temperature {trained:.2f}, best of these {best:.2f}")
assert spread < 1e-11 and best < trained
rpm.figures.lines(
    temperatures,
    curves,
    x_log=True,
    mark=trained,
    x_label="temperature",
    y_label="nats per pair, C taken away",
    caption="Three curves, one on another. Dotted: the trained temperature.",
)

# %% [markdown]
# At the peak the prior explains the held-out pairs best. The temperature of the peak is lower than the trained one: 400 steps were too few. In the longer training below, the temperature goes on falling.
#
# To choose a temperature by held-out InfoNCE is to choose a prior by its evidence. This is what the identity is good for: a design decision of contrastive learning becomes a
# modelling assumption that data can judge.
#
# ## Train one yourself
#
# The next cell makes a new model and trains it for 100 steps. The rest is yours: **Resume** trains on while you read, the sliders
# change the training as it runs, **Stop** saves it, **Reset** begins again. The other cells stay usable meanwhile. (On the course's site no kernel runs: there a slider goes through this training to its end.)

# %%
torch.manual_seed(1)
trainer = rpm.Trainer(
    rpm.encoders.mlp(inputs=64, dim=16),
    rpm.VonMisesFisher(temperature=0.2),
    rpm.datasets.view_pairs(digits.x[:1297], batch_size=256, flip=False, seed=1),
    steps=2000,
)
labels = digits.labels[1297:]
dashboard = rpm.TrainingDashboard(
    trainer, x, x_prime, labels, checkpoint="lesson_00.pt"
)
dashboard.advance(100)
dashboard

# %% [markdown]
# It draws InfoNCE on the batches of 256 and on the 500 held-out pairs (two data sets, so compare their shapes, not their heights), the two parts of the held-out InfoNCE (the next section explains them), the accuracy of a **probe**, a logistic regression that reads the digit from $z$, and a map of the held-out latents, each drawn as its digit on the first two principal components.
#
# **Predict**: while it stands still, set the temperature to 2, then press **Resume**. Which of the curves fall at once, and do they come back?
#
# <details><summary>Answer</summary>
#
# InfoNCE falls, on the batches and on held-out pairs alike, and with it its two parts: at temperature 2 two scores differ by 1 at most, so InfoNCE cannot exceed 1 nat, whatever the latents are. It comes back slowly, because the temperature is learned; watch its value above the plot. The probe barely notices. It reads the latents, which the
# encoder makes, and the temperature belongs to the prior.
# </details>

# %% [markdown] tags=["slide"]
# ## Twice the evidence: what does the probe do?
#
# **Predict**: let the dashboard run to its last step (if you changed the temperature, press **Reset** first). The held-out InfoNCE doubles between step 100 and step 2 000. What does the probe do, and why?
#
# <details><summary>Answer</summary>
#
# It hardly moves. A probe asks for the class only, and the class, one of ten, is worth at most $\log 10 = 2.30$ nats. The model has most of them early. Most of the nats that come later tell apart images of one class, and no probe asks for those.
# </details>
#
# An exact identity says why. Given $x_i$, the model gives the candidate $x'_j$ the probability $P(x'_j|x_i) = f_{ij}/\sum_k f_{ik}$: a softmax over the row. Let $c$ be a label of the candidates, here the digit. The probability
# of a label, $P(c|x)$, is the sum over the candidates that have it. To know $x'$ is to know its label too, so
#
# $$\log P(x'|x) = \log P(c|x) + \log P(x'|x, c). \tag{E24}$$
#
# Average this over the pairs, and subtract from each term what it would be if all scores were equal. Then InfoNCE is a sum of two parts: **label nats**, how surely it points to candidates of the right class, at most 2.30; and **instance nats**, how surely it points to the right image among those of that class. `rpm.label_evidence` computes both. The next cell repeats the dashboard's training in one go.

# %%
torch.manual_seed(1)
again = rpm.Trainer(
    rpm.encoders.mlp(inputs=64, dim=16),
    rpm.VonMisesFisher(temperature=0.2),
    rpm.datasets.view_pairs(digits.x[:1297], batch_size=256, flip=False, seed=1),
    steps=2000,
)
split, order = {}, labels.argsort(stable=True)
fit, new = order[::2], order[1::2]  # two halves with as many of each digit
for row in tqdm(again, total=2000):
    if row.step in (100, 200, 400, 700, 1000, 1500, 2000):
        z, z_prime = rpm.encode(again.encoder, x), rpm.encode(again.encoder, x_prime)
        probe = rpm.probes.linear_probe(z[fit], labels[fit], z_prime[new], labels[new])
        nats = rpm.label_evidence(z, z_prime, again.critic, labels)
        split[row.step] = nats, probe

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
assert abs(last[0].label + last[0].instance - last[0].infonce) < 1e-4  # (E24)
assert again.critic.temperature < trained / 2  # four seeds: 0.046 at step 2000

# %% tags=["slide"]
found = [nats for nats, _ in split.values()]
rpm.figures.lines(
    list(split),
    {
        "label": [nats.label for nats in found],
        "instance": [nats.instance for nats in found],
    },
    ceiling=("log 10", math.log(10)),
    x_label="step",
    y_label="nats per pair, held out",
    caption="Label nats flatten below log 10; instance nats go on rising.",
)

# %% [markdown]
# So the held-out InfoNCE of your own training is two numbers in one. The label nats say how well the scores point to the right class; the instance nats, how well they point
# to the right image within it. The parts are those at each step's own temperature. You need labels of the held-out pairs only. Neither number is the accuracy of a probe. A model that finds the right image has its label too, even if the latents of a class don't lie together: so label nats can be near 2.30 while a probe, which has to judge an image from other images of its class, is often wrong.
#
# ## Find your way
#
# | lesson | you will be able to |
# |---|---|
# | [1 The model](01_the_model.ipynb) | build an RPM from an encoder, without a decoder |
# | [2 The ELBO](02_the_elbo.ipynb) | derive the bound line by line, and say what each line assumes |
# | [3 InfoNCE is the ELBO](03_infonce_is_the_elbo.ipynb) | write down the prior behind InfoNCE, and say why InfoNCE is loose as a bound on the mutual information (MI) and exact as an ELBO |
# | [4 One prior, one objective](04_one_prior_one_objective.ipynb) | name the objective that a prior gives, and the prior behind MINE, NWJ and CLIP |
# | [5 The evidence of a data set](05_the_evidence_of_a_data_set.ipynb) | compute the log evidence of tens of thousands of pairs and sample from the model |
# | [6 Finite batches](06_finite_batches.ipynb) | predict the bias and variance of a batch, and say what its ceiling means |
# | [7 Why not mutual information](07_why_not_mutual_information.ipynb) | ruin a representation without changing its MI, and see the ELBO notice |
# | [8 A prior is an assumption](08_a_prior_is_an_assumption.ipynb) | let the evidence choose a prior, and say when axes can be found |
# | [9 Learning from images](09_learning_from_images.ipynb) | train on images, read the held-out evidence beside the probe, stop and resume |
# | [10 Sequences](10_sequences.ipynb) | read CPC as a chain, and let an encoder find the law of motion |
# | [11 Looking ahead](11_looking_ahead.ipynb) | iterate a prior, and say which models CPC's horizons are |
# | [12 Hidden states](12_hidden_states.ipynb) | say where an unseen ball is, with an error band, and test the band against the truth |
# | [13 The other RPM](13_the_other_rpm.ipynb) | run exact EM with one shared latent, and learn digits from pairs without labels |
# | [14 ELBO against evidence](14_elbo_against_evidence.ipynb) | train categorical latents on the bound or on the evidence, and let the evidence choose the restart |
# | [15 The losses you use](15_the_losses_you_use.ipynb) | write NT-Xent, CLIP, MoCo, SupCon, DCL or SigLIP as InfoNCE of a table, or say why it is none |
# | [16 Your own prior](16_your_own_prior.ipynb) | bring pairs, an encoder and a critic of your own, and let the evidence choose |

# %%
rpm.figures.course_map()

# %% [markdown] tags=["slide"]
# ## Exercises
#
# Replace each `...` and run the cell: it tells you at once. Stuck? Call `.hint()`, then `.hint(2)`, `.hint(3)`.
#
# **1.** The dashed line above the training curve is a ceiling. Return the largest value that InfoNCE can have on `n` pairs, in nats (`math.log` is imported).


# %% tags=["exercise"]
def ceiling(n):
    return ...


rpm.lessons.lesson_00.ceiling.check(ceiling)

# %% [markdown] tags=["slide"]
# **2.** A deterministic encoder was evaluated on all `n` pairs of a data set at once, with no image twice, and you are told its InfoNCE. Return the log evidence per pair.


# %% tags=["exercise"]
def log_evidence(infonce, n):
    return ...


rpm.lessons.lesson_00.log_evidence.check(log_evidence)

# %% [markdown]
# ## Quiz
#
# Open the option that you believe; each explains itself.
#
# **1. For a deterministic encoder and a data set with no image twice, InfoNCE and the log evidence per pair differ by…**
# <details><summary>the mutual information of the views</summary>No: nothing about the views is needed to convert one into the other. What is needed is how many pairs there are.</details>
# <details><summary>a constant that the data set's size fixes</summary>Yes: 2 log N, which is −C if no image occurs twice. Encoder and critic do not enter.</details>
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
# The world is the 500 held-out pairs, and the trained encoder leaves no doubt about $z$: the three are one. Most lessons end with the three numbers of their own world, which need not agree.

# %%
print("  ".join(f"{name} {number:.4f}" for name, number in names.items()), "nats")

# %% [markdown] tags=["slide"]
# ## What we saw
#
# InfoNCE on 500 real pairs, the ELBO of a model, and its log evidence came out equal to rounding, by three separate pieces of code, at
# every temperature; with an encoder that leaves doubt, the evidence alone is larger. Back to the four questions:
#
# - **5.1 nats of what?** Of log probability: in the geometric mean over the pairs, the model gives the right $x'$ about $e^{5.1} \approx 160$ times the probability $1/N$ that it has by chance. Part of the 5.1 nats is knowledge of the class, the rest is knowledge of the single image.
# - **Is it good?** Compare it with other models on the same pairs. It cannot exceed the mutual information of $x$ and $x'$ under $P_\text{true}$ (E23, lesson 5), which on a list of $N$ pairs with no image twice is $\log N$.
# - **Is it stuck at log N?** No value exceeds $\log N$, since no probability exceeds one. If yours is close to it, evaluate on more pairs (lessons 5 and 6).
# - **What does the temperature assume?** How far from $z$ the prior lets $z'$ lie; the evidence can judge it (lessons 5 and 8).
#
# Why do the three agree? [Lesson 1](01_the_model.ipynb) begins: it builds the model, whose likelihood follows from the encoder.
