# %% [markdown] tags=["slide"]
# # Learning from images, with the evidence beside the probe
#
# Nobody knows the true latents of photographs of clothes, nor how much information one view has about the other. Two numbers can be computed all the same, here and in practice. One is the **held-out evidence**: the mean log probability that the model gives to a pair that it was not trained on. All its values here have the constant of [lesson 5](05_the_evidence_of_a_data_set.ipynb), $C = \mathbb E\log P_\text{true}(x) + \mathbb E\log P_\text{true}(x')$, subtracted. The other is the accuracy of a **probe**:
# a small classifier that reads the class of an image from frozen features: the encoder is not trained with it. This lesson computes both, and says what each can and cannot judge.
#
# **Afterwards you can** train an encoder on CPU or GPU and continue it from a file; judge it against raw pixels *and* a random network; choose a
# temperature by held-out evidence; split that evidence into label nats and instance nats; say which comparisons the evidence cannot make.
#
# **You need** [lesson 5](05_the_evidence_of_a_data_set.ipynb) and [lesson 8](08_a_prior_is_an_assumption.ipynb). **Time** 60 minutes, of which the computer takes one and a half.
# Symbols are in the [notation](../docs/notation.md), words in the [glossary](../docs/glossary.md), objections in the
# [FAQ](../docs/faq.md).
#
# **Whose result is it?** That SimCLR's critic is a prior on the sphere (E18) follows from the paper's theorem (E7;
# [Aitchison and Ganev](https://arxiv.org/abs/2107.02495)). That a tighter bound on the information need not give better features on
# images was measured by Tschannen et al. ([2019](https://arxiv.org/abs/1907.13625)); lesson 7 has their argument. Zimmermann et al.
# ([2021](https://arxiv.org/abs/2102.08850)) show when a prior on the sphere recovers the true latents. The split of the evidence by a label (E24), and the
# measurements below, are this course's.

# %%
import copy
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

import rpm_tutorial as rpm

device = rpm.setup()
seed = 0
seeds = (seed, seed + 1, seed + 2)
print(f"training on {device}")

# %% [markdown] tags=["slide"]
# ## The data, and a held-out part that never trains
#
# Two views of an image are a pair $(x, x')$. Each part of the data has one use:
#
# - The encoder trains on views of the first 20 000 training images, without their labels.
# - The evidence is computed on two fixed views of each of 2 000 test images.
# - A probe is fitted on a thousand labelled training images, and scored on all test images.
#
# Where the files of Fashion-MNIST cannot be had, a smaller set of digits stands in, and the numbers then differ.

# %% tags=["slide"]
images = rpm.datasets.fashion_mnist_or_digits()
test = rpm.datasets.fashion_mnist_or_digits("test")
train_x, test_x = images.x[:20_000].clone().to(device), test.x.to(device)
label_sets = [slice(1000 * k, 1000 * (k + 1)) for k in range(5)]  # to fit probes on
train_labels, test_labels = images.labels, test.labels
del images  # the other 40 000 are not used
rng = torch.Generator(device).manual_seed(1000 + seed)
x, x_prime = rpm.datasets.two_views(test_x[:2000], generator=rng)
rpm.figures.images(
    {"x": x[:12].cpu(), "x′": x_prime[:12].cpu()},
    caption="Twelve held-out pairs. Each column is two views of one photograph.",
)

# %% [markdown] tags=["slide"]
# ## Two baselines, one of them strong
#
# We use two probes: a **linear probe**, which is a logistic regression, and the vote of the **10 nearest neighbours**. The obvious baseline is a probe on raw
# pixels. Another one is often left out: an *untrained* network. Its random filters, rectified and pooled, are features too. Probes of a network read the last
# layer before the latents. Probes are more accurate on this layer than on the latents, as we check after training.
#
# Which thousand labelled images the probe gets is a matter of luck. It moves an accuracy by about a percent, as much as the effects that we look for. So we fit each probe five
# times, on five disjoint thousands, the **label sets**, and compare two networks on the same label set.
#
# **Predict**: is the random network better or worse than pixels?
#
# <details><summary>Answer</summary>
#
# About as good. So measure a trained network against the random one, too.
# </details>


# %%
def features(encoder, x):
    return x.flatten(1) if encoder is None else rpm.encode(encoder[:-1], x)


