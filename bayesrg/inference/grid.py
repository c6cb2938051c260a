# SPDX-License-Identifier: Apache-2.0
"""Posteriors of a few positive parameters by quadrature; samplers are checked against them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from numpyro.infer.util import log_density

from .. import _checks
from .._callables import Held, hold
from .._checks import ArrayLike
from ..data import Data
from .fit import check_data
from .sites import bind, layout_of, one_at_a_time


class GridPosterior(NamedTuple):
    """Posterior on a grid of g points, from `grid_posterior`.

    Attributes
    ----------
    points : dict from each parameter to its value at every point (g,)
    weights : (g,) posterior probability of each point; they sum to 1
    log_evidence : () log evidence, in nats
    """

    points: dict[str, Array]
    weights: Float[Array, " grid"]
    log_evidence: Float[Array, ""]

    def expect(self, function: Callable[[dict], Array]) -> Array:
        """Return the posterior mean of ``function``, which receives a dict of scalars."""
        _checks.function("function", function, "a function of the parameters")
        values = jax.lax.map(
            lambda theta: _checks.returned("function", function(theta)), self.points, batch_size=64
        )
        return jnp.tensordot(self.weights, values, 1)

    @property
    def mean(self) -> dict[str, Array]:
        """Posterior mean of each parameter, a dict of scalars."""
        return {name: self.weights @ values for name, values in self.points.items()}


@one_at_a_time
def grid_posterior(
    model: Callable, data: Data | tuple, grid: dict[str, ArrayLike], **hyper
) -> GridPosterior:
    """Integrate the density of a model over a grid; return its posterior and evidence.

    The integral runs over the logarithms of all latent sites, by the trapezoidal rule.

    Parameters
    ----------
    model : callable
        NumPyro model, called as ``model(X, y, **hyper)``; all latent sites are positive scalars.
    data : Data or (X, y)
        X (n, d), y (n,) or (n, c).
    grid : mapping
        From the name of every latent site to rising values (s,) that cover its posterior.
    **hyper : hyper-arguments of the model

    Returns
    -------
    GridPosterior
        To see the error of the quadrature, double the number of grid values.

    Raises
    ------
    ValueError
        If ``grid`` does not name every latent site, or for shapes that would be broadcast.
    """
    bound = bind(model, hyper)
    X, y, *_ = check_data(data)
    _checks.instance("grid", grid, Mapping, "a mapping from site to values")
    latents = list(layout_of(bound, X, y).latents)
    if sorted(grid) != sorted(latents):
        raise ValueError(
            f"grid has the sites {list(grid)} but the model samples {latents}; give values for each"
        )
    axes = {}
    for name, values in grid.items():
        axes[name] = values = _checks.positive(f"grid[{name!r}]", values, ndim=1)
        rises = not _checks.known(values) or (np.diff(np.asarray(values)) > 0).all()
        if values.size < 2 or not rises:
            raise ValueError(f"grid[{name!r}] must rise and have at least two values")
    return GridPosterior(*_integrated(hold(bound), X, y, axes))


@eqx.filter_jit
def _integrated(bound: Held, X, y, axes):
    """Return the points of a grid, their posterior probabilities, and the log evidence."""
    bound = bound.open()
    mesh = jnp.meshgrid(*axes.values(), indexing="ij")
    points = {name: values.ravel() for name, values in zip(axes, mesh, strict=True)}

    def density(point):
        return log_density(bound, (X, y), {}, point)[0]

    # weights of the trapezoidal rule in log theta; d theta = theta d log theta
    widths = [jnp.gradient(jnp.log(v)) for v in axes.values()]
    ends = [w.at[jnp.array([0, -1])].multiply(0.5) for w in widths]
    volume = jnp.meshgrid(*ends, indexing="ij")
    log_weight = jax.lax.map(density, points, batch_size=64) + sum(
        jnp.log(points[name] * v.ravel()) for name, v in zip(axes, volume, strict=True)
    )
    log_evidence = jax.scipy.special.logsumexp(log_weight)
    return points, jnp.exp(log_weight - log_evidence), log_evidence
