# %% [markdown] tags=["slide"]
# # Finite batches: what log N hides, and what a batch costs
#
# Your training loss comes from a batch. A batch of $N$ pairs gives $I_N$, InfoNCE on those $N$ pairs. It stands for $I_\infty$, InfoNCE on the distribution $Q(z,z')$ that batches are drawn from ([lesson 3](03_infonce_is_the_elbo.ipynb)
# has both). This lesson asks how well $I_N$ tells $I_\infty$. $I_N$ has a ceiling, $\log N$; it has a bias, which a formula predicts under two conditions; and at several nats of MI its variance is small beside that of NWJ and DV, the two relatives
# of InfoNCE without a ceiling ([glossary](../docs/glossary.md)).
#
# **Afterwards you can** say what the ceiling $\log N$ means for the model; predict the bias of a batch, and recognise when the prediction
# fails; choose between InfoNCE, NWJ and DV by their variance; report a number that does not depend on the training batch.
#
# **You need** [lesson 5](05_the_evidence_of_a_data_set.ipynb), and of [lesson 4](04_one_prior_one_objective.ipynb) NWJ and DV. **Time** 65 minutes, of which the computer takes one.
#
# **Whose result**: the paper shows the equality with the ELBO in the limit of infinitely many samples ([Aitchison and Ganev](https://arxiv.org/abs/2107.02495), announced in its abstract). The ceiling $\log N$ is van den Oord, Li and
# Vinyals' ([2018](https://arxiv.org/abs/1807.03748)). Poole, Ozair, van den Oord, Alemi and Tucker ([2019](https://arxiv.org/abs/1905.06922)) compare the biases and variances of these estimates. The law of the bias (E16), and where it fails, are worked out in this course.
# Beside it: [notation](../docs/notation.md), [glossary](../docs/glossary.md), [questions and answers](../docs/faq.md).

# %%
import math

import torch
from tqdm.auto import tqdm

import rpm_tutorial as rpm

device = rpm.setup()
rng = torch.Generator().manual_seed(0)

# %% [markdown] tags=["slide"]
# ## The ceiling says that probabilities are at most one
#
# Draw a pair $(z, z'_1)$ from $Q(z,z')$ and the other candidates $z'_2, \dots, z'_N$ from $Q(z')$. So far $I_N$ was the value of one table of scores. Its average over batches is what bias speaks of, and we write $I_N$ for that too:
#
# $$I_N = \mathbb E\Big[\log f(z,z'_1) - \log \tfrac1N \textstyle\sum_{j=1}^N f(z,z'_j)\Big] \le \log N. \tag{E15}$$
#
# The outer mean is over all such draws. The positive, $z'_1$, is one of the $N$ candidates. So the mean of $f$ over the candidates is at least $f(z,z'_1)/N$, since $f$ is positive, and the bracket is at most $\log N$. In the model of lesson 5 the bracket is
# $\log P(x'_i|x_i) + \log N$: the ceiling says that a probability is at most one.
#
# **Predict**: a critic picks each partner with certainty, on a batch of 100 pairs and on one of 1 000. What are $I_{100}$ and $I_{1000}$?
#
# <details><summary>Answer</summary>
#
# log 100 and log 1 000. When the model is certain of every partner, $I_N$ is $\log N$: it shows the size of the batch, and not what the model knows.
# </details>

# %% tags=["reproducible", "slide"]
for n in (100, 1000):
    z = torch.randn(n, 8, generator=rng, dtype=torch.float64)
    certain = rpm.RandomWalk(0.01).double()(z, z)  # z' = z, and a walk of tiny steps
    value = rpm.infonce(certain).value.item()
    print(f"{n} pairs: I_N = {value:.6f}, log N = {math.log(n):.6f}")
    assert abs(value - math.log(n)) < 1e-9