def probe(encoder):
    """Accuracy of a linear probe and of 10 nearest neighbours, for each label set."""
    scored, found = features(encoder, test_x), []
    for chosen in label_sets:
        fit = features(encoder, train_x[chosen])
        data = fit, train_labels[chosen], scored, test_labels
        linear = rpm.probes.linear_probe(*data)
        found.append((linear, rpm.probes.nearest_neighbours(*data)))
    return np.array(found)  # (label sets, 2)


def new_encoder(seed):
    torch.manual_seed(seed)
    return rpm.encoders.conv(dim=16).to(device)


# %% tags=["slide"]
def show(name, values):
    """The mean over seeds (n, label sets, 2) of each label set."""
    for kind, row in zip(("linear", "neighbours"), values.mean(0).T):
        each = " ".join(f"{v:.3f}" for v in row)
        print(f"{name:15} {kind:10} {each}  mean {row.mean():.3f}")


accuracy = {"raw pixels": np.array([probe(None)])}
accuracy["random network"] = np.array([probe(new_encoder(s)) for s in tqdm(seeds)])
for name, values in accuracy.items():
    show(name, values)
means = [values.mean((0, 1))[0] for values in accuracy.values()]
assert abs(means[0] - means[1]) < 0.06

# %% [markdown] tags=["slide"]
# ## Training: the evidence rises, nearest neighbours improve, the linear probe hardly does
#
# The critic is SimCLR's: the cosine of the latents over a temperature, $\log f = z^\top z'/\tau$ with $z$ and $z'$ scaled to length 1. As a prior, $P(z'|z) \propto Q(z')\,f(z,z')$ (E7), it says where on the sphere the partner $z'$ of a given $z$ lies. Here $f$ is, up to a factor, the density of a **von Mises-Fisher distribution**, the sphere's analogue of a Gaussian around $z$. The temperature $\tau$ sets its width, and is learned here.
#
# Every 75 steps we compute the evidence of the 2 000 held-out pairs. Less $C$, it is InfoNCE of all 2 000 pairs in one table, in which each $x$ has all 2 000 $x'$ as candidates (E14). Nothing is approximated. Its ceiling, the value that it cannot
# exceed, is therefore $\log 2000 = 7.6$ nats, and not the logarithm of the size of a training batch.


# %%
def evidence(encoder, critic, x=x, x_prime=x_prime):
    z, z_prime = rpm.encode(encoder, x), rpm.encode(encoder, x_prime)
    with torch.no_grad():
        return rpm.dataset_evidence(z, z_prime, critic).infonce.item()


def trained(critic, seed, every=150, steps=150):
    """Encoder, critic, and held-out evidence at the start and each `every` steps."""
    encoder, critic = new_encoder(seed), critic.to(device)
    pairs = rpm.datasets.view_pairs(train_x, 128, seed=seed)
    along = {0: evidence(encoder, critic)}
    rows = rpm.train(encoder, critic, pairs, steps, learning_rate=4e-3)
    for row in tqdm(rows, total=steps, leave=False):
        if row.step % every == 0:
            along[row.step] = evidence(encoder, critic)
    return encoder, critic, along


# %%
learned = [trained(rpm.VonMisesFisher(0.1), s, every=75) for s in seeds]

# %% tags=["slide"]
curves = np.array([list(along.values()) for *_, along in learned])
steps = list(learned[0][2])
rpm.figures.lines(
    steps,
    {f"seed {s}": curve for s, curve in zip(seeds, curves)},
    ceiling=("log N", math.log(len(x))),
    x_label="training step",
    y_label="held-out evidence − C (nats per pair)",
    caption="The evidence of 2 000 held-out pairs at steps 0, 75 and 150: it rises, "
    "nearly alike for three seeds, and stays far from its ceiling, log 2 000.",
)

# %% tags=["slide"]
accuracy["trained"] = np.array([probe(encoder) for encoder, *_ in learned])
for name, values in accuracy.items():
    show(name, values)
best = np.max([accuracy[n].mean(0) for n in ("raw pixels", "random network")], 0)
lead = accuracy["trained"].mean(0) - best  # over the better baseline of each label set
for kind, row in zip(("linear", "neighbours"), lead.T):
    print(f"lead, {kind:10}", *(f"{v:+.3f}" for v in row))
