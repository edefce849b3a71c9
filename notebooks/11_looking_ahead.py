# %% [markdown] tags=["slide"]
# # Looking ahead: one prior iterated, or one prior for each horizon
#
# Lesson 10's chain predicts the next frame. CPC predicts several frames ahead at once, $k = 1, \dots, K$, with a critic of its own for each **horizon** $k$. **Does a chain need
# those critics, or does it look ahead by itself? And which model does CPC fit when it has them?** A one-step prior can be iterated, and the nats at each horizon
# test it. CPC's horizons are not one model but several, which agree if the law of motion is right.
#
# **Afterwards you can** iterate a one-step prior to any horizon; say in nats what it is worth there; name the models that CPC with several horizons fits; read a
# disagreement between horizons as a sign that the context is too short.
#
# **You need** [lesson 10](10_sequences.ipynb). **Time** 55 minutes.
#
# **Whose result is it?** Horizons with a critic each are CPC's (van den Oord, Li and Vinyals, [2018](https://arxiv.org/abs/1807.03748), section 2.2). The chain
# (E19) is the paper's ([Aitchison and Ganev](https://arxiv.org/abs/2107.02495)). CPC's horizons as several chains, and all measurements, are this course's.
# Beside it: [notation](../docs/notation.md), [glossary](../docs/glossary.md), [questions and answers](../docs/faq.md).

# %%
import torch
from tqdm.auto import tqdm

import rpm_tutorial as rpm

device = rpm.setup()
seed = 0
other_seed = torch.Generator().manual_seed(1000 + seed)
held_out = rpm.datasets.constant_velocity(4096, frames=7, generator=other_seed)

# %% [markdown] tags=["slide"]
# ## Two steps are one step twice
#
# The world is lesson 10's: a ball that keeps its velocity, except that a random push changes it before each frame from the third on. We see frames 0 and 1 and predict frame $1 + k$. Horizon $k = 1$
# is lesson 10. Its critic was a Gaussian step from a linear context. If we leave out the factor $Q(z)/Z$ of its prior (more on this below), it is a linear law with Gaussian noise,
#
# $$z_{t+1} = A_0\,z_{t-1} + A_1\,z_t + \sigma\,\varepsilon_t .$$
#
# One step moves the pair $(z_{t-1}, z_t)$ to $(z_t, z_{t+1})$. Without the noise, that is a product with a square matrix, so $k$ steps are its $k$-th power:
#
# $$\begin{pmatrix} z_k \\ z_{1+k} \end{pmatrix} = F^k \begin{pmatrix} z_0 \\ z_1 \end{pmatrix}, \qquad F = \begin{pmatrix} 0 & 1 \\ A_0 & A_1 \end{pmatrix}.$$
#
# The noise of each step enters at the lower half, and is moved on by the steps that follow it. The noises are independent, so their variances add up. `ahead` returns the lower half of $F^k$, which gives the mean of $z_{1+k}$, and the standard deviation of $z_{1+k}$ around it, in units of $\sigma$.
#
# **Predict**: at constant velocity, $A_0 = -1$ and $A_1 = 2$, what are the weights of $z_0$ and $z_1$ in the mean of $z_4$ (horizon 3)?
#
# <details><summary>Answer</summary>
#
# −3 and 4. The ball starts at z₁ and makes three steps of z₁ − z₀.
# </details>


# %% tags=["reproducible", "slide"]
def ahead(A, k):
    """The matrix (d, 2d) from (z_0, z_1) to the mean of z_{1+k}; how noise grows."""
    d = len(A)
    F = torch.cat([torch.eye(2 * d)[d:], A])  # (z_{t−1}, z_t) → (z_t, z_{t+1})
    powers = [torch.matrix_power(F, j) for j in range(k + 1)]
    variance = sum(power[d:, d:].square().sum() / d for power in powers[:k])
    return powers[k][d:], variance.sqrt().item()


one, nought = torch.eye(2), torch.zeros(2, 2)
stays = torch.cat([nought, one], 1)  # random walk: A_0 = 0, A_1 = 1
keeps = torch.cat([-one, 2 * one], 1)  # constant velocity
matrix, growth = ahead(keeps, 3)
print(f"z_4 = {matrix[0, 0]:.0f} z_0 + {matrix[0, 2]:.0f} z_1, noise {growth:.3f} σ")
assert torch.equal(matrix, torch.cat([-3 * one, 4 * one], 1))
assert abs(growth - 14**0.5) < 1e-6  # a push acts once, twice, three times: 1 + 4 + 9

