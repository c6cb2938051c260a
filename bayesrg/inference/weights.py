# SPDX-License-Identifier: Apache-2.0
"""Normal priors of the weights of a network."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jaxtyping import PyTree

from .. import _checks
from ..networks import Residual

# standard deviations by default; all other weights have 1
_SCALES = {"b": 0.0}
_OVER_ROOT = ("B", "weight")  # divided by the root of their last axis, which a layer sums over
_AXES = {
    "A": ("layer", "unit", "feature"),
    "a": ("layer", "unit"),
    "B": ("layer", "feature", "unit"),
    "b": ("layer", "feature"),
    "weight": ("output", "feature"),
    "bias": ("output",),
}


def sample_weights(net: Residual, inputs: int, scales: Mapping | None = None) -> PyTree[Array]:
    """Sample the weights of a network from independent normals in a NumPyro model; return them.

    Every array of weights is a site that is called like it: A, a, B and b of a velocity with hidden
    units, weight and bias of a trainable head.

    Parameters
    ----------
    net : Residual
    inputs : int
        Number of columns of X.
    scales : mapping from name to number, optional
        Standard deviations that differ from the default, which is 0 for b and 1 for all others.
        Those of B and weight are divided by the root of their last axis, the number of units or
        features. Weights of scale 0 are zero and no site.

    Returns
    -------
    pytree
        ``params`` of ``net``.

    Raises
    ------
    ValueError
        For a scale that is negative or of no weight.
    """
    _checks.instance("net", net, Residual, "a networks.Residual")
    inputs = _checks.whole("inputs", inputs)
    scales = {} if scales is None else scales
    _checks.instance("scales", scales, Mapping, "a mapping from the name of a weight to a number")
    scales = {n: _checks.number(f"scales[{n!r}]", v, least=0.0) for n, v in scales.items()}

    shapes, structure = jax.tree.flatten_with_path(jax.eval_shape(lambda: net.init(0, inputs)))
    names = [jax.tree_util.keystr(path[-1:], simple=True) for path, _ in shapes]
    unknown = [name for name in scales if name not in names]
    if unknown:
        raise ValueError(
            f"scales has {unknown[0]!r}, which is no weight of net; it has {', '.join(names)}"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"net has two weights of one name among {', '.join(names)}; rename one")

    weights = []
    for name, (_, leaf) in zip(names, shapes, strict=True):
        scale = scales.get(name, _SCALES.get(name, 1.0))
        if name in _OVER_ROOT:
            scale = scale / leaf.shape[-1] ** 0.5
        if scale == 0:
            weights.append(jnp.zeros(leaf.shape, leaf.dtype))
            continue
        law = dist.Normal(jnp.zeros((), leaf.dtype), scale).expand(leaf.shape)
        infer = {"event_dims": list(_AXES.get(name, ()))}
        weights.append(numpyro.sample(name, law.to_event(leaf.ndim), infer=infer))
    return jax.tree.unflatten(structure, weights)