assert (np.diff(curves.mean(0)) > 0).all()
assert curves[:, -1].std(ddof=1) < 0.2  # twice three seeds: 0.03, 0.07
assert abs(lead[:, 0].mean()) < 0.02  # four seeds: −0.001 to 0.010 by label set
digits = len(train_x) < 20_000  # they stand in: pixels have the latents' neighbours
assert digits or lead[:, 1].min() > 0.015  # 0.02 to 0.05

# %%
fit, scored = (rpm.encode(learned[0][0], side) for side in (train_x[:1000], test_x))
of_latents = rpm.probes.linear_probe(fit, train_labels[:1000], scored, test_labels)
before = accuracy["trained"][0, 0, 0]
print(f"seed {seed}, first label set: linear probe of the layer before {before:.3f}")
print(f"{'':24} linear probe of the latents {of_latents:.3f}")
assert of_latents < before

# %% [markdown] tags=["slide"]
# Training gains a few percentage points for nearest neighbours, on each label set. It gains a percent at most for the linear probe, and on some label sets nothing: the lead
# is no larger than the change from one label set to another. With one label set alone we might have reported a success; with another, no gain. (Seeds change the start and the batches, label sets the probe's labels; the training images are the same throughout.) This is a
# small network after a few seconds of training, and random features are strong.
#
# ## Evidence separates what the probe does not
#
# We compare three priors, three seeds each. The first is the sphere's with its learned temperature, from above. The second is the sphere's with a temperature
# fixed at 1. The third is the random walk of lesson 8, $\log f = -\lVert z-z'\rVert^2/2\sigma^2$, with learned $\sigma$; its latents are not scaled to length 1.
#
# **Predict**: at temperature 1 the prior hardly tells the partner of $x$ from other images. What does that cost in nats of evidence, and what in the accuracy of the probe?
#
# <details><summary>Answer</summary>
#
# About three nats of evidence, and about a percent of accuracy. Under such a prior every partner is uncertain, so its encoder never has to place partners precisely.
# </details>

# %%
fixed = [trained(rpm.VonMisesFisher(1.0, learnable=False), s) for s in seeds]
accuracy["temperature 1"] = np.array([probe(encoder) for encoder, *_ in fixed])

# %%
walks = [trained(rpm.RandomWalk(), s) for s in seeds]
accuracy["random walk"] = np.array([probe(encoder) for encoder, *_ in walks])
accuracy["temperature learned"] = accuracy["trained"]

# %% tags=["slide"]
runs = {"temperature learned": learned, "temperature 1": fixed, "random walk": walks}
nats, read = {}, {}
for name, run in runs.items():
    nats[name] = np.array([along[150] for *_, along in run])
    read[name] = accuracy[name][:, :, 0].mean(1)
    n, r = nats[name], read[name]
    print(f"{name:20} evidence − C {n.mean():.2f} ± {n.std(ddof=1):.2f} nats")
    print(f"{'':20} linear probe {r.mean():.3f} ± {r.std(ddof=1):.3f}")
cost = nats["temperature learned"] - nats["temperature 1"]
assert (abs(cost - 3) < 0.6).all(), "about three: 2.7 to 2.9 for six seeds"
chosen = max(nats, key=lambda name: nats[name].mean())
print(f"most evidence: {chosen}")
means = np.array([r.mean() for r in read.values()])
assert np.ptp(means) < 0.02 and read[chosen].mean() > means.max() - 0.01

# %% [markdown] tags=["slide"]
# The evidence separates the priors, by 0.4 nats and more. The probe hardly tells them apart: its means, over seeds and label sets, lie within two percentage points. So we may say: *here the
# prior with the highest evidence has a probe as good as any, within a percent*. We may not say that the evidence predicts the probe.
#
# ## The evidence counts the class and the single image
#
# How can the evidence rise while the accuracy stays the same? A probe asks for the class $c$ of an image, and a class is worth few nats. Let $c$ be the class of $x'$. To know $x'$ is to know $c$, so the probability of the right $x'$ is that of its class, times that of $x'$ within the class:
#
# $$\log P(x'|x) = \log P(c|x) + \log P(x'|x, c). \tag{E24}$$
#
# Average both over the held-out pairs, and subtract from each its value at chance, when all scores are equal: the mean of $\log(n_c/N)$ and the mean of $-\log n_c$, for $n_c$ of the $N$ images in the class of $x'$. Together these are $-\log N$. Then the evidence less $C$ is a sum:
#
# - **label nats**: how well the model knows, from $x$, the class of $x'$. They cannot exceed the entropy of the labels, here about $\log 10 = 2.30$ nats.
# - **instance nats**: how well it then knows the image among those of the same class. This is InfoNCE within the class.
#
# The encoder has seen no label in training. The labels only sort the held-out pairs.
#
# **Predict**: the random walk has some tenths of a nat more than the learned temperature. Are they label nats or instance nats? And which part does temperature 1 lose?
#
# <details><summary>Answer</summary>
#
# About three quarters of the walk's lead are instance nats. Temperature 1 loses most of both parts.
# </details>

