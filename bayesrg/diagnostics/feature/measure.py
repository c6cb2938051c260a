# SPDX-License-Identifier: Apache-2.0
"""Layer kernels of posterior draws, compared with their prior and with the targets."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from jaxtyping import Float

from ... import _checks
from ..._callables import as_pytree
from ..._checks import ArrayLike
from ..._linalg import ratio
from ...io.labels import read_group
from .convergence import mcse

ESTIMATORS = ("rao_blackwell", "draw")
_AT_ONCE = 16  # draws measured side by side
_RANK = 1e-10  # eigenvalues below this share of the largest are taken as zero
_GROUP, _PRIOR = "feature_learning", "feature_learning_prior"
_SAMPLE, _KERNEL = ("chain", "draw"), ("layer", "point", "point_bis")
_AXES = {
    "order_parameter": ("output", "output_bis"),
    "log_q_eig": ("output",),
    "effective_ridge": ("output",),
    "layer_excess": ("level",),
    "drive": (),
    "spectral_shift": ("layer", "mode"),
    "feature_kernel": _KERNEL,
}


def measure(
    dt: xr.DataTree,
    *,
    prior_mean: ArrayLike | None = None,
    Y: ArrayLike | None = None,
    ridge: ArrayLike = 0.0,
    estimator: str = "draw",
    prior: str | None = "prior",
    modes: int = 10,
) -> xr.DataTree:
    r"""Measure the layer kernels in the draws of any model, and return the tree with new groups.

    Parameters
    ----------
    dt : DataTree
        With feature_kernel (chain, draw, layer, point, point_bis) in its posterior and, unless
        ``prior`` is None, in a group of prior draws.
    prior_mean : (L, n, n), optional
        Prior means :math:`K_l` of the kernels; by default the means of the prior draws.
    Y : (n,) or (n, c), optional
        Targets; by default those of observed_data.
    ridge : ()
        :math:`\tau` of the effective dimension. For 0 the effective dimension is the rank.
    estimator : "draw" or "rao_blackwell"
        Origin of the kernels: draws of all weights, or means given a draw of the order parameter.
        It is stored, so that `compare` does not mix the two.
    prior : str, optional
        Group of prior draws of a network of equal widths; None means no prior draws.
    modes : int, number of eigenvalues whose shift is stored

    Returns
    -------
    DataTree
        The groups of ``dt`` and three more. feature_kernels has the mean kernels ``posterior`` and
        ``prior``, and ``prior_mean``, over layer, point and point_bis. feature_learning has these
        variables over chain, draw and layer, and feature_learning_prior has them for the prior
        draws. ``az.summary(dt, group="feature_learning")`` tabulates them.

        - kernel_scale: :math:`\mathrm{tr}\Phi/\mathrm{tr}K`
        - target_alignment: :math:`\langle\Phi, YY^T\rangle/\|\Phi\|\|YY^T\|`
        - centred_alignment: target_alignment of centred kernels and targets
        - target_gain: :math:`\mathrm{tr}Y^TK^+\Phi K^+Y/\mathrm{tr}Y^TK^+Y`
        - participation_ratio: :math:`(\mathrm{tr}\Phi)^2/\mathrm{tr}\Phi^2`
        - effective_dimension: :math:`\mathrm{tr}\,\Phi(\Phi+\tau)^{-1}`
        - top_eigenvalue: largest eigenvalue of :math:`\Phi`
        - spectral_shift, over mode too: :math:`\lambda_k(\Phi) - \lambda_k(K)`
        - lazy_distance: :math:`\|\Phi - K\|_F/\|K\|_F`

        Alignments and gain are nan for targets that are zero.

    Raises
    ------
    ValueError
        For a missing group or variable, or shapes that do not fit.
    """
    _checks.choice("estimator", estimator, ESTIMATORS)
    modes = _checks.whole("modes", modes)
    draws = {}
    remedy = "add it by layers.add_kernels or feature.kernels, or use measure_deep_linear"
    for group in read_groups(dt, prior):
        dataset = read_group(dt, group, "feature_kernel", remedy=remedy)
        array = dataset["feature_kernel"].transpose(*_SAMPLE, "layer", ...)
        draws[group] = {"feature_kernel": jnp.asarray(array.to_numpy())}

    if prior_mean is None:
        if prior is None:
            raise ValueError(
                "there is neither prior_mean nor a group of prior draws to measure change against; "
                "give one of them"
            )
        prior_mean = draws[prior]["feature_kernel"].mean((0, 1))
    shape = draws["posterior"]["feature_kernel"].shape[2:]
    K = _checks.shaped("prior_mean", prior_mean, shape, "as feature_kernel has per draw")
    Y = targets_of(dt, Y, K.shape[-1])
    known = reference(K, Y, _checks.nonnegative("ridge", ridge, ndim=0))
    return measure_draws(dt, draws, _as_given, known, {"estimator": estimator}, modes=modes)


def _as_given(draw):
    return {}, draw["feature_kernel"]


def compare(dt: xr.DataTree) -> xr.Dataset:
    r"""Return posterior means, prior means and their difference, with its Monte Carlo error.

    A finite network has random kernels before it has seen data. Only the difference from prior
    draws of equal widths is learning.

    Parameters
    ----------
    dt : DataTree, returned by `measure` or `measure_deep_linear`

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
    after, before = (read_group(dt, g, remedy="measure it first") for g in (_GROUP, _PRIOR))
    same_estimator(after, before)
    names = [name for name in after.data_vars if name in before]
    after, before = after[names], before[names]
    mean = [after.mean(_SAMPLE), before.mean(_SAMPLE)]
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


