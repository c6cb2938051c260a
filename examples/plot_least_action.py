# SPDX-License-Identifier: Apache-2.0
r"""
Training with least action
==========================

A residual network moves its inputs, step by step, to where a linear head separates the classes.
Plain training moves them far and on bent paths. Least action adds the transport cost T, the mean
squared length of all steps, to the loss (arXiv 2009.08372). Points then move little, and straight.
The head is fixed here: one that is trained could make T as small as it likes by growing.
"""

import matplotlib.pyplot as plt
import numpy as np
import numpyro
import optax
from sklearn.datasets import make_circles, make_moons

import bayesrg as brg
from bayesrg import dynamics
from bayesrg.diagnostics import transport

numpyro.enable_x64()

# %%
# Plain training and least action
# -------------------------------
# Two circles and two half moons get a third coordinate that is zero. The head reads this coordinate
# alone, so the network must lift one class and lower the other. The loss L becomes
# :math:`L + T/\lambda`, and :math:`\lambda` grows as long as L is positive. An infinite one means
# plain training. The numbers are those of 2000 test points.

net = brg.networks.Residual(16, 8, outputs=2, head=[[0.0, 0.0, -3.0], [0.0, 0.0, 3.0]])
sets = {
    "circles": lambda n, seed: make_circles(n, noise=0.08, factor=0.5, random_state=seed),
    "moons": lambda n, seed: make_moons(n, noise=0.15, random_state=seed),
}
groups, runs, found = {}, {}, {}
for data, make in sets.items():
    (X, y), (X_test, y_test) = make(200, 0), make(2000, 1000)
    X, X_test = (np.column_stack([x, np.zeros(len(x))]) for x in (X, X_test))
    for name, start in (("plain", np.inf), ("least action", 1.0)):
        rule = dynamics.least_action(
            net,
            lambda f, y: optax.softmax_cross_entropy_with_integer_labels(f, y).mean(),
            optax.adamw(5e-3, weight_decay=1e-4),
            *(X, y),
            lambda0=start,
        )
        run = dynamics.run(rule, net.init(0, 3), 1500, key=0, every=1500)
        runs[f"{data}, {name}"] = brg.io.trajectory(run)["dynamics"].to_dataset()
        paths = net.paths(run.last.x, X_test)
        how = {"trajectory": True, "classes": y_test, "max_points": 300, "key": 0}
        tree = transport.measure(paths, **how)
        for end in ("", "_distance"):
            groups[f"{data}, {name}{end}"] = tree["transport" + end].to_dataset()
        right = float((net.read_out(run.last.x, paths.states[-1]).argmax(1) == y_test).mean())
        T, straight = (tree["transport"][v].item() for v in ("transport_cost", "straightness"))
        print(f"{data}, {name}: accuracy {right:.3f}, T {T:.3f}, straightness {straight:.2f}")
        found[data, name] = right, T, straight
    plain, least = found[data, "plain"], found[data, "least action"]
    assert least[1] < plain[1] / 50 and least[0] > plain[0] - 0.01 and least[2] > plain[2] + 0.1
tree = brg.io.label(**groups)
circles, moons = ({"group": f"{n}, plain", "also": [f"{n}, least action"]} for n in sets)
brg.plots.plot_paths(tree, features=(0, 2), backend="matplotlib", **circles)
brg.plots.plot_displacement(tree, features=(0, 2), backend="matplotlib", **moons)

# %%
# How far, and how straight
# -------------------------
# The kinetic energy E is T times the number of layers. It equals the mean squared displacement D if
# points move straight and in equal steps. Plain paths are longer, and bent or uneven. With least
# action all layers act alike.

brg.plots.plot_action_ladder(tree, backend="matplotlib", **circles)
brg.plots.plot_layer_action(tree, relative=True, backend="matplotlib", **circles)
for name, low, high in (("plain", 0.5, np.inf), ("least action", 0, 0.1)):
    action = tree[f"circles, {name}"]["layer_action"]
    assert low < float(action.std() / action.mean()) < high

# %%
# In training
# -----------
# First the penalty keeps points where they are. As the multiplier grows, they move as far as the
# loss asks. At the end the loss is above that of plain training.

brg.plots.plot_least_action(brg.io.label(**runs), backend="matplotlib", **moons)
assert runs["moons, plain"]["loss"][0, -1] < runs["moons, least action"]["loss"][0, -1] < 0.01
plt.show()