# %% tags=["slide"]
def split(encoder, critic):
    """Label nats, instance nats and their sum, of the held-out pairs."""
    z, z_prime = rpm.encode(encoder, x), rpm.encode(encoder, x_prime)
    found = rpm.label_evidence(z, z_prime, critic, test_labels[:2000])
    return [nats.item() for nats in found]


parts = {n: np.array([split(e, c) for e, c, _ in run]) for n, run in runs.items()}
for name, found in parts.items():  # found: (seeds, 3)
    label, instance = (f"{v.mean():.2f} ± {v.std(ddof=1):.2f}" for v in found.T[:2])
    print(f"{name:20} {label} label + {instance} instance nats")
    assert np.allclose(found[:, 0] + found[:, 1], found[:, 2], atol=1e-4)
    assert np.allclose(found[:, 2], nats[name], atol=1e-4)  # the evidence of above
    assert (found[:, 0] < math.log(10)).all()

# %% tags=["slide"]
learned_parts, one, walk = (parts[name] for name in runs)
gain = (walk - learned_parts).mean(0)
print(f"lead of the walk: {gain[0]:.2f} label + {gain[1]:.2f} instance nats")
loss = (learned_parts - one).mean(0)
print(f"lost at temperature 1: {loss[0]:.2f} label + {loss[1]:.2f} instance nats")
if not digits:  # six seeds, each quantity: walk's label lead 0.1, instance lead 0.3
    assert gain[1] > 1.5 * gain[0] and (one < 0.5 * learned_parts).all()
    assert all((p[:, 1] > p[:, 0]).all() for p in (learned_parts, walk))

# %% [markdown] tags=["slide"]
# Under the two better priors, more than half of the evidence tells images of one class apart. A probe for classes needs no instance nats. Most of the lead of one prior over another is instance nats, too. So the evidence may rise by tenths of a nat, and a probe need not notice. The label nats stay clearly below 2.30: this model, after a few seconds of training, is unsure of many classes.
#
# Label nats are not the accuracy of a probe, in two ways. The *critic* reads them from the latents, whereas a probe is fitted anew, to any layer. And they are a log probability, which depends on how sure the model is, whereas an accuracy depends only on which class comes first. So a probe may be good where label nats
# are few: at temperature 1 the critic spreads its probability over all classes, and the features still serve a probe nearly as well.
#
# ## The best temperature of a finished encoder
#
# The temperature need not be trained at all. For a finished encoder it is one number, and the held-out evidence is a curve over it.
#
# **Predict**: in training, the temperature started at 0.1 and was learned. Does the curve peak at the value where it ended?
#
# <details><summary>Answer</summary>
#
# The peak is at a lower temperature. The learned one ended where a hundred and fifty small steps brought it. Probably it was still falling, as in lesson 0. The curve gives the best one at once.
# </details>

# %% tags=["slide"]
temperatures = [0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3, 0.5, 1.0]
tuned = {}
for s, (encoder, *_) in zip(seeds, learned):
    priors = [rpm.VonMisesFisher(t).to(device) for t in temperatures]
    tuned[f"seed {s}"] = [evidence(encoder, prior) for prior in priors]
best = [temperatures[int(np.argmax(curve))] for curve in tuned.values()]
print(f"best temperature on held-out pairs: {best}")
print(f"learned: {[round(c.temperature.item(), 2) for _, c, _ in learned]}")
rpm.figures.lines(
    temperatures, tuned, x_log=True,
    x_label="temperature",
    y_label="held-out evidence − C (nats per pair)",
    caption="One encoder a curve, one prior a point. At low temperatures the prior "
    "is certain of wrong partners, at high ones it is certain of none.",
)

