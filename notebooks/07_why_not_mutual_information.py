# %% [markdown] tags=["slide"]
# # Why not mutual information
#
# InfoNCE is usually explained as a lower bound on the mutual information of the latents, $I(z;z')$ or MI for short, and more information as a better representation. A theorem contradicts this: an invertible map can ruin a representation and leave its information unchanged. The ELBO does fall, if its prior says where $z'$ lies, given $z$.
#
# **Afterwards you can** make a representation useless without losing a nat of information; say which critics notice, and by how much; recognise an
# estimate of the MI that falls where the MI does not.
#
# **You need** [lesson 3](03_infonce_is_the_elbo.ipynb); [lesson 6](06_finite_batches.ipynb) for the estimates. **Time** 55 minutes, of which the computer takes one.
# Symbols are in the [notation](../docs/notation.md), words in the [glossary](../docs/glossary.md), objections in the
# [FAQ](../docs/faq.md).
#
# **Whose result is it?** That the MI does not change under invertible maps, and so allows entangled latents, is an argument of Tschannen, Djolonga, Rubenstein, Gelly and Lucic
# ([2020](https://arxiv.org/abs/1907.13625)). They also showed in experiments that a tighter bound on the MI can give a worse representation, and that architecture and critic decide much.
# The paper of this course builds on it ([Aitchison and Ganev](https://arxiv.org/abs/2107.02495), abstract and section 1): in practice InfoNCE works better than objectives that bound the MI more tightly, so the MI cannot be the reason. The twist, and the
# nats that it costs under a random walk, are this course's.

# %%

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.special import digamma
from tqdm.auto import tqdm

import rpm_tutorial as rpm
from rpm_tutorial.datasets import twist

rpm.setup()
seed = 0
rng = torch.Generator().manual_seed(seed)

# %% [markdown] tags=["slide"]
# ## No invertible map changes the information
#
# $$I(h(z); h'(z')) = I(z; z') \quad\text{for all invertible } h, h'. \tag{E17}$$
#
# In words: the information says how much one latent tells about the other, and a renamed latent tells as much. On a table an invertible map
# renames the rows and the columns of $Q(z,z')$. The information is a sum over the cells, and a sum does not depend on their order. (For densities an invertible smooth map multiplies $Q(z,z')$ and $Q(z)Q(z')$ by the same Jacobian factors, which cancel in their ratio. The map need not preserve volume.)
#
# **Predict**: what happens to the information when two values of $z$ are merged into one, so that their rows of the table are added?
#
# <details><summary>Answer</summary>
#
# It falls, or stays if the two rows were proportional. It cannot rise. Merging is not invertible: the merged value does not tell which
# of the two it was.
# </details>

# %% tags=["reproducible", "slide"]
q_joint = rpm.FiniteRPM.ring().q_joint
renamed = q_joint[torch.randperm(3, generator=rng)][:, torch.randperm(4, generator=rng)]
merged = torch.cat([q_joint[:1] + q_joint[1:2], q_joint[2:]])
information = {
    n: rpm.mutual_information(q)
    for n, q in {"Q": q_joint, "renamed": renamed, "merged": merged}.items()
}
for name, value in information.items():
    print(f"I of {name:8} {value:.6f} nats")
assert (
    abs(information["renamed"] - information["Q"]) < 1e-12
    and information["merged"] < information["Q"] - 0.01
)

# %% [markdown] tags=["slide"]
# ## A twist: invertible, volume preserving, ruinous
#
# The next latents are points of the plane. $z$ is standard normal, and $z' = \rho z + \sqrt{1-\rho^2}\,\varepsilon$ is a noisy copy of it, with fresh standard normal noise $\varepsilon$ and $\rho = 0.9$.
# The twist turns each point about the origin. The angle is $k$ times the point's distance from the origin ($R(\alpha)$ is the turn by $\alpha$ radians):
#
# $$h_k(z) = R(k\lVert z\rVert)\, z.$$
#
# The twist of $-k$ undoes it. The Jacobian of $h_k$ has determinant 1 everywhere: in polar coordinates it only adds $kr$ to the angle. So $h_k$ moves probability without squeezing it. Each point keeps its
# distance from the origin, and the density of this Gaussian depends on that distance alone. So $h_k(z)$ is Gaussian again, though not jointly with $h_k(z')$. We twist both $z$ and $z'$.