class Reference(NamedTuple):
    r"""Prior means and targets with which kernels are compared, from `reference`.

    Attributes
    ----------
    kernels : (L, n, n), prior means :math:`K_l`
    values : (L, n), eigenvalues of the prior means, falling
    targets : (n, c), targets Y
    centred : (n, c), Y minus its column means
    lifted : (L, n, c), :math:`K_l^+Y`
    ridge : (), :math:`\tau` of the effective dimension
    """

    kernels: Float[Array, "layer point point_bis"]
    values: Float[Array, "layer mode"]
    targets: Float[Array, "point output"]
    centred: Float[Array, "point output"]
    lifted: Float[Array, "layer point output"]
    ridge: Float[Array, ""]


@jax.jit
def reference(kernels: Array, targets: Array, ridge: Array) -> Reference:
    """Return the `Reference` for prior mean ``kernels`` (L, n, n), ``targets`` (n, c), ridge ()."""
    values, vectors = jnp.linalg.eigh(kernels)
    # pseudo-inverse: leave out the directions whose eigenvalues are only round-off
    least = max(_RANK, 10 * kernels.shape[-1] * float(jnp.finfo(values.dtype).eps))
    inverse = ratio(1.0, jnp.where(values > least * values.max(-1, keepdims=True), values, 0.0))
    lifted = vectors @ (inverse[..., None] * (jnp.swapaxes(vectors, -1, -2) @ targets))
    centred = targets - targets.mean(0)
    return Reference(kernels, values[..., ::-1], targets, centred, lifted, ridge)


def quantities(Phi: Float[Array, "layer point point_bis"], known: Reference, modes: int) -> dict:
    """Return the quantities of `measure` for ``Phi`` (L, n, n), the kernels of one draw.

    They are arrays (L,), but spectral_shift is (L, modes).
    """
    values = jnp.linalg.eigvalsh(Phi)[..., ::-1]
    positive = jnp.clip(values, 0.0)
    trace, norm = jnp.trace(Phi, axis1=-2, axis2=-1), _norm(Phi)
    gain = (known.lifted * (Phi @ known.lifted)).sum((-2, -1))

    # subtract the means of rows and columns: H Phi H with H = I - 1 1^T / n
    centred = Phi - Phi.mean(-1, keepdims=True)
    centred = centred - centred.mean(-2, keepdims=True)
    return {
        "kernel_scale": trace / jnp.trace(known.kernels, axis1=-2, axis2=-1),
        "target_alignment": _alignment(Phi, known.targets),
        "centred_alignment": _alignment(centred, known.centred),
        "target_gain": gain / (known.lifted * known.targets).sum((-2, -1)),
        "participation_ratio": trace**2 / norm**2,
        "effective_dimension": ratio(positive, positive + known.ridge).sum(-1),
        "top_eigenvalue": values[..., 0],
        "spectral_shift": (values - known.values)[..., :modes],
        "lazy_distance": _norm(Phi - known.kernels) / _norm(known.kernels),
    }


def _norm(kernels):
    return jnp.sqrt((kernels**2).sum((-2, -1)))


def _alignment(Phi, Y):
    along = (Y * (Phi @ Y)).sum((-2, -1))
    return along / (_norm(Phi) * _norm(Y.T @ Y))  # Y^T Y and Y Y^T have equal norms


