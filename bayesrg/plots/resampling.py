# SPDX-License-Identifier: Apache-2.0
"""Plots of resampled networks: errors of aligned features, and spectra of weights."""

import numpy as np
import xarray as xr
from arviz import PlotCollection

from .. import _checks
from ._curves import curves, decorate, group_of, line, lines_and_points

_NODES = 4000  # of the integral over the law of Marchenko and Pastur
_ROUND_OFF = 1e-12  # of the largest eigenvalue


def plot_alignment_error(
    dt: xr.DataTree, *, group: str = "resampling", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the alignment error of resampled features against the width, one line per layer.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variable errors (width, layer), and maybe draw, from the field of
        `bayesrg.networks.Resampled`. If the group also has held_out on these axes, lines show
        held_out, and points show errors on the inputs that determined the rotations.
    group : str
        Group of ``dt`` that is plotted.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        Draws are shown by their median and credible band.
    """
    found = group_of(dt, group, "errors").sortby("width")
    fitted = _by_layer(found["errors"])
    lines = _by_layer(found["held_out"]) if "held_out" in found else fitted
    points = fitted if "held_out" in found else {}
    pc = lines_and_points(lines, points, "layer", backend=backend, **pc_kwargs)
    title = "alignment error"
    if points:
        title += " on held-out inputs; points: on those that fixed the rotation"
    return decorate(pc, x="width", y="error over mean square of the features", title=title)


def plot_weight_spectrum(
    dt: xr.DataTree,
    *,
    layer: int | None = None,
    group: str = "weight_spectrum",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    r"""Plot the eigenvalues of the covariance of weights against their rank, one curve per network.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variable eigenvalues (network, layer, mode), and maybe draw:
        eigenvalues of `bayesrg.networks.weight_covariance`, largest first. Layers with fewer are
        padded with nan. If the group also has units (layer), the number of rows :math:`N_l`, the
        law of Marchenko and Pastur is drawn. It holds for independent weights of variance
        :math:`1/N_{l-1}`.
    layer : int, optional
        Entry of the coordinate layer; by default the last.
    group : str
        Group of ``dt`` that is plotted.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        The linear scale shows the eigenvalues that training has lifted out of the bulk.
        Eigenvalues of 0 are not drawn.

    Raises
    ------
    ValueError
        If a group, a variable or the layer is missing.
    """
    found = group_of(dt, group, "eigenvalues")
    there = found["layer"].to_numpy()
    layer = there[-1] if layer is None else _checks.whole("layer", layer, least=0)
    if layer not in there:
        raise ValueError(f"there is no layer {layer!r}, only {there.tolist()}; choose one")

    found = found.sel(layer=layer)
    values = found["eigenvalues"]
    columns = int(np.isfinite(values).any([d for d in values.dims if d != "mode"]).sum())
    values = values.where(values > _ROUND_OFF * values.max())
    parts = {}
    for name in found["network"].to_numpy():
        one = values.sel(network=name).dropna("mode")
        parts[str(name)] = line(one, np.arange(1.0, one.sizes["mode"] + 1))
    if "units" in found:
        white = marchenko_pastur(columns, int(found["units"]))
        parts["Marchenko-Pastur"] = {"x": np.arange(1.0, white.size + 1), "y": white}
    pc = curves(parts, "network", backend=backend, **pc_kwargs)
    title = f"layer {layer}: spectrum of the weights' covariance"
    return decorate(pc, x="rank", y="eigenvalue", title=title, yscale="linear")


def marchenko_pastur(columns: int, rows: int) -> np.ndarray:
    r"""Return the typical nonzero eigenvalues of :math:`Z^TZ/N`, largest first.

    Z (N, q) has independent standard normal entries, N = ``rows`` and q = ``columns``. With
    :math:`r = q/N` and :math:`x = 1 + r + 2\sqrt r\cos\theta` the law of Marchenko and Pastur has
    the density :math:`2\sin^2\theta/(\pi x)` in the angle. Above the k-th typical value lies the
    share :math:`(k - 1/2)/q` of all eigenvalues.
    """
    ratio = columns / rows
    angle = (np.arange(_NODES) + 0.5) * np.pi / _NODES
    x = 1 + ratio + 2 * np.sqrt(ratio) * np.cos(angle)
    above = np.cumsum(2 * np.sin(angle) ** 2 / x) / _NODES
    return np.interp((np.arange(min(columns, rows)) + 0.5) / columns, above, x)


def _by_layer(errors):
    """Return a curve over width for each layer."""
    return {f"layer {i}": line(errors.sel(layer=i)) for i in errors["layer"].to_numpy()}
