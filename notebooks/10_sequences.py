# %% [markdown]
# # Sequences: a chain of InfoNCE terms, and a prior that knows how things move
#
# Contrastive predictive coding (CPC; van den Oord, Li and Vinyals, [2018](https://arxiv.org/abs/1807.03748)) sums an InfoNCE term over time. As variational
# inference that sum needs no new idea. It is the ELBO of a chain, and what you let the chain assume about motion decides what it can learn.
#
# **Afterwards you can** read CPC as the ELBO of a chain, and say which of its variants are one; compute what a chain loses when its context is
# too short; give an encoder a prior with dynamics, or let it find the dynamics; say what a horizon costs.
#
# **You need** [lesson 3](03_infonce_is_the_elbo.ipynb); [lesson 9](09_learning_from_images.ipynb) is the one before. **Time** 30 minutes.
# Symbols are in the [notation](../docs/notation.md), words in the [glossary](../docs/glossary.md), objections in the
# [FAQ](../docs/faq.md).
#
# **Whose result is it?** The chain and its sum of InfoNCE terms (E19) are the paper's
# ([Aitchison and Ganev](https://arxiv.org/abs/2107.02495)). What a short context loses, CPC's horizons as
# several chains, and all measurements are this course's. That steps which are mostly small, over time, identify the latents is due to Klindt et al.
# ([2021](https://arxiv.org/abs/2007.10930)); lesson 8 measures it.

# %%
import torch
from tqdm.auto import tqdm

import rpm_tutorial as rpm

device = rpm.setup()
seed = 0

# %% [markdown]
# ## The ELBO of a chain is a sum of InfoNCE terms
#
# Now there are many observations $x_0, x_1, \dots$, each with its latent $z_t$ and its recognition model $Q(z_t|x_t)$. Write the prior as a chain,
# and make each step an InfoNCE prior (E7) whose first argument is a *context* $c_t$, anything computed from the latents so far:
#
# $$P(z_t|z_{<t}) = \frac{Q(z_t)\,f(c_t,z_t)}{Z(c_t)}, \quad c_t = c_t(z_{<t}), \qquad L - C = \sum_t \Big(\mathbb E\,\log f(c_t,z_t) - \mathbb E\log Z(c_t)\Big). \tag{E19}$$
#
# The argument needs no new step: each $Q(z_t)$ cancels against the likelihood's, as before. To check it, take the smallest
# chain that has a context of two latents: three observations with four values each, three latents with three. Everything is random. The second cell makes
# the prior: $P(z_0) = Q(z_0)$, then (E19) twice. The context of $z_2$ is the pair $(z_0, z_1)$, so it has nine values.

# %%
rng = torch.Generator().manual_seed(seed)


def scores(*shape):
    return 2.5 * torch.randn(*shape, generator=rng, dtype=torch.float64)


p_true = scores(4, 4, 4).flatten().softmax(0).view(4, 4, 4)  # P_true(x₀,x₁,x₂)
recognition = scores(3, 4, 3).softmax(2)  # Q(z_t|x_t), one table for each t
weights = torch.einsum("abc,ai,bj,ck->abcijk", p_true, *recognition)  # of every (x₀,x₁,x₂,z₀,z₁,z₂)
q = weights.sum((0, 1, 2))  # Q(z₀,z₁,z₂)
log_f_1, log_f_2 = scores(3, 3), scores(3, 3, 3)  # critics of (z₀, z₁) and of ((z₀,z₁), z₂)

# %% tags=["reproducible"]
p_x = [p_true.sum(axes) for axes in ((1, 2), (0, 2), (0, 1))]
q_z = [q.sum(axes) for axes in ((1, 2), (0, 2), (0, 1))]
Z_1, Z_2 = log_f_1.exp() @ q_z[1], log_f_2.exp() @ q_z[2]  # Z(z₀) and Z(z₀,z₁)
step_1 = q_z[1] * log_f_1.exp() / Z_1[:, None]  # P(z₁|z₀)
step_2 = q_z[2] * log_f_2.exp() / Z_2[:, :, None]  # P(z₂|z₀,z₁)
P = q_z[0][:, None, None] * step_1[:, :, None] * step_2
print(f"P(z₀,z₁,z₂) sums to {P.sum():.12f}")
assert abs(P.sum() - 1) < 1e-12

