# %% [markdown]
# # A decoder that may ignore a code will
#
# A variational autoencoder can be given a discrete code $c$ beside its latents $z$. Nothing in its ELBO asks the decoder to use it.
#
# **The paper's claim**: a plain VAE ignores the code; a lower bound on $I(c;\hat x)$, the information between the code and the image made from it, added to the
# ELBO, makes it use the code, be it discrete or continuous. Serdega and Kim, *VMI-VAE: Variational mutual information maximization framework for VAE with
# discrete and continuous priors*, 2020, [arXiv 2005.13953](https://arxiv.org/abs/2005.13953). Its evidence is pictures; we know of no figure of the paper to set
# beside ours.
#
# **Afterwards you can** say why an ELBO with a decoder doesn't reward a code, add a term that does, say which part of that term must not be dropped, and name
# the prior of the RPM whose ELBO it is.
#
# **You need** [lesson 3](../03_infonce_is_the_elbo.ipynb). **Time** 20 minutes, of which the computer takes half of one.

# %%
import math

import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

import rpm_tutorial as rpm

rpm.setup()
seed = 0
seeds = (seed, seed + 1, seed + 2)
images = rpm.datasets.digits()
x, labels = images.x.flatten(1), images.labels

# %% [markdown]
# ## A VAE with a code
#
# Ten codes for ten digits, and eight continuous latents. Prior: $P(c) = 1/10$, $P(z) = N(0, 1)$. The decoder gives each of the 64 pixels of $\hat x$ a grey between 0
# and 1, scored as a Bernoulli probability. A code is drawn by the Gumbel-softmax, so that gradients pass through it. A soft code makes this "ELBO" that of a
# relaxation, close to the true one where codes are nearly one-hot.

# %%
CODES, DIM = 10, 8


def layers(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, outputs))


class CodedVAE(nn.Module):
    """Recognition Q(c|x) Q(z|x), decoder P(x|z,c), and a reader Q(c|image) of what it made."""

    def __init__(self):
        super().__init__()
        self.recognise, self.decode = layers(64, 2 * DIM + CODES), layers(DIM + CODES, 64)
        self.read = layers(64, CODES)

    def generate(self, z, code):
        """The image of latents z (n, DIM) and codes (n,)."""
        return torch.sigmoid(self.decode(torch.cat([z, F.one_hot(code, CODES)], 1)))


# %%
def gaussian_elbo(grey, x, mean, log_variance):
    """E log P(x|z) - KL(Q(z|x) | P(z)) of each image, with z as it was drawn."""
    log_likelihood = -F.binary_cross_entropy_with_logits(grey, x, reduction="none").sum(1)
    return log_likelihood - 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(1)


def through(model, x):
    """The ELBO, a mean over images; the reconstructions; their codes; log Q(c|x)."""
    mean, log_variance, code_logits = model.recognise(x).split([DIM, DIM, CODES], 1)
    z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
    code, log_q = F.gumbel_softmax(code_logits, tau=0.5), code_logits.log_softmax(1)
    grey = model.decode(torch.cat([z, code], 1))
    rate_code = (log_q.exp() * (log_q + math.log(CODES))).sum(1)
    elbo = (gaussian_elbo(grey, x, mean, log_variance) - rate_code).mean()
    return elbo, grey.sigmoid(), code, log_q


# %% [markdown]
# ## A bound on what the image says of the code
#
# A reader guesses the code from the image:
#
# $$I(c;\hat x) \;\ge\; H(c) + \mathbb E\log Q(c\mid\hat x).$$
#
# Of which codes and images? There are two kinds. Draw $c$ and $z$ from their **priors** and make $\hat x$: then $H(c) = \log 10$ is a constant. Or take **data**, as the
# paper does: codes drawn from $Q(c\mid x)$, and the reconstructions that the decoder makes with them. Then $H(c)$ is the entropy of the codes in use, and may
# change; the paper drops it as a constant. The objective is ELBO $+\,\lambda$ times the bound. In the plain VAE the reader learns from images whose
# gradient is cut off: it measures, and the decoder hears nothing of it.