# %%
for t, (_, critic, _) in zip(best, learned):
    assert temperatures[0] < t < critic.temperature < 0.1
at_one = np.array([curve[-1] for curve in tuned.values()])
own_best = np.array([max(evidence(e, prior) for prior in priors) for e, *_ in fixed])
tuned_best = np.array([max(curve) for curve in tuned.values()])
print("trained at       read at 1   read at its best temperature")
print(f"learned {at_one.mean():17.2f} {tuned_best.mean():17.2f} nats")
print(f"1       {nats['temperature 1'].mean():17.2f} {own_best.mean():17.2f} nats")
assert abs(at_one - nats["temperature 1"]).max() < 0.2
assert (abs(tuned_best - own_best - 1.1) < 0.4).all()  # four seeds: 1.0 to 1.2
assert (own_best - nats["temperature 1"]).min() > 1.4  # 1.8 to 2.0

# %% [markdown] tags=["slide"]
# The table splits the three nats between the prior and the encoder. (The three nats of the table are a little more than the difference above, because the learned temperature was not the best one.) Read at temperature 1, both encoders earn the same: that prior cannot tell them apart. Now read each
# at its own best temperature. The encoder that was trained at 1 regains well over a nat without any training: this part of the loss was the prior's. The other 1.1 nats are the *encoder's*: trained
# under a prior for which every partner is uncertain, it never learned to place partners precisely. To compare encoders, read each at its own best temperature; choose that temperature on other pairs if the difference is small.
#
# ## What the evidence does not compare: different data
#
# An *augmentation* makes a view of an image: it shifts, scales and flips it, changes its brightness and adds noise, all at random. A weaker one makes the two views of a pair more alike, and partners easier to find.
#
# **Predict**: the encoder stays the same; its held-out pairs are made again by augmentations of half the strength. Does the evidence rise, and is the model then better?
#
# <details><summary>Answer</summary>
#
# It rises by most of a nat. The encoder and the critic are the same, and only the data changed.
# </details>

# %% tags=["slide"]
encoder, critic, _ = learned[0]
by_strength = {}
for strength in (1.0, 0.5, 0.0):
    rng = torch.Generator(device).manual_seed(5)
    views = rpm.datasets.two_views(test_x[:2000], strength=strength, generator=rng)
    by_strength[strength] = evidence(encoder, critic, *views)
    print(f"strength {strength}: evidence − C {by_strength[strength]:.2f} nats")
assert by_strength[0.0] > by_strength[0.5] > by_strength[1.0] + 0.5

# %% [markdown] tags=["slide"]
# Lesson 5's identity says what the evidence measures:
#
# $$\mathbb E\log P(x,x') - C = I_{\text{true}}(x;x') - \mathrm{KL}\big(P_{\text{true}}(x,x')\,\|\,P(x,x')\big). \tag{E23}$$
#
# Here $I_\text{true}$ is the mutual information of the two views in the data. It is the most that the evidence can reach over endlessly many pairs, and the augmentation
# sets it: two views that keep everything of the image have most in common. (On 2 000 given pairs the bound is log 2 000, at any strength.) So the evidence chooses between
# priors and between encoders on the same pairs. It does not choose between augmentations. What the two views of a pair should have in common is your decision: it defines the task.
#
# ## What forty-eight encoders say
#
# We compared a handful of trainings. [A study](study/what_the_evidence_chooses.ipynb) made more than 250, with every image of Fashion-MNIST, and its rows come with the course. Here are its 48 encoders of eight priors and six dimensions, from three seeds.
#
# **Predict**: order the encoders by evidence, then by the probe of $z$. Are the two orders alike over all 48? Are they alike among the eight encoders of one dimension?
#
# <details><summary>Answer</summary>
#
# Over all 48 they are nearly alike: more dimensions give more evidence and a better probe. Within a dimension, evidence says little about the probe.
# </details>

