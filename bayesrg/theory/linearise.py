# SPDX-License-Identifier: Apache-2.0
"""Moments of a random network's features given its weights, layer by layer in closed form."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _activations, _checks
from .._checks import ArrayLike
from .._warnings import warn
from .hermite import warn_clipped
from .moments import semidefinite, symmetric


class LayerMoments(eqx.Module):
    """Moments of the features x (p,) of a layer over inputs; see `linearise`.

    Attributes
    ----------
    Omega : (p, p) second moment E x x^T, not centred
    mean : (p,) E x
    psi : (p,) E x y; None if no psi0 was given
    variance : (p,) of the pre-activations
    k1 : (p,) linear coefficient of each unit
    ks2 : (p,) variance of each unit beyond its linear part
    covariance : (p, p) Omega - mean mean^T
    """

    Omega: Float[Array, "unit unit_bis"]
    mean: Float[Array, " unit"]
    psi: Float[Array, " unit"] | None
    variance: Float[Array, " unit"]
    k1: Float[Array, " unit"]
    ks2: Float[Array, " unit"]
    covariance: Float[Array, "unit unit_bis"]


def linearise(
    weights,
    activations,
    Omega0: ArrayLike,
    psi0: ArrayLike | None = None,
    method: str | None = None,
    *,
    mean0: ArrayLike | None = None,
    Ey: ArrayLike = 0.0,
) -> list[LayerMoments]:
    r"""Compute mean and covariance of the features :math:`x_l = f_l(W_l x_{l-1})` of each layer.

    If the layer below has mean :math:`\mu` and covariance K, the pre-activations have mean
    :math:`h = W\mu` and covariance :math:`S = WKW^T`. The new covariance is
    :math:`\kappa_{1i}\kappa_{1j}S_{ij} + \frac12\kappa_{2i}\kappa_{2j}S_{ij}^2` between units i and
    j, and on the diagonal the exact variance of :math:`f(h_i + \sqrt{S_{ii}}z)` for standard normal
    z. :math:`\kappa_1` and :math:`\kappa_2` are the means of f' and f''.

    Parameters
    ----------
    weights : sequence of (p_l, p_{l-1})
        Trained or random; layers may share weights.
    activations : name or callable, or a sequence of one per layer
        Described at `hermite`.
    Omega0 : (p_0, p_0) second moment of the inputs, not centred
    psi0 : (p_0,), optional
        Moment of the inputs with the target, E x y.
    method : optional
        "closure" (the default): the formula above. "unit": set the means and :math:`\kappa_2` to
        zero. "mean": as "unit", with one :math:`\kappa_1` for the whole layer. For odd activations
        and centred inputs, "unit" equals the closure, and "mean" has the same limit of wide layers.
        "exact": relu, erf and linear only; the exact bivariate expectation where pre-activations
        are centred, and the closure elsewhere.
    mean0 : (p_0,), optional
        Mean of the inputs, zero by default.
    Ey : ()
        Mean of the target.

    Returns
    -------
    list of LayerMoments, from the first layer up

    Raises
    ------
    ValueError
        For shapes that do not fit, an Omega0 that is not a second moment, a mean with "unit" or
        "mean", or "exact" with another activation.

    Warns
    -----
    UserWarning
        For "unit" and "mean" with two or more layers and an activation that is not odd: the means
        that they ignore are of order one at any width. For a layer whose linear part vanishes.

    Notes
    -----
    The formula assumes Gaussian pre-activations. In the first layer they are Gaussian if the inputs
    are, and further up if the layers are wide. In Frobenius norm the covariance of layers of 400
    units errs by some 4 % (erf, tanh) and by 6 to 9 % (relu, where "unit" errs by 54 % in the
    second layer and 71 % in the third). For relu the formula does not describe one direction of the
    features, which follows the length of the inputs.

    References
    ----------
    arXiv 2402.13999.
    """
    _checks.warn_32_bits("theory.linearise")
    methods = ("closure", "unit", "mean", "exact")
    method = _checks.choice("method", "closure" if method is None else method, methods)
    mean, K, centred = input_moments(Omega0, mean0, method)
    weights = chained("weights", weights, mean.size)
    activations = resolved("activations", activations, len(weights))
    psi = None
    if psi0 is not None:
        Ey = _checks.finite("Ey", Ey, ndim=0)
        psi = _checks.shaped("psi0", psi0, mean.shape, "one entry per input") - mean * Ey
    if method == "exact" and any(activation.dual is None for activation in activations):
        raise ValueError(
            "method 'exact' knows the bivariate expectations of "
            f"{', '.join(map(repr, _activations.DUALS))} alone; give method='closure'"
        )
    odd = warn_unless_odd(activations, method)
    layers = []
    for level, (W, activation) in enumerate(zip(weights, activations, strict=True)):
        rule = "closure" if method == "exact" and not centred else method
        layer, psi, clipped, second, linear = _layer(W, K, mean, psi, Ey, activation, rule)
        warn_clipped(clipped)
        warn_if_even(level, layer.variance, linear, second)
        K, mean, centred = layer.covariance, layer.mean, centred and odd[level]
        layers.append(layer)
    return layers


@partial(jax.jit, static_argnames="method")
def _layer(W, K, mean, psi, Ey, activation, method):
    """Moments of a layer from mean, covariance and centred psi of the layer below.

    Returns also the centred psi of this layer, what was clipped of ks2, and for each unit E f^2
    and the part of it that is linear.
    """
    K, mean, variance, moments = follow(W, K, mean, activation, method)
    raw = None
    if psi is not None:
        psi = moments.k1 * (W @ psi)
        raw = psi + mean * Ey
    Omega = K + jnp.outer(mean, mean)
    layer = LayerMoments(Omega, mean, raw, variance, moments.k1, moments.ks2, K)
    second = moments.variance(variance) + moments.a0**2
    return layer, psi, moments.clipped, second, variance * moments.k1**2


def follow(W, K, mean, activation, method):
    """Return covariance and mean of a layer's features from those of the layer below.

    Returns also the variances of the pre-activations, and their `_activations.Moments`.
    """
    S = W @ K @ W.T
    S = (S + S.T) / 2
    s = jnp.maximum(jnp.diagonal(S), 0.0)
    h = W @ mean if method == "closure" else jnp.zeros_like(s)
    if method == "mean":
        s = jnp.broadcast_to(s.mean(), s.shape)
    moments = _activations.gaussian_moments(activation, s, h)

    # Between units: the expansion of E f(u) g(v) in their covariance, to second order. Rows of
    # random weights have S_ij of order 1/sqrt(width), but p^2 terms of order S_ij^2 together move
    # the largest eigenvalue.
    K = jnp.outer(moments.k1, moments.k1) * S
    if method == "closure":
        K = K + jnp.outer(moments.k2, moments.k2) * S**2 / 2
    elif method == "exact":
        K = activation.dual.covariance(s[:, None], s[None, :], S)
        K = K - jnp.outer(moments.a0, moments.a0)

    # On the diagonal S is of order one: take the exact variance.
    if method == "mean":
        K = K + jnp.diag(moments.ks2)
    else:
        K = jnp.where(jnp.eye(s.size, dtype=bool), moments.variance(s), K)
    return K, moments.a0, s, moments


def surrogate_features(
    weights, layers: list[LayerMoments], X: ArrayLike, white: ArrayLike
) -> Float[Array, "point unit"]:
    r"""Return features of a linear network with noise that replaces a nonlinear network.

    :math:`x_l = E x_l + \kappa_1 W_l(x_{l-1} - E x_{l-1}) + \kappa_*\xi_l`.

    Parameters
    ----------
    weights : sequence of (p_l, p_{l-1})
    layers : list of LayerMoments, from `linearise`
        The features have the second moment ``Omega`` of the last one if `linearise` was called
        with method "mean", or with "closure" for odd activations.
    X : (n, p_0) inputs minus their mean
    white : sequence of (n, p_l), one per layer
        The :math:`\xi_l`, independent standard normal numbers.

    Returns
    -------
    (n, p) features of the last layer

    Raises
    ------
    ValueError
        For shapes that do not fit, or numbers of layers that differ.

    Notes
    -----
    Ridge regression on them has the learning curve of the network, up to one over the root of the
    width, for odd activations. For others the second-order covariance of units is left out.

    References
    ----------
    arXiv 2402.13999.
    """
    X = _checks.inputs("X", X)
    weights = chained("weights", weights, X.shape[1])
    what = "LayerMoments, from linearise"
    for layer in _checks.sequence("layers", layers, what):
        _checks.instance("an entry of layers", layer, LayerMoments, what)
    white = list(white) if getattr(white, "ndim", 0) == 3 else white
    _checks.sequence("white", white, "arrays of noise, one per layer")
    if not len(weights) == len(layers) == len(white):
        raise ValueError(
            f"weights has {len(weights)} layers, layers {len(layers)} and white {len(white)}; give "
            "one entry of each per layer"
        )
    white = [
        _checks.shaped(f"white[{level}]", xi, (len(X), len(W)), "one row per input")
        for level, (W, xi) in enumerate(zip(weights, white, strict=True))
    ]
    return _surrogate(weights, layers, X, white)


@jax.jit
def _surrogate(weights, layers, x, white):
    for W, layer, xi in zip(weights, layers, white, strict=True):
        x = layer.k1 * (x @ W.T) + jnp.sqrt(layer.ks2) * xi
    return x + layers[-1].mean if layers else x


def input_moments(Omega0, mean0, method):
    """Return mean and covariance of the inputs, and whether the mean is known to be zero."""
    Omega0 = symmetric("Omega0", _checks.features("Omega0", Omega0))
    name, K, centred = "Omega0", Omega0, mean0 is None
    if centred:
        mean = _checks.on_device(np.zeros(len(Omega0), Omega0.dtype))
    else:
        mean = _checks.shaped("mean0", mean0, Omega0.shape[:1], "one entry per input")
        mean = _checks.squares("mean0", mean)
        name, K = "Omega0 - mean0 mean0^T", Omega0 - jnp.outer(mean, mean)
        centred = _checks.known(mean) and not np.asarray(mean).any()
    if _checks.known(K):
        semidefinite(name, np.linalg.eigvalsh(np.asarray(K)))
    if not centred and method in ("unit", "mean"):
        raise ValueError(
            f"method {method!r} takes centred inputs, got a mean0; give method='closure', or "
            "subtract the mean from the inputs"
        )
    return mean, K, centred


def chained(name, weights, inputs):
    """Return a list of matrices, each of which takes what the one below returns."""
    weights = _checks.matrices(name, weights)
    for level, W in enumerate(weights):
        if W.shape[1] != inputs:
            raise ValueError(
                f"{name}[{level}] has shape {W.shape} and layer {level + 1} has {inputs} inputs; "
                f"give (width, {inputs})"
            )
        inputs = W.shape[0]
    return weights


def resolved(name, activations, layers):
    """Return one resolved activation per layer, from one for all layers or a sequence."""
    return tuple(map(_activations.resolve, _activations.one_per_layer(name, activations, layers)))


def warn_unless_odd(activations, method, remedy="give method='closure'"):
    """Return for each activation whether it is odd; warn where ``method`` needs that it is."""
    odd = [_activations.is_odd(a) for a in activations]
    if method in ("unit", "mean") and len(odd) > 1 and False in odd:
        warn(
            f"method {method!r} forgets the means of layer {odd.index(False) + 1}, whose "
            f"activation is not odd: covariances above it err by order one at any width; {remedy}"
        )
    return odd


def warn_if_even(level, variance, linear, second):
    """Return whether a layer passes nothing linear on, and warn if so.

    ``linear`` is the part of the units' E f^2, ``second``, that is linear in their pre-activations
    of the given ``variance``.
    """
    if not _checks.known(variance):
        return False
    variance, linear, second = map(np.asarray, (variance, linear, second))
    even = bool(variance.any() and (linear <= 1e-24 * second).all())
    if even:
        warn(
            f"k1 = 0 in layer {level + 1}: at centred pre-activations its activation is even, and "
            "nothing linear of the inputs is left in its features"
        )
    return even