# %%
rpm.show_source(rpm.datasets.twist)

# %% tags=["reproducible", "slide"]
z, z_prime = rpm.gaussian.sample(2000, 0.9, 2, generator=rng)
jacobian = torch.func.vmap(torch.func.jacrev(lambda point: twist(point, 2.0)))(z[:100])
undone = (twist(twist(z, 2.0), -2.0) - z).abs().max().item()
volume = (jacobian.det() - 1).abs().max().item()
print(f"twisted and undone: off by {undone:.1e};  |det - 1| at most {volume:.1e}")
assert undone < 1e-12 and volume < 1e-12

# %% tags=["reproducible", "slide"]
rpm.figures.clouds(
    {f"k = {k}": (twist(z[:600], k), z[:600, 0]) for k in (0.0, 1.0, 2.0)},
    x_label="z₁",
    y_label="z₂",
    color_label="z₁ before",
    caption="The same 600 points, coloured by their first coordinate before the twist. "
    "Each cloud has the same shape. At k = 0 the colours go from left to right, "
    "at k = 2 they are wound into a spiral.",
)

# %% [markdown] tags=["slide"]
# ## The information is all there, for a critic that knows the twist
#
# For an *optimal* critic $f$ is the density ratio $Q(z,z')/Q(z)Q(z')$, up to a factor that depends on $z$ alone. For twisted pairs it first untwists its arguments, then scores them as before. So its table of scores is the same, and
# its InfoNCE too, up to rounding: no information was lost.

# %% tags=["reproducible", "slide"]
information = rpm.gaussian.mutual_information(0.9, 2)
straight = rpm.infonce(rpm.gaussian.log_optimal_critic(z, z_prime, 0.9)).value
twisted = twist(z, 2.0), twist(z_prime, 2.0)
knowing = rpm.infonce(
    rpm.gaussian.log_optimal_critic(*(twist(side, -2.0) for side in twisted), 0.9)
).value
print(f"MI {information:.4f} nats; I_N of an optimal critic:")
print(
    f"{straight:.4f} before the twist, {knowing:.4f} after it, of the one that untwists"
)
assert abs(straight - knowing) < 1e-9 and abs(straight - information) < 0.1

# %% [markdown] tags=["slide"]
# ($I_N$ is measured on these 2 000 pairs, and the MI belongs to all possible pairs. A sample can give a little less or a little more.)
#
# ## A prior notices what the information does not
#
# The random walk of [lesson 3](03_infonce_is_the_elbo.ipynb), *the walk* from here on, is a prior that says: $z'$ lies near $z$. Its critic is $\log f = -\lVert z-z'\rVert^2/2\sigma^2$, with a scale $\sigma$ (E18). Its $I_\infty$, InfoNCE on the distribution $Q(z,z')$ instead of a sample, is $L - C$ under that prior (E7). It is smaller
# than the MI by a KL divergence, from the aggregate joint $Q(z,z')$ to the prior:
#
# $$\mathrm{MI} - I_\infty = \mathrm{KL}\big(Q(z,z')\,\|\,P(z,z')\big). \tag{E8}$$
#
# The twist does not change the MI. So each nat that the walk loses is a nat more of KL. To be fair to the walk, we choose its scale anew for each twist.
#
# On a sample we have only $I_N$: that of the walk stands for $I_\infty$, and that of the optimal critic for the MI. So the KL is estimated by $I_N$ of the optimal critic less $I_N$ of the walk, both on the same 2 000 pairs. And a *linear probe* predicts the straight $z$, that before the twist, from the twisted one. It is fitted by least squares on half of the pairs and scored on the other half: $R^2 = 1$ for a perfect prediction, 0 for one no better than the mean.
#
# **Predict**: at $k = 2$ a point at distance 1 turns by two radians, and its partner, typically $\sqrt{1-\rho^2} \approx 0.44$ further out or in, by about 0.9 radians more or less. How much
# of the 1.66 nats does the walk keep?
#
# <details><summary>Answer</summary>
#
# Less than a third. Two partners that differ in their distance from the origin end up far apart along the spiral.
# </details>