# %%
def bound_under_prior(model, n):
    """H(c) + E log Q(c|image), in nats, on n images made from the prior."""
    code, z = torch.randint(CODES, (n,)), torch.randn(n, DIM)
    return math.log(CODES) - F.cross_entropy(model.read(model.generate(z, code)), code)


def asked(kind, model, image, code, log_q):
    """What is added to the ELBO."""
    if kind == "prior":
        return bound_under_prior(model, len(image))
    if kind == "plain":
        image, code = image.detach(), code.detach()
    said = (code * model.read(image).log_softmax(1)).sum(1).mean()
    return said + (entropy(log_q) if kind == "data" else 0)


def entropy(log_q):
    """Of the codes in use, in nats: that of the aggregate of Q(c|x)."""
    return torch.special.entr(log_q.exp().mean(0)).sum()


# %%
def trained(kind, weight, run, steps=1000):
    torch.manual_seed(run)
    model = CodedVAE()
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(steps):
        elbo, *rest = through(model, x[torch.randint(len(x), (128,))])
        loss = -elbo - weight * asked(kind, model, *rest)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


# %% [markdown]
# **Predict**: how many of the $\log 10 = 2.30$ nats does a plain VAE put into the code? What does the ELBO lose when the bound asks for them? And what happens at
# $\lambda = 5$ if $H(c)$ is dropped?
#
# <details><summary>Answer</summary>
#
# Next to none: eight Gaussian latents describe a digit without the code, and a code that is used costs up to $\log 10$ nats of rate. Asked for them, nearly all
# arrive, and the ELBO hardly changes. Without $H(c)$ the easiest code to guess is one that never changes, and at $\lambda = 5$ that pays.
# </details>


# %%
def measured(model):
    """Bound under the prior, ELBO, nats that Q(c|x) puts into the code, agreement, H(c)."""
    with torch.no_grad():
        elbo, _, _, log_q = through(model, x)
        used = rpm.mutual_information(log_q.double().softmax(1) / len(x))
        hard = F.one_hot(log_q.argmax(1), CODES)
        counts = torch.stack([hard[labels == digit].sum(0) for digit in range(10)])
        agreement = counts[:, rpm.probes.match(counts)].trace() / len(x)
        return torch.tensor([bound_under_prior(model, 4000), elbo, used, agreement, entropy(log_q)])


def over_seeds(kind, weight):
    models = [trained(kind, weight, run) for run in tqdm(seeds, leave=False)]
    rows = torch.stack([measured(model) for model in models])
    said = [f"{mean:.2f} ± {sd:.2f}" for mean, sd in zip(rows.mean(0), rows.std(0))]
    print("{}, λ = {}: bound {}, ELBO {}, used {}, agreement {}, H(c) {}".format(kind, weight, *said))
    return models[0], rows.T


# %%
plain, (bound_plain, elbo_plain, *_) = over_seeds("plain", 1)
bounded, (bound, elbo, used_prior, *_) = over_seeds("prior", 1)
assert (bound_plain < 0.6).all(), "the code is nearly ignored"
assert (bound > 0.9 * math.log(CODES)).all(), "the images say which code made them"
assert (elbo - elbo_plain).abs().max() < 1, "and the ELBO stays within a nat"
assert (used_prior < 1.2).all(), "but real digits use it little"

# %%
_, (_, _, used, agreement, _) = over_seeds("data, H dropped", 1)
_, (_, elbo_lost, used_lost, _, in_use) = over_seeds("data, H dropped", 5)
assert (used > used_prior.max() + 0.3).all() and (agreement < 0.8).all()
assert (in_use < 0.2).all() and (used_lost < 0.1).all(), "a single code"
assert (elbo_lost < elbo_plain - 1).all()

