# %% [markdown] tags=["slide"]
# # The model: a likelihood that nobody had to write
#
# A latent-variable model needs a likelihood $P(x|z)$: how probable each observation is, given its latent. For images a VAE trains a decoder for that, a second large network which has to get every
# pixel right. You have only an encoder. Is that enough to define the likelihood of a model? This lesson builds a model of pairs whose likelihood follows from the encoder.
#
# **Afterwards you can** write down the recognition-parameterised model (E1); turn an encoder into a likelihood by Bayes' rule (E2) and
# check that it is a distribution; say when the model gets $P(x)$ and $P(x')$ right and when it does not; sample from it; point at the one
# part of the model that you choose freely.
#
# **You need** [lesson 0](00_start_here.ipynb), Bayes' rule. **Time** 35 minutes.
#
# **Whose result**: the model (E1) and its likelihood (E2) are the paper's, where it defines the recognition-parameterised model; the small worlds, in which every term is a table, are this course's.
# Beside it: [notation](../docs/notation.md), [glossary](../docs/glossary.md), [questions and answers](../docs/faq.md).

# %%
import torch

import rpm_tutorial as rpm

device = rpm.setup()

# %% [markdown] tags=["slide"]
# ## Two latents carry what two observations share
#
# $$P(x, x', z, z') = P(z, z')\, P(x|z)\, P(x'|z') \tag{E1}$$
#
# A pair of observations $x, x'$ has a pair of latents $z, z'$. Each observation depends on its own latent alone. One factor alone links $x$ to $x'$, the **prior** $P(z, z')$: the distribution of the
# latents before anything is observed.

# %% tags=["slide"]
rpm.figures.graphical_model()

# %% [markdown]
# The pairs come from the **data distribution** $P_\text{true}(x, x')$. Its two marginals are $P_\text{true}(x)$ and $P_\text{true}(x')$. Letters $P$ without the word "true" belong to the model, and $Q$ to the encoder. For a data set of $N$ pairs
# $P_\text{true}$ is the list of pairs, each with probability $1/N$.
#
# To see every term we use a world so small that each is a table: six values of $x$ on a circle, seven of $x'$ on the same circle, three of $z$, four of $z'$. The places of $x$ and $x'$ are close in most pairs; `coupling` sets how close, and `sharpness` how little doubt the encoder leaves. As the places lie on a circle, the last is a neighbour of the first: in the table, two opposite corners belong to the diagonal.

# %% tags=["reproducible"]
world = rpm.FiniteRPM.ring(coupling=3.0, sharpness=3.0)
rpm.figures.tables(
    {"P_true(x,x′)": world.p_true},
    x_label="x′",
    y_label="x",
    caption="The data: pairs near the diagonal are frequent, x = 0 most of all.",
)

# %% [markdown] tags=["slide"]
# ## The encoder is given; the likelihood follows
#
# An encoder that may be in doubt is a distribution $Q(z|x)$, the **recognition model**: given $x$, how probable is each $z$? Rows are $x$, and each row sums to one. (A network that outputs one vector for each $x$ is the case without doubt: each row has a single 1.)

# %% tags=["reproducible"]
recognition = world.recognition  # Q(z|x), shape (X, Z)
print("shape", tuple(recognition.shape))
print("row sums", recognition.sum(1).numpy().round(12))
assert torch.allclose(recognition.sum(1), torch.ones(6, dtype=torch.float64))

# %% [markdown] tags=["slide"]
# Draw $x$ from the data and $z$ from the encoder. That defines a joint distribution of both, and a joint can be read in either direction:
#
# $$P(x|z) = \frac{Q(z|x)\,P_\text{true}(x)}{Q(z)}, \qquad Q(z) = \sum_x Q(z|x)\,P_\text{true}(x). \tag{E2}$$
#
# $Q(z)$ is the **aggregate posterior**: how often the encoder says $z$ over the whole data set. The second likelihood is made in the same way, $P(x'|z') = Q(z'|x')\,P_\text{true}(x')/Q(z')$, from an encoder of $x'$, which may be the same network or another.

# %% tags=["reproducible", "slide"]
p_x = world.p_true.sum(1)
q_z = recognition.T @ p_x  # Q(z): average the encoder over the data
p_x_given_z = recognition.T * p_x / q_z[:, None]  # (E2), rows z
rpm.figures.tables(
    {"Q(z|x)": recognition.T, "P(x|z)": p_x_given_z},
    x_label="x",
    y_label="z",
    caption="Left, the encoder: columns sum to one. Right, the likelihood: rows do.",
)

