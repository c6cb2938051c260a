# SPDX-License-Identifier: Apache-2.0
"""Trained networks drawn anew: how well their features align, and their weights' spectra."""

import numpy as np
import xarray as xr
from arviz import PlotCollection

from .. import _checks
from ._curves import curves, decorate, group_of, line, lines_and_points

_NODES = 4000
_ROUND_OFF = 1e-12


def plot_alignment_error(
    dt: xr.DataTree, *, group: str = "resampling", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the alignment error of resampled features against the width, a line for each layer.

    Parameters
    ----------
    dt : DataTree
        With a group of errors over width and layer, and maybe draw, as the fields of
        `bayesrg.networks.Resampled`. If there is held_out over the same axes, lines are those,
        and points the errors on the inputs that fixed the rotations.
    group : str
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; ArviZ's default otherwise.
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
    r"""Plot eigenvalues of the weights' covariance, a curve for each network, by their rank.

    Parameters
    ----------
    dt : DataTree
        With a group of eigenvalues of `bayesrg.networks.weight_covariance` over network, layer
        and mode, falling, and maybe draw; layers with fewer are filled up with nan. If there is
        units over layer, the number of rows :math:`N_l`, the law of Marchenko and Pastur is
        drawn too: what independent weights of variance :math:`1/N_{l-1}` have.
    layer : int, optional
        Entry of the coordinate layer, by default the last.
    group, backend, **pc_kwargs : as in `plot_alignment_error`

    Returns
    -------
    PlotCollection
        On a linear scale, where what training has lifted out of the bulk is seen; eigenvalues of
        zero are left out.

    Raises
    ------
    ValueError
        For a layer that is not there, besides what is missing.
    """
    found = group_of(dt, group, "eigenvalues")
    there = found["layer"].to_numpy()
    layer = there[-1] if layer is None else _checks.whole("layer", layer, least=0)
    if layer not in there:
        raise ValueError(f"there is no layer {layer!r}, only {there.tolist()}")
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
    r"""Typical eigenvalues, falling, of :math:`Z^TZ/N` for white Z (N, q), those above zero.

    With :math:`r = q/N` and :math:`x = 1 + r + 2\sqrt r\cos\theta` the density is
    :math:`2\sin^2\theta/(\pi x)` per unit of angle; the k-th value has the share
    :math:`(k - 1/2)/q` above it.
    """
    ratio = columns / rows
    angle = (np.arange(_NODES) + 0.5) * np.pi / _NODES
    x = 1 + ratio + 2 * np.sqrt(ratio) * np.cos(angle)
    above = np.cumsum(2 * np.sin(angle) ** 2 / x) / _NODES
    return np.interp((np.arange(min(columns, rows)) + 0.5) / columns, above, x)


def _by_layer(errors):
    """Curves over width, one per layer."""
    return {f"layer {i}": line(errors.sel(layer=i)) for i in errors["layer"].to_numpy()}
