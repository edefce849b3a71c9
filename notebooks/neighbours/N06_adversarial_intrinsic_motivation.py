# %% [markdown]
# # A critic that counts steps
#
# An agent in a maze is rewarded at the goal alone, and so learns nothing before it has stumbled on it. A critic between "where the agent is" and
# "where it should be" can pay it on the way.
#
# **The paper's claim** (AIM): count the steps that a policy needs, on average, until it first reaches the goal. The Wasserstein-1 distance in these
# steps, between the states that the policy visits and the goal, has a dual. Its critic $f$, used as a reward, makes the agent find the goal sooner.
# Durugkar, Tec, Niekum and Stone, *Adversarial intrinsic motivation for reinforcement learning*, NeurIPS 2021,
# [arXiv 2105.13345](https://arxiv.org/abs/2105.13345). We keep to mazes; the paper's robot arms are not here.
#
# **Afterwards you can** solve that dual as a linear programme, and say which steps it counts; tell how much of an agent's gain is due to $f$; and find
# both counts of steps in the critic of InfoNCE.
#
# **You need** [lesson 3](../03_infonce_is_the_elbo.ipynb); [lesson 10](../10_sequences.ipynb) helps. **Time** 20 minutes, of which the computer takes half of one.

# %%
import numpy as np
import torch
from scipy.optimize import linprog
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import minimum_spanning_tree, shortest_path
from tqdm.auto import tqdm

import rpm_tutorial as rpm

rpm.setup()
seed = 0
SIDE = 9
ROOMS, START, GOAL = SIDE**2, 0, SIDE**2 - 1
ELSEWHERE = np.arange(ROOMS) != GOAL

# %% [markdown]
# ## Three mazes
#
# Rooms on a grid. Doors are the edges of a random spanning tree, so that every room can be reached, and a few more. Four moves; one into a wall
# leaves the agent where it is. The third maze has an east wind: with probability 0.2 it blows the agent one room west, whatever it meant to do.
# One of its extra doors opens to one side only.


# %%
def maze(number, one_way=0):
    """Where each of the four moves leads, (ROOMS, 4); some doors open one way."""
    rng = np.random.default_rng(number)
    room = np.arange(ROOMS).reshape(SIDE, SIDE)
    sides = [(room[:, :-1], room[:, 1:]), (room[:-1], room[1:])]
    walls = np.concatenate([np.stack([a.ravel(), b.ravel()], 1) for a, b in sides])
    weights = coo_matrix((rng.uniform(1, 2, len(walls)), walls.T), (ROOMS, ROOMS))
    doors = minimum_spanning_tree(weights).toarray() > 0
    extra = walls[(rng.random(len(walls)) < 0.05) & ~doors[tuple(walls.T)]]
    doors |= doors.T
    doors[tuple(extra.T)] = doors[tuple(extra[one_way:, ::-1].T)] = True
    here = np.arange(ROOMS)[:, None]
    beyond = here + np.array([1, -1, SIDE, -SIDE])
    there = np.where((0 <= beyond) & (beyond < ROOMS), beyond, here)
    return np.where(np.take_along_axis(doors, there, 1), there, here)


# %% tags=["reproducible"]
def random_walk(moves, wind=0.0):
    """P(next room | room) of an agent that draws its moves, shape (ROOMS, ROOMS)."""
    led = np.eye(ROOMS)[moves]  # (ROOMS, 4, ROOMS)
    return (1 - wind) * led.mean(1) + wind * led[:, 1]  # move 1 goes west


mazes = [maze(seed), maze(seed + 1), maze(seed + 2, one_way=1)]
winds = [0.0, 0.0, 0.2]
walks = [random_walk(moves, wind) for moves, wind in zip(mazes, winds)]
fewest = [shortest_path(walk > 0, unweighted=True)[:, GOAL] for walk in walks]
print("fewest steps from start to goal:", *(int(steps[START]) for steps in fewest))
print("as many steps back:", [np.array_equal(walk > 0, (walk > 0).T) for walk in walks])

