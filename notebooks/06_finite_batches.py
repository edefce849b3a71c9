# %% [markdown]
# # Finite batches: what log N hides, and what a batch costs
#
# Nobody computes $I_\infty$, the InfoNCE of the distribution that batches are drawn from ([lesson 3](03_infonce_is_the_elbo.ipynb) sets the two side by side). A batch of $N$ pairs gives an estimate, $I_N$, which never exceeds $\log N$, is too low on average at the best
# critic, and varies less from batch to batch than its relatives NWJ and DV.
#
# **Afterwards you can** say what the ceiling $\log N$ means for the model; predict the bias of a batch, and recognise when the prediction
# fails; choose between InfoNCE, NWJ and DV by their variance; report a number that does not depend on the training batch.
#
# **You need** [lesson 5](05_the_evidence_of_a_data_set.ipynb). **Time** 30 minutes.
#
# **Whose result**: that a batch is an estimate is the paper's setting; the law of its bias (E16) and where it fails are this course's.
# Beside it: [notation](../docs/notation.md), [glossary](../docs/glossary.md), [questions and answers](../docs/faq.md).

# %%
import math

import torch
from tqdm.auto import tqdm

import rpm_tutorial as rpm

device = rpm.setup()
rng = torch.Generator().manual_seed(0)

# %% [markdown]
# ## The ceiling says that probabilities are at most one
#
# Draw a pair $(z, z'_1)$ from $Q(z,z')$ and the other candidates $z'_2, \dots, z'_N$ from $Q(z')$. So far $I_N$ was the value of one table of
# scores; from here on it is the average over batches,
#
# $$I_N = \mathbb E\Big[\log f(z,z'_1) - \log \tfrac1N \textstyle\sum_{j=1}^N f(z,z'_j)\Big] \le \log N. \tag{E15}$$
#
# The positive is one of the $N$ candidates, so their mean is at least $f(z,z'_1)/N$, and the bracket at most $\log N$. In the model of lesson 5 this reads $P(x'_i|x_i) \le 1$:
# nothing can be more certain than certain.
#
# **Predict**: a critic that is certain of every pair has $I_{100} = \log 100$ on 100 pairs. What has it on 1 000?
#
# <details><summary>Answer</summary>
#
# log 1 000. Once a model has solved its batch, the batch cannot show how much more the model knows.
# </details>

# %% tags=["reproducible"]
for n in (100, 1000):
    z = torch.randn(n, 8, generator=rng, dtype=torch.float64)
    certain = rpm.RandomWalk(0.01).double()(z, z)  # each z' is its z, and the steps of this walk are tiny
    value = rpm.infonce(certain).value.item()
    print(f"{n} pairs: I_N = {value:.6f}, log N = {math.log(n):.6f}")
    assert abs(value - math.log(n)) < 1e-9

# %% [markdown]
# ## At the best critic, a batch is too low by χ²/2N
#
# To see the bias we need a world whose truth we know: Gaussian pairs with correlation $\rho$ in each of $d$ dimensions (E20), and the
# **best critic**, the density ratio $f = Q(z,z')/Q(z)Q(z')$. Then $I_\infty$ is the mutual information, and
#
# $$I_N - I_\infty = -\frac{\chi^2}{2N} + o(1/N), \qquad \chi^2 = \mathbb E_{Q(z)Q(z')}[f^2] - 1. \tag{E16}$$
#
# Why: the average $\bar f$ over the candidates is near 1, where $\mathbb E\log\bar f \approx \mathbb E[\bar f-1] - \tfrac12\mathrm{Var}(\bar f)$. A stranger, drawn from
# $Q(z')$, has $\mathbb E f = 1$ and $\mathbb E f^2 = 1+\chi^2$. The positive is drawn with weight $f$, so its own $f$ averages $1+\chi^2$: as one of $N$ it lifts the mean by $\chi^2/N$, which
# lowers $I_N$. The strangers give the mean a variance of about $\chi^2/N$, which raises $I_N$ by half of that. Together: $-\chi^2/2N$.


# %%
def log_ratio(z, z_prime, rho):
    """log Q(z,z') - log Q(z)Q(z'): the best critic, constant included."""
    return rpm.gaussian.log_optimal_critic(z, z_prime, rho) + rpm.gaussian.mutual_information(rho, z.shape[1])


