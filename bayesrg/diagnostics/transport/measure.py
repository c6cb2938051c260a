# SPDX-License-Identifier: Apache-2.0
"""How far and how straight the layers of residual networks move points, for every draw."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array

from ... import _checks
from ..._checks import ArrayLike
from ..._linalg import ratio
from ..._paths import Paths
from ...dynamics import (
    displacement,
    kinetic_energy,
    layer_action,
    straightness,
    transport_cost,
    wasserstein,
)
from ...io.labels import read_group
from ...networks import Residual
from ..feature.measure import inputs_of

MAX_BYTES = 2**31
_GROUPS = {"posterior": "transport", "prior": "transport_prior"}
_MAY_BE_ZERO = ("a", "b", "bias")  # weights that a model may leave out
_BLOCK = 64  # draws of one call of the compiled program
_CACHED = 2**21  # bytes of states that are computed side by side, so that they stay in the cache
_RANK = 1e-10  # eigenvalues below this share of the largest are taken as zero
_SAMPLE = ("chain", "draw")
_AXES = {
    "layer_action": ("layer",),
    "layer_action_by_mode": ("layer", "mode"),
    "kernel_values": ("state", "mode"),
    "trajectory": ("state", "point", "feature"),
    "layer_action_by_class": ("layer", "class"),
    "transport_cost_by_class": ("class",),
    "displacement_by_class": ("class",),
    "straightness_by_class": ("class",),
}


def measure(
    dt: xr.DataTree | Paths,
    net: Residual | None = None,
    *,
    X: ArrayLike | None = None,
    modes: int = 10,
    trajectory: bool = False,
    max_bytes: int = MAX_BYTES,
    classes: ArrayLike | None = None,
    draws: int = 10,
    max_points: int = 500,
    key: Array | int | None = None,
) -> xr.DataTree:
    r"""Measure how draws of a residual network move points, and return the tree with new groups.

    Parameters
    ----------
    dt : DataTree or Paths
        Draws of the weights, in sites called like the weights of ``net``: A, a, B, b, weight and
        bias. Sites a, b and bias may be missing, which means zero. `Paths`, such as `paths_of`
        returns, are measured as one draw, and returned in a new tree.
    net : Residual, the network of the fit; left out for Paths
    X : (n, d), optional
        Inputs; by default X in constant_data.
    modes : int
        Number of modes of the kernels, at most the smaller of n and the width.
    trajectory : bool
        Whether to store the states of all draws.
    max_bytes : int
        Most memory that these may take, in bytes.
    classes : (n,), optional
        Labels of the points, whole numbers: adds quantities for each class, and the coordinate
        label of the points.
    draws : int
        Number of draws per chain, evenly spaced, whose assignment distances are computed; 0 leaves
        the group transport_distance out.
    max_points : int
        Largest number of points in these distances.
    key : JAX key, or int, optional
        For the choice of these points, needed if there are more.

    Returns
    -------
    DataTree
        The groups of ``dt`` and up to three more. The group transport is for the posterior. If the
        tree has prior draws, transport_prior is for these; a factor in the model, such as that of
        the action, does not change them. Over chain and draw:

        - layer_action (layer), transport_cost, kinetic_energy, displacement, straightness: see
          `bayesrg.dynamics`; layers count from 1
        - head_norm: Frobenius norm of the head. The larger it is, the less the points must move,
          so compare transport costs at equal norms.
        - kernel_values (state, mode): largest eigenvalues of :math:`K_k = x_kx_k^T/d` for the
          states k = 0 to K
        - layer_action_by_mode (layer, mode): :math:`|u_a^T\Delta_k|^2/n` with the eigenvectors
          :math:`u_a` of the kernel :math:`K_0` of the first state, for all layers. Over all
          modes it sums to the part of layer_action that lies in their span.
        - with ``classes``: layer_action_by_class and others, means over the points of a class
        - trajectory (state, point, feature), if asked for

        The group transport_distance, over chain and a thinned draw, has w2 :math:`W_2(x_0, x_K)`,
        the displacement D of the same points, and efficiency :math:`W_2^2/D`; see
        `bayesrg.dynamics.wasserstein`. Its attribute ``points`` is their number.

    Raises
    ------
    ValueError
        For a missing group or site, weights or inputs of another network, or states larger than
        ``max_bytes``.

    References
    ----------
    arXiv 2009.08372.
    """
    _checks.warn_32_bits("diagnostics.transport")
    modes, max_bytes = _checks.whole("modes", modes), _checks.whole("max_bytes", max_bytes)
    trajectory, draws = (
        _checks.flag("trajectory", trajectory),
        _checks.whole("draws", draws, least=0),
    )
    max_points = _checks.whole("max_points", max_points)
    _checks.instance("dt", dt, xr.DataTree | Paths, f"{_checks.TREE}, or Paths")
    _checks.on_host("diagnostics.transport.measure", dt, net, X, classes, key)
    if isinstance(dt, Paths):
        tree, net, X, groups = xr.DataTree(), None, None, {"transport": _one_draw(dt)}
        sources = {"transport": xr.Dataset(coords={d: [0] for d in _SAMPLE})}
    else:
        _checks.instance("net", net, Residual, "a networks.Residual, that of the fit")
        tree, X = dt.copy(), _checks.squares("X", inputs_of(dt, X))
        sources = {new: read_group(dt, old) for old, new in _GROUPS.items() if old in dt.children}
        read_group(dt, "posterior")
        groups = {name: weights_of(dataset, net, X.shape[1]) for name, dataset in sources.items()}
    sizes = [len(jax.tree.leaves(group)[0]) for group in groups.values()]
    given = jax.tree.map(lambda *v: np.concatenate(v), *groups.values())

    states = jax.eval_shape(lambda: _flow(net, X, jax.tree.map(lambda v: v[0], given))[0].states)
    n, d = states.shape[1:]
    size = states.size * states.dtype.itemsize
    if trajectory and size * sum(sizes) > max_bytes:
        raise ValueError(
            f"trajectories {states.shape} of {sum(sizes)} draws take {size * sum(sizes):,} bytes "
            f"and max_bytes is {max_bytes:,}; thin the draws, give fewer points X, or raise "
            "max_bytes"
        )
    if draws and n > max_points and key is None:
        raise ValueError(
            f"max_points={max_points} of {n} points are drawn at random for the distances; give a "
            "key, or draws=0"
        )
    labels, members = _members(classes, n)
    side_by_side = int(np.clip(_CACHED // size, 1, _BLOCK))
    found = _measured(net, X, given, members, min(modes, n, d), trajectory, side_by_side)

    start, points = 0, np.arange(n)
    for (name, dataset), count in zip(sources.items(), sizes, strict=True):
        lead = tuple(dataset.sizes[axis] for axis in _SAMPLE)
        arrays = {
            quantity: (_SAMPLE + _AXES.get(quantity, ()), v[start : start + count])
            for quantity, v in found.items()
        }
        arrays = {q: (axes, v.reshape(*lead, *v.shape[1:])) for q, (axes, v) in arrays.items()}
        group = xr.Dataset(arrays, attrs={"sample_dims": list(_SAMPLE), "points": n})
        first = {"layer": 1}
        group = group.assign_coords(
            {axis: np.arange(length) + first.get(axis, 0) for axis, length in group.sizes.items()}
        )
        group = group.assign_coords({axis: dataset[axis].to_numpy() for axis in _SAMPLE})
        if labels is not None:
            group = group.assign_coords({"class": np.unique(labels)})
            group = group.assign_coords(point=points, label=("point", labels))
        tree[name] = xr.DataTree(group)
        start += count
    if draws:
        tree["transport_distance"] = xr.DataTree(
            _distances(net, X, groups["transport"], sources["transport"], draws, max_points, key)
        )
    return tree


def _one_draw(paths):
    """Return paths with one leading axis for the draws."""
    if paths.states.ndim != 3:
        raise ValueError(
            f"dt has states of shape {paths.states.shape}; give the Paths of one network, (K + 1, "
            "n, d)"
        )
    jax.eval_shape(layer_action, paths)  # raises unless states and increments fit together
    paths = jax.tree.map(lambda v: _checks.squares("dt", _checks.finite("dt", v)), paths)
    return jax.tree.map(lambda v: np.asarray(v)[None], paths)


def weights_of(draws: xr.Dataset, net: Residual, inputs: int):
    """Return ``params`` of ``net`` with one leading axis (chain * draw), from draws of its weights.

    ``inputs`` is the number of columns of X. Weights a, b and bias that ``draws`` lacks are zero.
    """
    lead = tuple(draws.sizes[axis] for axis in _SAMPLE)
    shapes, structure = jax.tree.flatten_with_path(jax.eval_shape(lambda: net.init(0, inputs)))
    names = [jax.tree_util.keystr(path[-1:], simple=True) for path, _ in shapes]
    missing = [name for name in names if name not in draws and name not in _MAY_BE_ZERO]
    if missing:
        have = ", ".join(map(repr, draws)) or "none"
        raise ValueError(
            f"the draws have no site {', '.join(map(repr, missing))}, which are weights of net, "
            f"only {have}; give the net of the fit, and a model whose sites are called like them"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"net has two weights of one name among {', '.join(names)}; rename one")
    leaves = []
    for name, (_, leaf) in zip(names, shapes, strict=True):
        shape = lead + leaf.shape
        held = name in draws
        value = draws[name].transpose(*_SAMPLE, ...).to_numpy() if held else np.zeros(shape)
        if value.shape != shape:
            raise ValueError(
                f"site {name!r} has shape {value.shape[2:]} per draw, and net has {leaf.shape} for "
                f"X of {inputs} columns; give the net and inputs of the fit"
            )
        value = _checks.finite(f"site {name!r}", np.reshape(value, (-1, *leaf.shape)))
        leaves.append(np.asarray(value))
    return jax.tree.unflatten(structure, leaves)


def _members(classes, n):
    """Return labels (n,), and for each class a row of 1 for its points and 0 for the others."""
    if classes is None:
        return None, None
    labels = np.asarray(_checks.shaped("classes", classes, (n,), "one label per point"))
    if (labels != np.round(labels)).any():
        raise ValueError(
            f"classes contains {labels[labels != np.round(labels)][0]:g}; give whole numbers"
        )
    labels = labels.astype(int)
    return labels, jnp.asarray(labels == np.unique(labels)[:, None], float)


def _flow(net, X, draw):
    """Return the paths of one draw, and quantities that follow from its weights alone."""
    if net is None:  # the draw is Paths
        return draw, {}
    return net.paths(draw, X), {"head_norm": net.head_norm(draw)}


def _measured(net, X, given, members, modes, keep, side_by_side):
    """Return quantities of all draws (draw, ...), computed in blocks.

    The last draw is repeated to fill the last block. ``given`` are weights of all draws, or paths.
    """
    fixed = net is not None and net.encoder is None  # the first state is X for all draws
    basis = _basis(X, modes) if fixed else None
    first = np.linalg.eigvalsh(np.asarray(_small(X)))[None] if fixed else None
    count, parts, before = len(jax.tree.leaves(given)[0]), [], None
    block = min(_BLOCK, count)
    for start in range(0, count, block):
        rows = np.minimum(np.arange(start, start + block), count - 1)
        some = jax.tree.map(lambda v, rows=rows: v[rows], given)
        after = _of_block(net, X, some, members, basis, modes, keep, min(side_by_side, block))
        # JAX computes this block while the host finds the eigenvalues of the one before
        parts += [] if before is None else [_with_eigenvalues(before, first, modes)]
        before = after
    parts.append(_with_eigenvalues(before, first, modes))
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


def _with_eigenvalues(found, first, modes):
    """Return quantities of a block as NumPy arrays, with the eigenvalues of the kernels.

    NumPy finds eigenvalues without eigenvectors, in less than half the time that JAX needs.
    ``first`` (1, modes) are those of the first state, rising, if they are not in the block.
    """
    found = {name: np.asarray(value) for name, value in found.items()}
    values = np.linalg.eigvalsh(found.pop("kernel"))
    if first is not None:
        first = np.broadcast_to(first, (len(values), *first.shape))
        values = np.concatenate([first, values], 1)
    found["kernel_values"] = values[..., ::-1][..., :modes]
    return found


@partial(jax.jit, static_argnames=("modes", "keep", "side_by_side"))
def _of_block(net, X, given, members, basis, modes, keep, side_by_side):
    """Return quantities of some draws, with their kernels, as a dict of arrays (draw, ...)."""

    def one(draw):
        paths, found = _flow(net, X, draw)
        # a first state that is X for all draws has one kernel, which the caller knows
        own = paths.states if basis is None else paths.states[1:]
        found["kernel"] = _small(own)
        found |= quantities(paths, _basis(paths.states[0], modes) if basis is None else basis)
        if members is not None:
            found |= jax.vmap(partial(_of_class, paths), out_axes=-1)(members)
        return found | ({"trajectory": paths.states} if keep else {})

    return jax.lax.map(one, given, batch_size=side_by_side)


def quantities(paths: Paths, basis: Array) -> dict:
    """Return the quantities of `measure` for the paths of one draw, a dict of arrays.

    ``basis`` (n, modes) are eigenvectors of the kernel of the first state.
    """
    n = len(basis)
    D, E = displacement(paths), kinetic_energy(paths)
    along = jnp.einsum("na,knd->kad", basis, paths.increments)
    return {
        "layer_action": layer_action(paths),
        "transport_cost": transport_cost(paths),
        "kinetic_energy": E,
        "displacement": D,
        "straightness": ratio(D, E, otherwise=jnp.nan),
        "layer_action_by_mode": (along**2).sum(-1) / n,
    }


def _of_class(paths, members):
    """Return means over the points of one class."""
    means = {
        "layer_action": layer_action(paths, weights=members),
        "transport_cost": transport_cost(paths, weights=members),
        "displacement": displacement(paths, weights=members),
        "straightness": straightness(paths, weights=members),
    }
    return {f"{name}_by_class": value for name, value in means.items()}


def _small(x):
    """Return the kernel x x^T / d of states (..., n, d), or x^T x / d, whichever is smaller."""
    n, d = x.shape[-2:]
    x = x if n < d else x.mT
    return x @ x.mT / d


@partial(jax.jit, static_argnames="modes")
def _basis(x, modes):
    """Return the first eigenvectors (n, modes) of the kernel of x (n, d), zero past its rank."""
    values, vectors = jnp.linalg.eigh(_small(x))
    values, vectors = values[::-1][:modes], vectors[:, ::-1][:, :modes]
    least = max(_RANK, 10 * max(x.shape) * float(jnp.finfo(x.dtype).eps))
    kept = values > least * values[0]
    if len(x) >= x.shape[1]:  # these are directions of features: map them to points
        vectors = x @ vectors * ratio(1.0, jnp.sqrt(x.shape[1] * jnp.where(kept, values, 0.0)))
    return jnp.where(kept, vectors, 0.0)


def _distances(net, X, given, source, draws, max_points, key):
    """Return the group transport_distance, for evenly spaced draws of each chain."""
    chains, length = (source.sizes[axis] for axis in _SAMPLE)
    kept = np.unique(np.linspace(0, length - 1, min(draws, length)).round().astype(int))
    rows = (np.arange(chains)[:, None] * length + kept).ravel()
    first, last = map(np.asarray, _ends(net, X, jax.tree.map(lambda v: v[rows], given)))
    most = None if first.shape[1] <= max_points else max_points
    found = [wasserstein(x, z, max_points=most, key=key) for x, z in zip(first, last, strict=True)]
    arrays = {
        name: (_SAMPLE, np.reshape([getattr(w, name) for w in found], (chains, len(kept))))
        for name in ("w2", "displacement", "efficiency")
    }
    coordinates = {"chain": source["chain"].to_numpy(), "draw": source["draw"].to_numpy()[kept]}
    attrs = {"sample_dims": list(_SAMPLE), "points": found[0].points}
    return xr.Dataset(arrays, coordinates, attrs)


@jax.jit
def _ends(net, X, given):
    """Return the first and the last states (draw, n, d)."""

    def one(draw):
        states = _flow(net, X, draw)[0].states
        return states[0], states[-1]

    return jax.lax.map(one, given)
