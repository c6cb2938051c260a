# SPDX-License-Identifier: Apache-2.0
"""Plots of kernels of wide networks: critical initialisation and effects of finite width."""

import numpy as np
import xarray as xr
from arviz import PlotCollection
from contourpy import contour_generator

from ._curves import curves, decorate, group_of, lines_and_points, split, theory_and_runs

_LEVELS = (0.6, 0.8, 1.0, 1.2, 1.4)  # of chi


def plot_phase_diagram(
    dt: xr.DataTree, *, group: str = "phase_diagram", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    r"""Plot contours of the growth of gradients in the plane of weight and bias variance.

    At :math:`\chi^* = 1` the initialisation is critical. Gradients vanish with depth if
    :math:`\chi^*` is smaller, and explode if it is larger.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable chi (weight_var,
        bias_var): :math:`\chi^*`, the value at a deep layer of `bayesrg.kernels.jacobian_flow`.

    Raises
    ------
    ValueError
        If chi crosses none of the levels 0.6, 0.8, 1, 1.2 and 1.4.
    """
    chi = group_of(dt, group, "chi")["chi"].sortby(["weight_var", "bias_var"])
    chi = chi.transpose("bias_var", "weight_var")
    trace = contour_generator(chi["weight_var"].values, chi["bias_var"].values, chi.values)
    parts = {}
    for level in _LEVELS:
        pieces = trace.lines(level)
        if pieces:
            joined = np.concatenate([np.vstack([piece, [[np.nan] * 2]]) for piece in pieces])
            name = f"{level:g}{' (critical)' if level == 1 else ''}"
            parts[name] = {"x": joined[:, 0], "y": joined[:, 1]}
    if not parts:
        raise ValueError(
            f"chi runs from {float(chi.min()):.4g} to {float(chi.max()):.4g} and crosses none of "
            f"the levels {_LEVELS}; take a wider range of variances"
        )

    pc = curves(parts, "chi", backend=backend, **pc_kwargs)
    x, y = "variance of weights", "variance of biases"
    title = "chi: growth of squared gradients in a deep layer"
    return decorate(pc, x=x, y=y, title=title, log="")


def plot_jacobian_flow(
    dt: xr.DataTree, *, group: str = "jacobian_flow", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the averaged partial Jacobian norm against depth: theory as lines, networks as points.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group is what
        `bayesrg.kernels.jacobian_flow` returns, with the variable J (layer, batch); coordinates of
        batch name the networks. J of the runs is from `bayesrg.kernels.empirical_apjn`. Layer 0,
        the first pre-activations, is drawn at depth 1.
    """

    def read(found):
        return split(found["J"].assign_coords(layer=found["layer"] + 1), "layer")

    lines, points = theory_and_runs(dt, group, "J", read)
    pc = lines_and_points(lines, points, "network", backend=backend, **pc_kwargs)
    title = "lines: infinite width; points: networks" if points else "infinite width"
    return decorate(pc, x="depth", y="mean squared derivative (APJN)", title=title)


def plot_kernel_distance(
    dt: xr.DataTree, *, group: str = "kernel_distance", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the distance between kernels of finite and infinite networks against the width.

    Lines with the slope -1/2 pass through the last points.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable distance (kernel,
        width), from `bayesrg.kernels.relative_distance`.
    """
    points = split(group_of(dt, group, "distance")["distance"], "width")
    lines = {
        name: {"x": part["x"], "y": part["y"][-1] * (part["x"][-1] / part["x"]) ** 0.5}
        for name, part in points.items()
    }
    pc = lines_and_points(lines, points, "kernel", backend=backend, **pc_kwargs)
    title = "points: networks; lines: slope -0.5"
    return decorate(pc, x="width", y="relative distance", title=title)