# %% [markdown]
# ## The dual is a linear programme
#
# The agent's states have the distribution $\rho$, here uniform, and the target puts everything on the goal. Fix $f(\text{goal}) = 0$, since a constant
# changes nothing. Then the dual is
#
# $$W_1 = \max_f\; f(\text{goal}) - \mathbb E_\rho f(s) \quad\text{such that } f \text{ rises by at most one a step},$$
#
# and "a step" can mean two things: *each* transition that exists, or the *expected* one, $\mathbb E[f(s')\mid s] - f(s) \le 1$ under the policy.
#
# **Predict**: what is $f$ in a room, in either case?
#
# <details><summary>Answer</summary>
#
# If each transition is held, $-f$ is the fewest steps to the goal: along a shortest path $f$ may rise by one a step. If only the expected one is, $-f$ is the
# expected number of steps $h$ until the policy first gets there, since $h(s) = 1 + \mathbb E[h(s')\mid s]$. Only the second depends on the policy.
# </details>


# %%
def dual(rise):
    """f, shape (ROOMS,), and W_1; each row of rise, times f, is at most 1."""
    bounds = [(0, 0) if room == GOAL else (None, None) for room in range(ROOMS)]
    # f(goal) is 0, so that minus the mean of f is left to maximise
    found = linprog(np.full(ROOMS, 1 / ROOMS), rise, np.ones(len(rise)), bounds=bounds)
    return found.x, -found.fun


def first_hit(walk):
    """The expected number of steps until the walk is at the goal, from each room."""
    inner = np.eye(ROOMS - 1) - walk[ELSEWHERE][:, ELSEWHERE]
    steps = np.zeros(ROOMS)
    steps[ELSEWHERE] = np.linalg.solve(inner, np.ones(ROOMS - 1))
    return steps


# %% tags=["reproducible"]
eye, critics, expected = np.eye(ROOMS), [], [first_hit(walk) for walk in walks]
for walk, few, hit in zip(walks, fewest, expected):
    s, s_next = np.nonzero((walk > 0) & ELSEWHERE[:, None])
    by_transition, w_few = dual(eye[s_next] - eye[s])
    by_expectation, w_hit = dual((walk - eye)[ELSEWHERE])
    critics.append(by_transition)
    print(f"W1: {w_few:6.2f} with each transition held, {w_hit:8.2f} with the mean held")
    assert abs(by_transition + few).max() < 1e-8 and abs(w_few - few.mean()) < 1e-8
    assert abs(by_expectation + hit).max() < 1e-6 and abs(w_hit / hit.mean() - 1) < 1e-9

# %% [markdown]
# The second is the paper's distance, of a policy that walks at random: two hundred times the first. The paper's penalty on each transition that was seen asks
# for the first bound, which implies the second. So a critic that obeys it counts fewest steps, whoever walks; it is the one that we pay the agent by.
#
# ## Five rewards for one agent
#
# The agent keeps a table of values and learns by Q-learning, 150 episodes of at most 200 moves. It is paid in one of five ways: 1 at the goal; a cost of
# 1 a move; $f$ of the room that it enters; the *change* of $f$; or, as in the paper, an $f$ that it learns itself, by gradient ascent on the exercise's objective
# over the transitions that it has seen. The second knows nothing of the maze, and is there for fairness: with values that start at 0, any negative
# reward drives an agent to where it hasn't been.
#
# **Predict**: after how many episodes does each first walk a path at most half as long again as the shortest?
#
# <details><summary>Answer</summary>
#
# Paid at the goal: seldom within 150. A cost a move: a few dozen. $f$: about half of that. The change of $f$: two or three, since the best next move is then
# the best move. The learned $f$ has to be seen: run it.
# </details>

# %%
REWARDS = {
    "1 at the goal": lambda f, room, entered: float(entered == GOAL),
    "-1 a move": lambda f, room, entered: -1.0,
    "f": lambda f, room, entered: f[entered],
    "change of f": lambda f, room, entered: f[entered] - f[room],
    "learned f": lambda f, room, entered: f[entered],
}


# %%
def ascend(f, seen, weight=10.0, ascents=100):
    """A hundred steps up the exercise's objective, each transition counted once."""
    s, s_next = np.array(sorted(seen)).T
    for _ in range(ascents):
        change = f[s_next] - f[s]
        pull = 2 * weight * np.sign(change) * np.maximum(abs(change) - 1, 0)
        slope = np.bincount(s, pull - 1, ROOMS) - np.bincount(s_next, pull, ROOMS)
        slope[GOAL] += len(s)
        f = f + slope / (16 * weight)
    return f - f[GOAL]


def draw(rng, values, wind):
    """The move that the agent means to make, one in ten at random, and that it makes."""
    best = np.flatnonzero(values == values.max())
    move = rng.integers(4) if rng.random() < 0.1 else rng.choice(best)
    return move, 1 if rng.random() < wind else move


