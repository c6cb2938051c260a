# SPDX-License-Identifier: Apache-2.0
"""Plots of resampled networks: errors of aligned features, and spectra of weights."""

import numpy as np
import xarray as xr
from arviz import PlotCollection

from ._curves import curves, decorate, group_of, lines_and_points, split

_NODES = 4000  # of the integral over the law of Marchenko and Pastur
_ROUND_OFF = 1e-12  # of the largest eigenvalue


def plot_alignment_error(
    dt: xr.DataTree, *, group: str = "resampling", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the alignment error of resampled features against the width, one line per layer.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable errors (width,
        layer), a field of what `bayesrg.networks.resample` returns. If it also has held_out on
        these axes, lines show held_out, and points show errors on the inputs that determined the
        rotations.
    """
    found = group_of(dt, group, "errors")
    lines, points = split(found["errors"], "width"), {}
    title = "alignment error"
    if "held_out" in found:
        lines, points = split(found["held_out"], "width"), lines
        title += " on held-out inputs; points: on those that fixed the rotation"
    pc = lines_and_points(lines, points, "layer", backend=backend, **pc_kwargs)
    return decorate(pc, x="width", y="error over mean square of the features", title=title)


def plot_weight_spectrum(
    dt: xr.DataTree, *, group: str = "weight_spectrum", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    r"""Plot the eigenvalues of the covariance of weights against their rank, one curve per network.

    The linear scale shows the eigenvalues that training has lifted out of the bulk. Eigenvalues of
    0 are not drawn.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable eigenvalues
        (network, mode) of a layer: eigenvalues of `bayesrg.networks.weight_covariance`, largest
        first. If the group also has units (), the number of rows :math:`N_l`, the law of
        Marchenko and Pastur is drawn. It holds for independent weights of variance
        :math:`1/N_{l-1}`.
    """
    found = group_of(dt, group, "eigenvalues")
    values = found["eigenvalues"]
    rank = values["mode"] + 1
    parts = split(values.where(values > _ROUND_OFF * values.max()).assign_coords(mode=rank), "mode")
    if "units" in found:
        white = marchenko_pastur(values.sizes["mode"], int(found["units"]))
        parts["Marchenko-Pastur"] = {"x": rank.to_numpy()[: white.size], "y": white}
    pc = curves(parts, "network", backend=backend, **pc_kwargs)
    title = "spectrum of the weights' covariance"
    return decorate(pc, x="rank", y="eigenvalue", title=title, log="x")


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
