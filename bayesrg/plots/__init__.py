# SPDX-License-Identifier: Apache-2.0
"""Plots: from a DataTree to a ``PlotCollection``, on any of ArviZ's backends.

``pc.savefig(file)`` writes one, ``pc.get_viz("plot")`` gives the axes to decorate further.
"""

from .flow import plot_flow
from .spectrum import plot_spectrum

__all__ = ["plot_flow", "plot_spectrum"]