# %%
def moves_per_episode(number, name, run, episodes=150, limit=200):
    """Moves of each episode of Q-learning, at rate 1/2 and discount 0.99."""
    rng, value, seen, took = np.random.default_rng(run), np.zeros((ROOMS, 4)), set(), []
    f = np.zeros(ROOMS) if name == "learned f" else critics[number]
    for _ in range(episodes):
        room, count = START, 0
        while room != GOAL and count < limit:
            move, made = draw(rng, value[room], winds[number])
            entered, count = mazes[number][room, made], count + 1
            target = REWARDS[name](f, room, entered) + 0.99 * value[entered].max()
            value[room, move] += 0.5 * (target - value[room, move])
            seen.add((room, room := entered))
        took.append(count)
        f = ascend(f, seen) if name == "learned f" else f
    return took


# %%
def first_short(took, shortest):
    """The first episode within half as much again as the shortest path; 151 if none."""
    short = took <= 1.5 * shortest
    return short.argmax() + 1 if short.any() else len(took) + 1


# %% tags=["reproducible"]
curves, needed = {}, {}
for name in tqdm(REWARDS):
    took = [[moves_per_episode(k, name, seed + r) for r in range(3)] for k in range(3)]
    curves[name] = np.mean(took, (0, 1))
    short = [[first_short(run, fewest[k][START]) for run in took[k]] for k in range(3)]
    needed[name] = np.array(short)
    rows = [f"{row.mean():5.1f} ± {row.std(ddof=1):4.1f}" for row in needed[name]]
    print(f"{name:14} first short path after {', '.join(rows)} episodes (151: none)")
mean = {name: episodes.mean(1) for name, episodes in needed.items()}
assert (mean["change of f"] < mean["f"]).all() and (mean["f"] < mean["-1 a move"]).all()
assert (mean["-1 a move"] < mean["1 at the goal"]).all()
assert (needed["change of f"] <= 5).all()
assert mean["learned f"][:2].mean() < mean["-1 a move"][:2].mean()  # without wind

# %% tags=["reproducible"]
rpm.figures.lines(
    np.arange(1, 151),
    {name: curve for name, curve in curves.items() if name != "f"},
    x_label="episode",
    y_label="moves, mean of 9 runs",
    caption="Moves to the goal (at most 200), three mazes, three runs each. "
    "Paid at the goal alone the agent hardly learns; the change of f shows the way at once.",
)

# %% [markdown]
# With $f$ from a full map the claim holds in all three mazes. The second reward says how much of it is the critic's: any negative reward goes a good part of
# the way from seldom to soon, and $f$ then about halves what is left. An $f$ learned on the way keeps some of that gain in the two calm mazes, and none in the
# wind: there it has to hold each transition that the wind makes, while the agent's values chase a reward that changes.
#
# ## Seen from the RPM
#
# There is a Lipschitz bound where a likelihood has a normaliser, and so no prior. Put the contrastive critic beside it: $z$ is a room, $z'$ a room that the
# walk visits $k$ moves later, $P(k) = (1-\gamma)\gamma^k$. The optimal critic of (E7) is
#
# $$f^*(z,z') = \frac{Q(z,z')}{Q(z)Q(z')} = \frac{1-\gamma}{Q(z')}\sum_k \gamma^k P(z'\text{ after } k\mid z),$$
#
# and its objective is the mutual information (E6).


# %%
def later_room(walk, gamma):
    """P(z' | z) after k moves, k with probability (1 - gamma) gamma^k."""
    return (1 - gamma) * torch.linalg.inv(torch.eye(ROOMS).double() - gamma * walk)


# %% tags=["reproducible"]
walk = torch.tensor(walks[2])  # with the wind and the door that opens one way
q_joint = later_room(walk, 0.9) / ROOMS
log_f = (q_joint / q_joint.sum(1, keepdim=True) / q_joint.sum(0)).log()
infonce = rpm.infonce(log_f, q_joint).value
information = rpm.mutual_information(q_joint)
print(f"discount 0.9: InfoNCE {infonce:.6f}, MI {information:.6f} nats")
assert abs(infonce - information) < 1e-10

