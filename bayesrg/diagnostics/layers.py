# SPDX-License-Identifier: Apache-2.0
"""Kernels of the layers of a network, from draws of its white noise."""

from collections.abc import Sequence

import xarray as xr

from .. import _checks
from .._checks import ArrayLike
from ..networks import Rainbow
from .feature.kernel import MAX_BYTES, kernels
from .feature.measure import inputs_of


def add_kernels(
    dt: xr.DataTree,
    net: Rainbow,
    *,
    X: ArrayLike | None = None,
    groups: Sequence[str] = ("posterior", "prior"),
    max_bytes: int = MAX_BYTES,
) -> xr.DataTree:
    r"""Add the variable feature_kernel to draws of a network, and return the new tree.

    The feature kernel of layer l is :math:`\Phi_l = x_lx_l^T/N_l`, computed for every draw.

    Parameters
    ----------
    dt : DataTree, draws of the models ``rainbow`` or ``rainbow_collapsed``
    net : Rainbow, the network of the fit
    X : (n, d), optional
        Inputs; by default X in constant_data.
    groups : sequence of str
        Groups that get the variable; those that the tree does not have are skipped.
    max_bytes : int, most memory that the kernels of one group may take, in bytes

    Returns
    -------
    DataTree
        A copy of ``dt`` where feature_kernel has the axes chain, draw, layer, point and point_bis,
        as `feature.measure` needs it.

    Raises
    ------
    ValueError
        For a group without the sites z1, ..., or kernels larger than ``max_bytes``.

    References
    ----------
    arXiv 2402.13999.
    """
    _checks.instance("net", net, Rainbow, "a networks.Rainbow, that of the fit")
    groups = _checks.sequence("groups", groups, "names of groups")
    X, tree = inputs_of(dt, X), dt.copy()
    names = [f"z{layer}" for layer in range(1, net.depth + 1)]

    def layers(white, X):
        return net.layers(net.weights(white, X.shape[1]), X)[1:]

    for group in groups:
        _checks.instance("an entry of groups", group, str, "the name of a group")
        if group not in tree.children:
            continue
        dataset = tree[group].to_dataset()
        missing = [name for name in names if name not in dataset]
        if missing:
            raise ValueError(
                f"{group} has no site {missing[0]!r}; give draws of a rainbow model with the "
                f"{net.depth} layers of net"
            )
        white = [dataset[name].transpose("chain", "draw", ...).to_numpy() for name in names]
        found = kernels(layers, white, X, lead=("chain", "draw"), max_bytes=max_bytes)
        found = found.drop_vars(("chain", "draw"))
        tree[group] = xr.DataTree(dataset.assign(feature_kernel=found["feature_kernel"]))
    return tree