# %% [markdown] tags=["slide"]
# The true positions obey the law with $\sigma = 0.01$ sides of the box. So their distance from the mean has to grow as `ahead` says.

# %% tags=["slide"]
horizons = (1, 2, 3, 4)
p = held_out.position
for k in horizons:
    matrix, growth = ahead(keeps, k)
    errors = p[:, 1 + k] - p[:, :2].flatten(1) @ matrix.T
    found, said = errors.square().mean().sqrt(), 0.01 * growth
    print(f"k = {k}: error {found:.4f} sides, by ahead {said:.4f}")
    assert abs(found / said - 1) < 0.05  # 8 192 numbers: ± 0.8 %

# %% [markdown] tags=["slide"]
# ## Two priors, trained one step ahead
#
# The encoder and the two priors are lesson 10's. A Gaussian step leads from the context $c = A\,(z_0,z_1)$ to the frame that is predicted. For the random walk $A$ is fixed at $(0, 1)$; the learned linear prior starts from the same $A$ and trains it.


# %%
class EachFrame(torch.nn.Module):
    """One network for every frame: x (n, t, H, W) to latents side by side, (n, t d)."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.flatten(0, 1)).view(len(x), -1)


class LinearContext(torch.nn.Module):
    """log f(c, z): a Gaussian step from the context c = A (z_0, z_1) to z."""

    def __init__(self, learnable):
        super().__init__()
        self.A = torch.nn.Parameter(stays.clone(), requires_grad=learnable)
        self.walk = rpm.RandomWalk()

    def forward(self, context, z):
        return self.walk(context @ self.A.T, z)


# %%
def windows(horizon, seed, n=128):
    generator = torch.Generator().manual_seed(seed)
    while True:
        x = rpm.datasets.constant_velocity(n, frames=2 + horizon, generator=generator).x
        yield x[:, :2], x[:, -1]


def trained(learnable, seed, horizon=1, steps=400):
    """Encoder and critic, trained together; each seed draws its own start and data."""
    torch.manual_seed(seed)
    net, critic = rpm.encoders.mlp(256, 2), LinearContext(learnable)
    sides = {"encoder_prime": net, "learning_rate": 2e-2}
    for _ in rpm.train(EachFrame(net), critic, windows(horizon, seed), steps, **sides):
        pass
    return net, critic


# %% tags=["slide"]
seeds = (seed, seed + 1, seed + 2)
models = {
    prior: [trained(prior == "learned linear", s) for s in tqdm(seeds, desc=prior)]
    for prior in ("random walk", "learned linear")
}
A = torch.stack([critic.A.detach() for _, critic in models["learned linear"]])
print(f"learned: A₀ ≈ {A[:, 0, 0].mean():.1f}, A₁ ≈ {A[:, 0, 2].mean():.1f}")
assert (A - keeps).abs().max() < 0.1, "constant velocity, on all seeds"

# %% [markdown] tags=["slide"]
# ## What a prior is worth at each horizon
#
# The law of `ahead` gives a Gaussian around the mean of $z_{1+k}$. We take it as the critic $f_k$ of horizon $k$. With (E7) it defines a prior for frame $1+k$, whose evidence can be computed exactly, without any training. (This is not exactly the forecast of the *chain*: the chain (E19) has a factor $Q(z_t)/Z(c_t)$ at each frame between, which we leave out. Where $Q(z_t)$ hardly varies over the length of a step, $Z(c_t) \approx Q(z_t)$, if $f$ is scaled to a density of $z_t$, and the factor is about one. We have not measured the difference.)
#
# The most that any prior can earn is the mutual information, by the quadrature of lesson 10.


# %% tags=["reproducible", "slide"]
def information(k, push=0.01):
    """I(frames 0 and 1; frame 1 + k) in nats, by quadrature."""
    p = torch.linspace(-1, 2, 6001, dtype=torch.float64)
    v = torch.linspace(-0.05, 0.05, 401, dtype=torch.float64)[1::2]  # 200 midpoints
    noise = push * ahead(keeps, k)[1]
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), noise)
    start = p[:, None] - (1 + k) * v  # where a ball at p began, but for pushes
    density = (normal.cdf(start - 0.3) - normal.cdf(start - 0.7)).mean(1) / 0.4
    entropy = -torch.xlogy(density, density).sum() * (p[1] - p[0])
    return 2 * (entropy - normal.entropy()).item()


print("k:   ", *(f"{k:7}" for k in horizons))
print("nats:", *(f"{information(k):7.4f}" for k in horizons))


# %% [markdown] tags=["slide"]
# **Predict**: the learned prior's noise grows like $k^{3/2}$ for large $k$, the random walk's like $\sqrt k$. Which prior loses more nats from horizon 1 to 4?
#
# <details><summary>Answer</summary>
#
# The walk. The ball moves away by k times its velocity, but the walk's standard deviation grows only by a factor of √k. So the walk expects the ball, with too little uncertainty, at a wrong place. That costs more nats than a forecast whose uncertainty is large but right.
# </details>


# %% tags=["slide"]
def worth(net, A, scale, k):
    """I_2048 in nats of a one-step prior (A, scale), iterated to horizon k."""
    matrix, growth = ahead(A, k)
    z = rpm.encode(EachFrame(net), held_out.x[:2048, :2])
    z_ahead = rpm.encode(net, held_out.x[:2048, 1 + k])
    critic = rpm.RandomWalk(scale * growth, learnable=False)
    return rpm.dataset_evidence(z @ matrix.T, z_ahead, critic).infonce.item()


curves = {"MI": torch.tensor([information(k) for k in horizons])}
for prior, runs in models.items():
    laws = [(net, critic.A.detach(), critic.walk.scale.item()) for net, critic in runs]
    values = torch.tensor([[worth(*law, k) for k in horizons] for law in laws])
    curves[prior] = values.mean(0)
    assert values.std(0).max() < 0.2, "seeds agree"
for name, curve in curves.items():
    print(f"{name:15}", *(f"{value:6.1f}" for value in curve))

# %% tags=["slide"]
learned = curves["MI"] - curves["learned linear"]
walk = curves["MI"] - curves["random walk"]
assert learned.max() < 0.3, "nearly all there is to know"  # five seeds: 0.06 to 0.10
assert (walk[1:] > walk[:-1]).all(), "each further step costs the wrong prior more"
assert curves["random walk"][-1] < 0
rpm.figures.lines(
    horizons,
    curves,
    x_label="horizon k (frames)",
    y_label="I_2048 (nats a sequence)",
    caption="Pushes add up, so later frames are known less. The learned law stays "
    "close to the mutual information; the error of the random walk compounds.",
)

# %% [markdown] tags=["slide"]
# At horizon 4 the iterated walk earns less than 0 nats, and 0 is what a prior earns that takes the frames for independent.
#
# ## Where a prior expects the ball
#
# The same in pictures: latents of the first learned model, after the linear map that brings them closest to the true positions. In place of the learned matrix the picture uses constant velocity, which it equals to within 0.1. The dashed circle has a radius of two
# standard deviations of the prior's forecast. If the forecast is honest, the circle holds a share $1 - e^{-2} = .86$ of all balls, in two dimensions.
#
# **Predict**, before you move the sliders: at horizon 4 under the random walk, is the ball inside the circle?
#
# <details><summary>Answer</summary>
#
# Only if it is slow. The circle is right for one step, and grows too slowly after it.
# </details>
#
# The next cell counts the balls inside the circle. It uses the true positions instead of latents, and for σ the error of each law at one step.


# %% tags=["slide"]
def share_inside(law, k):
    matrix, growth = ahead(law, k)
    one_step = (p[:, 2] - p[:, :2].flatten(1) @ law.T).square().mean().sqrt()
    off = (p[:, 1 + k] - p[:, :2].flatten(1) @ matrix.T).norm(dim=1)
    return (off < 2 * growth * one_step).float().mean().item()


for prior, law in {"constant velocity": keeps, "random walk": stays}.items():
    print(f"{prior:18}", *(f"k = {k}: {share_inside(law, k):.2f}  " for k in horizons))
assert abs(share_inside(keeps, 4) - 0.865) < 0.03
assert share_inside(stays, 4) < 0.5
net = models["learned linear"][0][0]
z = rpm.encode(EachFrame(net), held_out.x[:2048]).view(2048, 7, 2)
rpm.explore(rpm.lessons.lesson_11.forecast(z, p[:2048]))

# %% [markdown] tags=["slide"]
# ## CPC with several horizons adds up several chains
#
# CPC does not iterate. It has a critic $f_k(c, z_{t+k})$ with a matrix of its own for each $k = 1, \dots, K$, and its loss is minus the sum of all their InfoNCE terms, over times and horizons. Which model is that?
#
# Take one horizon alone. Its terms are again those of a chain (E19), in which the context of $z_t$ is $k$ steps old, and the first $k$ latents have none. Three latents show it. For $k = 1$, $z_1$ follows from $z_0$ and $z_2$ from
# $z_1$. For $k = 2$, $z_1$ has no context, and $z_2$ is predicted from $z_0$:
#
# $$P_1 = Q(z_0)\,P(z_1|z_0)\,P(z_2|z_1), \qquad P_2 = Q(z_0)\,Q(z_1)\,P(z_2|z_0).$$
#
# The tables are drawn at random; $Q(z_0,z_1,z_2)$ is all that (E19) needs of encoders and data.

# %% tags=["reproducible"]
rng = torch.Generator().manual_seed(seed)
random = {"generator": rng, "dtype": torch.float64}
q = torch.randn(3, 3, 3, **random).exp()
q = q / q.sum()  # Q(z₀,z₁,z₂)
f_1, f_2 = torch.randn(2, 3, 3, **random).exp()  # the critics of k = 1 and k = 2
q_0, q_1, q_2 = q.sum((1, 2)), q.sum((0, 2)), q.sum((0, 1))
independent = q_0[:, None, None] * q_1[:, None] * q_2


def follows(f, q_next):
    """P(next|context) = Q(next) f / Z, a row for each context, (E7)."""
    return q_next * f / (f @ q_next)[:, None]


P_1 = q_0[:, None, None] * follows(f_1, q_1)[:, :, None] * follows(f_1, q_2)
P_2 = q_0[:, None, None] * q_1[:, None] * follows(f_2, q_2)[:, None]


# %% [markdown] tags=["slide"]
# CPC with $K = 2$ is then the sum of two ELBOs, of two chains with one encoder. It is not the ELBO of one model: in one model, $z_2$ has one distribution given the latents before it, and CPC gives it two, $P(z_2|z_1)$ and $P(z_2|z_0)$.
#
# **Predict**: mix the two chains into one model, $\tfrac12(P_1 + P_2)$. Is its ELBO above the mean of the two ELBOs, below it, or equal?
#
# <details><summary>Answer</summary>
#
# Above. The logarithm of a mean is at least the mean of the logarithms (Jensen), in every cell of the table. [Lesson 4](04_one_prior_one_objective.ipynb) met this with CLIP, the mean of two ELBOs (E12).
# </details>


# %% tags=["reproducible", "slide"]
def above_c(P):
    """L − C of a prior over (z₀, z₁, z₂), from lesson 10."""
    return (q * (P / independent).log()).sum()


steps_of_one = [rpm.infonce(f_1.log(), q.sum(2)), rpm.infonce(f_1.log(), q.sum(0))]
step_of_two = rpm.infonce(f_2.log(), q.sum(1))
cpc = sum(term.value for term in steps_of_one) + step_of_two.value
print(f"CPC {cpc:.6f} = {above_c(P_1):.6f} + {above_c(P_2):.6f}, the two ELBOs less C")
mean, mixed = (above_c(P_1) + above_c(P_2)) / 2, above_c((P_1 + P_2) / 2)
print(f"mean of the two {mean:.4f}, ELBO of the mixture {mixed:.4f}")
assert abs(cpc - above_c(P_1) - above_c(P_2)) < 1e-12 and mean < mixed

# %% [markdown] tags=["slide"]
# ## With the right law, the horizons agree
#
# So nothing in CPC's loss forces its matrix for $k = 2$ to agree with its matrix for $k = 1$. Do the two agree nevertheless? Train a
# learned linear prior for $k = 2$ alone, and compare it with one step iterated.
#
# **Predict** its $A_0$ and $A_1$.
#
# <details><summary>Answer</summary>
#
# −2 and 3, or nearly so after this short training: what one step, iterated, gives.
# </details>

# %% tags=["slide"]
direct = torch.stack([trained(True, s, horizon=2)[1].A.detach() for s in tqdm(seeds)])
implied = torch.stack([ahead(one_step, 2)[0] for one_step in A])
for name, matrices in (("trained at k = 2", direct), ("one step, iterated", implied)):
    blocks = matrices[:, 0, 0].mean(), matrices[:, 0, 2].mean()
    print(f"{name:19} A₀ ≈ {blocks[0]:.1f}, A₁ ≈ {blocks[1]:.1f}")
assert (direct - implied).abs().max() < 0.4  # five seeds: 0.05 to 0.11

# %% [markdown] tags=["slide"]
# ## If the context is too short, they disagree
#
# Now the camera shakes: what a frame shows is the ball's position plus noise of .02 in each dimension. Two frames no longer determine the velocity, so they are too short a context. Take the shown position as the latent, in one dimension; the other dimension behaves in the same way. Nothing has to be trained: the best linear law for each horizon is a regression, and its coefficients follow from the covariance of the frames.

# %% tags=["reproducible"]
frames, double = 9, {"dtype": torch.float64}
t = torch.arange(frames, **double)
# A frame is a sum of independent parts: start, velocity, pushes, shakes. Rows: frames.
pushes = (t[:, None] - t[2:] + 1).clamp(min=0)  # push j acted t − j + 1 times
parts = torch.cat(
    [0.4 / 12**0.5 * torch.ones(frames, 1, **double), 0.1 / 12**0.5 * t[:, None]]
    + [0.01 * pushes, 0.02 * torch.eye(frames, **double)],
    1,
)
covariance = parts @ parts.T


# %% tags=["reproducible"]
def best(seen, k):
    """Weights of frames 0 … seen − 1 in the best linear forecast, k frames later."""
    target = covariance[:seen, seen - 1 + k]
    return torch.linalg.solve(covariance[:seen, :seen], target)


def error(weights, k):
    """The standard deviation of that forecast's error, in sides of the box."""
    unit = torch.zeros(frames, **double)
    unit[: len(weights)], unit[len(weights) - 1 + k] = -weights, 1
    return (unit @ covariance @ unit).sqrt().item()


