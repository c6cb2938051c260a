# SPDX-License-Identifier: Apache-2.0
"""Gaussian-equivalent features: a linear network whose learning curves are a nonlinear one's."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .linearise import LayerMoments, chained, linearise


def surrogate_features(
    key: Array | int,
    weights,
    activations,
    X: ArrayLike,
    Omega0: ArrayLike,
    *,
    mean0: ArrayLike | None = None,
    method: str | None = None,
) -> Float[Array, "point unit"]:
    r"""Draw features of the linear network with noise that stands for a nonlinear one.

    :math:`x_l = E x_l + \kappa_1 W_l(x_{l-1} - E x_{l-1}) + \kappa_*\xi_l`, with fresh white noise
    for every row of X and every layer.

    Parameters
    ----------
    key : JAX key or int
    weights, activations : as in `linearise`
    X : (n, p_0) inputs
    Omega0 : (p_0, p_0) uncentred second moment of the inputs, of their population
    mean0 : (p_0,), optional
        Mean of the inputs, zero by default.
    method : str, optional
        As in `linearise`, whose ``Omega`` the features then have.

    Returns
    -------
    (n, p)
        Of the last layer.

    Raises
    ------
    ValueError
        As `linearise`, and for inputs of another width than Omega0.

    Notes
    -----
    Learning curves of ridge regression agree with the network's to one over the root of the width
    for odd activations; for others the moments of second order between units are left out.

    References
    ----------
    arXiv 2402.13999.
    """
    key = _checks.random_key(key)
    layers = linearise(weights, activations, Omega0, method=method, mean0=mean0)
    x, inputs = _checks.inputs("X", X), _checks.finite("Omega0", Omega0, ndim=2).shape[0]
    if x.shape[1] != inputs:
        raise ValueError(f"X has {x.shape[1]} columns and Omega0 {inputs}; give the same inputs")
    x = x if mean0 is None else x - _checks.finite("mean0", mean0, ndim=1)[None]
    return _draw(key, chained("weights", weights, inputs), layers, x)


@jax.jit
def _draw(key, weights, layers, x):
    keys = jax.random.split(key, len(layers))
    sizes = [(len(x), len(W)) for W in weights]
    noise = [jax.random.normal(k, size, x.dtype) for k, size in zip(keys, sizes, strict=True)]
    return add_noise(noise, weights, layers, x)


def add_noise(noise, weights, layers: list[LayerMoments], x: Array) -> Array:
    """Return the features of centred inputs x (n, p_0), with white ``noise`` (n, p_l) per layer."""
    for W, layer, xi in zip(weights, layers, noise, strict=True):
        x = layer.k1[None] * (x @ W.T) + jnp.sqrt(layer.ks2)[None] * xi
    return x + layers[-1].mean[None] if layers else x