# %% tags=["reproducible"]
study = rpm.lessons.study
columns = "tuned", "class from z", "class from features"
by = ["critic", "dim"]
of_study, *probes = (study.values(c, by, kind="clothes") for c in columns)
for name, probe in zip(("z", "the features"), probes):
    whole = study.rank_correlation(of_study, probe)
    within = study.rank_correlation(of_study, probe, within=True)
    said = f"all {study.over_seeds(whole)}, in one dimension {study.over_seeds(within)}"
    print(f"rank correlation with the probe of {name:12} {said}")
    assert whole.min() > 0.4 and within.max() < 0.7

# %% [markdown]
# The study has three more results. Evidence kept rising with the steps of training, so it never said when to stop. It never chose few dimensions. And it chose the learned temperature over three fixed ones, of which 0.2 has a probe that is better by less than a hundredth; and weaker views over stronger ones, which have the better probe.
#
# ## Stop, and go on as if nothing had happened
#
# A checkpoint is a file with the encoder, the critic, the optimiser, and which batch comes next. We train ten steps in one go. Then we train five, save them to a file, load it
# into a new trainer, and train five more.
#
# **Predict**: do the two trainings agree to rounding, or to the last bit?
#
# <details><summary>Answer</summary>
#
# On a CPU, to the last bit: the same operations on the same numbers.
# </details>


# %% tags=["reproducible", "slide"]
def new_trainer():
    encoder, critic = new_encoder(seed), rpm.VonMisesFisher(0.1).to(device)
    pairs = rpm.datasets.view_pairs(train_x, 256, seed=seed)
    return rpm.Trainer(encoder, critic, pairs, steps=10)


uninterrupted = [row.value for row in new_trainer()]
with tempfile.TemporaryDirectory() as folder:
    first = new_trainer()
    before = [first.advance().value for _ in range(5)]
    first.save(Path(folder) / "checkpoint.pt")
    second = new_trainer()
    second.load(Path(folder) / "checkpoint.pt")
    resumed = before + [row.value for row in second]
largest = max(abs(a - b) for a, b in zip(uninterrupted, resumed))
print(f"{len(resumed)} steps; the largest difference is {largest}")
assert largest == 0 if device.type == "cpu" else largest < 1e-3

# %% [markdown]
# ## Train it yourself
#
# The dashboard goes on training the first encoder; the cell below makes the first hundred of these steps. **Resume** continues, **Pause** stops for a while; the sliders change the temperature and the
# strength of the views while it runs. (On the site a slider goes through the same training.) It draws four panels:
#
# - InfoNCE of the training batches, and that of 1 000 held-out pairs, which is their evidence less $C$ (it may lie above the first: it has 1 000 candidates and not 128, so another ceiling);
# - the two parts of the latter, label nats and instance nats;
# - the accuracy of a linear probe. It is lower than ours: this probe reads the 16 latents of augmented views, and is fitted on 500 of them;
# - the latents of some held-out views, each as the number of its class.
#
# **Predict**: lower the strength of the views to 0 while it trains. The held-out pairs stay as they are. Which curve rises, and which one falls?
#
# <details><summary>Answer</summary>
#
# InfoNCE on the batches rises, because its pairs became easy. The held-out evidence, on pairs of full strength, collapses: from pairs that are all but
# identical the model learns to be certain, and on the held-out pairs it is certain of wrong partners. Success on easy pairs says little about hard ones.
# </details>

# %%
pairs = rpm.datasets.view_pairs(train_x, 128, seed=seed)
trainer = rpm.Trainer(*copy.deepcopy((encoder, critic)), pairs, steps=1000)
held_out = x[:1000], x_prime[:1000], test_labels[:1000]
dashboard = rpm.TrainingDashboard(trainer, *held_out, checkpoint="lesson_09.pt")
dashboard.advance(100)
dashboard

# %% [markdown]
# A hundred steps at strength 0, without the dashboard:

# %%
spoilt = copy.deepcopy((encoder, critic))
easy = rpm.datasets.view_pairs(train_x, 128, strength=0.0, seed=seed)
rows = rpm.train(*spoilt, easy, 100, learning_rate=4e-3)
batch = [row.value for row in tqdm(rows, total=100, leave=False)]
print(f"batch of 128: {batch[-1]:.2f} of at most {math.log(128):.2f} nats")
before, after = evidence(encoder, critic), evidence(*spoilt)
print(f"held-out evidence − C: {before:.2f} before, {after:.2f} after")
assert batch[-1] > 4 and after < before - 2  # lower by 3.6 to 3.9