# %%
_, (_, elbo_kept, used_kept, agreement_kept, in_use) = over_seeds("data", 5)
assert (in_use > 2.2).all() and (used_kept > used.max()).all() and (agreement_kept < 0.9).all()
assert (elbo_kept > elbo_plain - 0.5).all()

# %% [markdown]
# The claim reproduces, and at no price. The ELBO does not care whether the code is used; so something else has to ask for it. Whom it asks makes a difference.
# "Used" is $I_Q(x;c)$, what the *recognition* model puts into the code for real digits. The bound under the prior leaves it small, as it sees the prior's images
# alone; on data it is far larger. And $H(c)$ is no constant there. At $\lambda = 1$ the ELBO's own rate of the code holds it up; at $\lambda = 5$ the codes collapse
# to one, unless the entropy is kept.
#
# The codes are not the classes: agreement, under the best matching of codes with classes, stays far from 1. The bound asks that the ten codes be told
# apart, not that they mean digits.

# %%
z = torch.randn(2, DIM, generator=torch.Generator().manual_seed(seed)).repeat_interleave(CODES, 0)
codes = torch.arange(CODES).repeat(2)
with torch.no_grad():
    made = {"plain": plain.generate(z, codes), "with the bound": bounded.generate(z, codes)}
rows = {f"{name}, z {k + 1}": grey.reshape(2, CODES, 8, 8)[k] for name, grey in made.items() for k in range(2)}
rpm.figures.images(
    rows,
    caption="A column a code, a row one z. Along a row of the plain VAE hardly anything changes; with the bound the code chooses the shape.",
)

# %% [markdown]
# ## A code that is continuous
#
# Without a discrete code, let two of the eight $z$ be the code. The reader gives a Gaussian, and $H(c)$ becomes the differential entropy of two standard normals, $\log 2\pi e$.
# Pairs from the prior, $\lambda = 1$.


# %%
def two_of_eight(heard, run, steps=1000):
    """What images made from the prior say of the first two z, and the ELBO, in nats."""
    torch.manual_seed(run)
    networks = recognise, decode, read = layers(64, 2 * DIM), layers(DIM, 64), layers(64, 4)

    def parts(x, n):
        mean, log_variance = recognise(x).chunk(2, 1)
        grey = decode(mean + torch.randn_like(mean) * (log_variance / 2).exp())
        z = torch.randn(n, DIM)
        image = decode(z).sigmoid()
        guess, spread = read(image if heard else image.detach()).chunk(2, 1)
        off = F.gaussian_nll_loss(guess, z[:, :2], spread.exp(), full=True) * 2
        return gaussian_elbo(grey, x, mean, log_variance).mean(), math.log(2 * math.pi * math.e) - off

    return fitted(parts, nn.ModuleList(networks), steps)


# %%
def fitted(parts, networks, steps):
    optimiser = torch.optim.Adam(networks.parameters(), 2e-3)
    for _ in range(steps):
        loss = -sum(parts(x[torch.randint(len(x), (128,))], 128))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return torch.stack(parts(x, 4000))


both = {heard: torch.stack([two_of_eight(heard, run) for run in seeds]) for heard in (False, True)}
for heard, rows in both.items():
    said = [f"{column.mean():.2f} ± {column.std():.2f}" for column in rows.T]
    print("{}: ELBO {}, of the two z at least {}".format("with the bound" if heard else "plain", *said))
assert both[True][:, 1].min() > both[False][:, 1].max() + 0.5
assert (both[True][:, 0] < both[False][:, 0] - 0.3).all(), "this time it costs"