# %% [markdown] tags=["slide"]
# **Predict**: from two shaken frames, the best one-step law expects the next one at $z_1$ plus about a quarter of $z_1 - z_0$. Iterated to horizon 4, does this law expect
# too much motion or too little?
#
# <details><summary>Answer</summary>
#
# Too little. About half of the variance of z₁ − z₀ is due to the velocity, and a quarter to the shake of frame 1. The forecast takes this quarter off. So the best law for horizon k adds half of z₁ − z₀ for each step, and takes the quarter off once. The iterated law treats its own forecast as a frame that was seen, and takes off a shake again at every step. Only a quarter of the last step is left each time, so the motion dies out.
# </details>

# %% tags=["reproducible", "slide"]
law = best(2, 1)
for k in horizons:
    iterated = ahead(law[None].float(), k)[0][0].double()
    own = best(2, k)
    print(f"k = {k}: iterated ({iterated[0]:5.2f}, {iterated[1]:4.2f})", end="")
    print(f", made for k ({own[0]:5.2f}, {own[1]:4.2f})", end="")
    print(f"; error {error(iterated, k):.3f} and {error(own, k):.3f} sides")
assert own[1] - iterated[1] > 1 and error(iterated, 4) > 1.1 * error(own, 4)
for seen in (2, 3, 5, 8):
    print(f"{seen} frames seen: error of the next {error(best(seen, 1), 1):.4f} sides")
