# SPDX-License-Identifier: Apache-2.0
"""Layer kernels and order parameters of deep linear networks, from draws of either model."""

from functools import partial

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array, random

from ... import _checks
from ..._checks import ArrayLike
from ...deep_linear.features import drive, feature_draw, feature_means
from ...deep_linear.order import bartlett_sizes, latent_excess, order_parameter
from ...deep_linear.problem import prepare
from ...deep_linear.weights import order_of_weights, weight_excess
from ...networks import DeepLinear
from .kernel import MAX_BYTES, check_memory
from .measure import (
    ESTIMATORS,
    inputs_of,
    measure_draws,
    read_groups,
    reference,
    targets_of,
)


def measure_deep_linear(
    dt: xr.DataTree,
    net: DeepLinear,
    *,
    kernel: str = "rao_blackwell",
    key: Array | int | None = None,
    X: ArrayLike | None = None,
    Y: ArrayLike | None = None,
    ridge: ArrayLike | None = None,
    prior: str | None = "prior",
    modes: int = 10,
    keep_kernels: bool = False,
    max_bytes: int = MAX_BYTES,
) -> xr.DataTree:
    r"""Measure what a deep linear network has learnt, and return the tree with new groups.

    Parameters
    ----------
    dt : DataTree
        Draws of the model ``deep_linear`` or ``deep_linear_collapsed``, with prior draws unless
        ``prior`` is None.
    net : DeepLinear, the network of the fit
    kernel : "rao_blackwell" or "draw"
        Which kernels to measure. "rao_blackwell": means given a draw of the order parameter, which
        have less noise. "draw": kernels of a draw of all weights. The two agree in the expectation
        of kernel_scale and target_gain, but not of the other quantities: for instance the kernel
        of a draw has at most rank N, the number of units.
    key : JAX key, or int
        Randomness of the kernels, needed for "draw" with the collapsed model.
    X : (n, d), optional
        Inputs; by default X in constant_data.
    Y : (n,) or (n, c), optional
        Targets; by default y in observed_data.
    ridge : (), optional
        :math:`\tau` of the effective dimension. The default is the noise variance T; in mean field
        T times :math:`\gamma^2`.
    prior : str, optional
        Group of prior draws of the network; None means no prior draws.
    modes : int, number of eigenvalues whose shift is stored
    keep_kernels : bool, store feature_kernel (chain, draw, layer, point, point_bis) too
    max_bytes : int, most memory that stored kernels may take, in bytes

    Returns
    -------
    DataTree
        The groups of ``dt`` and three more. feature_learning has the variables that `measure`
        lists, and for every draw order_parameter (output, output_bis), log_q_eig and
        effective_ridge :math:`T/q_a` (output, largest q first), layer_excess (one value per
        sampled matrix, over level) and drive; `layer_identity` compares the last two.
        feature_learning_prior has these variables for the prior draws. feature_kernels has the
        mean kernels ``posterior`` and ``prior``, and ``prior_mean``.

    Raises
    ------
    ValueError
        For a missing group or site, draws of another network, a missing key, or kernels larger
        than ``max_bytes``.

    References
    ----------
    arXiv 2111.11954 for the kernels of the first layer.
    """
    _checks.warn_32_bits("diagnostics.feature")
    _checks.choice("kernel", kernel, ESTIMATORS)
    _checks.instance("net", net, DeepLinear, _checks.NET)
    keep_kernels = _checks.flag("keep_kernels", keep_kernels)
    modes, max_bytes = _checks.whole("modes", modes), _checks.whole("max_bytes", max_bytes)
    key = None if key is None else _checks.random_key(key)
    X = inputs_of(dt, X)
    Y = targets_of(dt, Y, X.shape[0])
    problem = prepare(net, X, Y, name="Y")
    data = problem.as_jax()
    T = data.ridge if ridge is None else _checks.nonnegative("ridge", ridge, ndim=0)

    # prior means of the kernels: s_1^2 ... s_l^2 X X^T / N_0 for layer l
    factors = np.cumprod(problem.scales[:-1] ** 2)[:, None, None]
    K = jnp.asarray(factors * (problem.inputs @ problem.inputs.T / X.shape[1]))

    draws = {}
    for group, dataset in read_groups(dt, prior).items():
        draws[group] = found = _sites(net, dataset, X.shape[1])
        lead = tuple(dataset.sizes[axis] for axis in ("chain", "draw"))
        if kernel == "draw" and "z1" not in found:
            if key is None:
                raise ValueError(
                    "key is None, and draws of kernels from the collapsed model need randomness; "
                    "give a key, or kernel='rao_blackwell'"
                )
            key, part = random.split(key)
            found["key"] = random.split(part, lead)
        if keep_kernels:
            check_memory(lead[0] * lead[1], K, max_bytes)
        # with a ridge this large the data say nothing, so the posterior equals the prior
        no_data = np.sqrt(np.finfo(K.dtype).max)
        value = problem.ridge if group == "posterior" else no_data
        found["ridge"] = np.full(lead, value, K.dtype)
    if len({frozenset(found) for found in draws.values()}) > 1:
        raise ValueError(
            f"one of the groups 'posterior' and {prior!r} holds weights and the other factors of "
            "the order parameter; draw the prior with the model of the fit"
        )

    attrs = {
        "estimator": kernel,
        "widths": list(net.widths),
        "ridge": float(net.ridge),
        "weight_scales": np.asarray(net.scales).tolist(),
        "parametrisation": net.parametrisation,
        "richness": float(net.richness),
    }
    at, known = partial(_at_draw, net, data, kernel), reference(K, Y, T)
    return measure_draws(dt, draws, at, known, attrs, modes=modes, keep=keep_kernels)