# %% [markdown] tags=["slide"]
# **Predict**: a likelihood has to sum to one over all $x$, for each $z$. For which encoders does (E2) do so?
#
# <details><summary>Answer</summary>
#
# For all. The numerators sum to $\sum_x Q(z|x) P_\text{true}(x)$, which is $Q(z)$ by definition, and $Q(z)$ is what they are divided by.
# </details>

# %% tags=["reproducible"]
# other encoders, other data
other_worlds = [rpm.FiniteRPM.random(seed=seed) for seed in range(5)]
tables = [p_x_given_z, *(other.log_p_x_given_z.exp() for other in other_worlds)]
residual = max((table.sum(1) - 1).abs().max() for table in tables)
print(f"worst |Σ_x P(x|z) − 1| over {len(tables)} encoders: {residual:.1e}")
assert residual < 1e-12

# %% [markdown] tags=["slide"]
# So every encoder, trained or not, gives a proper likelihood. The price: $P(x|z)$ contains $P_\text{true}(x)$, which for images we know only on the list of a data set, not for a new image. Lesson 2 shows that training doesn't need it.
#
# ## If P(z) = Q(z), the model gets P(x) right
#
# The prior has two marginals, $P(z) = \sum_{z'} P(z,z')$ and $P(z')$. The model's own distribution of $x$ is $P(x) = \sum_z P(z)\,P(x|z)$. If $P(z) = Q(z)$, then the $Q(z)$ in (E2) cancels, and $P(x)$ is the distribution of the data:
#
# $$\sum_z Q(z)\,P(x|z) = \sum_z Q(z|x)\,P_\text{true}(x) = P_\text{true}(x).$$

# %% tags=["reproducible"]
model_x = q_z @ p_x_given_z
off = (model_x - p_x).abs().max()
print(f"P(z) = Q(z): worst |P(x) − P_true(x)| = {off:.1e}")
assert off < 1e-12

# %% [markdown] tags=["slide"]
# **Predict**: is $P(x) = P_\text{true}(x)$ for every prior? Take one with $P(z)$ uniform.
#
# <details><summary>Answer</summary>
#
# No. The encoder says $z = 0$ more often than a uniform prior does. So under the uniform prior the observations that belong to $z = 0$ are rarer than in the data.
# </details>

# %% tags=["reproducible"]
uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
model_x_uniform = uniform @ p_x_given_z
print("Q(z) =", q_z.numpy().round(2), "  uniform =", uniform.numpy().round(2))
off = (model_x_uniform - p_x).abs().max()
print(f"P(z) uniform: worst |P(x) − P_true(x)| = {off:.4f}")
assert off > 0.01

# %% [markdown]
# For $x'$ the condition is $P(z') = Q(z')$, and neither condition follows from the other. The prior of InfoNCE, which lesson 3 explains, has $P(z) = Q(z)$ for every critic. Its $P(z')$ depends on the critic, and for most critics it is not $Q(z')$. So this model always gets $P(x)$ right, but in general not $P(x')$. The next cell shows it for a critic with $\log f = 2$ where $z$ and $z'$ have the same number, and 0 elsewhere.

# %% tags=["reproducible"]
scores = 2 * torch.eye(3, 4, dtype=torch.float64)
one_sided = rpm.priors.infonce(scores, world.q_joint)  # log P(z,z')
pairs_of_it = world.log_p(one_sided).exp()  # P(x,x')
off = (pairs_of_it.sum(1) - world.p_x).abs().max()
off_prime = (pairs_of_it.sum(0) - world.p_x_prime).abs().max()
print(f"worst |P(x) − P_true(x)| = {off:.1e}")
print(f"worst |P(x′) − P_true(x′)| = {off_prime:.4f}")
assert off < 1e-12 and off_prime > 0.01

# %% [markdown] tags=["slide"]
# ## Together, the factors are a distribution over pairs
#
# Summing (E1) over the latents gives $P(x,x')$, the model of what we observe. For the prior, take the distribution of $z$ and $z'$ that the two encoders produce on the pairs of the data, the **aggregate joint**
#
# $$Q(z, z') = \sum_{x,x'} Q(z|x)\,Q(z'|x')\,P_\text{true}(x, x').$$

