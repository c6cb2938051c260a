# SPDX-License-Identifier: Apache-2.0
"""Data of a deep linear network in the eigenbasis of its kernel, and their likelihood.

All arrays are NumPy arrays in float64. `Problem.as_jax` converts them for compiled programs.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._covariance.noiseless import RANGE, check_range
from ..kernels import Kernel
from ..networks import DeepLinear

_SOLVER = "a solver of deep_linear"


class Problem(eqx.Module):
    r"""Data of a deep linear network, in units of the standard parametrisation, from `prepare`.

    Given the order parameter Q, the targets of different modes are independent. Those of mode i
    have covariance :math:`\kappa_i Q + T` over outputs. Methods that take :math:`\log q` (g,) are
    for one output, where the variance is :math:`C_i = \kappa_i q + T`.

    Attributes
    ----------
    widths : (N_1, ..., N_L) of the hidden layers
    points : int, number of points P; without noise the rank of the kernel
    values, vectors : (r,) and (n, r), positive eigenvalues :math:`\kappa` and eigenvectors of K
    targets : (r, c), targets in that basis
    outside : (c,), squared length of the targets' part outside the range of the kernel, over T
    log_det_outside : (), sum of :math:`\log 2\pi T` over the dimensions outside it, per output
    ridge : (), T; with the mean-field parametrisation T times :math:`\gamma^2`
    kernel : Kernel or None, what replaces the kernel of the inputs
    inputs : (n, d), X
    loadings : (d, r) or None; new inputs times loadings are their covariances with the modes
    variance : (), S / N_0: prior variance of an output per squared length of its input
    scales : (L + 1,), standard deviations of the weights
    output_scale, log_scale : (), factor by which the targets were multiplied, and its logarithm
    """

    widths: tuple[int, ...] = eqx.field(static=True)
    points: int = eqx.field(static=True)
    values: Float[np.ndarray | Array, " mode"]
    vectors: Float[np.ndarray | Array, "point mode"]
    targets: Float[np.ndarray | Array, "mode output"]
    outside: Float[np.ndarray | Array, " output"]
    log_det_outside: float | Float[Array, ""]
    ridge: float | Float[Array, ""]
    kernel: Kernel | None
    inputs: Float[np.ndarray | Array, "point feature"]
    loadings: Float[np.ndarray | Array, "feature mode"] | None
    variance: float | Float[Array, ""]
    scales: Float[np.ndarray | Array, " level"]
    output_scale: float | Float[Array, ""]
    log_scale: float | Float[Array, ""]

    def as_jax(self) -> "Problem":
        """Return the problem with JAX arrays, which compiled programs take as arguments."""
        return jax.tree.map(jnp.asarray, self)

    @property
    def outputs(self):
        """Number c of outputs."""
        return self.targets.shape[1]

    @property
    def target(self):
        """Targets of the only output, (r,)."""
        return self.targets[:, 0]

    @property
    def input_values(self):
        """Eigenvalues of :math:`XX^T/N_0`, (r,)."""
        return self.values / (self.scales**2).prod()

    @property
    def shapes(self):
        """Shape parameters b = N / 2 of the Gamma laws of the layers, (L,)."""
        return np.asarray(self.widths, float) / 2.0

    @property
    def power(self):
        r"""Energy :math:`s = y^T K^+ y` of the targets, for K at order parameter 1."""
        return float((self.target**2 / self.values).sum())

    def logs(self, log_q):
        r"""Return the logarithms of :math:`\kappa_i q` and of C, both (g, r)."""
        signal = np.log(self.values) + np.asarray(log_q)[..., None]
        return signal, np.logaddexp(signal, np.log(self.ridge) if self.ridge else -np.inf)

    def learnt(self, log_q):
        r"""Return the share :math:`\kappa_i q/C_i` of each target in the posterior mean, (g, r)."""
        signal, total = self.logs(log_q)
        return np.exp(signal - total)

    def misfit(self, log_q):
        r"""Return the sum of squared targets over their variances, (g,).

        :math:`\sum_i \tilde y_i^2/C_i`, with the part outside the range of the kernel.
        """
        _, total = self.logs(log_q)
        with np.errstate(over="ignore", divide="ignore"):
            quad = np.exp(np.log(self.target**2) - total).sum(-1)
        return quad + self.outside[0]

    def log_det(self, log_q):
        r"""Return the sum of :math:`\log 2\pi C_i` over all P dimensions, (g,)."""
        _, total = self.logs(log_q)
        return total.sum(-1) + self.values.size * np.log(2 * np.pi) + self.log_det_outside

    def log_likelihood(self, log_q):
        """Return the log density of the targets given q, (g,)."""
        return -0.5 * (self.misfit(log_q) + self.log_det(log_q))

    def excess(self, log_q, occam=True):
        r"""Return the drive :math:`\Delta(q) = 2\,\partial_{\log q}\log p(y|q)`, (g,).

        Without ``occam`` the determinant of the likelihood does not contribute.
        """
        signal, total = self.logs(log_q)
        with np.errstate(over="ignore", divide="ignore"):
            pull = np.exp(np.log(self.target**2) + signal - 2.0 * total).sum(-1)
        return pull - self.learnt(log_q).sum(-1) if occam else pull

    def curvature(self, log_q, occam=True):
        r"""Return the second derivative of :math:`-\log p(y|q)` with respect to log q, (g,).

        Without ``occam`` the determinant of the likelihood does not contribute.
        """
        signal, total = self.logs(log_q)
        a = np.exp(signal - total)
        quad = self.target**2 * np.exp(-total)
        data = -0.5 * (quad * a * (1.0 - 2.0 * a)).sum(-1)
        return data + 0.5 * (a * (1.0 - a)).sum(-1) if occam else data

    def covariances(self, X_new):
        """Return prior covariances of new outputs with the modes (m, r), and variances (m,)."""
        _checks.on_host("a posterior of deep_linear", X_new)
        X_new = _checks.squares("X_new", _checks.on_64_bits("X_new", X_new, _checks.inputs))
        X_new = X_new.reshape(len(X_new), -1)
        _checks.columns("X_new", X_new, self.inputs.shape[1], "the training inputs")
        if self.kernel is not None:
            cross = np.asarray(self.kernel(X_new, self.inputs), float)
            return cross @ self.vectors, np.asarray(self.kernel.diag(X_new), float)
        if self.loadings is None:
            raise ValueError(
                "kernel was given as a matrix, which has no value at new inputs; give a Kernel"
            )
        return X_new @ self.loadings, self.variance * (X_new**2).sum(-1)


def prepare(
    net: DeepLinear,
    X: ArrayLike,
    y: ArrayLike,
    kernel: Kernel | ArrayLike | None = None,
    name: str = "y",
) -> Problem:
    r"""Check the data, rotate them into the eigenbasis of the kernel, and return the `Problem`.

    Parameters
    ----------
    net : DeepLinear
        A mean-field network is replaced by the standard network with the same outputs.
    X : (n, d), inputs
    y : (n,) or (n, c), targets
    kernel : Kernel, or (n, n), optional
        Replaces the kernel :math:`K = S XX^T/N_0`.
    name : str, what error messages call y
    """
    _checks.warn_32_bits("deep_linear")
    _checks.instance("net", net, DeepLinear, _checks.NET)
    standard = net.standardise()
    _checks.on_host(_SOLVER, X, y, kernel, standard)
    X = _checks.squares("X", _checks.on_64_bits("X", X, _checks.inputs))
    n = X.shape[0]
    y = _checks.squares(name, _checks.on_64_bits(name, y, check_targets, net=net, n=n))
    X, y = X.reshape(n, -1), y.reshape(n, -1)

    scales, ridge = np.asarray(standard.scales, float), float(standard.ridge)
    variance = float((scales**2).prod()) / X.shape[1]
    if kernel is None:
        U, root, W = singular(X)
        values, loadings = variance * root**2, W.T * (variance * root)
    else:
        values, U = _diagonalise(kernel, X)
        loadings = None

    output_scale, rank = float(net.output_scale), values.size
    y = y * output_scale
    targets = U.T @ y
    outside, log_det_outside = np.zeros(net.outputs), 0.0

    # Outside the range of the kernel the targets are noise alone; without noise they must be zero.
    if rank < n:
        outside = ((y - U @ targets) ** 2).sum(0)
        if ridge == 0:
            check_range(n, rank, outside.sum() > RANGE**2 * (y**2).sum())
            n, outside = rank, np.zeros(net.outputs)
        else:
            log_det_outside = (n - rank) * float(np.log(2 * np.pi * ridge))
            with np.errstate(over="ignore"):
                outside = outside / ridge

    return Problem(
        widths=net.widths,
        points=n,
        values=values,
        vectors=U,
        targets=targets,
        outside=outside,
        log_det_outside=log_det_outside,
        ridge=ridge,
        kernel=kernel if isinstance(kernel, Kernel) else None,
        inputs=X,
        loadings=loadings,
        variance=variance,
        scales=scales,
        output_scale=output_scale,
        log_scale=float(np.log(output_scale)),
    )


def check_targets(name, y, net, n):
    """Return targets as an array (n,) or (n, c); raise unless c is the number of outputs."""
    y = _checks.targets(name, y, n)
    if y.reshape(n, -1).shape[1] != net.outputs:
        raise ValueError(
            f"{name} has shape {y.shape} and the network {net.outputs} output(s); give one column "
            "per output, or outputs= the columns of the targets"
        )
    return y


def in_parts(function, x, modes):
    """Return ``function(x)`` (g,) for x (g,), with at most two million numbers in memory at once.

    The function makes ``modes`` numbers of each x.
    """
    size = max(1, 2_000_000 // max(1, modes))
    return np.concatenate([function(x[i : i + size]) for i in range(0, x.size, size)])


def singular(X):
    """Return X (n, d) = U diag(s) W with the singular values s (r,) above round-off: U, s, W."""
    U, root, W = np.linalg.svd(X, full_matrices=False)
    kept = root > max(X.shape) * np.finfo(float).eps * root.max(initial=0.0)
    return U[:, kept], root[kept], W[kept]


def _diagonalise(kernel, X):
    """Return positive eigenvalues, falling, and eigenvectors of a kernel at X (n, d) or matrix."""
    _checks.require_x64("deep_linear with a kernel")
    n = X.shape[0]
    K = kernel(X) if isinstance(kernel, Kernel) else kernel
    _checks.on_host(_SOLVER, K)
    K = _checks.shaped("kernel", K, (n, n), "the covariances of the points, or a Kernel")
    values, U = np.linalg.eigh(_checks.symmetric("kernel", K))
    if values[0] < -1e-10 * values[-1]:
        raise ValueError(
            f"kernel has the eigenvalue {values[0]}; give a positive semi-definite matrix"
        )
    kept = values > n * np.finfo(float).eps * values[-1]
    return values[kept][::-1], U[:, kept][:, ::-1]
