# SPDX-License-Identifier: Apache-2.0
"""Kernels of the layers of a network, from draws of its white noise."""

import xarray as xr

from .. import _checks
from .._checks import ArrayLike
from ..io.labels import read_group
from ..networks import Rainbow
from .feature.kernel import MAX_BYTES, kernels
from .feature.measure import inputs_of


def add_kernels(
    dt: xr.DataTree,
    net: Rainbow,
    *,
    X: ArrayLike | None = None,
    max_bytes: int = MAX_BYTES,
) -> xr.DataTree:
    r"""Add feature_kernel to posterior and prior draws of a network, and return the new tree.

    The feature kernel of layer l is :math:`\Phi_l = x_lx_l^T/N_l`, computed for every draw.

    Parameters
    ----------
    dt : DataTree, draws of the models ``rainbow`` or ``rainbow_collapsed``
    net : Rainbow, the network of the fit
    X : (n, d), optional
        Inputs; by default X in constant_data.
    max_bytes : int, most memory that the kernels of one group may take, in bytes

    Returns
    -------
    DataTree
        A copy of ``dt`` whose groups posterior and prior (if there is one) have the variable
        feature_kernel (chain, draw, layer, point, point_bis), as `feature.measure` needs it.

    Raises
    ------
    ValueError
        For a group without the sites z1, ..., or kernels larger than ``max_bytes``.

    References
    ----------
    arXiv 2402.13999.
    """
    _checks.instance("dt", dt, xr.DataTree, _checks.TREE)
    _checks.instance("net", net, Rainbow, "a networks.Rainbow, that of the fit")
    X, tree = inputs_of(dt, X), dt.copy()
    names = [f"z{layer}" for layer in range(1, net.depth + 1)]
    remedy = f"give draws of a rainbow model with the {net.depth} layers of net"

    def layers(white, X):
        return net.layers(net.weights(white, X.shape[1]), X)[1:]

    for group in (name for name in ("posterior", "prior") if name in tree.children):
        dataset = read_group(tree, group, *names, remedy=remedy)
        white = [dataset[name].transpose("chain", "draw", ...).to_numpy() for name in names]
        found = kernels(layers, white, X, lead=("chain", "draw"), max_bytes=max_bytes)
        found = found.drop_vars(("chain", "draw"))
        tree[group] = xr.DataTree(dataset.assign(feature_kernel=found["feature_kernel"]))
    return tree