# %% [markdown]
# A plain VAE uses some of its eight latents and leaves others idle, and whether the two that we chose are among them is chance. With the bound they tell more, for
# every seed. A continuous code has no ceiling of $\log 10$, and here the ELBO pays for it.
#
# ## Seen from the RPM
#
# Take the image $\hat x$ as $x$, its code as $x'$, both recognised as they are. The bound is the ELBO of that RPM under an explicit conditional prior, Barber and Agakov's:
#
# $$L - C = \mathbb E\log P(c\mid\hat x) + H(c) = I(c;\hat x) - \mathbb E\,\mathrm{KL}\big(Q(c\mid\hat x)\,\Vert\,P(c\mid\hat x)\big). \tag{E11}$$
#
# The $H(c)$ is the entropy of $Q(z')$ in (E11), part of the bound. The letters have changed places: here $P(c\mid\hat x)$ is the reader, in our words the *prior* $P(z'\mid z)$, and $Q(c\mid\hat x)$ the true conditional of the code, given its image. On tables, with 6 images and 4 codes, for any reader:

# %% tags=["reproducible"]
rng = torch.Generator().manual_seed(seed)
q_joint = torch.rand(6, 4, generator=rng, dtype=torch.float64).softmax(0) / 4  # of image and code: P(c) = 1/4
log_reader = torch.randn(6, 4, generator=rng, dtype=torch.float64).log_softmax(1)
world = rpm.FiniteRPM(q_joint, torch.eye(6).double(), torch.eye(4).double())
bound = math.log(4) + (q_joint * log_reader).sum()
lost = (q_joint * ((q_joint / q_joint.sum(1, keepdim=True)).log() - log_reader)).sum()
from_the_model = world.elbo(rpm.priors.barber_agakov(log_reader, q_joint)).value - world.constant
print(f"bound {bound:.6f}, L - C {from_the_model:.6f}, I - KL {world.mutual_information - lost:.6f}")
assert abs(bound - from_the_model) < 1e-10 and abs(bound - (world.mutual_information - lost)) < 1e-10

# %% [markdown]
# So the VAE with the bound is two models: a generative one, and beside it an RPM of image and code. An RPM cannot ignore *all* its latents without a loss: by (E5) a recognition model that ignores its input has
# $L - C = 0$ at most. But it may leave one idle, just as the VAE does, if the others tell all: the ELBO counts what they carry together.

# %% tags=["reproducible"]
ignores = torch.full((6, 4), 1 / 4, dtype=torch.float64)
world = rpm.FiniteRPM(q_joint, ignores, torch.eye(4).double())
best = (world.elbo(rpm.priors.optimal(world.q_joint)).value - world.constant).item()
print(f"an RPM whose latent ignores x: at best L - C = {best:.1e}")
assert abs(best) < 1e-10
code = torch.full((1, 4), 1 / 4, dtype=torch.float64)  # random, whatever the image
world = rpm.FiniteRPM(q_joint, torch.kron(torch.eye(6).double(), code), torch.eye(4).double())  # z = (x, code)
best = (world.elbo(rpm.priors.optimal(world.q_joint)).value - world.constant).item()
print(
    f"one whose second latent is idle: {best:.6f}, all that image and code share: {rpm.mutual_information(q_joint):.6f}"
)
assert abs(best - rpm.mutual_information(q_joint)) < 1e-10

# %% [markdown]
# ## Exercise
#
# Return the bound in nats, from the reader's `logits` of $n$ images, shape (n, K), and the codes that made them, shape (n,), drawn with equal probabilities.


# %% tags=["exercise"]
def bound(logits, codes):
    return ...


rpm.lessons.neighbour_09.bound.check(bound)

# %% [markdown]
# ## What we saw
#
# The plain VAE left the code nearly unused, and the bound filled it to nearly $\log 10$ nats without a loss of ELBO, for three seeds. Real digits use the code only where the bound is asked of data, and there the entropy that the paper
# drops has to stay, or a heavy $\lambda$ leaves a single code. Two continuous codes tell more with the bound, at a price. What a code *means* the bound doesn't decide: agreement with the classes stayed low. The bound is (E11), an RPM's
# ELBO. An RPM may leave one of several latents idle as well.