# %% tags=["reproducible"]
def walk_evidence(z, z_prime):
    """I_N (E14) under the random walk whose scale suits these pairs best."""
    scales = torch.logspace(-0.6, 0.5, 31)
    with torch.no_grad():
        return max(
            rpm.dataset_evidence(
                z, z_prime, rpm.RandomWalk(s.item()).double()
            ).infonce.item()
            for s in scales
        )


# %% tags=["reproducible", "slide"]
strengths = (0.0, 0.5, 1.0, 1.5, 2.0)
walk, read = {}, {}
for k in tqdm(strengths):
    h_z, h_z_prime = twist(z, k), twist(z_prime, k)
    walk[k] = walk_evidence(h_z, h_z_prime)
    read[k] = rpm.probes.r_squared(h_z[:1000], z[:1000], h_z[1000:], z[1000:])
    print(f"k = {k}: walk {walk[k]:.2f} nats, KL {straight - walk[k]:.2f}", end="; ")
    print(f"linear probe R² {read[k]:.2f}")
assert walk[0] > 1.5 and walk[2] < walk[0] / 3 and read[0] > 0.999 and read[2] < 0.3

# %% tags=["reproducible"]
scales = torch.linspace(0.3, 0.7, 401).tolist()
straight_walk = max(rpm.gaussian.infonce_random_walk(0.9, s, 2) for s in scales)
print(f"closed form at k = 0 (E20): KL {information - straight_walk:.3f} nats")
print(f"on these pairs: {straight - walk[0]:.3f} nats")
assert abs(information - straight_walk - 0.035) < 1e-3
assert 0.02 < straight - walk[0] < 0.06

# %% [markdown] tags=["slide"]
# Even at k = 0 the walk's prior is not the true one. Given $z$, the data have mean $0.90\,z$ and variance 0.19 in each dimension. The walk says $\frac{a}{1+a}\,z$ and $\frac{1}{1+a}$, with $a = 1/\sigma^2$ ([lesson 3](03_infonce_is_the_elbo.ipynb)). Its one number must set both, and even at the best scale that costs 0.035 nats. (On a sample the cost comes out a little different, since $I_N$ stands for $I_\infty$.)
#
# The information stayed. The evidence of the walk fell, and so did the $R^2$ of a linear probe. Both depend on *where* a latent lies; the information does not.
#
# ## A universal critic learns to undo the twist
#
# A *universal* critic can come close to any function of $(z, z')$; here $\log f = a(z)\cdot b(z')$ with two networks $a$ and $b$. At its best it is optimal, its prior is $P = Q(z,z')$ (E6), and its objective is the MI. So on twisted pairs it should find
# nearly what it finds on straight ones. We train it from three seeds, on new pairs at each step, and evaluate it on our 2 000.


