# SPDX-License-Identifier: Apache-2.0
"""Measures of feature learning from draws of layer kernels or of a deep linear network."""

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array, random

from ... import _checks
from ..._checks import ArrayLike
from ...deep_linear.features import prior_features
from ...deep_linear.problem import prepare
from ...networks import DeepLinear
from .judge import mcse
from .kernel import MAX_BYTES, guard, reference, walk
from .order import at_draw, no_data, sites

ESTIMATORS = ("rao_blackwell", "draw")
_GROUP, _PRIOR, _KERNELS = "feature_learning", "feature_learning_prior", "feature_kernels"
_AXES = {
    "order_parameter": ("output", "output_bis"),
    "log_q_eig": ("output",),
    "effective_ridge": ("output",),
    "layer_excess": ("level",),
    "drive": (),
    "spectral_shift": ("layer", "mode"),
    "feature_kernel": ("layer", "point", "point_bis"),
}


def measure(
    dt: xr.DataTree,
    *,
    prior_mean: ArrayLike | None = None,
    Y: ArrayLike | None = None,
    ridge: ArrayLike = 0.0,
    var_name: str = "feature_kernel",
    estimator: str = "draw",
    group: str = "posterior",
    prior: str | None = "prior",
    modes: int = 10,
) -> xr.DataTree:
    r"""Measure the layer kernels in the draws of any model, and return the tree with new groups.

    Parameters
    ----------
    dt : DataTree
        With layer kernels of posterior draws and, unless ``prior`` is None, of prior draws.
    prior_mean : (L, n, n), optional
        Prior means :math:`K_l` of the kernels; by default the means of the prior draws.
    Y : (n,) or (n, c), optional
        Targets; by default those of observed_data.
    ridge : ()
        :math:`\tau` of the effective dimension. For 0 the effective dimension is the rank.
    var_name : str, variable with the kernels, (chain, draw, layer, point, point_bis)
    estimator : "draw" or "rao_blackwell"
        Origin of the kernels: draws of all weights, or means given a draw of the order parameter.
        It is stored, so that `compare` does not mix the two.
    group : str, group of posterior draws
    prior : str, optional
        Group of prior draws of a network of equal widths; None means no prior draws.
    modes : int, number of eigenvalues whose shift is stored

    Returns
    -------
    DataTree
        The groups of ``dt`` and three more. feature_learning has, over chain, draw, layer (and
        mode), the variables kernel_scale, target_alignment, centred_alignment, target_gain,
        participation_ratio, effective_dimension, top_eigenvalue, spectral_shift and lazy_distance.
        feature_learning_prior has these variables for the prior draws. feature_kernels has the
        mean kernels ``posterior`` and ``prior``, and ``prior_mean``, over layer, point and
        point_bis. ``az.summary(dt, group="feature_learning")`` tabulates the first two.

    Raises
    ------
    ValueError
        For a missing group or variable, or shapes that do not fit.
    """
    _checks.choice("estimator", estimator, ESTIMATORS)
    modes = _checks.whole("modes", modes)
    _checks.instance("var_name", var_name, str, "the name of a variable")
    groups = {_GROUP: _read(dt, group)} | ({} if prior is None else {_PRIOR: _read(dt, prior)})
    draws = {}
    for name, dataset in groups.items():
        if var_name not in dataset:
            there = ", ".join(map(repr, dataset.data_vars)) or "nothing"
            raise ValueError(
                f"var_name: the draws of {name} have no variable {var_name!r}, only {there}; add "
                "the kernels (chain, draw, layer, point, point_bis), or for a deep linear network "
                "use measure_deep_linear"
            )
        array = dataset[var_name].transpose("chain", "draw", "layer", ...)
        draws[name] = {var_name: jnp.asarray(array.to_numpy())}
    if prior_mean is None and prior is None:
        raise ValueError(
            "there is neither prior_mean nor a group of prior draws to measure change against; "
            "give one of them"
        )
    Phi = draws[_GROUP][var_name]
    K = draws[_PRIOR][var_name].mean((0, 1)) if prior_mean is None else prior_mean
    K = _checks.finite("prior_mean", K, ndim=3)
    if Phi.shape[2:] != K.shape:
        raise ValueError(
            f"{var_name!r} has shape {Phi.shape[2:]} per draw and prior_mean {K.shape}; give both "
            "as (layer, point, point)"
        )
    ref = reference(K, targets_of(dt, Y, K.shape[-1]), _checks.nonnegative("ridge", ridge, ndim=0))
    modes = min(modes, K.shape[-1])
    walks = walk(draws, lambda draw: ({}, draw[var_name]), ref, modes)
    return _gather(dt, walks, groups, ref, {"estimator": estimator})