# %% [markdown]
# Left side: the definition of the ELBO, its seven terms added up in each of the 1 728 cells of a table with six axes, without cancelling anything. Right side:
# `rpm.infonce`, twice, which sees neither observations nor densities.
#
# **Predict**: the context of the second term has nine values and $z_2$ has three. Does `infonce`, which was written for pairs, need to be changed?
#
# <details><summary>Answer</summary>
#
# No. A pair is a context and what follows; the context (z₀, z₁) is a row of the table, and the table may have any shape.
# </details>


# %% tags=["reproducible"]
def spread(table, *axes):
    """A table over some of the axes (x₀,x₁,x₂,z₀,z₁,z₂), ready to be added to one over all six."""
    return table.view([table.shape[axes.index(axis)] if axis in axes else 1 for axis in range(6)])


log_q = [spread(recognition[t].log(), t, 3 + t) for t in range(3)]  # log Q(z_t|x_t)
log_p = [log_q[t] + spread(p_x[t].log(), t) - spread(q_z[t].log(), 3 + t) for t in range(3)]  # log P(x_t|z_t), (E2)
constant = sum(torch.xlogy(p, p).sum() for p in p_x)  # C


def bound(P):
    """L − C of a prior P(z₀,z₁,z₂), by the sum over all cells."""
    return (weights * (P.log() + sum(log_p) - sum(log_q))).sum() - constant


terms = [rpm.infonce(log_f_1, q.sum(2)).value, rpm.infonce(log_f_2.flatten(0, 1), q.flatten(0, 1)).value]
residual = abs(bound(P) - sum(terms))
print(f"L − C = {bound(P):.12f}\nInfoNCE {terms[0]:.6f} + {terms[1]:.6f} = {sum(terms):.12f}, residual {residual:.1e}")
assert residual < 1e-12

# %% [markdown]
# (The terms need not be positive: a random critic can be worse than taking the latents for independent.) This is CPC with a horizon of one step: its context network computes $c_t$, its score is $\log f$, and its loss, summed over the sequence, is minus the
# ELBO of this chain. A batch estimates each term as lesson 6 describes, one term a step.
#
# ## What the context forgets, the chain pays for
#
# Let every critic be the best one. Then each term is a mutual information, and their sum measures how far the latents are from independent, the
# *total correlation*. A context that keeps only $z_1$ loses exactly what $z_0$ would have added:
#
# $$\underbrace{I(z_0;z_1) + I(z_0,z_1;\,z_2)}_{\text{long context}} \;-\; \underbrace{\big(I(z_0;z_1) + I(z_1;z_2)\big)}_{\text{short context}} = I(z_0;z_2|z_1).$$

# %% tags=["reproducible"]
independent = q_z[0][:, None, None] * q_z[1][:, None] * q_z[2]
total_correlation = (q * (q / independent).log()).sum()
first = rpm.mutual_information(q.sum(2))
long, short = first + rpm.mutual_information(q.flatten(0, 1)), first + rpm.mutual_information(q.sum(0))
given_z_1 = q * q_z[1][:, None] / (q.sum(2)[:, :, None] * q.sum(0))  # Q(z₀,z₂|z₁) / Q(z₀|z₁)Q(z₂|z₁)
forgotten = (q * given_z_1.log()).sum()  # I(z₀;z₂|z₁)
print(f"long {long:.6f} = total correlation, residual {abs(long - total_correlation):.1e}")
print(f"long − short {long - short:.6f} = I(z₀;z₂|z₁), residual {abs(long - short - forgotten):.1e}")
assert abs(long - total_correlation) < 1e-12 and abs(long - short - forgotten) < 1e-12 and forgotten > 0

