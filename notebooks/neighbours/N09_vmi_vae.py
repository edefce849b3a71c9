# %% [markdown]
# # A decoder that may ignore a code will
#
# A variational autoencoder can be given a discrete code $c$ beside its latents $z$. Nothing in its ELBO asks the decoder to use it.
#
# **The paper's claim**: a plain VAE ignores the code; a lower bound on $I(c;\hat x)$, the information between the code and the image made from it, added to the ELBO, makes it use the code. Serdega and Kim,
# *VMI-VAE: Variational mutual information maximization framework for VAE with discrete and continuous priors*, 2020, [arXiv 2005.13953](https://arxiv.org/abs/2005.13953).
#
# **Afterwards you can** say why an ELBO with a decoder doesn't reward a code, add a term that does, and name the prior of the RPM whose ELBO that term is.
#
# **You need** [lesson 3](../03_infonce_is_the_elbo.ipynb). **Time** 15 minutes, of which the computer takes half a minute.

# %%
import math

import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

import rpm_tutorial as rpm

rpm.setup()
seed = 0
images = rpm.datasets.digits()
x, labels = images.x.flatten(1), images.labels

# %% [markdown]
# ## A VAE with a code
#
# Ten codes for ten digits, and eight continuous latents. Prior: $P(c) = 1/10$, $P(z) = N(0, 1)$. The decoder gives each of the 64 pixels of $\hat x$ a grey between 0 and 1, scored as a Bernoulli probability. A code is drawn
# by the Gumbel-softmax, so that gradients pass through it. A soft code makes this "ELBO" that of a relaxation, close to the true one where codes are nearly one-hot.

# %%
CODES, DIM = 10, 8


class CodedVAE(nn.Module):
    """Recognition Q(c|x) Q(z|x), decoder P(x|z,c), and a reader Q(c|image) of images that the decoder made."""

    def __init__(self):
        super().__init__()
        self.recognise = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 2 * DIM + CODES))
        self.decode = nn.Sequential(nn.Linear(DIM + CODES, 128), nn.ReLU(), nn.Linear(128, 64))
        self.read = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, CODES))

    def generate(self, z, code):
        """The image of latents z (n, DIM) and codes (n,)."""
        return torch.sigmoid(self.decode(torch.cat([z, F.one_hot(code, CODES)], 1)))


# %%
def elbo(model, x):
    """E log P(x|z,c) - KL(Q(z|x) | P(z)) - KL(Q(c|x) | P(c)), a mean over images."""
    mean, log_variance, code_logits = model.recognise(x).split([DIM, DIM, CODES], 1)
    z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
    code = F.gumbel_softmax(code_logits, tau=0.5)
    grey = model.decode(torch.cat([z, code], 1))
    log_likelihood = -F.binary_cross_entropy_with_logits(grey, x, reduction="none").sum(1)
    rate_z = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(1)
    log_q = code_logits.log_softmax(1)
    rate_code = (log_q.exp() * (log_q + math.log(CODES))).sum(1)
    return (log_likelihood - rate_z - rate_code).mean()


# %% [markdown]
# ## A bound on what the image says of the code
#
# Draw $c$ and $z$ from their priors, make $\hat x$, and let a reader guess the code:
#
# $$I(c;\hat x) \;\ge\; H(c) + \mathbb E\log Q(c\mid\hat x), \qquad H(c) = \log 10.$$
#
# The objective is ELBO $+\,\lambda$ times this bound. With $\lambda = 0$ the reader still learns, from images whose gradient is cut off: it then measures, and the decoder hears nothing of it.


# %%
def information_bound(model, n, *, heard=True):
    """H(c) + E log Q(c|image), in nats, on n images made from the prior."""
    code, z = torch.randint(CODES, (n,)), torch.randn(n, DIM)
    image = model.generate(z, code)
    return math.log(CODES) - F.cross_entropy(model.read(image if heard else image.detach()), code)


# %%
def trained(weight, run, steps=1000):
    torch.manual_seed(seed + run)
    model = CodedVAE()
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (128,))]
        bound = information_bound(model, 128, heard=weight > 0)
        loss = -elbo(model, batch) - (weight or 1) * bound
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


