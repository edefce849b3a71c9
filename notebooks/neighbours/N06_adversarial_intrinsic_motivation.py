# %% [markdown]
# # A critic that counts steps
#
# An agent in a maze is rewarded at the goal alone, and so learns nothing before it has stumbled on it. A critic between "where the agent is" and "where it should be" can pay it on the way.
#
# **The paper's claim** (AIM): the Wasserstein-1 distance between the states that a policy visits and the goal, measured in time steps, has a dual whose critic $f$ is minus the number of steps to the goal; used as a reward it makes the agent find
# the goal sooner. Durugkar, Tec, Niekum and Stone, *Adversarial intrinsic motivation for reinforcement learning*, NeurIPS 2021, [arXiv 2105.13345](https://arxiv.org/abs/2105.13345).
#
# **Afterwards you can** solve that dual as a linear programme, tell how much of an agent's gain is due to $f$, and find the number of steps in the critic of InfoNCE.
#
# **You need** [lesson 3](../03_infonce_is_the_elbo.ipynb); [lesson 10](../10_sequences.ipynb) helps. **Time** 15 minutes, of which the computer takes ten seconds.

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

# %% [markdown]
# ## Three mazes
#
# Rooms on a grid. Doors are the edges of a random spanning tree, so that every room can be reached, and a few more. Four moves; one into a wall leaves the agent where it is.


# %%
def maze(number):
    """Which rooms have a door between them, shape (ROOMS, ROOMS); and where each of the four moves leads, (ROOMS, 4)."""
    rng = np.random.default_rng(number)
    room = np.arange(ROOMS).reshape(SIDE, SIDE)
    sides = [(room[:, :-1], room[:, 1:]), (room[:-1], room[1:])]
    walls = np.concatenate([np.stack([a.ravel(), b.ravel()], 1) for a, b in sides])
    weights = coo_matrix((rng.uniform(1, 2, len(walls)), walls.T), (ROOMS, ROOMS))
    doors = minimum_spanning_tree(weights).toarray() > 0
    doors[tuple(walls[rng.random(len(walls)) < 0.05].T)] = True
    doors |= doors.T
    here, beyond = np.arange(ROOMS)[:, None], np.arange(ROOMS)[:, None] + np.array([1, -1, SIDE, -SIDE])
    there = np.where((0 <= beyond) & (beyond < ROOMS), beyond, here)
    return doors, np.where(np.take_along_axis(doors, there, 1), there, here)


# %% tags=["reproducible"]
mazes = [maze(seed + k) for k in range(3)]
steps_to_goal = [shortest_path(doors, unweighted=True)[:, GOAL] for doors, _ in mazes]
print("steps from start to goal:", *(int(steps[START]) for steps in steps_to_goal))

# %% [markdown]
# ## The dual is a linear programme
#
# The agent's states have the distribution $\rho$, here uniform, and the target puts everything on the goal. In the distance that counts time steps, a function is 1-Lipschitz if it changes by at most 1 along a transition:
#
# $$W_1 = \max_f\; f(\text{goal}) - \mathbb E_\rho f(s) \quad\text{such that}\quad \lvert f(s') - f(s)\rvert \le 1 \text{ along each transition } s\to s'.$$
#
# The rooms are finite, so this is a linear programme. Fix $f(\text{goal}) = 0$, since a constant changes nothing.
#
# **Predict**: what is $f$ in a room $k$ steps from the goal?
#
# <details><summary>Answer</summary>
#
# $-k$. Along a shortest path $f$ may fall by one a step, and the objective wants it as low as it may be. $W_1$ is then the mean number of steps.
# </details>


# %%
def dual(doors):
    """f, shape (ROOMS,), and W_1."""
    s, s_next = np.nonzero(doors)  # a door is a transition in both directions, so |.| needs one row for each
    row = np.arange(len(s))
    change = coo_matrix((np.r_[row * 0 + 1, row * 0 - 1], (np.r_[row, row], np.r_[s_next, s])), (len(s), ROOMS))
    cost = np.full(ROOMS, 1 / ROOMS)
    cost[GOAL] -= 1
    bounds = [(0, 0) if room == GOAL else (None, None) for room in range(ROOMS)]
    found = linprog(cost, change.tocsr(), np.ones(len(s)), bounds=bounds)
    return found.x, -found.fun