def _sites(net, group, inputs):
    """Return draws (chain, draw, ...) of the weights or of the factors of the order parameter.

    Weights are read if the ``group`` has all of them, otherwise factors. ``inputs`` is the number
    of columns of X. Raises ValueError if the group has neither, or if shapes differ from those of
    the network.
    """
    weights = {f"z{i}": shape for i, shape in enumerate(net.white_shapes(inputs), 1)}
    factors = {}
    for size in bartlett_sizes(net.widths, net.outputs):
        if size.pivots.size:
            factors[f"c{size.layer}"] = (size.pivots.size,)
        if size.entries:
            factors[f"t{size.layer}"] = (size.entries,)

    found = {}
    for name, shape in (weights if set(weights) <= set(group.data_vars) else factors).items():
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


def _at_draw(net, data, kernel, draw):
    """Return the quantities of one draw that `measure` lacks, a dict, and its kernels (L, n, n).

    ``draw`` has the weights or factors, the ``ridge`` of its group and, to draw kernels from
    factors, a ``key``.
    """
    given = eqx.tree_at(lambda d: d.ridge, data, draw["ridge"])
    if "z1" in draw:
        white = [draw[f"z{i}"] for i in range(1, net.depth + 2)]
        weights = net.weights(white, data.inputs.shape[1])
        Q, excess = order_of_weights(net, weights), weight_excess(white)
        chain = _chain(net, weights)
    else:
        Q, chain = order_parameter(net.widths, net.outputs, draw)
        excess = latent_excess(net.widths, net.outputs, draw) if chain else jnp.zeros(0)

    if kernel == "rao_blackwell":
        Phi = feature_means(given, chain)
    elif "z1" not in draw:
        Phi = feature_draw(draw["key"], given, chain).kernels
    else:
        hidden = [H @ H.T / H.shape[1] for H in net.layers(weights, data.inputs)[1:-1]]
        Phi = jnp.stack(hidden) if hidden else jnp.zeros((0, *2 * data.inputs.shape[:1]))

    # With a bottleneck Q has a lower rank: set eigenvalues that are only round-off to zero.
    q = jnp.clip(jnp.linalg.eigvalsh(Q)[::-1], 0.0)
    q = jnp.where(np.arange(net.outputs) < min((*net.widths, net.outputs)), q, 0.0)
    found = {"order_parameter": Q, "log_q_eig": jnp.log(q), "effective_ridge": data.ridge / q}
    return found | {"layer_excess": excess, "drive": drive(given, Q)}, Phi


def _chain(net, weights):
    r"""Return factors G_l (c, r_l) with :math:`G_lG_l^T = A_lA_l^T`, A_l the upper weights."""
    A, chain, rank = jnp.eye(net.outputs), [], net.outputs
    layers = zip(weights[:0:-1], net.scales[:0:-1], net.widths[::-1], strict=True)
    for W, scale, width in layers:
        A, rank = A @ W / scale, min(rank, width)
        # any G with this product serves: a triangular one, or where A has a lower rank a thin one
        if rank == net.outputs:
            chain.append(jnp.linalg.qr(A.T)[1].T)
        else:
            U, root, _ = jnp.linalg.svd(A, full_matrices=False)
            chain.append(U[:, :rank] * root[:rank])
    return tuple(chain[::-1])