# %% [markdown]
# No critic can make up for it, however flexible: the information is missing from what the critic may see. For a moving ball, below, what is missing is the velocity.
#
# ## One frame shows where, two show how fast
#
# A ball keeps its velocity, but for a small random push before each frame from the third on. In the box's units, with $p_t$ the position:
#
# $$p_{t+1} = p_t + (p_t - p_{t-1}) + 0.01\,\varepsilon_t.$$

# %%
held_out = rpm.datasets.constant_velocity(4096, frames=7, generator=torch.Generator().manual_seed(1000 + seed))
rpm.figures.images(
    {f"sequence {i}": held_out.x[i] for i in range(3)},
    caption="Three sequences of seven frames. From the first two frames you can tell where the ball will be in the third; from one you cannot.",
)

# %% [markdown]
# We made this world, so we know the best possible value. Frames 0 and 1 leave only the later pushes open, and the pushes add up to
# Gaussian noise; the information is the entropy of the position less that of the noise.


# %% tags=["reproducible"]
def information(k, scale=0.01):
    """I(frames 0 and 1; frame 1 + k) in nats by quadrature: two dimensions, alike and independent."""
    noise = scale * (k * (k + 1) * (2 * k + 1) / 6) ** 0.5  # you derive this in exercise 3
    p = torch.linspace(-1, 2, 6001, dtype=torch.float64)
    velocity = torch.linspace(-0.05, 0.05, 401, dtype=torch.float64)[1::2]
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), noise)
    reached = p[:, None] - (k + 1) * velocity  # where the ball started, but for noise: uniform on [.3, .7]
    density = (normal.cdf(reached - 0.3) - normal.cdf(reached - 0.7)).mean(1) / 0.4
    entropy = -torch.xlogy(density, density).sum() * (p[1] - p[0])
    return 2 * (entropy - normal.entropy()).item()


ceiling = torch.tensor(128.0).log()
print(f"I(frames 0, 1; frame 2) = {information(1):.4f} nats; a batch of 128 shows at most {ceiling:.4f}")
assert ceiling < information(1)

# %% [markdown]
# ## Priors for the third frame
#
# One encoder sees each frame by itself, so a single latent can hold a position and nothing else. Only the context joins two of them, and the walk that
# starts from it has one learned scale:
#
# | prior | context $c(z_0,z_1)$ | what it assumes |
# |---|---|---|
# | random walk | $z_1$ | things stay where they are |
# | constant velocity | $2z_1 - z_0$ | things keep their velocity |
# | learned linear | $A\,(z_0,z_1)$, $A$ starts as the random walk | there is a linear law |
# | universal | $a(z_0,z_1)\cdot b(z_2)$ | nothing |
#
# The library's training loop takes pairs, and the chain gives it pairs: $x$ = frames 0 and 1, $x'$ = frames 1 and 2, of which the critic looks at the last. (We leave out
# the term of $z_1$ given $z_0$, which all priors share. CPC leaves out contexts that are too short as well.)