# %% tags=["reproducible"]
q_joint = recognition.T @ world.p_true @ world.recognition_prime  # Q(z,z')
p_x_prime_given_z_prime = world.log_p_x_prime_given_z_prime.exp()
# P(x,x'), which is (E1) summed over z and z'
model = p_x_given_z.T @ q_joint @ p_x_prime_given_z_prime
print(f"Σ P(x,x′) = {model.sum():.12f}")
assert abs(model.sum() - 1) < 1e-12 and torch.allclose(q_joint, world.q_joint)

# %% [markdown]
# The library keeps logarithms, and does these sums for any prior: `world.log_p(log_prior)` is $\log P(x, x')$.

# %% tags=["reproducible"]
log_prior = rpm.priors.optimal(world.q_joint)  # log Q(z,z'); why optimal: lesson 3
assert torch.allclose(world.log_p(log_prior).exp(), model, atol=1e-12)
rpm.show_source(rpm.FiniteRPM.log_p)

# %% [markdown] tags=["slide"]
# ## What ties x to x′ is the prior alone
#
# Keep the encoder, keep the likelihoods, and take a prior under which $z$ and $z'$ are independent, $P(z, z') = Q(z)Q(z')$.
#
# **Predict**: what becomes of $P(x, x')$?
#
# <details><summary>Answer</summary>
#
# It becomes $P_\text{true}(x)\,P_\text{true}(x')$: both marginals are right, and $x$ tells nothing of $x'$.
# </details>

# %% tags=["reproducible", "slide"]
independent = torch.log(world.q_z[:, None] * world.q_z_prime)
apart = world.log_p(independent).exp()
assert torch.allclose(apart, world.p_x[:, None] * world.p_x_prime, atol=1e-12)
shown = {"data": world.p_true}
shown |= {"P(z,z′) = Q(z,z′)": model, "P(z,z′) = Q(z)Q(z′)": apart}
rpm.figures.tables(
    shown,
    x_label="x′",
    y_label="x",
    caption="P(x,x′): data and two priors. Under Q(z,z′) x′ depends on x again, "
    "blurred by the encoder; under the independent prior all rows have one shape.",
)

# %% [markdown]
# So there are two things to learn. The encoder decides what $z$ says about $x$. The prior decides how $z'$ goes with $z$. InfoNCE's critic is a part of the prior, as lesson 0 used and lesson 3 explains.
#
# ## The model can be sampled
#
# Draw $z, z'$ from the prior, then each observation from its likelihood. The frequencies of a hundred thousand draws under the prior $Q(z,z')$ should agree with the middle table above.

# %% tags=["reproducible"]
rng = torch.Generator().manual_seed(0)
x, x_prime, z, z_prime = world.sample(log_prior, 100_000, generator=rng)
frequency = torch.bincount(x * 7 + x_prime, minlength=42).view(6, 7) / 100_000
standard_error = (model * (1 - model) / 100_000).sqrt()
worst = ((frequency - model) / standard_error).abs().max()
print(f"worst deviation from the table: {worst:.1f} standard errors")
assert worst < 5  # of 42 normal numbers, one exceeds 5 once in forty thousand tables

# %% [markdown] tags=["slide"]
# ## A sharper encoder makes a sharper model
#
# The widget shows the likelihood $P(x|z)$ on the left, the data's $P_\text{true}(x'|x)$ in the middle, and on the right the model's $P(x'|x)$ under the prior
# $Q(z,z')$. *Sharpness* is how much the encoder tells about $x$: at 0, $Q(z|x)$ is the same for every $x$. *Coupling* is how close $x'$ lies to $x$ in the data; the widget starts at 2, the rest of the lesson uses 3.
#
# **Predict** before you move the sliders: with sharpness 0, what does the right panel show?
#
# <details><summary>Answer</summary>
#
# Equal rows, each of them $P_\text{true}(x')$: no $z$ tells anything of $x$, so the model knows the marginals and nothing else, however strong the coupling is.
# </details>

# %% tags=["reproducible", "slide"]
rpm.explore(rpm.lessons.lesson_01.ring)

# %% [markdown]
# A sharper encoder brings the model nearer to the data. It never gets there, because three values of $z$ stand for six of $x$. Every row $P(x'|x)$ of the model is a mixture of only three distributions, $P(x'|z)$, with the weights $Q(z|x)$. However sharp the encoder is, $x = 1$ lies halfway between two values of $z$, so its row is nearly the mean of the rows of $x = 0$ and $x = 2$; in the data it has a peak of its own.

