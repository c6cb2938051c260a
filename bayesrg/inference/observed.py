# SPDX-License-Identifier: Apache-2.0
"""Distributions of observations at given outputs of a network."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from .. import _checks
from .._checks import ArrayLike
from .._numbers import known

LIKELIHOODS = ("bernoulli", "categorical", "normal")


def output_law(
    outputs: ArrayLike,
    y: ArrayLike | None = None,
    *,
    likelihood: str = "bernoulli",
    noise: ArrayLike = 0.1,
) -> tuple[dist.Distribution, Array | None]:
    """Return the distribution of y at given outputs of a network, and y as it takes them.

    Parameters
    ----------
    outputs : (n, c)
        As ``apply`` of a network returns them.
    y : optional
        Observations. (n,) of 0 and 1, or of -1 and 1, for "bernoulli"; (n,) of whole numbers from
        0 to c - 1 for "categorical"; (n, c), or (n,) if c is 1, for "normal".
    likelihood : "bernoulli", "categorical" or "normal"
        "bernoulli": the one output is the logarithm of the odds of class 1. "categorical": outputs
        are logarithms of probabilities up to a constant. "normal": outputs are means.
    noise : ()
        Standard deviation of a normal observation.

    Returns
    -------
    law : Distribution
        Its batch shape is (n,), or (c, n) for several normal outputs.
    y : array of the shape of ``law``, or None
        Labels -1 become 0.

    Raises
    ------
    ValueError
        For observations that do not fit the outputs, or labels that are all equal. Values that a
        JAX transformation traces are not checked.
    """
    _checks.choice("likelihood", likelihood, LIKELIHOODS)
    outputs = _checks.finite("outputs", outputs, ndim=2)
    noise = _checks.positive("noise", noise, ndim=0)
    n, c = outputs.shape
    y = None if y is None else _checks.targets("y", y, n)
    if likelihood == "normal":
        if y is not None and y.reshape(n, -1).shape[1] != c:
            raise ValueError(f"y has shape {y.shape} for {c} outputs; give ({n}, {c})")
        y = None if y is None else y.reshape(n, c).T
        law = dist.Normal(outputs.T if c > 1 else outputs[:, 0], noise)
        return law, None if y is None else y.reshape(law.batch_shape)

    if likelihood == "bernoulli":
        if c != 1:
            raise ValueError(
                f"likelihood 'bernoulli' takes one output and the network has {c}; give a network "
                "with outputs=1, or likelihood='categorical'"
            )
        law = dist.Bernoulli(logits=outputs[:, 0])
    else:
        if c == 1:
            raise ValueError(
                "likelihood 'categorical' takes one output per class and the network has one "
                "output; give it more, or likelihood='bernoulli'"
            )
        law = dist.Categorical(logits=outputs)
    return law, None if y is None else _labels(y, max(c, 2), likelihood == "bernoulli")


def _labels(y, classes, signs):
    """Return labels (n,) as integers from 0, checked; -1 and 1 become 0 and 1 with ``signs``."""
    if y.ndim != 1:
        raise ValueError(
            f"y has shape {y.shape}; give one label per point, ({len(y)},): the column y[:, 0], or "
            "y.argmax(1) of one-hot rows"
        )
    if known(y):
        found = np.unique(np.asarray(y))
        wrong = found[~np.isin(found, np.arange(classes))]
        if wrong.size and not (signs and set(found.tolist()) <= {-1.0, 1.0}):
            allowed = "0 and 1, or -1 and 1" if signs else f"whole numbers from 0 to {classes - 1}"
            few = not signs and wrong[-1] >= classes and wrong[-1] == np.round(wrong[-1])
            advice = f", or a network with outputs={wrong[-1] + 1:g}" if few else ""
            raise ValueError(
                f"y contains {wrong[0]:g}, which is no class of the network; give {allowed}{advice}"
            )
        if len(found) == 1:
            raise ValueError(
                f"y has one class only, {found[0]:g} at all {len(y)} points; give points of at "
                "least two classes"
            )
    return (jnp.where(y == -1, 0.0, y) if signs else y).astype(int)
