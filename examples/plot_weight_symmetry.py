# SPDX-License-Identifier: Apache-2.0
"""
Why chains of weights look unconverged
======================================

Rotate the units of a hidden layer, and rotate the weights above them back: a linear network then
computes the same function. So its posterior does not change either, and weights are not determined.
R-hat of a weight can be bad although function and order parameter have converged. So check only
quantities that do not change under such rotations.
"""

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import numpyro
from numpyro.infer import NUTS

import bayesrg as brg
from bayesrg.deep_linear import exact
from bayesrg.models import deep_linear

numpyro.enable_x64()
rng = np.random.default_rng(3)
X = rng.standard_normal((5, 4))
y = X @ [1, -0.7, 0.4, 0.2] + 0.1 * rng.standard_normal(5)


# %%
# With one hidden unit only its sign is free: the posterior of a weight has two separate peaks, and
# with little noise a chain rarely crosses from one to the other. With two units weights can turn
# around a circle. The exact solver gives the means.


def sample(width):
    """Return draws of all weights with one hidden layer, four chains, and the exact solution."""
    strict = lambda model: NUTS(model, target_accept_prob=0.95)  # noqa: E731
    hyper = {"widths": (width,), "ridge": 0.01}
    run = {"key": 1, "draws": 1000, "sampler": strict, "progress": False}
    draws = brg.fit(deep_linear.model, (X, y), **run, **hyper).posterior.dataset
    return draws, exact(brg.networks.DeepLinear((width,), ridge=0.01), X, y)


runs = {width: sample(width) for width in (1, 2)}

# %%
# At both widths the function and the order parameter Q agree with their exact means within four
# Monte Carlo errors, and have a good R-hat. The weights of the narrow network have not: every chain
# stays at one sign, and ``fit`` warns. By symmetry the posterior mean of every weight is zero, but
# no chain shows this.

for width, (draws, solved) in runs.items():
    rhat = {name: float(values.max()) for name, values in az.rhat(draws).items()}
    print(f"width {width}: worst R-hat", {name: f"{value:.3f}" for name, value in rhat.items()})
    for sampled, mean in ((draws["f"], solved.predict(X)[0]), (draws["Q"], solved.moment(1))):
        assert (abs(sampled.mean(("chain", "draw")) - mean) < 4 * az.mcse(sampled)).all()
    assert rhat["f"] < 1.02 and rhat["Q"] < 1.02
    assert min(rhat["z1"], rhat["z2"]) > 1.2 if width == 1 else rhat["z1"] < 1.05

# %%
# Left: the readout weight of a single unit, draw by draw, with one colour per chain. Centre: an
# output in the same chains. Right: the two readout weights of two units, on a circle. Here the
# weights mix well, but only their length means something, not their direction.

(narrow, _), (pair, _) = runs[1], runs[2]
assert (abs(narrow["z2"].mean("draw")) > 1).all()
ring = pair["z2"].to_numpy()[:, :, 0]
turns = np.exp(1j * np.arctan2(ring[..., 1], ring[..., 0])).mean()
print(f"resultant length of the angle of two units: {abs(turns):.2f}, 0 if uniform")
assert abs(turns) < 0.2

fig, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
axes[0].plot(narrow["z2"].to_numpy()[..., 0, 0].T, linewidth=0.6)
axes[0].set(xlabel="draw", ylabel="readout weight, width 1")
axes[1].plot(narrow["f"].to_numpy()[..., 0].T, linewidth=0.4)
axes[1].set(xlabel="draw", ylabel="output at the first point")
for chain in ring:
    axes[2].plot(*chain.T, ".", markersize=2, alpha=0.5)
axes[2].set(xlabel="first readout weight, width 2", ylabel="second", aspect="equal")
plt.show()