# %% tags=["reproducible"]
for sharpness in (0, 2, 8, 50):
    sharper = rpm.FiniteRPM.ring(coupling=3.0, sharpness=sharpness)
    log_model = sharper.log_p(rpm.priors.optimal(sharper.q_joint))
    log_ratio = sharper.p_true.log() - log_model
    divergence = (sharper.p_true * log_ratio).sum()  # KL(P_true || P)
    print(f"sharpness {sharpness:2}: KL(P_true ‖ P) = {divergence:.3f} nats")
assert divergence > 0.3

# %% [markdown] tags=["slide"]
# ## Exercises
#
# **1.** Write (E2) yourself: return $P(x|z)$, shape (Z, X), from $Q(z|x)$, shape (X, Z), and $P_\text{true}(x)$, shape (X,).


# %% tags=["exercise"]
def likelihood(recognition, p_x):
    return ...


rpm.lessons.lesson_01.likelihood.check(likelihood)

# %% [markdown] tags=["slide"]
# **2.** Return $P(x, x')$, shape (X, X'), from $P(z, z')$, $P(x|z)$ and $P(x'|z')$, the latter two with one row per latent.


# %% tags=["exercise"]
def pairs(prior, p_x_given_z, p_x_prime_given_z_prime):
    return ...


rpm.lessons.lesson_01.pairs.check(pairs)

# %% [markdown]
# ## Quiz
#
# **1. What do you have to train to get P(x|z) in an RPM?**
# <details><summary>a decoder</summary>No: that is a VAE. Here the likelihood is what Bayes' rule makes of the encoder.</details>
# <details><summary>the encoder, and nothing else</summary>Yes: with the data, the encoder fixes P(x|z) completely by (E2). A critic may have weights too, but it belongs to the prior.</details>
# <details><summary>the critic</summary>The critic shapes the prior P(z,z′); the likelihood does not contain it.</details>
#
# **2. Two encoders differ. Can their models have the same P(x,x′)?**
# <details><summary>never: the likelihoods differ</summary>No: if you renumber the values of z, and the prior in the same way, the likelihood table changes, but the sum over z does not.</details>
# <details><summary>yes, for instance when they say the same in other words</summary>Yes: a relabelled code with a relabelled prior is the same model of the data.</details>
# <details><summary>only if both are deterministic</summary>Determinism is not needed; any invertible relabelling will do.</details>
#
# **3. P(z) = Q(z) guarantees that…**
# <details><summary>the model's P(x) is the data's</summary>Yes: Bayes' rule undoes itself when averaged over Q(z).</details>
# <details><summary>the model's P(x,x′) is the data's</summary>No: only the marginal is. The independent prior above has both marginals right and the pairs wrong.</details>
# <details><summary>the encoder is informative</summary>No: an encoder that ignores x has a Q(z) as well.</details>
#
# ## The three numbers of this world
#
# Here are the three numbers of the small world under the prior $Q(z,z')$. InfoNCE needs a critic, and the one that belongs to this prior is $f = Q(z,z')/Q(z)Q(z')$ (lesson 3). The encoder leaves doubt, and here the evidence is larger than the other two; lesson 2 says by how much.

# %% tags=["reproducible"]
log_f = q_joint.log() - world.q_z.log()[:, None] - world.q_z_prime.log()
bound = world.elbo(log_prior).value - world.constant
evidence = world.log_evidence(log_prior) - world.constant
infonce = rpm.infonce(log_f, q_joint).value
three = {"InfoNCE": infonce, "ELBO − C": bound, "log evidence − C": evidence}
print("  ".join(f"{name} {number:.4f}" for name, number in three.items()), "nats")
assert abs(infonce - bound) < 1e-12 and bound < evidence

# %% [markdown] tags=["slide"]
# ## What we saw
#
# An encoder and a prior are a complete generative model of pairs. It is normalised, it can be sampled, it has the right $P(x)$ if $P(z) = Q(z)$ and the right $P(x')$ if $P(z') = Q(z')$. What we
# lack is a way to train it without knowing $P_\text{true}(x)$: in [lesson 2](02_the_elbo.ipynb) that term leaves the ELBO.