# %% tags=["reproducible"]
critics = []
for (doors, _), steps in zip(mazes, steps_to_goal):
    f, distance = dual(doors)
    critics.append(f)
    print(f"W1 {distance:.4f}, mean steps {steps.mean():.4f}; f + steps at most {abs(f + steps).max():.0e}")
    assert abs(f + steps).max() < 1e-8 and abs(distance - steps.mean()) < 1e-8

# %% [markdown]
# ## Four rewards for one agent
#
# The agent keeps a table of values and learns by Q-learning, 150 episodes of at most 200 moves. It is paid in one of four ways: 1 at the goal; a cost of 1 a move; $f$ of the room that it enters; or the *change* of $f$. The second knows nothing of
# the maze, and is there for fairness: with values that start at 0, any negative reward drives an agent to where it hasn't been.
#
# **Predict**: after how many episodes does each first walk a path at most half as long again as the shortest?
#
# <details><summary>Answer</summary>
#
# Paid at the goal: seldom within 150. A cost a move: a few dozen. $f$: about half of that. The change of $f$: two or three, since the best next move is then the best move.
# </details>

# %%
REWARDS = {
    "1 at the goal": lambda f, room, entered: float(entered == GOAL),
    "-1 a move": lambda f, room, entered: -1.0,
    "f": lambda f, room, entered: f[entered],
    "change of f": lambda f, room, entered: f[entered] - f[room],
}


# %%
def moves_per_episode(moves, f, reward, run, episodes=150, limit=200):
    """How long each episode of Q-learning took: rate 1/2, discount 0.99, one move in ten at random."""
    rng, value, took = np.random.default_rng(run), np.zeros((ROOMS, 4)), []
    for _ in range(episodes):
        room, count = START, 0
        while room != GOAL and count < limit:
            best = np.flatnonzero(value[room] == value[room].max())
            move = rng.integers(4) if rng.random() < 0.1 else rng.choice(best)
            entered, count = moves[room, move], count + 1
            later = 0.0 if entered == GOAL else 0.99 * value[entered].max()
            value[room, move] += 0.5 * (reward(f, room, entered) + later - value[room, move])
            room = entered
        took.append(count)
    return np.array(took)


# %%
def first_short(took, shortest):
    """The first episode within half as much again as the shortest path; 151 if there is none."""
    short = took <= 1.5 * shortest
    return short.argmax() + 1 if short.any() else len(took) + 1


# %% tags=["reproducible"]
curves, needed = {}, {}
for name, reward in tqdm(REWARDS.items()):
    took = np.array(
        [[moves_per_episode(mazes[k][1], critics[k], reward, seed + run) for run in range(3)] for k in range(3)]
    )
    curves[name] = took.mean((0, 1))
    needed[name] = np.array([[first_short(run, steps_to_goal[k][START]) for run in took[k]] for k in range(3)])
    per_maze = ", ".join(
        "none in 150" if (row == 151).all() else f"{row.mean():5.1f} ± {row.std(ddof=1):4.1f}" for row in needed[name]
    )
    print(f"{name:14} first short path after {per_maze} episodes")
mean = {name: episodes.mean(1) for name, episodes in needed.items()}
assert (mean["change of f"] < mean["f"]).all() and (mean["f"] < mean["-1 a move"]).all()
assert (mean["-1 a move"] < mean["1 at the goal"]).all() and (needed["change of f"] <= 5).all()

# %% tags=["reproducible"]
rpm.figures.lines(
    np.arange(1, 151),
    curves,
    x_label="episode",
    y_label="moves, mean of 9 runs",
    caption="Moves to the goal (at most 200) in three mazes, three runs each. Paid at the goal alone the agent hardly learns; f shows the way, and its change shows it at once.",
)