def measure_deep_linear(
    dt: xr.DataTree,
    net: DeepLinear,
    *,
    kernel: str = "rao_blackwell",
    key: Array | int | None = None,
    X: ArrayLike | None = None,
    Y: ArrayLike | None = None,
    ridge: ArrayLike | None = None,
    group: str = "posterior",
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
    group : str, group of posterior draws
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
    X = inputs_of(dt, X)
    Y = targets_of(dt, Y, X.shape[0])

    data = prepare(net, X, Y, name="Y").as_jax()
    K = prior_features(data)
    T = data.ridge if ridge is None else _checks.nonnegative("ridge", ridge, ndim=0)
    ref, modes = reference(K, Y, T), min(modes, K.shape[-1])
    groups = {_GROUP: _read(dt, group)} | ({} if prior is None else {_PRIOR: _read(dt, prior)})
    key = None if key is None else _checks.random_key(key)

    draws = {}
    for name, dataset in groups.items():
        draws[name] = found = sites(net, dataset, X.shape[1])
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
            guard(lead[0] * lead[1], K, max_bytes)
        found["ridge"] = jnp.full(lead, data.ridge if name == _GROUP else no_data(data))
    if len({frozenset(found) for found in draws.values()}) > 1:
        raise ValueError(
            f"one of the groups {group!r} and {prior!r} holds weights and the other factors of the "
            "order parameter; draw the prior with the model of the fit"
        )

    walks = walk(draws, at_draw(net, data, kernel, X), ref, modes, keep_kernels)
    for found in walks.values():
        log_q = found.quantities["log_q_eig"]
        with np.errstate(invalid="ignore"):  # 0 times infinity if both T and q are zero
            found.quantities["effective_ridge"] = float(data.ridge) * np.exp(-log_q)
    attrs = {
        "estimator": kernel,
        "widths": list(net.widths),
        "ridge": float(net.ridge),
        "weight_scales": np.asarray(net.scales).tolist(),
        "parametrisation": net.parametrisation,
        "richness": float(net.richness),
    }
    return _gather(dt, walks, groups, ref, attrs)


def compare(dt: xr.DataTree, *, group: str = _GROUP, prior: str = _PRIOR) -> xr.Dataset:
    r"""Return posterior means, prior means and their difference, with its Monte Carlo error.

    A finite network has random kernels before it has seen data. Only the difference from prior
    draws of equal widths is learning.

    Parameters
    ----------
    dt : DataTree, returned by `measure` or `measure_deep_linear`
    group : str, group with the quantities of posterior draws
    prior : str, group with the quantities of prior draws

    Returns
    -------
    Dataset
        The variables that both groups have, averaged over chain and draw. The new axis statistic
        has the entries posterior, prior, difference, and mcse
        :math:`\sqrt{mcse_1^2 + mcse_2^2}`.

    Raises
    ------
    ValueError
        For a missing group, or two groups of different estimators.
    """
    after, before = _read(dt, group), _read(dt, prior)
    same_estimator(after, before)
    names = [name for name in after.data_vars if name in before]
    after, before = after[names], before[names]
    mean = [after.mean(("chain", "draw")), before.mean(("chain", "draw"))]
    with np.errstate(invalid="ignore"):  # an order parameter of zero has no logarithm
        difference = mean[0] - mean[1]
    parts = [*mean, difference, np.hypot(mcse(after), mcse(before))]
    axis = xr.Variable("statistic", ["posterior", "prior", "difference", "mcse"])
    result = xr.concat(parts, axis, combine_attrs="drop", coords="minimal", compat="override")
    return result.assign_attrs(estimator=after.attrs["estimator"])


def same_estimator(*groups: xr.Dataset):
    """Raise ValueError unless all ``groups`` were measured with one estimator."""
    kinds = {group.attrs.get("estimator", "unknown") for group in groups}
    if len(kinds) > 1:
        raise ValueError(
            f"the groups hold kernels of different estimators, {', '.join(sorted(kinds))}, whose "
            "means differ; measure both with the same kernel="
        )


def _gather(dt, walks, groups, ref, attrs):
    """Return a copy of the tree with the groups of quantities and of mean kernels."""
    tree, mean = dt.copy(), {"prior_mean": ref.kernels}
    for name, found in walks.items():
        lead = ("chain", "draw")
        arrays = {k: (lead + _AXES.get(k, ("layer",)), v) for k, v in found.quantities.items()}
        dataset = xr.Dataset(arrays, attrs={"sample_dims": list(lead)} | attrs)
        dataset = dataset.assign_coords({d: np.arange(s) for d, s in dataset.sizes.items()})
        for axis in ("layer", "level"):  # counted from 1, as in the formulas
            if axis in dataset.dims:
                dataset = dataset.assign_coords({axis: dataset[axis] + 1})
        tree[name] = xr.DataTree(dataset.assign_coords({d: groups[name][d] for d in lead}))
        mean["posterior" if name == _GROUP else "prior"] = found.mean
    dims = ("layer", "point", "point_bis")
    dataset = xr.Dataset({k: (dims, np.asarray(v)) for k, v in mean.items()}, attrs=attrs)
    dataset["targets"] = (("point", "output"), np.asarray(ref.targets))
    dataset = dataset.assign_coords({d: np.arange(s) for d, s in dataset.sizes.items()})
    tree[_KERNELS] = xr.DataTree(dataset.assign_coords(layer=dataset["layer"] + 1))
    return tree


def _read(dt, group):
    _checks.instance("dt", dt, xr.DataTree, _checks.TREE)
    if not isinstance(group, str) or group not in dt.children:
        names = ", ".join(map(repr, dt.children)) or "none"
        more = (
            "; fit(..., prior=1000) draws it, prior=None goes without"
            if "prior" in str(group)
            else ""
        )
        got = _checks.shown(group)
        raise ValueError(f"the tree has no group {got}, only {names}{more}")
    return dt[group].to_dataset()


def inputs_of(dt: xr.DataTree, X: ArrayLike | None) -> Array:
    """Return ``X`` (n, d), checked; if None, X in constant_data of the tree."""
    _checks.instance("dt", dt, xr.DataTree, _checks.TREE)
    if X is None and ("constant_data" not in dt.children or "X" not in dt["constant_data"]):
        raise ValueError("the tree has no X in constant_data; give X=")
    return _checks.inputs("X", dt["constant_data"]["X"].to_numpy() if X is None else X)


def targets_of(dt: xr.DataTree, Y: ArrayLike | None, n: int) -> Array:
    """Return ``Y``, checked, as (n, c); if None, y in observed_data of the tree."""
    if Y is None:
        if "observed_data" not in dt.children or "y" not in dt["observed_data"]:
            raise ValueError("the tree has no y in observed_data; give Y=")
        Y = dt["observed_data"]["y"].transpose("point", ...).to_numpy()
    return _checks.targets("Y", Y, n).reshape(n, -1)
