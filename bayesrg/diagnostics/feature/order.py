# SPDX-License-Identifier: Apache-2.0
"""Order parameter and layer kernels of a deep linear network, from draws of either model."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array

from ...deep_linear.features import drive, feature_draw, feature_means
from ...deep_linear.order import bartlett_sizes, latent_excess, order_parameter
from ...deep_linear.problem import Problem
from ...deep_linear.weights import order_of_weights, weight_excess
from ...networks import DeepLinear


def sites(net: DeepLinear, group: xr.Dataset, inputs: int) -> dict[str, Array]:
    """Return draws (chain, draw, ...) of the weights or of the factors of the order parameter.

    Parameters
    ----------
    net : DeepLinear
    group : Dataset
        Draws; weights are read if it has all of them, otherwise factors.
    inputs : int, number of columns of X

    Returns
    -------
    dict
        From name of a site to its draws.

    Raises
    ------
    ValueError
        If the group has neither, or if shapes differ from those of the network.
    """
    weights = {f"z{i}": shape for i, shape in enumerate(net.white_shapes(inputs), 1)}
    factors = {}
    for size in bartlett_sizes(net.widths, net.outputs):
        if size.pivots.size:
            factors[f"c{size.layer}"] = (size.pivots.size,)
        if size.entries:
            factors[f"t{size.layer}"] = (size.entries,)
    expected = weights if set(weights) <= set(group.data_vars) else factors
    found = {}
    for name, shape in expected.items():
        if name not in group:
            names = ", ".join(map(repr, group.data_vars)) or "nothing"
            raise ValueError(
                f"the draws hold neither all of {', '.join(weights)} nor of "
                f"{', '.join(factors)}, but {names}; give draws of the models deep_linear or "
                "deep_linear_collapsed and the network they were fitted with"
            )
        value = group[name].transpose("chain", "draw", ...).to_numpy()
        if value.shape[2:] != shape:
            raise ValueError(
                f"{name!r} has shape {value.shape[2:]} per draw and the network needs {shape}; "
                f"give the network of the fit, not widths {net.widths} with {net.outputs} output(s)"
            )
        found[name] = jnp.asarray(value)
    return found


def no_data(data: Problem) -> Array:
    """Return a ridge so large that the posterior equals the prior."""
    return jnp.sqrt(jnp.finfo(data.values.dtype).max).astype(data.values.dtype)


def at_draw(net: DeepLinear, data: Problem, kernel: str, X: Array) -> Callable:
    """Return a function that takes a draw and returns its quantities and kernels (L, n, n).

    Parameters
    ----------
    net : DeepLinear
    data : Problem
        With JAX arrays.
    kernel : "rao_blackwell" or "draw"
        Means of the kernels given the order parameter, or kernels of a draw of all weights.
    X : (n, d), inputs

    Returns
    -------
    callable
        Its argument is a dict of sites with one more entry ``ridge``: that of the data, or
        `no_data` for the prior. If the sites are factors of the order parameter and ``kernel`` is
        "draw", the dict also needs an entry ``key``.
    """

    def at(draw):
        given = eqx.tree_at(lambda d: d.ridge, data, draw["ridge"])
        if "z1" in draw:
            white = [draw[f"z{i}"] for i in range(1, net.depth + 2)]
            weights = net.weights(white, X.shape[1])
            Q, excess = order_of_weights(net, weights), weight_excess(white)
            if kernel == "draw":
                hidden = [H @ H.T / H.shape[1] for H in net.layers(weights, X)[1:-1]]
                Phi = jnp.stack(hidden) if hidden else jnp.zeros((0, len(X), len(X)))
            else:
                Phi = feature_means(given, _chain(net, weights))
        else:
            Q, chain = order_parameter(net.widths, net.outputs, draw)
            excess = latent_excess(net.widths, net.outputs, draw) if chain else jnp.zeros(0)
            known = kernel == "rao_blackwell"
            Phi = (
                feature_means(given, chain)
                if known
                else feature_draw(draw["key"], given, chain).kernels
            )

        # With a bottleneck Q has a lower rank: set eigenvalues that are only round-off to zero.
        q = jnp.clip(jnp.linalg.eigvalsh(Q)[::-1], 0.0)
        rank = min((*net.widths, net.outputs))
        q = jnp.where(np.arange(net.outputs) < rank, q, 0.0)
        return {
            "order_parameter": Q,
            "log_q_eig": jnp.log(q),
            "layer_excess": excess,
            "drive": drive(given, Q),
        }, Phi

    return at


def _chain(net, weights):
    r"""Return factors G_l (c, r_l) with :math:`G_lG_l^T = A_lA_l^T`, A_l the upper weights."""
    A, chain, rank = jnp.eye(net.outputs), [], net.outputs
    layers = zip(weights[:0:-1], net.scales[:0:-1], net.widths[::-1], strict=True)
    for W, scale, width in layers:
        A, rank = A @ W / scale, min(rank, width)
        if rank == net.outputs:
            chain.append(jnp.linalg.qr(A.T)[1].T)
        else:
            U, root, _ = jnp.linalg.svd(A, full_matrices=False)
            chain.append(U[:, :rank] * root[:rank])
    return tuple(chain[::-1])