# %%
def fresh_pairs(k, seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield [
            twist(side, k).float()
            for side in rpm.gaussian.sample(128, 0.9, 2, generator=generator)
        ]


# %%
def universal_evidence(k, seed, steps=400):
    torch.manual_seed(seed)
    encoder, critic = (
        torch.nn.Identity(),
        rpm.Universal(2),
    )  # the latents are given: only the critic is trained
    for _ in rpm.train(encoder, critic, fresh_pairs(k, seed), steps):
        pass
    with torch.no_grad():
        return rpm.dataset_evidence(
            twist(z, k).float(), twist(z_prime, k).float(), critic
        ).infonce.item()


# %%
universal = {}
for k in tqdm((0.0, 1.0, 2.0)):
    universal[k] = np.array([universal_evidence(k, seed + i) for i in range(3)])
    mean, spread = universal[k].mean(), universal[k].std(ddof=1)
    print(f"k = {k}: universal critic {mean:.2f} ± {spread:.2f} nats, three seeds")
assert (universal[2.0] > 0.85 * universal[0.0].mean()).all()

# %% tags=["slide"]
rpm.figures.lines(
    (0.0, 1.0, 2.0),
    {
        "universal": [v.mean() for v in universal.values()],
        "random walk": [walk[k] for k in universal],
    },
    ceiling=("MI", information),
    floor=0.0,
    x_label="strength k of the twist",
    y_label="nats per pair",
    caption="The information is the same for every k. A universal critic, trained for "
    "400 steps, keeps most of it (an optimal critic reads a little more than the MI on "
    "these pairs). The walk, which says that z′ is near z, "
    "loses most.",
)

# %% [markdown] tags=["slide"]
# The universal critic loses something at k = 2, about a fifth of what the walk loses. Probably 400 steps are few for learning a spiral; by (E17) an optimal critic loses nothing.
#
# So with a universal critic the objective hardly prefers the straight representation to the twisted one. Then the architecture of the encoder and its initial weights decide which of the two it learns. Tschannen and co-authors found such a dependence. Lesson 8 trains encoders on images under both priors.
#
# ## The usual estimate of the MI falls, and the MI does not
#
# Kraskov, Stögbauer and Grassberger (KSG, [2004](https://arxiv.org/abs/cond-mat/0305641)) estimate the MI from distances to the nearest neighbours: for each pair the distance to its fifth neighbour in $(z,z')$, and how many $z$, and how many $z'$, lie within it. It is a standard tool. With enough samples it is right under mild conditions on the density. How many are enough depends on how the points are laid out.


# %%
def ksg(z, z_prime, neighbours=5):
    """The first estimator of Kraskov et al. (2004), in nats."""
    joint = np.hstack([z, z_prime])
    radius = cKDTree(joint).query(joint, neighbours + 1, p=np.inf)[0][:, -1]
    counts = [
        cKDTree(side).query_ball_point(
            side, np.nextafter(radius, 0), p=np.inf, return_length=True
        )
        for side in (z, z_prime)
    ]  # each counts the point itself
    found = sum(digamma(c).mean() for c in counts)
    return digamma(neighbours) + digamma(len(z)) - found


# %% tags=["reproducible", "slide"]
estimated = {
    k: ksg(twist(z, k).numpy(), twist(z_prime, k).numpy()) for k in tqdm(strengths)
}
print(
    "KSG:",
    ", ".join(f"{value:.2f} at k = {k}" for k, value in estimated.items()),
    f"(true: {information:.2f})",
)
assert abs(estimated[0.0] - information) < 0.15 and estimated[2.0] < information - 0.2
sides = rpm.gaussian.sample(20_000, 0.9, 2, generator=torch.Generator().manual_seed(1))
ten_times = ksg(*(twist(side, 2.0).numpy() for side in sides))
print(f"of ten times as many pairs: {ten_times:.2f} at k = 2.0")
assert estimated[2.0] + 0.05 < ten_times < information

# %% [markdown] tags=["slide"]
# KSG falls, although by (E17) the MI does not. For the spiral 2 000 pairs are too few: from ten times as many it finds more. That the walk's value falls is another matter: it does not estimate the MI. It is the evidence of a model, and that model is wrong about twisted latents. Where a closed form of the MI exists,
# as here, trust it rather than an estimate.
#
# ## Twist it yourself
#
# The widget has 800 pairs of its own, so its evidence differs a little from that above.
#
# **Predict**, before you move the slider: at which strength has the linear probe lost half of its R²?
#
# <details><summary>Answer</summary>
#
# A little above k = 1. A typical point is then turned by more than a radian. The line of text at the figure gives the value.
# </details>

# %% tags=["reproducible", "slide"]
rpm.explore(rpm.lessons.lesson_07.twisted)

# %% [markdown] tags=["slide"]
# ## Exercises
#
# **1.** Return the KL of (E8) between the aggregate joint and the walk prior of scale `scale`, for Gaussian pairs of correlation `rho` in one dimension. (E20) has both of its
# terms: `rpm.gaussian.mutual_information` and `rpm.gaussian.infonce_random_walk`.


# %% tags=["exercise"]
def divergence(rho, scale):
    return ...


rpm.lessons.lesson_07.divergence.check(divergence)

# %% [markdown] tags=["slide"]
# **2.** Return the scale $\sigma$ of the walk that suits correlation `rho` best: the $\sigma = 1/\sqrt a$ whose $a$ maximises (E20), $I_\infty = -a(1-\rho) + \frac12\log(1+a) + \frac{a}{2(1+a)}$.


# %% tags=["exercise"]
def best_scale(rho):
    return ...


rpm.lessons.lesson_07.best_scale.check(best_scale)

# %% [markdown] tags=["slide"]
# **3.** `q_joint` is a table $Q(z,z')$. Return how many nats of information are lost when the first two values of $z$ are merged into one.


# %% tags=["exercise"]
def lost_by_merging(q_joint):
    return ...


rpm.lessons.lesson_07.lost_by_merging.check(lost_by_merging)

# %% [markdown] tags=["slide"]
# **4. Find the bug.** This function should cut each side into four bins of equally many samples, by size, and return the information between the bins. **Symptom**, the last line that it
# prints: $z$ and $-z$, an invertible map of it, come out as nearly independent; they share $\log 4$ nats. Repair it.


# %% tags=["exercise", "bug", "reproducible"]
def binned(z, z_prime):
    n, bins = len(z), 4
    row = z.argsort() * bins // n
    column = z_prime.argsort() * bins // n
    counts = torch.bincount(row * bins + column, minlength=bins**2).double()
    return rpm.mutual_information(counts.view(bins, bins) / n)


rpm.lessons.lesson_07.binned.check(binned)
normal = torch.randn(400, generator=torch.Generator().manual_seed(0))
print(f"z and z: {binned(normal, normal):.4f} nats; log 4 = {np.log(4):.4f}")
print(f"z and -z: {binned(normal, -normal):.4f} nats")

# %% [markdown] tags=["slide"]
# ## Quiz
#
# **1. Two encoders have the same MI between their latents. They are…**
# <details><summary>equally good</summary>One may be a twist of the other, of which a linear probe reads little.</details>
# <details><summary>possibly very different</summary>Yes. A twist keeps the MI and ruins a linear probe. Besides, the latents of two encoders may share equally many nats, but about different things.</details>
# <details><summary>the same up to an invertible map</summary>Equal information follows from that, but not the reverse.</details>
#
# **2. Under the walk prior the evidence of a representation falls by one nat while its MI stays. Then…**
# <details><summary>the estimate of the evidence is biased</summary>The evidence of a data set is exact (E14). Nothing is estimated.</details>
# <details><summary>KL(Q‖P) has grown by one nat</summary>Yes: (E8). The latents have moved away from what the prior says of them.</details>
# <details><summary>the bound has become looser, so a better bound is needed</summary>As a bound on the MI it has. As an ELBO it is exact, and tells what you asked: how well the latents obey the prior.</details>
#
# **3. One trains with a universal critic because…**
# <details><summary>it gives the highest objective</summary>It does, and it is blind to geometry for the same reason: it fits whatever the latents do.</details>
# <details><summary>one has no idea how latents should move and does not mind how they are laid out</summary>Yes. That too is a modelling choice; what it leaves open, the architecture decides.</details>
# <details><summary>it makes the bound tight</summary>Tight to the MI, which does not say what a representation is good for.</details>
#
# ## What we saw
#
# Information survives every invertible map (E17), so it cannot tell a straight representation from a ruined one. The evidence can, under a prior that says where $z'$ lies, given $z$. When a twist keeps the MI, the evidence falls by exactly as much as $\mathrm{KL}(Q\|P)$ grows (E8).
#
# ## The three numbers of this world
#
# The pairs $(z, z')$ are the observations here, and the encoder is the identity or the twist. Both are deterministic, so InfoNCE, the ELBO and the log evidence above $C$ are one number (E14). For the walk, on our pairs:

# %% tags=["reproducible", "slide"]
rows = [f"{walk[k]:.2f} at k = {k:.0f}" for k in (0.0, 2.0)]
print("InfoNCE = ELBO − C = log evidence − C, in nats a pair:", "; ".join(rows))

# %% [markdown]
# Which prior is the right one? [Lesson 8](08_a_prior_is_an_assumption.ipynb) lets the data choose.
