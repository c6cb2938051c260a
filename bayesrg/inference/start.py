# SPDX-License-Identifier: Apache-2.0
"""Start of chains near a normal approximation of the posterior."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import optax
from jax import random
from numpyro.distributions import biject_to
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.initialization import init_to_sample, init_to_uniform

from .. import _checks
from ..data import Data
from .fit import check_data
from .sites import bind, layout_of, one_at_a_time


@one_at_a_time
def normal_start(
    model: Callable,
    data: Data | tuple,
    *,
    key: jax.Array | int,
    steps: int = 1000,
    learning_rate: float = 0.02,
    **hyper,
) -> Callable:
    """Fit independent normals to a posterior; return a function that starts chains at their draws.

    The result is an ``init_strategy`` of NumPyro's kernels, for
    ``fit(..., sampler=lambda m: NUTS(m, init_strategy=start))``. Each chain starts at a draw of its
    own. The fit is variational (numpyro's AutoNormal), in unconstrained coordinates.

    Parameters
    ----------
    model : callable
        NumPyro model, called as ``model(X, y, **hyper)``.
    data : Data or (X, y)
        X (n, d), y (n,) or (n, c).
    key : JAX key or int
    steps : int
        Steps of the optimiser Adam.
    learning_rate : float
        Of these steps.
    **hyper
        Hyper-arguments of the model.

    Raises
    ------
    ValueError
        For an argument out of range, a latent site with discrete values, or a fit that diverges.
    """
    key, steps = _checks.random_key(key), _checks.whole("steps", steps)
    learning_rate = _checks.number("learning_rate", learning_rate, above=0.0)
    data = check_data(data)
    bound = bind(model, hyper, normal_start)
    latents = layout_of(bound, data.X, data.y).latents
    for name, latent in latents.items():
        if latent.dtype.kind != "f":
            raise ValueError(
                f"site {name!r} of the model is discrete, and a normal cannot approximate it; use "
                "another start"
            )

    @jax.jit
    def run(key, *args):
        guide = AutoNormal(bound, init_loc_fn=init_to_sample)
        svi = SVI(bound, guide, optax.adam(learning_rate), Trace_ELBO())
        found = svi.run(key, steps, *args, progress_bar=False)
        return found.params, found.losses[-1]

    params, loss = run(key, data.X, data.y, bound.arrays)
    if not np.isfinite(loss):
        raise ValueError(
            f"the normal fit diverged within {steps} steps; lower learning_rate, {learning_rate:g}"
        )
    loc = {name: params[f"{name}_auto_loc"] for name in latents}
    scale = {name: params[f"{name}_auto_scale"] for name in latents}
    return partial(_near, loc=loc, scale=scale)


def _near(site, loc, scale):
    """Return a draw of the normals for one latent site of a model, as the start of a chain."""
    name = site["name"]
    if name not in loc:
        return init_to_uniform(site)
    noise = random.normal(site["kwargs"]["rng_key"], loc[name].shape, loc[name].dtype)
    return biject_to(site["fn"].support)(loc[name] + scale[name] * noise)