assert error(best(2, 1), 1) > 1.2 * error(best(8, 1), 1)

# %% [markdown] tags=["slide"]
# One regression for each horizon does better here than one step iterated: each patches its own horizon, as CPC's matrices can do. But the disagreement says that no linear law of two frames describes these sequences. And a matrix for each horizon does not replace the missing context: with more frames the error is lower even at $k = 1$. What helps is a state that remembers, the position *and* the velocity, which no frame shows.
#
# So compare the horizons. If a one-step law, iterated, differs from one trained further ahead, lengthen the context before you add horizons.
#
# ## Exercises
#
# **1.** At constant velocity, $z_{t+1} = 2z_t - z_{t-1} + \sigma\varepsilon_t$. Return the standard deviation of $z_{1+k}$ given $z_0$ and $z_1$.


# %% tags=["exercise"]
def noise_ahead(sigma, k):
    return ...


rpm.lessons.lesson_11.noise.check(noise_ahead)

# %% [markdown] tags=["slide"]
# **2.** The mean of $z_{t+1}$ is $A_0 z_{t-1} + A_1 z_t$, with any matrices `A_0`, `A_1` of shape (d, d). Return the matrix of shape (d, 2d) that leads from $(z_0, z_1)$ to the mean of $z_3$.


# %% tags=["exercise"]
def two_steps(A_0, A_1):
    return ...