# %% [markdown] tags=["slide"]
# ## At the optimal critic, a batch is too low by χ²/2N
#
# To see a bias we need a world whose truth we know: Gaussian pairs with correlation $\rho$ in each of $d$ dimensions (E20). And we need the **optimal critic**, the density ratio
# $f = \frac{Q(z,z')}{Q(z)Q(z')}$. (Any multiple of it by a function of $z$ alone has the same InfoNCE.) With it $I_\infty$ is the mutual information of $z$ and $z'$, MI for short, and
#
# $$I_N - I_\infty = -\frac{\chi^2}{2N} + o(1/N), \qquad \chi^2 = \mathbb E_{Q(z)Q(z')}[f^2] - 1. \tag{E16}$$
#
# $\chi^2$ is the variance of the ratio $f$ among *strangers*, candidates drawn from $Q(z')$ whatever $z$ is. The law in four steps:
#
# - $I_N$ contains $-\mathbb E\log\bar f$, with $\bar f$ the mean of $f$ over the $N$ candidates. Near 1, $\mathbb E\log\bar f \approx \mathbb E[\bar f-1] - \tfrac12\mathrm{Var}(\bar f)$.
# - A stranger has $\mathbb E f = 1$ and $\mathbb E f^2 = 1+\chi^2$.
# - The positive comes from $Q(z'|z) = Q(z')f$, so its $f$ averages $\mathbb E_{Q(z)Q(z')}[f\cdot f] = 1+\chi^2$. It is one of the $N$ candidates, so $\mathbb E\bar f$ becomes $1 + \chi^2/N$, and this lowers $I_N$ by $\chi^2/N$.
# - The strangers give $\bar f$ a variance of about $\chi^2/N$, and that raises $I_N$ by half of it. Together: $-\chi^2/2N$.


# %%
def log_ratio(z, z_prime, rho):
    """log Q(z,z') - log Q(z)Q(z'): the optimal critic, with its constant."""
    shape = rpm.gaussian.log_optimal_critic(z, z_prime, rho)  # up to the constant
    return shape + rpm.gaussian.mutual_information(rho, z.shape[1])