def measure_draws(
    dt: xr.DataTree,
    draws: Mapping[str, Mapping[str, Array]],
    at: Callable[[dict], tuple[dict, Array]],
    known: Reference,
    attrs: dict,
    *,
    modes: int,
    keep: bool = False,
) -> xr.DataTree:
    """Measure the kernels of every draw, and return the tree with the groups of `measure`.

    ``draws`` has one entry for the posterior and maybe one for the prior, in this order: from the
    name of the group in ``dt`` to arrays (chain, draw, ...), whose names are those of the other
    entry. ``at`` takes one draw, a dict, and returns further quantities, a dict, and its kernels
    (L, n, n); JAX traces it. ``attrs`` go to the new groups. With ``keep`` the kernels of all draws
    are stored too, else only their means are in memory.
    """
    modes = min(modes, known.kernels.shape[-1])
    total, found = _measured(as_pytree(at), known, list(draws.values()), modes, keep)
    found = {
        name: np.asarray(v).reshape(v.shape[0] * _AT_ONCE, *v.shape[2:])
        for name, v in found.items()
    }

    tree, start = dt.copy(), 0
    mean = {"prior_mean": known.kernels}
    for source, target, kernels in zip(draws, (_GROUP, _PRIOR), np.asarray(total), strict=False):
        sampled = dt[source].to_dataset()
        lead = tuple(sampled.sizes[axis] for axis in _SAMPLE)
        end = start + lead[0] * lead[1]
        mean["posterior" if target == _GROUP else "prior"] = kernels / (end - start)
        arrays = {
            name: (_SAMPLE + _AXES.get(name, ("layer",)), v[start:end].reshape(*lead, *v.shape[1:]))
            for name, v in found.items()
        }
        dataset = _counted(xr.Dataset(arrays, attrs={"sample_dims": list(_SAMPLE)} | attrs))
        tree[target] = xr.DataTree(dataset.assign_coords({d: sampled[d] for d in _SAMPLE}))
        start = end

    arrays = {name: (_KERNEL, np.asarray(v)) for name, v in mean.items()}
    arrays["targets"] = (("point", "output"), np.asarray(known.targets))
    tree["feature_kernels"] = xr.DataTree(_counted(xr.Dataset(arrays, attrs=attrs)))
    return tree


def _counted(dataset):
    """Return a dataset with whole numbers as coordinates: layers from 1, all else from 0."""
    first = {"layer": 1, "level": 1}
    sizes = dataset.sizes.items()
    return dataset.assign_coords({d: np.arange(s) + first.get(d, 0) for d, s in sizes})


@partial(jax.jit, static_argnames=("modes", "keep"))
def _measured(at, known, groups, modes, keep):
    """Return the sum of the kernels of each group, and quantities of all draws (block, draw, ...).

    All groups run through one scan, in blocks. The last draw is repeated to fill the last block,
    with weight zero; row i of ``weight`` says to which group draw i belongs.
    """
    # the numbers of draws are known when the program is compiled, so all of this is NumPy
    sizes = [np.prod(next(iter(draws.values())).shape[:2], dtype=int) for draws in groups]
    ends = np.cumsum(sizes)
    blocks = -(-int(ends[-1]) // _AT_ONCE)
    there = np.minimum(np.arange(blocks * _AT_ONCE), ends[-1] - 1)
    weight = np.eye(len(groups))[np.searchsorted(ends, there, side="right")]
    weight[ends[-1] :] = 0.0

    def flat(name):
        arrays = [draws[name] for draws in groups]
        joined = jnp.concatenate([a.reshape(-1, *a.shape[2:]) for a in arrays])[there]
        return joined.reshape(blocks, _AT_ONCE, *joined.shape[1:])

    def one(draw):
        extra, Phi = at(draw)
        found = extra | quantities(Phi, known, modes) | ({"feature_kernel": Phi} if keep else {})
        return Phi, found

    def step(total, block):
        weight, draws = block
        Phi, found = jax.vmap(one)(draws)
        return total + jnp.tensordot(weight, Phi, (0, 0)), found

    start = jnp.zeros((len(groups), *known.kernels.shape), known.kernels.dtype)
    weight = jnp.asarray(weight.reshape(blocks, _AT_ONCE, -1), known.kernels.dtype)
    return jax.lax.scan(step, start, (weight, {name: flat(name) for name in groups[0]}))


def read_groups(dt: xr.DataTree, prior: str | None) -> dict[str, xr.Dataset]:
    """Return the group of posterior draws and, unless ``prior`` is None, that of prior draws."""
    found = {"posterior": read_group(dt, "posterior")}
    if prior is not None:
        remedy = "fit(..., prior=1000) draws it, prior=None goes without"
        found[prior] = read_group(dt, prior, remedy=remedy)
    return found


def inputs_of(dt: xr.DataTree, X: ArrayLike | None) -> Array:
    """Return ``X`` (n, d), checked; if None, X in constant_data of the tree."""
    if X is None:
        X = read_group(dt, "constant_data", "X", remedy="give X=")["X"].to_numpy()
    return _checks.inputs("X", X)


def targets_of(dt: xr.DataTree, Y: ArrayLike | None, n: int) -> Array:
    """Return ``Y``, checked, as (n, c); if None, y in observed_data of the tree."""
    if Y is None:
        Y = read_group(dt, "observed_data", "y", remedy="give Y=")["y"]
        Y = Y.transpose("point", ...).to_numpy()
    return _checks.targets("Y", Y, n).reshape(n, -1)