def shortfall(rho, dim, counts, tables=60):
    """MI - I_N and its standard error for each N of counts. E log f is the MI exactly, so only the normaliser is sampled."""
    samples = []
    for _ in tqdm(range(tables), leave=False):
        log_f = log_ratio(*rpm.gaussian.sample(1024, rho, dim, generator=rng), rho)
        batches = [
            log_f.view(1024 // n, n, 1024 // n, n).diagonal(dim1=0, dim2=2) for n in counts
        ]  # n x n on the diagonal
        samples.append([(b.logsumexp(1) - math.log(n)).mean().item() for b, n in zip(batches, counts)])
    samples = torch.tensor(samples)
    return samples.mean(0), samples.std(0) / math.sqrt(tables)


# %% [markdown]
# Weak dependence first: $\rho = 0.4$ in four dimensions.

# %% tags=["reproducible"]
counts = (4, 16, 64)
law = torch.tensor([rpm.gaussian.chi_squared(0.4, 4) / (2 * n) for n in counts])
measured, error = shortfall(0.4, 4, counts)
for n, found, spread, predicted in zip(counts, measured, error, law):
    print(f"N = {n:3}: too low by {found:.4f} ± {spread:.4f}, law {predicted:.4f}, ratio {found / predicted:.2f}")
assert (abs(measured - law) < 4 * error + 2 * law / torch.tensor(counts)).all()

# %% [markdown]
# The law improves as N grows, and with a handful of candidates it is already a fair guess. Halving the bias takes twice the batch.
#
# ## The law fails where f is heavy-tailed, and where N is below $e^{2\,\mathrm{MI}}$
#
# It is the first term of a series in $1/N$, and there are two ways to lose it. For Gaussians $1 + \chi^2 = e^{2\,\mathrm{MI}}$, so the first term is small only if
# $N \gg e^{2\,\mathrm{MI}}$; for smaller $N$ the later terms count as much. And the next term, of order $1/N^2$, contains
# $\mathbb E_{Q(z)}\big[\mathrm{Var}_{Q(z')}(f)^2\big]$, which is infinite as soon as $\rho^2 \ge 1/3$ in any one dimension: the law still holds in the limit,
# but the rest does not shrink like $1/N^2$.
#
# **Predict**: one dimension with $\rho = 0.9$ has less than one nat of MI. Is N = 64 enough for the law?
#
# <details><summary>Answer</summary>
#
# No: about a third of the predicted bias is missing, although N is more than ten times $e^{2\,\mathrm{MI}}$. The information is small, the tails are not.
# </details>

# %% tags=["reproducible"]
cases = {"light tails, little MI": (0.4, 4), "light tails, much MI": (0.5, 16), "heavy tails, little MI": (0.9, 1)}
ratios = {}
for name, (rho, dim) in cases.items():
    chi_squared = rpm.gaussian.chi_squared(rho, dim)
    measured, error = shortfall(rho, dim, counts)
    ratios[name] = [(2 * n * m / chi_squared).item() for n, m in zip(counts, measured)]
    mi = rpm.gaussian.mutual_information(rho, dim)
    print(f"{name:23} rho² {rho**2:.2f}  MI {mi:.2f}  e^2MI {math.exp(2 * mi):5.1f}  of the law:", end="")
    print("".join(f" {ratio:.2f}" for ratio in ratios[name]))
assert (
    ratios["light tails, little MI"][-1]
    > 0.8
    > max(ratios["heavy tails, little MI"][-1], ratios["light tails, much MI"][-1])
)

# %% tags=["reproducible"]
rpm.figures.lines(
    counts,
    ratios,
    x_log=True,
    ceiling=("the law", 1.0),
    x_label="pairs in a batch N",
    y_label="measured bias / (χ²/2N)",
    caption="Measured bias over the law of (E16): near 1 where f has light tails and N exceeds e^2MI; elsewhere it climbs slowly.",
)

# %% [markdown]
# Away from the best critic the sign is open: a critic that is too sure of itself pays for it on many candidates, and less on few.

# %% tags=["reproducible"]
z, z_prime = rpm.gaussian.sample(2048, 0.4, 1, generator=rng)
log_f = z * z_prime.T  # the best critic's coefficient of z z' is ρ/(1 − ρ²) = 0.48, not 1
many = rpm.infonce(log_f).value
few = torch.stack([rpm.infonce(log_f[i : i + 8, i : i + 8]).value for i in range(0, 2048, 8)]).mean()
print(f"too sure of itself: I_8 = {few:.3f}, I_2048 = {many:.3f}")
assert few > many

# %% [markdown]
# ## InfoNCE varies little because it is capped
#
# NWJ and DV have no ceiling: their normaliser averages $f$ over strangers alone, leaving each pair's own $z'$ out. At the best critic NWJ is then
# right on average; DV is slightly too high, because the logarithm of an estimate is too low on average (Jensen). Both pay in variance, which grows like
# $\chi^2$ and so exponentially in the MI.
#
# **Predict**: at 5 nats and N = 64, which estimate do you trust: the one that is always wrong by more than a nat, or one that is right on
# average?
#
# <details><summary>Answer</summary>
#
# Neither. The first cannot reach the value. The second is close to it in most batches, and once in a while wrong by more than the value itself. Nothing in
# a batch tells you which kind it is.
# </details>


# %%
def estimates(rho, dim, n=64, batches=200):
    """Three objectives at the best critic, in nats, each batch's value."""
    found = {"InfoNCE": [], "NWJ": [], "DV": []}
    for _ in range(batches):
        log_f = log_ratio(*rpm.gaussian.sample(n, rho, dim, generator=rng), rho)
        score = log_f.diagonal().mean()
        others = log_f.masked_fill(torch.eye(n, dtype=torch.bool), -torch.inf)  # strangers alone
        log_Z = others.flatten().logsumexp(0) - math.log(n * (n - 1))
        found["InfoNCE"].append(rpm.infonce(log_f).value)
        found["NWJ"].append(score + 1 - log_Z.exp())
        found["DV"].append(score - log_Z)
    return {name: torch.stack(values) for name, values in found.items()}


# %% tags=["reproducible"]
informations, means, spreads = [], {}, {}
for dim in (1, 2, 3, 4, 5, 6):
    informations.append(rpm.gaussian.mutual_information(0.9, dim))
    for name, values in estimates(0.9, dim).items():
        means.setdefault(name, []).append(values.mean().item())
        spreads.setdefault(name, []).append(values.std().item())
print(f"at {informations[-1]:.2f} nats:", ", ".join(f"{n} {means[n][-1]:.2f} ± {spreads[n][-1]:.2f}" for n in means))
assert max(spreads["InfoNCE"]) < 0.25 and spreads["InfoNCE"][-1] < 0.5 * min(spreads["NWJ"][-1], spreads["DV"][-1])
assert means["InfoNCE"][-1] < math.log(64) < informations[-1]

# %% tags=["reproducible"]
rpm.figures.lines(
    informations,
    spreads,
    x_label="mutual information (nats)",
    y_label="standard deviation over batches (nats)",
    caption="At the best critic and N = 64, the spread of NWJ and DV grows with the MI; that of InfoNCE stays below a quarter of a nat.",
)

# %% [markdown]
# Even that flatters them: 200 batches do not show the worst. The spread of NWJ is mostly that of its $\bar Z$, an average over $64\cdot63$ pairs of
# strangers, whose standard deviation is at least $\sqrt{\chi^2/(64\cdot63)}$.

# %% tags=["reproducible"]
often = estimates(0.9, 6, batches=2000)
nwj, dv = often["NWJ"], often["DV"].mean()
near = ((nwj - informations[-1]).abs() < 0.5).double().mean()
true_spread = math.sqrt(rpm.gaussian.chi_squared(0.9, 6) / (64 * 63))
print(f"NWJ within half a nat of {informations[-1]:.2f}: {near:.0%} of 2 000 batches; the worst: {nwj.min():.1f} nats")
print(
    f"its standard deviation: {nwj.std():.1f} over these; that of Z, in truth: at least {true_spread:.1f}; DV on average: {dv:.2f}"
)
assert near > 0.6 and nwj.min() < 0 and true_spread > nwj.std() and dv > informations[-1]

# %% [markdown]
# The spread comes from rare pairs that most batches do not contain. InfoNCE on 64 pairs cannot show 5 nats; on more pairs it can, and lesson 5
# makes that cheap. For *training*, low variance is what counts: it needs a steady direction, not a value.
#
# ## Train with small batches, evaluate with large ones
#
# Moving balls: an encoder sees two frames of one ball that took a small random step, so that much can be known about the
# next frame from this one. Train with N = 8, 32 and 256 candidates, then evaluate each at its own N and at 2 048.

# %%
frames = rpm.datasets.moving_balls(2048, scale=0.03, generator=torch.Generator().manual_seed(99))


def ball_batches(n, seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        batch = rpm.datasets.moving_balls(n, scale=0.03, generator=generator)
        yield batch.x, batch.x_prime


# %%
def trained_with(n, seed):
    torch.manual_seed(seed)
    encoder, critic = rpm.encoders.mlp(256, 2), rpm.RandomWalk()
    values = [row.value for row in rpm.train(encoder, critic, ball_batches(n, seed), steps=500, learning_rate=1e-3)]
    with torch.no_grad():
        evidence = rpm.dataset_evidence(rpm.encode(encoder, frames.x), rpm.encode(encoder, frames.x_prime), critic)
    return sum(values[-50:]) / 50, evidence.infonce.item()


rows = {}
for n in tqdm((8, 32, 256)):
    rows[n] = trained_with(n, seed=0)
    print(
        f"N = {n:3}: I_{n} = {rows[n][0]:.2f} of at most {math.log(n):.2f}; the same model at 2 048: {rows[n][1]:.2f} nats"
    )
    assert rows[n][0] < math.log(n) and rows[n][1] > rows[n][0]
assert rows[8][1] < rows[32][1] < rows[256][1]  # five seeds: 3.4 to 3.7, 3.8 to 4.2, 4.2

# %% [markdown]
# The value that training shows is capped by its own batch: with 8 candidates it can hardly tell a good encoder from a very good one. Evaluated on
# the same 2 048 pairs, the three models can be compared, and the largest batch has learned most, having also seen most frames. Report the evidence at one
# large $N$, never the training loss.
#
# ## The law, the samples and the ceiling
#
# Four-dimensional Gaussian pairs and the best critic. **Predict**, before you move the sliders: at 6 nats, how large must $N$ be until
# the law is worth anything?
#
# <details><summary>Answer</summary>
#
# Far beyond the end of this slider: it has to exceed $e^{2\cdot 6}$, which the cell below the widget prints.
# </details>

# %% tags=["reproducible"]
rpm.explore(rpm.lessons.lesson_06.finite_batches)

# %% tags=["reproducible"]
print(f"e^2MI at 6 nats: {math.exp(2 * 6):,.0f} pairs; the slider ends at {2**10:,}")

# %% [markdown]
# ## Exercises
#
# **1.** Return $I_N - I_\infty$ of the best critic to first order in $1/N$, from `chi_squared` and `n`.


# %% tags=["exercise"]
def bias(chi_squared, n):
    return ...


rpm.lessons.lesson_06.bias.check(bias)

# %% [markdown]
# **2.** For Gaussian pairs $1 + \chi^2 = e^{2\,\mathrm{MI}}$. Return the $N$ at which (E16) predicts a batch too low by `error` nats, for `information` nats of MI.


# %% tags=["exercise"]
def batch_size(information, error):
    return ...


rpm.lessons.lesson_06.batch_size.check(batch_size)

# %% [markdown]
# **3.** An estimate whose ceiling is $\log n$, and not that of its few candidates (`rpm.sampled_evidence` is built on it). Given `positive`, the log f of the pair itself, and `others`, the log f of
# $M$ candidates drawn from the `n` − 1 others, return an estimate of $\log \frac1n\sum_j f_j$ over all `n`: the positive counts once, each other $(n-1)/M$ times.


# %% tags=["exercise"]
def normaliser(positive, others, n):
    return ...


rpm.lessons.lesson_06.normaliser.check(normaliser)

# %% [markdown]
# **4. Find the bug.** This function should return $I_N$ of a batch (E15). **Symptom**, the last line that it prints: a batch of 8 gives more than its ceiling. Repair it.


# %% tags=["exercise", "bug", "reproducible"]
def of_a_batch(log_f):
    n = len(log_f)
    negatives = log_f[~torch.eye(n, dtype=torch.bool)].view(n, n - 1)
    log_Z = negatives.logsumexp(1) - math.log(n - 1)
    return (log_f.diagonal() - log_Z).mean()


rpm.lessons.lesson_06.of_a_batch.check(of_a_batch)
print(f"{of_a_batch(10 * torch.eye(8)):.4f} nats from a batch of 8, whose ceiling is log 8 = {math.log(8):.4f}")

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
# <details><summary>f has heavy tails: the next term of the series is infinite</summary>Yes: beyond ρ² = 1/3. Rare pairs carry a large part of the variance, and most batches contain none of them.</details>
# <details><summary>the critic is not optimal</summary>It is, by construction.</details>
#
# **3. At 5 nats and N = 64, NWJ is unbiased at the best critic and InfoNCE is not. For training one still prefers InfoNCE since…**
# <details><summary>it is larger</summary>It is smaller, by more than a nat.</details>
# <details><summary>its value varies little from batch to batch</summary>Yes: an average over capped terms. What training needs is a steady direction; the value can be measured afterwards at a large N.</details>
# <details><summary>it is an upper bound</summary>On average it lies below the MI. Of the three it is DV whose average lies above, at the best critic.</details>
#
# ## The three numbers of this world
#
# Take a batch as its own data set: 64 pairs, $C = -2\log 64$, a deterministic encoder. Then the three numbers are one, exactly, and none of them is the mutual information of the
# distribution that the batch came from. What this lesson called bias and variance is the distance between two models, that of the 64 pairs and that of their source.

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

# %% [markdown]
# ## What we saw
#
# $I_N$ is capped by $\log N$ because probabilities are at most one; at the best critic it is too low by $\chi^2/2N$ where that law holds, which takes light
# tails and $N \gg e^{2\,\mathrm{MI}}$; and it varies little where its uncapped relatives do not. All of it concerns how well a batch measures. What is worth measuring is the
# question of the next lessons; until then, [lesson 5](05_the_evidence_of_a_data_set.ipynb) has the tool that measures it on everything at once.
