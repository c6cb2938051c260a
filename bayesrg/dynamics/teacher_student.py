# SPDX-License-Identifier: Apache-2.0
"""Linear student of a linear teacher, trained by SGD: its levels are known in closed form."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._trajectory import DIVERGED, GO, Algorithm, Info, State

_LARGEST = 1e100  # its square is still a float


class Target(NamedTuple):
    """What theory says of a simulation.

    ``levels`` (n,), largest first, without noise; ``sigma`` (n,) width of the gas of the group of
    each level; ``rate`` (n,) at which each level relaxes, per unit of time (step times learning
    rate); ``limit`` of the learning rate; ``burn_in`` steps after which the start is forgotten.
    """

    levels: np.ndarray
    sigma: np.ndarray
    rate: np.ndarray
    limit: float
    burn_in: int


class Simulation(NamedTuple):
    """Result of `teacher_student` and `gaussian_rbm`: what `run` takes, and what theory says."""

    algorithm: Algorithm
    start: Array
    target: Target


def teacher_student(
    teacher: ArrayLike,
    *,
    noise: ArrayLike,
    learning_rate: ArrayLike,
    batch: int,
    noise_in: str = "labels",
) -> Simulation:
    r"""Return SGD of a linear student :math:`Wx` on fresh data of a linear teacher.

    Inputs are standard normal, the loss is half the squared error, and each step draws a batch.

    Parameters
    ----------
    teacher : (N, N)
        :math:`W_t`, for instance ``2 * jnp.eye(N)`` for one group of N equal levels.
    noise : float, positive
        Standard deviation of the labels, s, or of a gradient per sample.
    learning_rate : float
    batch : int
    noise_in : str
        - "labels": :math:`y = W_tx + s\epsilon`. Entries of W - W_t are independent with variance
          :math:`v = \alpha s^2/(B[2 - \alpha(1 + (N+1)/B)])`. Levels are those of W^T W; their
          widths are :math:`2c\sqrt v` around :math:`c^2`.
        - "gradient": no inputs; a symmetric matrix is added to the mean gradient, off-diagonal
          entries with standard deviation ``noise`` per sample, diagonal ones with
          :math:`\sqrt2` times that. Levels are singular values of W, with widths
          :math:`\sqrt{2\alpha/(B(2-\alpha))}` times ``noise``.

    Returns
    -------
    Simulation
        The start is the teacher. The algorithm observes the loss.

    Raises
    ------
    ValueError
        For a learning rate above the stability limit, or a teacher that is not square.

    References
    ----------
    arXiv 2407.16427.
    """
    W = _checks.finite("teacher", teacher, ndim=2).astype(float)
    if W.shape[0] != W.shape[1] or not W.size:
        raise ValueError(f"teacher has shape {W.shape}; give a square matrix")
    s = _checks.number("noise", noise, above=0.0, most=_LARGEST)
    alpha = _checks.number("learning_rate", learning_rate, above=0.0)
    B, n = _checks.whole("batch", batch), len(W)
    _checks.choice("noise_in", noise_in, ("labels", "gradient"))
    singular = np.linalg.svd(np.asarray(W), compute_uv=False)

    # entries relax like exp(-t); their second moments feel the curvature of a batch of inputs
    curvature = 1 + (n + 1) / B if noise_in == "labels" else 1.0
    limit = 2 / curvature
    _checks.below_limit(alpha, limit)
    v = alpha * s**2 / (B * (2 - alpha * curvature))
    if noise_in == "labels":
        levels, sigma = singular**2, 2 * singular * np.sqrt(v)
    else:
        levels, sigma = singular, np.full(n, np.sqrt(2 * v))
    burn_in = int(np.ceil(10 / (alpha * (2 - alpha * curvature))))
    target = Target(levels, sigma, np.ones(n), limit, burn_in)
    kind = _Labels if noise_in == "labels" else _Gradients
    rule = kind(W, jnp.asarray(s), jnp.asarray(alpha), B)
    return Simulation(Algorithm(rule.init, rule.step, jnp.asarray(alpha)), W, target)


class _Labels(eqx.Module):
    teacher: Float[Array, "n n"]
    noise: Float[Array, ""]
    learning_rate: Float[Array, ""]
    batch: int = eqx.field(static=True)

    def init(self, W):
        shape = self.teacher.shape
        return State(_checks.shaped("x0", W, shape, "that of the teacher").astype(float))

    def step(self, state, key):
        W = state.x
        inputs, labels = random.split(key)
        x = random.normal(inputs, (self.batch, len(W)), W.dtype)
        r = x @ (W - self.teacher).T - self.noise * random.normal(labels, x.shape, W.dtype)
        loss = (r**2).sum() / (2 * self.batch)
        x = W - self.learning_rate / self.batch * r.T @ x
        return State(x), Info({"loss": loss}, jnp.where(jnp.isfinite(loss), GO, DIVERGED))


class _Gradients(_Labels):
    def step(self, state, key):
        W = state.x
        A = random.normal(key, W.shape, W.dtype)
        kick = self.noise / jnp.sqrt(self.batch) * (A + A.T) / jnp.sqrt(2.0)
        apart = W - self.teacher
        loss = (apart**2).sum() / 2
        x = W - self.learning_rate * (apart + kick)
        return State(x), Info({"loss": loss}, jnp.where(jnp.isfinite(loss), GO, DIVERGED))