# %% [markdown]
# The claim holds here, and the second reward says how much of it is the critic's: a good part of the way from seldom to soon is had by any negative reward, and $f$ then about halves what is left. Our $f$ came from a full map. The paper's
# agent learns $f$ by gradient ascent from the transitions that it has seen, while it learns to move; that is the exercise.
#
# ## Seen from the RPM
#
# There is a Lipschitz bound where a likelihood has a normaliser, and so no prior. Put the contrastive critic beside it: $z$ is a room, $z'$ a room that a random walk visits $k$ moves later, $P(k) = (1-\gamma)\gamma^k$. The best critic of (E7) is
#
# $$f^*(z,z') = \frac{Q(z,z')}{Q(z)Q(z')} = \frac{1-\gamma}{Q(z')}\sum_k \gamma^k P(z'\text{ after } k\mid z),$$
#
# and its objective is the mutual information (E6).

# %% tags=["reproducible"]
# P(next | room); as it is symmetric, every room is visited equally often
walk = torch.nn.functional.one_hot(torch.tensor(mazes[0][1]), ROOMS).double().mean(1)
eye = torch.eye(ROOMS).double()
q_joint = (1 - 0.9) * torch.linalg.inv(eye - 0.9 * walk) / ROOMS
assert torch.equal(walk, walk.T)
log_f = q_joint.log() - 2 * np.log(1 / ROOMS)  # both marginals are uniform
infonce, information = rpm.infonce(log_f, q_joint).value, rpm.mutual_information(q_joint)
print(f"room and later room, discount 0.9: InfoNCE {infonce:.6f}, MI {information:.6f} nats")
assert abs(infonce - information) < 1e-10

# %% [markdown]
# Steps are in this critic as well, as a derivative. Differentiate the sum by $\log\gamma$: each term comes down with its $k$, so
#
# $$\frac{\partial \log f^*(z,z')}{\partial\log\gamma} = \mathbb E[k\mid z,z'] - \frac{\gamma}{1-\gamma}:$$
#
# how long the walk has been under way, given that it left $z$ and is seen at $z'$, less what one would have said without looking. As $\gamma\to0$ only the shortest paths are left, and $\mathbb E[k\mid z,z']$ becomes AIM's number of steps.

# %%
arrivals = [eye[GOAL]]  # P(goal after k moves | room), shape (ROOMS,), for k = 0, 1, ...
for _ in range(600):
    arrivals.append(walk @ arrivals[-1])
arrivals, k = torch.stack(arrivals), torch.arange(601).double()[:, None]


def log_critic(log_gamma):
    gamma = log_gamma.exp()
    return ((1 - gamma) * ROOMS * (gamma**k * arrivals).sum(0)).log()


# %% tags=["reproducible"]
shortest = torch.tensor(steps_to_goal[0])
for gamma in torch.tensor([0.9, 0.5, 1e-1, 1e-4], dtype=torch.float64):
    weights = gamma**k * arrivals
    under_way = (k * weights).sum(0) / weights.sum(0)  # E[k | room, goal]
    slope = torch.func.jacfwd(log_critic)(gamma.log())
    residual = (slope - (under_way - gamma / (1 - gamma))).abs().max()
    extra = (under_way - shortest).max()
    print(f"gamma {gamma:6}: identity to {residual:.0e}; E[k] above the shortest path by at most {extra:.3f} moves")
    assert residual < 1e-8 and (under_way > shortest - 1e-8).all()
assert extra < 0.01

# %% [markdown]
# So the two critics answer two questions about a pair of states. AIM's: how few steps lie between them? InfoNCE's: how much likelier than chance is it to see one after the other? The second weighs every path, and so depends on how the walk chooses; the
# first asks only which transitions exist.
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
# The dual's critic is minus the number of steps, to rounding, and an agent that is paid by it finds the goal in fewer episodes than one paid at the goal, in three mazes and three runs each. A cost a move accounts for much of that gain; the rest is the
# critic's. The critic of InfoNCE knows steps as well: its slope in $\log\gamma$ is the expected number, less a constant, and as $\gamma\to0$ the smallest.