def shortfall(rho, dim, counts, tables=60):
    """MI - I_N for each N of counts, and its standard error.

    E log f is the MI exactly, so only the mean of log f-bar has to be sampled.
    """
    samples = torch.empty(tables, len(counts))
    for t in tqdm(range(tables), leave=False):
        log_f = log_ratio(*rpm.gaussian.sample(1024, rho, dim, generator=rng), rho)
        for k, n in enumerate(counts):  # cut into batches of n pairs: (n, n, batches)
            batches = log_f.view(1024 // n, n, 1024 // n, n).diagonal(dim1=0, dim2=2)
            samples[t, k] = (batches.logsumexp(1) - math.log(n)).mean()
    return samples.mean(0), samples.std(0) / math.sqrt(tables)


# %% [markdown]
# Weak dependence first: $\rho = 0.4$ in four dimensions.

# %% tags=["reproducible", "slide"]
counts = (4, 16, 64)
law = torch.tensor([rpm.gaussian.chi_squared(0.4, 4) / (2 * n) for n in counts])
measured, error = shortfall(0.4, 4, counts)
for n, found, spread, predicted in zip(counts, measured, error, law):
    print(f"N = {n:3}: too low by {found:.4f} ± {spread:.4f},", end=" ")
    print(f"law {predicted:.4f}, ratio {found / predicted:.2f}")
# four standard errors, and what the law neglects: terms of relative size 1/N
assert (abs(measured - law) < 4 * error + 2 * law / torch.tensor(counts)).all()

# %% [markdown] tags=["slide"]
# The measured bias is within a fifth of the law at four candidates, and within two standard errors of it at 16 and 64. Halving the bias takes twice the batch.
#
# ## The law fails where f has heavy tails, and where N is below $e^{2\,\mathrm{MI}}$
#
# (E16) is the first term of a series in $1/N$. It can fail in two ways.
#
# - *Much information.* For Gaussians $1 + \chi^2 = e^{2\,\mathrm{MI}}$. So the first term is small only if $N \gg e^{2\,\mathrm{MI}}$. For smaller $N$ the later terms count as much.
# - *Heavy tails*: rare pairs of strangers with an enormous $f$. The next term, of order $1/N^2$, contains $\mathbb E_{Q(z)Q(z')}[f^3]$, from the third power of $\bar f - 1$. That mean is infinite as soon as $\rho^2 \ge 1/4$ in any one dimension. Then the law still holds as $N \to \infty$, but its error shrinks more slowly than $1/N^2$.
#
# **Predict**: one dimension with $\rho = 0.9$ has less than one nat of MI. Is N = 64 enough for the law?
#
# <details><summary>Answer</summary>
#
# No: about a third of the predicted bias is missing, although N is more than ten times $e^{2\,\mathrm{MI}}$. The information is small, but the tails are heavy.
# </details>

# %% tags=["reproducible", "slide"]
cases = {
    "light tails, little MI": (0.4, 4),
    "light tails, much MI": (0.4, 26),
    "heavy tails, little MI": (0.9, 1),
}
ratios = {}
for name, (rho, dim) in cases.items():
    half = rpm.gaussian.chi_squared(rho, dim) / 2
    measured = shortfall(rho, dim, counts)[0].tolist()
    ratios[name] = [m * n / half for n, m in zip(counts, measured)]
    mi = rpm.gaussian.mutual_information(rho, dim)
    print(f"{name:23} ρ² {rho**2:.2f}  MI {mi:.2f}", end="  ")
    print(f"e^2MI {1 + 2 * half:5.1f}  of the law", *(f"{r:.2f}" for r in ratios[name]))
little, *others = (ratio[-1] for ratio in ratios.values())
assert little > 0.8 > max(others)

# %% tags=["reproducible", "slide"]
rpm.figures.lines(
    counts,
    ratios,
    x_log=True,
    ceiling=("the law", 1.0),
    x_label="pairs in a batch N",
    y_label="measured bias / (χ²/2N)",
    caption="Measured bias over the law of (E16). It is near 1 where f has light tails "
    "and N exceeds e^2MI; elsewhere it climbs slowly.",
)

# %% [markdown] tags=["slide"]
# The optimal critic is too low on average, at any $N$. Another critic can be too *high* on a batch, compared with its own $I_\infty$: a critic that exaggerates $f$ gives a few strangers enormous scores, which lower $I_\infty$, and most small batches contain none of these.

# %% tags=["reproducible", "slide"]
z, z_prime = rpm.gaussian.sample(2048, 0.4, 1, generator=rng)
# log f = zz'. The optimal critic has 0.48 zz' there, ρ/(1 − ρ²), and terms in z'².
log_f = z * z_prime.T
many = rpm.infonce(log_f).value
eights = [slice(i, i + 8) for i in range(0, 2048, 8)]
few = torch.stack([rpm.infonce(log_f[i, i]).value for i in eights]).mean()
print(f"an exaggerating critic: I_8 = {few:.3f}, I_2048 = {many:.3f}")
# higher by 0.03 to 0.07 for six seeds
assert few > many

# %% [markdown] tags=["slide"]
# ## InfoNCE varies little, NWJ and DV vary much
#
# Donsker–Varadhan (DV) and NWJ are the objectives of two other priors, (E9) and (E10) of [lesson 4](04_one_prior_one_objective.ipynb):
#
# $$\mathrm{DV} = \mathbb E\,s - \log\bar Z, \qquad \mathrm{NWJ} = \mathbb E\,s - \bar Z/e, \qquad \bar Z = \mathbb E_{Q(z)Q(z')} f, \quad s = \log f.$$
#
# They have no ceiling: on a batch $\bar Z$ averages $f$ over strangers alone, each pair's own $z'$ left out. At the optimal critic (for NWJ with the score raised by 1, so that $\bar Z/e$ is the mean of the ratio) NWJ is then
# right on average. DV is slightly too high, because the logarithm of an estimate is too low on average (Jensen). Both pay with their variance: the variance of $\bar Z$ grows like $\chi^2$, and so exponentially with the MI.
#
# **Predict**: at 5 nats and N = 64, which do you trust: InfoNCE, too low by at least 0.8 nats in every batch, or NWJ, right on average?
#
# <details><summary>Answer</summary>
#
# Neither. InfoNCE cannot reach the value. NWJ is close to it in most batches, and once in a while wrong by more than the value itself; its average over some batches depends on whether such a batch is among them.
# </details>


# %%
def estimates(rho, dim, n=64, batches=200):
    """Three objectives at the optimal critic, in nats, each batch's value."""
    found = {"InfoNCE": [], "NWJ": [], "DV": []}
    for _ in range(batches):
        log_f = log_ratio(*rpm.gaussian.sample(n, rho, dim, generator=rng), rho)
        score = log_f.diagonal().mean()
        others = log_f.masked_fill(
            torch.eye(n, dtype=torch.bool), -torch.inf
        )  # strangers alone
        log_Z = others.flatten().logsumexp(0) - math.log(n * (n - 1))
        found["InfoNCE"].append(rpm.infonce(log_f).value)
        found["NWJ"].append(score + 1 - log_Z.exp())  # its score is log f + 1
        found["DV"].append(score - log_Z)
    return {name: torch.stack(values) for name, values in found.items()}


# %% tags=["reproducible", "slide"]
informations, means, spreads = [], {}, {}
for dim in (1, 2, 3, 4, 5, 6):
    informations.append(rpm.gaussian.mutual_information(0.9, dim))
    for name, values in estimates(0.9, dim).items():
        means.setdefault(name, []).append(values.mean().item())
        spreads.setdefault(name, []).append(values.std().item())
print(f"at {informations[-1]:.2f} nats:")
for name in means:
    print(f"{name:8} {means[name][-1]:.2f} ± {spreads[name][-1]:.2f}")
assert max(spreads["InfoNCE"]) < 0.25 and spreads["InfoNCE"][-1] < 0.5 * min(
    spreads["NWJ"][-1], spreads["DV"][-1]
)
assert means["InfoNCE"][-1] < math.log(64) < informations[-1]

# %% tags=["reproducible", "slide"]
rpm.figures.lines(
    informations,
    spreads,
    x_label="mutual information (nats)",
    y_label="standard deviation over batches (nats)",
    caption="At the optimal critic and N = 64 the spread of NWJ and DV grows with "
    "the MI; that of InfoNCE stays below a quarter of a nat.",
)

# %% [markdown] tags=["slide"]
# The curve of NWJ is still too low: 200 batches do not contain the worst ones. Most of NWJ's variance is that of its $\bar Z$, a mean of $f$ over $64\cdot63$ pairs of
# strangers. The variance of one $f$ is $\chi^2$. The cells $(i,j)$ and $(j,i)$ of the table are positively correlated, all others uncorrelated, so the standard deviation of $\bar Z$ is at least $\sqrt{\chi^2/(64\cdot63)}$. Compare that with the spread of NWJ over 2 000 batches.

# %% tags=["reproducible", "slide"]
often = estimates(0.9, 6, batches=2000)
nwj, dv = often["NWJ"], often["DV"].mean()
near = ((nwj - informations[-1]).abs() < 0.5).double().mean()
true_spread = math.sqrt(rpm.gaussian.chi_squared(0.9, 6) / (64 * 63))
print(f"NWJ within half a nat of {informations[-1]:.2f}: {near:.0%} of 2 000 batches")
print(
    f"its worst: {nwj.min():.1f} nats; its spread over these batches: {nwj.std():.1f}"
)
print(
    f"true spread of Z̄: at least {true_spread:.1f};  DV on average: {dv:.2f}"
)
assert (
    near > 0.6 and nwj.min() < 0 and true_spread > nwj.std() and dv > informations[-1]
)

# %% [markdown] tags=["slide"]
# The missing spread comes from pairs of strangers that are so rare that most batches contain none. InfoNCE on 64 pairs cannot show 5 nats. By (E16) it comes close on far more pairs than $e^{2\,\mathrm{MI}}$, which is more than ten thousand here. Lesson 5 makes that cheap. To *train* one needs a steady direction rather than a value. A small variance of the value suggests a steady gradient, which this lesson does not measure.
#
# ## Train with small batches, evaluate on many pairs
#
# Each pair is two frames of one moving ball, which took a small random step between them. So the first frame tells much about the second. Train with $N = 8$ and with $N = 64$, for 500 steps each, and once more with
# $N = 8$ until it has seen as many frames as $N = 64$ did. Then evaluate each model on its own batches and on 2 048 pairs.
#
# **Predict**: does the training value of $N = 8$ show that eight times as many steps helped? Do the 2 048 pairs?
#
# <details><summary>Answer</summary>
#
# The training value hardly moves, since it was near its ceiling $\log 8$ already. The 2 048 pairs show a gain of several tenths of a nat, more than half of the way to $N = 64$.
# </details>

# %%
frames = rpm.datasets.moving_balls(
    2048, scale=0.03, generator=torch.Generator().manual_seed(99)
)


def ball_batches(n, seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        batch = rpm.datasets.moving_balls(n, scale=0.03, generator=generator)
        yield batch.x, batch.x_prime


# %%
def trained_with(n, steps, seed):
    torch.manual_seed(seed)
    encoder, critic = rpm.encoders.mlp(256, 2), rpm.RandomWalk()
    training = rpm.train(
        encoder, critic, ball_batches(n, seed), steps, learning_rate=1e-3
    )
    values = [row.value for row in training]
    with torch.no_grad():
        sides = (rpm.encode(encoder, x) for x in (frames.x, frames.x_prime))
        evidence = rpm.dataset_evidence(*sides, critic)
    return sum(values[-50:]) / 50, evidence.infonce.item()


# %% tags=["slide"]
rows = {}
for n, steps in tqdm(((8, 500), (8, 4000), (64, 500))):
    own, of_many = rows[n, steps] = trained_with(n, steps, seed=0)
    print(f"N = {n:2}, {steps * n:6} pairs seen:", end=" ")
    print(f"I_{n} = {own:.2f} of at most {math.log(n):.2f};", end=" ")
    print(f"on 2 048 pairs {of_many:.2f} nats")
    assert own < math.log(n) and of_many > own
gain = [b - a for a, b in zip(rows[8, 500], rows[8, 4000])]
print("eight times the steps at N = 8:", end=" ")
print(f"I_8 {gain[0]:+.2f}, on 2 048 pairs {gain[1]:+.2f} nats")
# four seeds: -0.00 to +0.13, and +0.36 to +0.80
assert gain[1] > 0.2 > gain[0]
assert gain[1] > (rows[64, 500][1] - rows[8, 500][1]) / 2

# %% [markdown] tags=["slide"]
# The value that training shows is capped by its own batch: with 8 candidates it can hardly tell a good encoder from a very good one. On the same 2 048 pairs the models can be compared. There one also sees that the
# small batch trains well: eight times the steps at $N=8$, and so as many frames, recover most of what the larger batch gained. Report InfoNCE on one large list of pairs, the same for every model, and not the training loss.
#
# ## The law, the samples and the ceiling
#
# Four-dimensional Gaussian pairs and the optimal critic. One control sets the MI, the other sets $N$, which the dotted line marks. The line of text says how far the law is there from the samples.
#
# **Predict**, before you move the sliders: at which MI is the law off by more than a nat at $N = 64$? And how far is it off at 6 nats: by one nat, ten, or more than a hundred?
#
# <details><summary>Answer</summary>
#
# Between 2 and 3 nats, once $e^{2\,\mathrm{MI}}$ is well above 64; and by more than a thousand at 6 nats. The batch itself is never that far off: it misses two nats there. At the optimal critic $I_N$ is never negative on average. So where the law predicts a bias larger than the MI, the law does not hold.
# </details>

# %% tags=["reproducible", "slide"]
rpm.explore(rpm.lessons.lesson_06.finite_batches)

# %% tags=["reproducible"]
law = math.expm1(2 * 6) / (2 * 64)
print(f"at 6 nats and N = 64 the law predicts a bias of {law:,.0f} nats;")
print(f"it needs N far above e^2MI = {math.exp(2 * 6):,.0f}")
assert law > 1000

# %% [markdown] tags=["slide"]
# ## Exercises
#
# **1.** Return $I_N - I_\infty$ of the optimal critic to first order in $1/N$, from `chi_squared` and `n`.


# %% tags=["exercise"]
def bias(chi_squared, n):
    return ...


rpm.lessons.lesson_06.bias.check(bias)

# %% [markdown] tags=["slide"]
# **2.** For Gaussian pairs $1 + \chi^2 = e^{2\,\mathrm{MI}}$. Return the $N$ at which (E16) predicts a batch too low by `error` nats, for `information` nats of MI.


# %% tags=["exercise"]
def batch_size(information, error):
    return ...


rpm.lessons.lesson_06.batch_size.check(batch_size)

# %% [markdown] tags=["slide"]
# **3.** Return an estimate of $\log \frac1n\sum_j f_j$ over `n` candidates of which you scored only some. `positive` is the log f of the pair itself; `others` holds the log f of
# $M$ candidates, drawn from the `n` − 1 others. The positive counts once, each of the $M$ counts $(n-1)/M$ times. (`rpm.sampled_evidence` is built on this; its ceiling is $\log n$, however small $M$ is.)


# %% tags=["exercise"]
def normaliser(positive, others, n):
    return ...


rpm.lessons.lesson_06.normaliser.check(normaliser)

# %% [markdown] tags=["slide"]
# **4. Find the bug.** This function should return $I_N$ of a batch (E15). **Symptom**, the last line that it prints: a batch of 8 gives more than its ceiling. Repair it.


# %% tags=["exercise", "bug", "reproducible"]
def of_a_batch(log_f):
    n = len(log_f)
    negatives = log_f[~torch.eye(n, dtype=torch.bool)].view(n, n - 1)
    log_Z = negatives.logsumexp(1) - math.log(n - 1)
    return (log_f.diagonal() - log_Z).mean()


rpm.lessons.lesson_06.of_a_batch.check(of_a_batch)
value, ceiling = of_a_batch(10 * torch.eye(8)), math.log(8)
print(f"{value:.4f} nats from a batch of 8, whose ceiling is log 8 = {ceiling:.4f}")

# %% [markdown]
# ## Quiz
#
# **1. Training with N = 256, the loss −I_N is stuck just above −log 256. The model…**
# <details><summary>has extracted all there is to know</summary>It may know much more: a batch of 256 cannot show it.</details>
# <details><summary>has solved its batches</summary>Yes. Evaluate it at a larger N before you conclude anything about its quality; train on with more, or harder, candidates.</details>
# <details><summary>has collapsed</summary>A collapsed model sits at 0: all scores are equal.</details>
#
# **2. The bias law −χ²/2N fails for one-dimensional Gaussians with ρ = 0.9 because…**
# <details><summary>the MI is too large for the batch</summary>It is below one nat. That reason is the other one, and applies when N is not far above e^2MI.</details>
# <details><summary>f has heavy tails: the next term of the series is infinite</summary>Yes: from ρ² = 1/4 on. Rare pairs carry a large part of the variance, and most batches contain none of them.</details>
# <details><summary>the critic is not optimal</summary>It is, by construction.</details>
#
# **3. At 5 nats and N = 64, NWJ is unbiased at the optimal critic and InfoNCE is not. For training one still prefers InfoNCE since…**
# <details><summary>it is larger</summary>It is smaller, by more than a nat.</details>
# <details><summary>its value varies little from batch to batch</summary>Yes: an enormous f of a stranger enters one row only, and there through its logarithm. What training needs is a steady direction; the value can be measured afterwards at a large N.</details>
# <details><summary>it is an upper bound</summary>On average it lies below the MI. Of the three it is DV whose average lies above, at the optimal critic.</details>
#
# ## The three numbers of this world
#
# Treat a batch as a data set of its own, as in lesson 5. It has 64 pairs, $C$ is $-2\log 64$, and the encoder is deterministic. Then InfoNCE, the ELBO less $C$ and the log evidence less $C$ are one number, exactly. It is not the mutual information of the source, the distribution that the batch came from. The difference of the two is the error of the batch: its mean is the bias, and its variance is that of InfoNCE above. It compares two models, that of the 64 pairs and that of their source.

# %% tags=["reproducible"]
pairs = rpm.gaussian.sample(64, 0.9, 6, generator=torch.Generator().manual_seed(0))
log_f = log_ratio(*pairs, 0.9).double()
one_each = torch.eye(64, dtype=torch.float64)
world = rpm.FiniteRPM(one_each / 64, one_each)
prior = rpm.priors.infonce(log_f, world.q_joint)
bound = world.elbo(prior).value - world.constant
evidence = world.log_evidence(prior) - world.constant
infonce, mi = rpm.infonce(log_f).value, rpm.gaussian.mutual_information(0.9, 6)
three = {"InfoNCE": infonce, "ELBO − C": bound, "log evidence − C": evidence}
print("  ".join(f"{name} {number:.4f}" for name, number in three.items()), "nats")
print(f"mutual information of the source {mi:.4f}, log 64 = {math.log(64):.4f}")
assert max(abs(bound - infonce), abs(evidence - infonce)) < 1e-11
assert infonce < math.log(64) < mi

# %% [markdown] tags=["slide"]
# ## What we saw
#
# $I_N$ is capped by $\log N$ because probabilities are at most one. At the optimal critic it is too low by $\chi^2/2N$, where that law holds: light
# tails, and $N \gg e^{2\,\mathrm{MI}}$. At several nats of MI it varies little, where NWJ and DV, without a ceiling, vary much. All of this is about how well a batch measures $I_\infty$; [lesson 5](05_the_evidence_of_a_data_set.ipynb) has the
# tool that needs no batch. What $I_\infty$ is worth as a goal is the question of [lesson 7](07_why_not_mutual_information.ipynb).
