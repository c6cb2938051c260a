# SPDX-License-Identifier: Apache-2.0
"""What a plot drew: the numbers and texts that it handed to the backend "none"."""

import numpy as np

PARTS = ("x", "y", "y_bottom", "y_top")


def drawn(pc, label, what="curve"):
    """Return the arrays of each curve, without padding, by the names along the axis ``label``."""
    found = {}
    for name, artist in pc.viz[what]["curve"].groupby(label):
        given = artist.item()
        if isinstance(given, dict):
            parts = {key: np.asarray(given[key]) for key in PARTS if key in given}
            there = np.isfinite(parts["x"]) | (what == "error")
            found[str(name)] = {key: part[there] for key, part in parts.items()}
    return found


def marked(pc, label, axis="x"):
    """Return where a line of a plot with one panel stands."""
    return pc.viz[label]["curve"].item()[axis]


def text_of(pc, what="title", **where):
    """Return an axis label or a title."""
    return pc.viz[what]["curve"].sel(where).item()["string"]