# %%
class EachFrame(torch.nn.Module):
    """One encoder for every frame: x (n, t, H, W) to z_0 … z_{t−1} side by side, (n, t d)."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x):
        return self.encoder(x.flatten(0, 1)).view(len(x), -1)


class ContextWalk(torch.nn.Module):
    """log f(c, z_2): a random walk from the context c(z_0, z_1) to the last frame of z′. Source: (E19)."""

    def __init__(self, context):
        super().__init__()
        self.context, self.walk = context, rpm.RandomWalk()

    def forward(self, z, z_prime):
        return self.walk(self.context(z), z_prime[:, 2:])


# %% [markdown]
# The universal critic gets $z_2$ twice in the place of $z' = (z_1, z_2)$. **Predict**: why must it not see the $z_1$ that is in $z'$?
#
# <details><summary>Answer</summary>
#
# It is in z too. The critic would recognise a pair by its common frame and reach the ceiling log N, having predicted nothing.
# </details>
#
# Each model is judged on held-out sequences: by its evidence among 2 048 candidates, because a training batch of 128 cannot show all there is to know
# (lesson 6), and by how well true positions and velocities can be read off linearly, on sequences that the reading was not fitted to.


# %%
class AnyContext(rpm.Universal):
    """log f = a(z_0, z_1) · b(z_2)."""

    def forward(self, z, z_prime):
        return super().forward(z, z_prime[:, [2, 3, 2, 3]])


class WalkAndAny(torch.nn.Module):
    """The sum of a random walk and a universal term."""

    def __init__(self):
        super().__init__()
        self.walk, self.any = ContextWalk(lambda z: z[:, 2:]), AnyContext(4, features=64)

    def forward(self, z, z_prime):
        return self.walk(z, z_prime) + self.any(z, z_prime)


# %%
def learned():
    A = torch.nn.Linear(4, 2, bias=False)
    A.weight = torch.nn.Parameter(torch.eye(4)[2:])  # c = z_1
    return A


priors = {
    "random walk": lambda: ContextWalk(lambda z: z[:, 2:]),
    "constant velocity": lambda: ContextWalk(lambda z: 2 * z[:, 2:] - z[:, :2]),
    "learned linear": lambda: ContextWalk(learned()),
    "linear, random start": lambda: ContextWalk(torch.nn.Linear(4, 2, bias=False)),
    "universal": lambda: AnyContext(4, features=64),
    "walk + universal": WalkAndAny,
}


# %%
def windows(horizon, seed, n=128):
    generator = torch.Generator().manual_seed(seed)
    while True:
        x = rpm.datasets.constant_velocity(n, frames=2 + horizon, generator=generator).x
        yield x[:, :2], x[:, -2:]


def trained(prior, seed, horizon=1, steps=400):
    """An encoder and a critic trained together; every seed draws its own start and its own sequences."""
    rate = 5e-3 if "universal" in prior else 2e-2  # networks want smaller steps
    torch.manual_seed(seed)
    encoder, critic = EachFrame(rpm.encoders.mlp(256, 2)), priors[prior]()
    for _ in rpm.train(encoder, critic, windows(horizon, seed), steps, learning_rate=rate):
        pass
    return encoder, critic


# %%
def judged(encoder, critic, half=2048):
    """I_2048 in nats, R² of position (from z_1) and of velocity (from z_0, z_1), and the standard error of I_2048."""
    position, velocity = held_out.position[:, 1], held_out.position[:, 1] - held_out.position[:, 0]
    z, z_prime = rpm.encode(encoder, held_out.x[:, :2]), rpm.encode(encoder, held_out.x[:, 1:3])
    with torch.no_grad():
        terms = rpm.dataset_evidence(z[:half], z_prime[:half], critic, reduction="none").infonce
    r_squared = (
        rpm.probes.r_squared(latents[:half], truth[:half], latents[half:], truth[half:])
        for latents, truth in ((z[:, 2:], position), (z, velocity))
    )
    return terms.mean().item(), *r_squared, terms.std().item() / half**0.5


# %% [markdown]
# **Predict**: the ball moves by up to 5 % of the box between frames, and each push changes that by about 1 % of the box. How many nats does the random walk give away by
# ignoring velocity, in two dimensions?
#
# <details><summary>Answer</summary>
#
# About two. The velocity, uniform within ±5 %, has a standard deviation of 2.9 %, so the walk is left with an uncertainty about three times as wide in each
# dimension, and a factor of three is log 3 = 1.1 nats.
# </details>

# %%
seeds = (seed, seed + 1, seed + 2)
models, results = {}, {}


def study(prior):
    """Train and judge one prior on all seeds."""
    models[prior] = [trained(prior, s) for s in tqdm(seeds, desc=prior)]
    results[prior] = torch.tensor([judged(*model) for model in models[prior]])
    print(f"{prior:18} I_2048 in nats", *(f"{value:.2f}" for value in results[prior][:, 0]))


study("random walk")

# %%
study("constant velocity")
value, error = results["constant velocity"][:, 0], results["constant velocity"][:, 3]
gain, gap = value - results["random walk"][:, 0], information(1) - value
print("gain over the random walk:", *(f"{g:.2f}" for g in gain), "nats")
print(f"all there is to know: {information(1):.2f}; the held-out sequences measure it to ± {error.max():.2f}")
assert (gain > 2).all() and (gap > -4 * error).all() and (gap < 0.15 + 4 * error).all()

# %% [markdown]
# Where do two nats come from? By (E8) the evidence of each model is an information less a KL. The walk pays twice: its context forgets $I(z_0;z_2|z_1)$, and it is a poor
# guess of $Q(z_2|z_1)$, which costs a KL. Constant velocity forgets nothing, and its KL is small. (What the encoders miss is small beside these.) One line of the prior is worth more than two nats.
#
# ## A prior may learn the law
#
# We told the second prior what we know. The third has a matrix $A$ in its place and starts as a random walk.
#
# **Predict** $A = (A_0, A_1)$ after training, two blocks of 2 × 2.
#
# <details><summary>Answer</summary>
#
# A₀ = −1 and A₁ = 2 times the identity. The latents may be turned, stretched or shifted against the true positions, and the law is the same in any such
# coordinates: its weights add up to one.
# </details>

# %%
study("learned linear")
A = torch.stack([critic.context.weight.detach() for _, critic in models["learned linear"]])
truth = torch.cat([-torch.eye(2), 2 * torch.eye(2)], 1)
print(
    "A of the first seed:", *(" ".join(f"{round(v, 1) + 0.0:5.1f}" for v in row) for row in A[0].tolist()), sep="\n  "
)
assert (A - truth).abs().max() < 0.1, "on all seeds"
assert (results["learned linear"][:, 0] - results["constant velocity"][:, 0]).abs().max() < 0.15

# %% [markdown]
# The law of motion came out of a contrastive loss on all three seeds, in the encoder's own coordinates. It has more evidence than the walk that $A$ started as.
#
# ## A flexible prior needs a good start
#
# The learned linear prior did well. It also *started* as the random walk, and the universal prior starts as nothing in particular. So we compare starts, not only
# priors. Two more pairs of the same prior with two starts:
#
# | prior | starts as a random walk | starts at random |
# |---|---|---|
# | learned linear | $A = (0, 1)$, above | $A$ random |
# | universal | $-\lVert z_1-z_2\rVert^2/2\sigma^2 + a(z_0,z_1)\cdot b(z_2)$ | $a(z_0,z_1)\cdot b(z_2)$ |
#
# A walk plus a universal term can represent whatever the universal term can.
#
# **Predict**: does the start or the freedom of the prior decide?
#
# <details><summary>Answer</summary>
#
# The start. With a walk to begin from, either prior comes close to constant velocity, on each seed. From a random start either one mostly stops at half of the nats.
# </details>

# %%
study("linear, random start")
study("universal")

# %%
study("walk + universal")
for prior in ("learned linear", "walk + universal"):
    assert (results["constant velocity"][:, 0] - results[prior][:, 0]).abs().max() < 0.15
for prior in ("linear, random start", "universal"):  # 5 of 6 seeds each: 2.5 to 2.7 nats
    assert results[prior][:, 0].min() < results["walk + universal"][:, 0].min() - 1
print(f"{'prior':22}{'I_2048 (nats)':>19}{'position':>11}{'velocity':>10}  unexplained")
for prior, result in results.items():
    value, unexplained = result[:, 0], 100 * (1 - result[:, 1:3]).amax(0)
    spread_of = f"{value.mean():5.2f} [{value.min():.2f}, {value.max():.2f}]"
    shares = "".join(f"{share:9.2f}%" for share in unexplained)
    print(f"{prior:22}{spread_of:>19} {shares}")
velocity = {prior: result[:, 2] for prior, result in results.items()}
assert velocity["constant velocity"].min() > 0.995 > velocity["random walk"].max()
assert velocity["walk + universal"].min() > 0.99 and velocity["universal"].min() < 0.9

# %% [markdown]
# The table gives mean and range of the evidence over the seeds, then the percentage of position and velocity that a linear map does *not* explain ($1 - R^2$, worst seed).
# A run that stopped at half of the nats has found one coordinate of two: half of the position is unexplained. Its prior could have represented the other
# one, so the failure is the training's. A flexible prior is no gamble if it starts as a rough one: begin with a walk, add freedom to it, or restart and
# compare nats. Look also at the random walk: a wrong prior can give a good code of the position, if frames show nothing else. The nats tell the priors apart. So does the
# velocity, a small difference of two latents, which needs an accurate code.
#
# ## A horizon is the one-step prior, iterated
#
# A chain needs no second model to look further ahead. If $z_{t+1} = A\,(z_{t-1}, z_t)$ + noise, the pair $(z_{t-1}, z_t)$ moves on by a square matrix, and $k$ steps
# are its $k$-th power; the noise of each step is carried along by the power of the steps that remain. We iterate the critic alone and normalise once, at the end. The chain of (E19) would
# bring in its $Q(z_t)/Z$ at every step; where $Q$ is flat over the length of a step, the two agree.
#
# **Predict**: which prior loses more over four steps, constant velocity, whose noise grows like $k^{3/2}$, or the random walk, whose noise grows like $\sqrt k$?
#
# <details><summary>Answer</summary>
#
# The walk. The ball runs away like k times its velocity, far outside the walk's √k. So the walk is sure of wrong places, and a confident error costs more nats than
# an honest doubt.
# </details>


# %% tags=["reproducible"]
def ahead(A, k):
    """The matrix, (d, 2d), from (z_0, z_1) to the mean of z_{1+k}, and by how much the one-step noise has grown."""
    d = len(A)
    F = torch.cat([torch.eye(2 * d)[d:], A])  # (z_{t−1}, z_t) → (z_t, z_{t+1})
    powers = [torch.matrix_power(F, j) for j in range(k + 1)]
    return powers[k][d:], (sum(power[d:, d:].square().sum() for power in powers[:k]) / d).sqrt().item()


matrix, growth = ahead(truth, 3)
print(
    f"constant velocity, three steps: z_4 = {matrix[0, 0]:.0f} z_0 + {matrix[0, 2]:.0f} z_1, noise times {growth:.3f}"
)
assert torch.equal(matrix, torch.cat([-3 * torch.eye(2), 4 * torch.eye(2)], 1)) and abs(growth - 14**0.5) < 1e-6


# %%
def worth(encoder, A, scale, k):
    """I_2048 in nats of a one-step prior (A, scale), iterated to horizon k; nothing is trained."""
    matrix, growth = ahead(A, k)
    z, z_ahead = (rpm.encode(encoder, held_out.x[:2048, frames]) for frames in ([0, 1], [1 + k]))
    return rpm.dataset_evidence(z @ matrix.T, z_ahead, rpm.RandomWalk(scale * growth, learnable=False)).infonce.item()


horizons = (1, 2, 3, 4)
laws = {"constant velocity": [truth] * 3, "learned linear": A, "random walk": [torch.eye(4)[2:]] * 3}
curves = {"MI": [information(k) for k in horizons]}
for prior, matrices in laws.items():
    runs = list(zip(models[prior], matrices))
    values = torch.tensor([[worth(e, law, c.walk.scale.item(), k) for k in horizons] for (e, c), law in runs])
    curves[prior] = values.mean(0).tolist()
    assert values.std(0).max() < 0.2, "seeds agree"
for prior, curve in curves.items():
    print(f"{prior:18}", *(f"{value:6.1f}" for value in curve))

# %%
losses = {prior: torch.tensor(curves["MI"]) - torch.tensor(curves[prior]) for prior in laws}
assert losses["constant velocity"].max() < 0.25, "nearly all there is to know, at every horizon"
assert (losses["random walk"][1:] > losses["random walk"][:-1]).all(), "each further step makes the wrong prior worse"
assert curves["random walk"][-1] < 0
rpm.figures.lines(
    horizons,
    {name: curves[name] for name in ("MI", "constant velocity", "random walk")},
    x_label="horizon k (frames)",
    y_label="I_2048 (nats a sequence)",
    caption="Pushes add up, so later frames are known less. Constant velocity keeps close to all there is to know; a wrong prior's error compounds.",
)

# %% [markdown]
# Below zero: at horizon 4 the iterated walk would do better to say that the frames are independent.
#
# ## CPC with several horizons adds up several chains
#
# CPC scores several horizons at once, $f_k(c_t, z_{t+k})$ with a matrix of its own for each $k$. What is the model? One horizon alone is again a chain (E19), one whose
# context is $k$ steps old, $P(z_t|z_{<t}) = Q(z_t) f_k(c_{t-k}, z_t)/Z_k(c_{t-k})$. On the small chain, $k = 2$: nobody foresees $z_1$, and $z_2$ follows from $z_0$.

# %% tags=["reproducible"]
log_f_02 = scores(3, 3)
step_2_from_0 = q_z[2] * log_f_02.exp() / (log_f_02.exp() @ q_z[2])[:, None]  # P(z₂|z₀)
P_2 = q_z[0][:, None, None] * q_z[1][:, None] * step_2_from_0[:, None, :]
one_horizon = rpm.infonce(log_f_02, q.sum(1)).value
print(
    f"k = 2: L − C = {bound(P_2):.6f}, InfoNCE of (z₀, z₂) {one_horizon:.6f}, residual {abs(bound(P_2) - one_horizon):.1e}"
)
mean = (bound(P) + bound(P_2)) / 2
print(f"mean of the two ELBOs {mean:.4f}, ELBO of the averaged prior {bound((P + P_2) / 2):.4f}")
assert abs(bound(P_2) - one_horizon) < 1e-12 and mean < bound((P + P_2) / 2)

# %% [markdown]
# So CPC's loss with $K$ horizons is minus the sum of $K$ ELBOs, of $K$ different chains with one encoder. CLIP's is the mean of two (E12), and as there, the mean lies below the
# ELBO of the averaged prior. Within one chain there would be nothing left to fit at $k = 2$: two steps follow from one, up to those factors. With the right law the two views agree. Train a
# learned linear prior for $k = 2$ alone.
#
# **Predict** its $A$.
#
# <details><summary>Answer</summary>
#
# A₀ = −2 and A₁ = 3, what one step iterated gives, as far as so short a training gets.
# </details>

# %%
direct = torch.stack([trained("learned linear", s, horizon=2)[1].context.weight.detach() for s in tqdm(seeds)])
implied = torch.stack([ahead(one_step, 2)[0] for one_step in A])
for name, matrices in (("trained at k = 2", direct), ("one step, iterated", implied)):
    print(f"{name:19} A₀ ≈ {matrices[:, 0, 0].mean():.1f}, A₁ ≈ {matrices[:, 0, 2].mean():.1f}")
assert (direct - implied).abs().max() < 0.4

# %% [markdown]
# Were the motion such that no $A$ describes it, they need not agree: CPC's matrices would patch each horizon by itself, while a chain's evidence would fall with the horizon, as the
# random walk's did, and so say that the law is wrong.
#
# ## Latents on the path
#
# The latents of the first constant-velocity model, after the linear map that brings them closest to the true positions, and where either prior expects a later frame.
#
# **Predict**, before you move the sliders: at horizon 4 under the random walk, is the ball inside the dashed circle?
#
# <details><summary>Answer</summary>
#
# For slow balls only. The circle is honest for one step, and grows too slowly after it.
# </details>
#
# The cell also counts the balls inside: in two dimensions, an honest circle of two standard deviations holds $1 - e^{-2}$ of them.


# %%
def share_inside(law, k):
    p = held_out.position
    matrix, growth = ahead(law, k)
    one_step = (p[:, 2] - p[:, :2].flatten(1) @ law.T).square().mean().sqrt()
    off = (p[:, 1 + k] - p[:, :2].flatten(1) @ matrix.T).norm(dim=1)
    return (off < 2 * growth * one_step).float().mean().item()


for prior, law in {"constant velocity": truth, "random walk": torch.eye(4)[2:]}.items():
    print(f"{prior:18}", *(f"k = {k}: {share_inside(law, k):.2f}  " for k in horizons))
assert abs(share_inside(truth, 4) - 0.865) < 0.03
assert share_inside(torch.eye(4)[2:], 4) < 0.5
z = rpm.encode(models["constant velocity"][0][0], held_out.x[:2048]).view(2048, 7, 2)
rpm.explore(rpm.lessons.lesson_10.forecast(z, held_out.position[:2048]))

# %% [markdown]
# ## Exercises
#
# **1.** Return $L - C$ of a chain of three latents from `q` = $Q(z_0,z_1,z_2)$ and the scores `log_f_1` of $(z_0,z_1)$ and `log_f_2` of $((z_0,z_1),z_2)$.


# %% tags=["exercise"]
def chain(q, log_f_1, log_f_2):
    return ...


rpm.lessons.lesson_10.chain.check(chain)

# %% [markdown]
# **2.** Return what a chain loses, at its best, if the context of $z_2$ is $z_1$ alone, from `q` = $Q(z_0,z_1,z_2)$.


# %% tags=["exercise"]
def forgotten_by(q):
    return ...


rpm.lessons.lesson_10.forgotten.check(forgotten_by)

# %% [markdown]
# **3.** At constant velocity, $z_{t+1} = 2z_t - z_{t-1} + \sigma\varepsilon_t$. Return the standard deviation of $z_{1+k}$ given $z_0$ and $z_1$.


# %% tags=["exercise"]
def noise_ahead(sigma, k):
    return ...


rpm.lessons.lesson_10.noise.check(noise_ahead)

# %% [markdown]
# ## Quiz
#
# **1. CPC's loss over a sequence, with one-step predictions, is minus the ELBO of a chain. Its context network is then part of…**
# <details><summary>the recognition model</summary>Q(z_t|x_t) sees one observation. The context joins latents, and appears in P(z_t|z_{<t}) alone.</details>
# <details><summary>the prior</summary>Yes: with the critic it says how latents follow one another. A recurrent context is a prior with a long memory.</details>
# <details><summary>the likelihood</summary>P(x_t|z_t) is made of the encoder and the data (E2), step by step; no context enters.</details>
#
# **2. A critic with unlimited capacity that is given z₁ alone, trained without end on constant-velocity sequences, reaches…**
# <details><summary>I(z₀,z₁; z₂)</summary>Not without z₀: capacity cannot restore what the context dropped.</details>
# <details><summary>I(z₁; z₂)</summary>Yes: less than I(z₀,z₁; z₂), by I(z₀;z₂|z₁). The loss is in the context, so no critic mends it. (An encoder that sees two frames would.)</details>
# <details><summary>log N</summary>That is the ceiling of a batch; the information ends below it, or the batch is too small to tell.</details>
#
# **3. You train CPC with horizons 1 to 4 and add the four terms up over the sequence. The sum is…**
# <details><summary>the ELBO of one chain</summary>There each latent has one conditional. Here each is foreseen four times, from contexts of four ages.</details>
# <details><summary>the sum of four ELBOs, of four chains</summary>Yes, their contexts being 1, 2, 3 and 4 steps old, with the same encoder.</details>
# <details><summary>a better objective than one step, because it is larger</summary>It is larger as a sum of four things is. Evidence compares one model with another; it is not collected.</details>
#
# ## What we saw
#
# A chain of InfoNCE priors gives a sum of InfoNCE terms, to rounding. What the context forgets costs a conditional mutual information. The right law of motion was worth more than two
# nats a sequence, and a matrix that had to learn it found it, from the start of a walk. A horizon is the prior iterated, and shows what the prior is worth; CPC's several horizons are several chains.
#
# These encoders are deterministic. So for the third frame given the first two, InfoNCE, the ELBO and the log evidence, each above its value for independent
# frames, are one number a sequence (E14): the column I_2048 of the table. Constant velocity earns
# 5.0 nats, the walk 2.8.
#
# All along, each observation had a latent of its own and the prior joined them. The next lesson ties all observations to *one* latent:
# [the other RPM](13_the_other_rpm.ipynb).
