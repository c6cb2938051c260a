# SPDX-License-Identifier: Apache-2.0
"""From draws of layer kernels, or of a deep linear network, to what the layers have learnt."""

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
    r"""Measure layer kernels that the draws of any model carry, and those of its prior.

    Parameters
    ----------
    dt : DataTree
    prior_mean : (L, n, n), optional
        Prior means :math:`K_l` of the kernels; by default the means of the prior draws.
    Y : (n,) or (n, c), optional
        Targets; by default those of observed_data.
    ridge : ()
        :math:`\tau` of the effective dimension; at 0 the rank is counted.
    var_name : str
        Variable (chain, draw, layer, point, point_bis).
    estimator : "draw" or "rao_blackwell"
        What the kernels are: of a draw of all weights, or conditional means.
    group : str
    prior : str, optional
        Group of prior draws, of the same widths; None to go without a baseline.
    modes : int
        Eigenvalues whose shift is kept.

    Returns
    -------
    DataTree
        The groups of ``dt`` and: feature_learning, over chain, draw, layer (and mode), of
        kernel_scale, target_alignment, centred_alignment, target_gain, participation_ratio,
        effective_dimension, top_eigenvalue, spectral_shift and lazy_distance;
        feature_learning_prior, the same of prior draws; feature_kernels, the mean kernels
        posterior and prior and the prior_mean, over layer, point and point_bis. ``az.summary(dt,
        group="feature_learning")`` reads the first two.

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
            f"{var_name!r} has shape {Phi.shape[2:]} a draw and prior_mean {K.shape}; give both "
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
    r"""Measure what a deep linear network has learnt, from draws of either of its models.

    Parameters
    ----------
    dt : DataTree
        Of the models ``deep_linear`` or ``deep_linear_collapsed``, with prior draws.
    net : DeepLinear
        The network of the fit.
    kernel : "rao_blackwell" or "draw"
        Means of the kernels given a draw of the order parameter, which are less noisy; or the
        kernels of a draw of all weights. Expectations of kernel_scale and target_gain agree,
        those of the others do not: a draw of N units has rank N at most.
    key : JAX key, or int
        For draws of kernels from the collapsed model.
    X, Y : (n, d), and (n,) or (n, c), optional
        By default those of constant_data and observed_data.
    ridge : (), optional
        :math:`\tau` of the effective dimension, by default the noise variance T, in mean field
        times :math:`\gamma^2`.
    group, prior, modes : as in `measure`
        Prior kernels know no data.
    keep_kernels : bool
        Whether feature_kernel (chain, draw, layer, point, point_bis) is kept too.
    max_bytes : int
        What kept kernels may take.

    Returns
    -------
    DataTree
        As `measure`, and in both groups order_parameter (output, output_bis), log_q_eig and
        effective_ridge :math:`T/q_a` (output), largest q first, layer_excess over level, one for
        every matrix that was sampled, and drive, of which see `layer_identity`.

    Raises
    ------
    ValueError
        For a missing group or site, draws of another network, a missing key, or kernels that
        exceed ``max_bytes``.

    References
    ----------
    arXiv 2111.11954 for the kernels of the first layer.
    """
    _checks.warn_32_bits("diagnostics.feature")
    _checks.choice("kernel", kernel, ESTIMATORS)
    _checks.instance("net", net, DeepLinear, _checks.NET)
    _checks.flag("keep_kernels", keep_kernels)
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
        with np.errstate(invalid="ignore"):  # no noise and no order parameter
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
    r"""Subtract the prior's means from the posterior's: what was learnt, with its error.

    A finite network has random kernels before it has seen data; only the difference from draws
    of the same widths is learning.

    Parameters
    ----------
    dt : DataTree
        Of `measure` or `measure_deep_linear`.
    group, prior : str

    Returns
    -------
    Dataset
        Of the variables that both groups have, without chain and draw, over a new axis statistic:
        posterior, prior, difference, and mcse :math:`\sqrt{mcse_1^2 + mcse_2^2}`.

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
    """Raise unless all ``groups`` measure the same kind of kernels."""
    kinds = {group.attrs.get("estimator", "unknown") for group in groups}
    if len(kinds) > 1:
        raise ValueError(
            f"the groups hold kernels of different estimators, {', '.join(sorted(kinds))}, whose "
            "means differ; measure both with the same kernel="
        )


def _gather(dt, walks, groups, ref, attrs):
    """Add the groups to a copy of the tree."""
    tree, mean = dt.copy(), {"prior_mean": ref.kernels}
    for name, found in walks.items():
        lead = ("chain", "draw")
        arrays = {k: (lead + _AXES.get(k, ("layer",)), v) for k, v in found.quantities.items()}
        dataset = xr.Dataset(arrays, attrs={"sample_dims": list(lead)} | attrs)
        dataset = dataset.assign_coords({d: np.arange(s) for d, s in dataset.sizes.items()})
        for axis in ("layer", "level"):  # as in the formulas
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
    """Check ``X`` (n, d), or read that of constant_data."""
    _checks.instance("dt", dt, xr.DataTree, _checks.TREE)
    if X is None and ("constant_data" not in dt.children or "X" not in dt["constant_data"]):
        raise ValueError("the tree has no X in constant_data; give X=")
    return _checks.inputs("X", dt["constant_data"]["X"].to_numpy() if X is None else X)


def targets_of(dt: xr.DataTree, Y: ArrayLike | None, n: int) -> Array:
    """Check ``Y`` (n,) or (n, c), or read that of observed_data, as (n, c)."""
    if Y is None:
        if "observed_data" not in dt.children or "y" not in dt["observed_data"]:
            raise ValueError("the tree has no y in observed_data; give Y=")
        Y = dt["observed_data"]["y"].transpose("point", ...).to_numpy()
    return _checks.targets("Y", Y, n).reshape(n, -1)