# %% [markdown]
# Now let $T$ be the time at which the walk from $z$ *first* is at the goal $g$. From then on it is a walk from $g$, so that
# $\sum_k\gamma^k P(g\text{ after }k|z) = \mathbb E[\gamma^T]\,\sum_k\gamma^k P(g\text{ after }k|g)$, and two scores of InfoNCE's critic tell the time:
#
# $$\frac{f^*(z,g)}{f^*(g,g)} = \mathbb E\big[\gamma^T \mid z\big], \qquad
# \frac{\partial}{\partial\log\gamma}\log\frac{f^*(z,g)}{f^*(g,g)} = \frac{\mathbb E[T\gamma^T]}{\mathbb E[\gamma^T]}.$$
#
# **Predict**: what is that slope as $\gamma\to0$, and as $\gamma\to1$?
#
# <details><summary>Answer</summary>
#
# $\gamma^T$ weighs the times: near 0 only the earliest counts, so the slope is the fewest steps; near 1 all count alike, and it is $\mathbb E[T]$, the expected
# first-hit time. They are the two distances of the linear programme.
# </details>


# %%
def log_ratio(log_gamma):
    at_goal = later_room(walk, log_gamma.exp())[:, GOAL]  # f* up to what cancels
    return (at_goal / at_goal[GOAL]).log()


def discounted_time(gamma):
    """E[gamma^T | room], from the equation of its first step."""
    inner = gamma * walk[ELSEWHERE]
    values = torch.ones(ROOMS).double()
    left = torch.eye(ROOMS - 1).double() - inner[:, ELSEWHERE]
    values[ELSEWHERE] = torch.linalg.solve(left, inner[:, GOAL])
    return values


# %% tags=["reproducible"]
few, hit = torch.tensor(fewest[2]), torch.tensor(expected[2])
gammas = [1e-2, 0.1, 0.3, 0.6, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.9999999]
slopes = []
for gamma in torch.tensor(gammas, dtype=torch.float64):
    residual = (log_ratio(gamma.log()).exp() - discounted_time(gamma)).abs().max()
    slopes.append(torch.func.jacfwd(log_ratio)(gamma.log()))
    assert residual < 1e-9, "f*(z,g) / f*(g,g) = E gamma^T"
slopes = torch.stack(slopes)
inside = (slopes > few - 1e-6) & (slopes < hit + 1e-6)
print(f"gamma {gammas[0]}: above the fewest steps by {(slopes[0] - few).max():.3f}")
print(f"gamma {gammas[-1]}: E[T] times {(slopes[-1] / hit)[ELSEWHERE].min():.4f}")
assert inside.all() and (slopes[0] - few).max() < 0.5
assert (slopes[-1] / hit)[ELSEWHERE].min() > 0.98

# %% tags=["reproducible"]
levels = {"fewest steps": fewest[2], "expected first hit": expected[2]}
rpm.figures.lines(
    1 - np.array(gammas[::-1]),
    {"slope of the critic": slopes.flip(0)[:, START].log10()}
    | {name: np.full(len(gammas), np.log10(y[START])) for name, y in levels.items()},
    x_log=True,
    x_label="1 − γ",
    y_label="log₁₀ of the steps from start to goal",
    caption="One critic, two counts of steps: the discount γ moves its slope "
    "from the expected first hit (left) to the fewest steps (right).",
)

# %% [markdown]
# So AIM's two counts are the ends of one scale, and the discount of a contrastive critic is a place on it. AIM asks for one end by the bound that it puts on $f$;
# InfoNCE has to be given the discount, and weighs every path in between.
#
# ## Exercise
#
# AIM's objective when $f$ is learned: $f(\text{goal}) - \mathbb E f(\text{visited}) - \lambda\,\mathbb E\max(\lvert f(s')-f(s)\rvert - 1,\, 0)^2$. Return it from a table `f`, shape (S,), the indices `visited` (n,) and `goal`, the pairs of indices
# `transitions` (m, 2), and `weight` $=\lambda$.


# %% tags=["exercise"]
def objective(f, visited, goal, transitions, weight):
    return ...


rpm.lessons.neighbour_06.objective.check(objective)

# %% [markdown]
# ## What we saw
#
# The dual's critic is minus a number of steps, to rounding: the fewest where each transition is held, the expected first hit where the policy's mean is. An agent that is
# paid by the first finds the goal in fewer episodes than one paid at the goal, in three mazes and three runs each; a cost a move accounts for much of that gain, and a
# critic learned on the way keeps little of it. The critic of InfoNCE knows both counts: $f^*(z,g)/f^*(g,g) = \mathbb E[\gamma^T]$.