rpm.lessons.lesson_11.two_steps.check(two_steps)

# %% [markdown] tags=["slide"]
# **3.** Return CPC's objective on three frames (the sum of the InfoNCE terms, not the loss) with the horizons 1 and 2, from `q` = $Q(z_0,z_1,z_2)$. The context is one latent, and each horizon has one critic for all times: `log_f_1` and `log_f_2`.


# %% tags=["exercise"]
def two_horizons(q, log_f_1, log_f_2):
    return ...


rpm.lessons.lesson_11.two_horizons.check(two_horizons)

# %% [markdown]
# ## Quiz
#
# **1. You train CPC with horizons 1 to 4 and add the four terms up over the sequence. The sum is…**
# <details><summary>the ELBO of one chain</summary>There each latent has one conditional. Here each latent is predicted four times, from contexts that are 1, 2, 3 and 4 steps old.</details>
# <details><summary>the sum of four ELBOs, of four chains</summary>Yes, their contexts being 1, 2, 3 and 4 steps old, with the same encoder.</details>
# <details><summary>a better objective than one step, because it is larger</summary>A sum of four terms may well be larger, but that says nothing. Evidence compares one model with another, and evidences of different models are not added up.</details>
#
# **2. A one-step prior has high evidence at k = 1 and, iterated, less than zero at k = 4. So…**
# <details><summary>the encoder is bad</summary>In lesson 10 the random walk's encoder had the position nearly as well as the encoder of constant velocity.</details>
# <details><summary>its forecast is confident and wrong</summary>Yes: independence earns 0, and only a confident error earns less. Its noise grows too slowly, or its mean goes astray.</details>
# <details><summary>frame 5 cannot be predicted</summary>The mutual information at k = 4 is positive, and the learned law earns nearly all of it.</details>
#
# **3. The law trained at k = 3 differs from the one-step law, iterated three times. Most likely…**
# <details><summary>the context is too short</summary>Yes: then no law of this context describes the sequences, and each horizon finds its own compromise.</details>
# <details><summary>three steps are harder to learn, nothing more</summary>A short training leaves a small difference, such as −1.9 for −2 above. A context that is too short leaves a large one, as with the shaken camera.</details>
# <details><summary>the noise is larger at k = 3</summary>It is, and that changes σ, not the law: in the world without shaking both agree.</details>
#
# ## The three numbers of this world
#
# The encoders are deterministic, so each horizon is a model in which InfoNCE, ELBO − C and log evidence − C are one number ([lesson 5](05_the_evidence_of_a_data_set.ipynb), E13 and E14). There are as many models as horizons, and the sum of their nats is not the evidence of any model.

# %%
for k, value in zip(horizons, curves["learned linear"]):
    print(f"k = {k}: InfoNCE = ELBO − C = log evidence − C = {value:.1f} nats")

# %% [markdown] tags=["slide"]
# ## What we saw
#
# A one-step prior looks ahead by itself, and its nats at each horizon say how far it can be trusted. CPC's $K$ horizons are $K$ chains, whose ELBOs it adds up. With the right law, horizons 1 and 2 agreed to within about 0.1; where two frames were too short a context, the best linear laws of the horizons differed.
#
# A context of two frames stood in for what the ball really carries along, a velocity that no single frame shows and that a shaken frame leaves uncertain. [Lesson 12](12_hidden_states.ipynb) gives the chain such hidden states, with a Gaussian prior in time and an exact posterior.