# %% [markdown] tags=["slide"]
# ## Exercises
#
# **1.** Return the fraction of rows whose own partner scores highest, given the table `log_f` (positives on the diagonal).


# %% tags=["exercise"]
def top_one(log_f):
    return ...


rpm.lessons.lesson_09.top_one.check(top_one)

# %% [markdown] tags=["slide"]
# **2.** Return the probability that the model gives to the right partner among `n`, as a geometric mean over pairs, from `infonce`, nats per pair.


# %% tags=["exercise"]
def typical_probability(infonce, n):
    return ...


rpm.lessons.lesson_09.typical_probability.check(typical_probability)

# %% [markdown] tags=["slide"]
# **3.** Return the InfoNCE of normalised latents `z`, `z_prime` (each row of length 1, partners in the same row) under the von Mises-Fisher prior of temperature `temperature`.


# %% tags=["exercise"]
def infonce_at(z, z_prime, temperature):
    return ...


rpm.lessons.lesson_09.infonce_at.check(infonce_at)

# %% [markdown] tags=["slide"]
# **4. Find the bug.** This function should return the test accuracy of a linear probe, fitted by least squares. **Symptom**, the last line that it prints: latents of pure noise seem to
# know the label, though a guess is right one time in three. Repair it.


# %% tags=["exercise", "bug", "reproducible"]
def probe_accuracy(z, labels, z_test, labels_test):
    everything = torch.cat([z, z_test])
    targets = F.one_hot(torch.cat([labels, labels_test])).to(z)
    weights = torch.linalg.lstsq(everything, targets).solution
    predicted = (z_test @ weights).argmax(1)
    return (predicted == labels_test).double().mean()


rpm.lessons.lesson_09.probe.check(probe_accuracy)
noise = torch.randn(2, 600, 300, generator=torch.Generator().manual_seed(0))
labels = torch.arange(600) % 3
accuracy_of_noise = probe_accuracy(noise[0], labels, noise[1], labels)
print(f"accuracy of noise: {accuracy_of_noise:.2f}; chance: {1 / 3:.2f}")

# %% [markdown] tags=["slide"]
# ## Quiz
#
# **1. A trained encoder beats raw pixels in a linear probe. Before you report it, you also…**
# <details><summary>train longer</summary>Perhaps, but the comparison lacks something first.</details>
# <details><summary>probe an untrained encoder of the same shape, over several seeds</summary>Yes, and over several label sets. Random features are strong, and only what exceeds them was learned.</details>
# <details><summary>report the training loss</summary>It is capped by its batch, and measured on what it was fitted to.</details>
#
# **2. Encoder a has higher held-out evidence than b, each on pairs made by its own augmentation. So…**
# <details><summary>a is better</summary>Its pairs may only be easier. The augmentations have different ceilings I(x;x′).</details>
# <details><summary>nothing follows</summary>Yes: they are models of different data. Evaluate both on the same pairs, or by what you want them for.</details>
# <details><summary>a's augmentation is the better one</summary>By that measure no augmentation at all would be best.</details>
#
# **3. Two encoders, trained at temperature 1 and at a learned one, are 3 nats apart, each under its own prior. Those nats belong to…**
# <details><summary>the priors</summary>Most of them. Read both at their best temperatures, and about one nat remains.</details>
# <details><summary>the encoders</summary>Read both at temperature 1, and they earn the same. Most of the difference is the prior's.</details>
# <details><summary>both, and reading each at its best temperature tells how much to which</summary>Yes: here about two nats to the prior and one to the encoder.</details>
#
# ## What we saw
#
# On real images the evidence can be computed exactly. It rises during training. At its end nearest neighbours have improved; a linear probe has gained no more than the difference between two label sets. The evidence chooses between priors on the same pairs, and its choice was as good as any for the probe. Under the better priors, more than half of what it measures tells images of one class apart, which no
# probe for classes asks for. It does not rank augmentations. The encoder is deterministic, so InfoNCE, the ELBO less $C$ and the log evidence less $C$ are one number (E14):

# %% tags=["slide"]
final = curves[:, -1].mean()
print(f"InfoNCE = ELBO − C = log evidence − C = {final:.2f} nats a held-out pair")

# %% [markdown]
# [Lesson 10](10_sequences.ipynb) goes from pairs to sequences.