# %% [markdown]
# **Predict**: how many of the $\log 10 = 2.30$ nats does a plain VAE put into the code? And what does the ELBO lose when $\lambda = 1$ asks for them?
#
# <details><summary>Answer</summary>
#
# Next to none: eight Gaussian latents describe a digit without the code, and a code that is used costs up to $\log 10$ nats of rate. With $\lambda = 1$ nearly all of them
# arrive, and the ELBO hardly changes.
# </details>


# %%
def measured(weight, run):
    """The trained model; and bound, ELBO, nats that the recognition model puts into the code, agreement of code and class."""
    model = trained(weight, run)
    with torch.no_grad():
        q_code = model.recognise(x)[:, -CODES:].softmax(1)
        used = rpm.mutual_information((q_code / len(x)).double())
        counts = torch.stack([F.one_hot(q_code.argmax(1), CODES)[labels == digit].sum(0) for digit in range(10)])
        agreement = counts[:, rpm.probes.match(counts)].trace() / len(x)
        return model, torch.stack([information_bound(model, 4000), elbo(model, x), used.float(), agreement])


def over_seeds(weight):
    models, rows = zip(*(measured(weight, run) for run in tqdm(range(3))))
    rows = torch.stack(rows)
    said = [f"{mean:.2f} ± {sd:.2f}" for mean, sd in zip(rows.mean(0), rows.std(0))]
    print("λ = {}: bound {}, ELBO {}, used {}, agreement {}".format(weight, *said))
    return models[0], rows


# %%
plain, rows_plain = over_seeds(0)
assert (rows_plain[:, 0] < 0.6).all(), "the code is nearly ignored"

# %%
bounded, rows_bounded = over_seeds(1)
assert (rows_bounded[:, 0] > 0.9 * math.log(CODES)).all(), "the images say which code made them"
assert (rows_bounded[:, 1] - rows_plain[:, 1]).abs().max() < 1, "and the ELBO stays within a nat"

# %%
_, rows_heavy = over_seeds(5)
assert (rows_heavy[:, 2] > rows_bounded[:, 2]).all() and (rows_heavy[:, 3] < 0.9).all()

# %% [markdown]
# The claim reproduces, and at no price. The ELBO does not care whether the code is used; so something else has to ask for it. Two columns ask for care. "Used" is $I_Q(x;c)$, what the *recognition* model puts into the code for real digits: far
# less than what generated images carry, because the bound is taken over the prior's images alone; a heavier weight narrows the gap. And the codes are not the classes: agreement, under the best matching of codes with classes, stays far from 1. The bound
# asks that the ten codes be told apart, not that they mean digits.

# %%
z = torch.randn(2, DIM, generator=torch.Generator().manual_seed(seed)).repeat_interleave(CODES, 0)
codes = torch.arange(CODES).repeat(2)
with torch.no_grad():
    made = {"λ = 0": plain.generate(z, codes), "λ = 1": bounded.generate(z, codes)}
rows = {f"{name}, z {k + 1}": grey.reshape(2, CODES, 8, 8)[k] for name, grey in made.items() for k in range(2)}
rpm.figures.images(
    rows,
    caption="A column a code, a row one z. Along a row of the plain VAE hardly anything changes; with the bound the code chooses the shape.",
)

# %% [markdown]
# ## Seen from the RPM
#
# Take the image $\hat x$ as $x$, its code as $x'$, both recognised as they are. The bound is the ELBO of that RPM under an explicit conditional prior, Barber and Agakov's:
#
# $$L - C = \mathbb E\log P(c\mid\hat x) + H(c) = I(c;\hat x) - \mathbb E\,\mathrm{KL}\big(Q(c\mid\hat x)\,\Vert\,P(c\mid\hat x)\big). \tag{E11}$$
#
# The letters have changed places: here $P(c\mid\hat x)$ is the reader, in our words the *prior* $P(z'\mid z)$, and $Q(c\mid\hat x)$ the true conditional of the code, given its image. On tables, with 6 images and 4 codes, for any reader:

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
# The plain VAE left the code nearly unused, and the bound filled it to nearly $\log 10$ nats without a loss of ELBO, for three seeds. What a code *means* the bound doesn't decide: agreement with the classes stayed low. The bound is (E11), an RPM's
# ELBO. An RPM may leave one of several latents idle as well.
