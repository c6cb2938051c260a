# SPDX-License-Identifier: Apache-2.0
"""One output's data in the eigenbasis of the input kernel: likelihoods given the order parameter.

Everything here and in the solvers is NumPy in float64 on the host.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._covariance.noiseless import RANGE, check_range
from ..kernels import Kernel
from ..networks import DeepLinear

_SOLVER = "a solver of deep_linear"


class Problem(eqx.Module):
    r"""Data of one output, in units of the standard parametrisation; see `prepare`.

    Given the order parameter q, the rotated targets are independent with variances
    :math:`C_i = \kappa_i q + T`. Methods take :math:`\log q` (g,).

    Attributes
    ----------
    widths : :math:`(N_1, ..., N_L)`
    points : P; the rank of the kernel where there is no noise
    values : (r,) positive eigenvalues :math:`\kappa` of the kernel
    vectors : (P, r) its eigenvectors
    target : (r,) targets in that basis
    missed : squared length of the targets outside the range of the kernel
    ridge : T, times :math:`\gamma^2` in mean field
    kernel : of an output in place of that of the inputs; None for the latter
    inputs : (n, d) X
    loadings : (d, r), whose product with new inputs is their covariance with the modes
    variance : S / N_0, prior variance of an output per squared length of its input
    scales : (L + 1,) standard deviations of the weights
    output_scale : what targets were multiplied by
    """

    widths: tuple[int, ...] = eqx.field(static=True)
    points: int = eqx.field(static=True)
    values: Float[np.ndarray, " mode"]
    vectors: Float[np.ndarray, "point mode"]
    target: Float[np.ndarray, " mode"]
    missed: float
    ridge: float
    kernel: Kernel | None
    inputs: Float[np.ndarray, "point feature"]
    loadings: Float[np.ndarray, "feature mode"] | None
    variance: float
    scales: Float[np.ndarray, " level"]
    output_scale: float

    @property
    def shapes(self):
        """Shape parameters b = N / 2 of the Gamma laws of the layers, (L,)."""
        return np.asarray(self.widths, float) / 2.0

    @property
    def power(self):
        r"""Energy of the targets in the kernel, :math:`s = y^T K^+ y`, where the order is 1."""
        return float((self.target**2 / self.values).sum())

    def logs(self, log_q):
        r"""Logarithms of :math:`\kappa_i q` and of C, both (g, r)."""
        signal = np.log(self.values) + np.asarray(log_q)[..., None]
        if self.ridge == 0:
            return signal, signal
        return signal, np.logaddexp(signal, np.log(self.ridge))

    def learnt(self, log_q):
        r"""Shares :math:`\kappa_i q/C_i` of the targets that the posterior mean keeps, (g, r)."""
        signal, total = self.logs(log_q)
        return np.exp(signal - total)

    def misfit(self, log_q):
        r"""Squared targets over their variances, :math:`\sum_i \tilde y_i^2/C_i`, (g,)."""
        _, total = self.logs(log_q)
        with np.errstate(over="ignore", divide="ignore"):
            quad = np.exp(np.log(self.target**2) - total).sum(-1)
        return quad + (self.missed / self.ridge if self.ridge else 0.0)

    def log_det(self, log_q):
        r"""Sum of :math:`\log 2\pi C_i` over all points, (g,)."""
        _, total = self.logs(log_q)
        unseen = self.points - self.values.size
        outside = unseen * np.log(2 * np.pi * self.ridge) if unseen else 0.0
        return total.sum(-1) + self.values.size * np.log(2 * np.pi) + outside

    def log_likelihood(self, log_q):
        """Log density of the targets given q, (g,)."""
        return -0.5 * (self.misfit(log_q) + self.log_det(log_q))

    def excess(self, log_q, occam=True):
        r"""Drive :math:`\Delta(q) = 2\,\partial_{\log q}\log p(y|q)` of the order parameter, (g,).

        Without ``occam`` the part of the determinant is left out.
        """
        signal, total = self.logs(log_q)
        with np.errstate(over="ignore", divide="ignore"):
            pull = np.exp(np.log(self.target**2) + signal - 2.0 * total).sum(-1)
        return pull - self.learnt(log_q).sum(-1) if occam else pull

    def curvature(self, log_q, occam=True):
        r"""Second derivative of :math:`-\log p(y|q)` in :math:`\log q`, (g,)."""
        signal, total = self.logs(log_q)
        a = np.exp(signal - total)
        quad = self.target**2 * np.exp(-total)
        data = -0.5 * (quad * a * (1.0 - 2.0 * a)).sum(-1)
        return data + 0.5 * (a * (1.0 - a)).sum(-1) if occam else data

    def covariances(self, X_new):
        """Prior covariance of new outputs with the modes (m, r), and prior variances (m,)."""
        _checks.on_host("a posterior of deep_linear", X_new)
        X_new = _checks.squares("X_new", _checks.on_64_bits("X_new", X_new, _checks.inputs))
        X_new = X_new[:, None] if X_new.ndim == 1 else X_new
        if X_new.shape[1] != self.inputs.shape[1]:
            raise ValueError(
                f"X_new has {X_new.shape[1]} columns and the training inputs have "
                f"{self.inputs.shape[1]}; give both the same features"
            )
        if self.kernel is not None:
            cross = np.asarray(self.kernel(X_new, self.inputs), float)
            return cross @ self.vectors, np.asarray(self.kernel.diag(X_new), float)
        if self.loadings is None:
            raise ValueError(
                "kernel was given as a matrix, which says nothing about new inputs; give a Kernel"
            )
        return X_new @ self.loadings, self.variance * (X_new**2).sum(-1)


def prepare(
    net: DeepLinear, X: ArrayLike, y: ArrayLike, kernel: Kernel | ArrayLike | None = None
) -> Problem:
    r"""Rotate the data into the eigenbasis of :math:`K = S XX^T/N_0`, once.

    Parameters
    ----------
    net : DeepLinear
        With one output. Mean field is mapped to the standard network of the same law.
    X : (n, d)
    y : (n,) or (n, 1)
    kernel : Kernel, or (n, n), optional
        In place of K.

    Returns
    -------
    Problem

    Raises
    ------
    NotImplementedError
        For several outputs.
    ValueError
        For mismatched shapes or non-finite data, or without noise for targets outside the range
        of the kernel, which have no density.

    Warns
    -----
    UserWarning
        Without noise, if the kernel is singular and the targets lie in its range: everything is
        said about that range.
    """
    _checks.instance("net", net, DeepLinear, _checks.NET)
    if net.outputs > 1:
        raise NotImplementedError(
            f"the network has {net.outputs} outputs, and this solver knows one; sample the "
            "collapsed model (deep_linear_collapsed) for several"
        )
    return prepare_outputs(net, X, y, kernel)[0]


def prepare_outputs(
    net: DeepLinear,
    X: ArrayLike,
    y: ArrayLike,
    kernel: Kernel | ArrayLike | None = None,
    name: str = "y",
) -> list[Problem]:
    """Do what `prepare` does for every output by itself: they share all but their targets.

    ``X`` is (n, d), ``y`` (n,) or (n, outputs), called ``name``, and ``kernel`` as there.
    """
    _checks.warn_32_bits("deep_linear")
    _checks.instance("net", net, DeepLinear, _checks.NET)
    standard = net.standardise()
    _checks.on_host(_SOLVER, X, y, kernel, standard)
    n = _checks.inputs("X", X).shape[0]
    shape = _checks.targets(name, y, n).shape
    X, y = (np.asarray(_checks.numbers("X", v), float).reshape(n, -1) for v in (X, y))
    for given, value in (("X", X), (name, y)):
        _checks.squares(given, value)
    if y.shape[1] != net.outputs:
        raise ValueError(
            f"{name} has shape {shape} and the network {net.outputs} output(s); give one column "
            "per output"
        )
    scales = np.asarray(standard.scales, float)
    variance = float((scales**2).prod()) / X.shape[1]
    output_scale = float(net.output_scale)
    y = y * output_scale
    if kernel is None:
        U, root, W = singular(X)
        values, loadings = variance * root**2, W.T * (variance * root)
    else:
        values, U = _diagonalise(kernel, X)
        loadings = None
    rank = values.size
    target = U.T @ y
    missed = ((y - U @ target) ** 2).sum(0) if rank < n else np.zeros(net.outputs)
    ridge = float(standard.ridge)
    if ridge == 0 and rank < n:
        check_range(n, rank, missed.sum() > RANGE**2 * (y**2).sum())
        n, missed = rank, np.zeros(net.outputs)
    shared = {
        "widths": net.widths, "points": n, "values": values, "vectors": U, "ridge": ridge,
        "kernel": kernel if isinstance(kernel, Kernel) else None, "inputs": X,
        "loadings": loadings, "variance": variance, "scales": scales, "output_scale": output_scale,
    }  # fmt: skip
    return [
        Problem(target=target[:, a], missed=float(missed[a]), **shared) for a in range(net.outputs)
    ]


def singular(X):
    """Singular values of X (n, d) above round-off, with U (n, r) before and W (r, d) after them."""
    U, root, W = np.linalg.svd(X, full_matrices=False)
    kept = root > max(X.shape) * np.finfo(float).eps * root.max(initial=0.0)
    return U[:, kept], root[kept], W[kept]


def _diagonalise(kernel, X):
    """Positive eigenvalues, falling, and eigenvectors of a kernel at X (n, d), or of a matrix."""
    _checks.require_x64("deep_linear with a kernel")
    K = kernel(X) if isinstance(kernel, Kernel) else _checks.finite("kernel", kernel, ndim=2)
    _checks.on_host(_SOLVER, K)
    K, n = np.asarray(K, float), X.shape[0]
    if K.shape != (n, n) or np.abs(K - K.T).max() > 1e-10 * np.abs(K).max():
        raise ValueError(
            f"kernel has shape {K.shape} for {n} points, or is not symmetric; give the symmetric "
            f"({n}, {n}) matrix of their covariances, or a Kernel"
        )
    values, U = np.linalg.eigh(0.5 * (K + K.T))
    if values[0] < -1e-10 * values[-1]:
        raise ValueError(
            f"kernel has the eigenvalue {values[0]}; give a positive semi-definite matrix"
        )
    kept = values > n * np.finfo(float).eps * values[-1]
    return values[kept][::-1], U[:, kept][:, ::-1]


def check_level(value, depth, least=0):
    """Require an integer from ``least`` to ``depth``."""
    if _checks.integer(value) is None:
        raise ValueError(
            f"level must be an integer from {least} to {depth}, got {_checks.shown(value)}"
        )
    if not least <= value <= depth:
        raise ValueError(
            f"level must be an integer from {least} to {depth}, got {value}; level l is that of "
            "the l-th hidden layer"
        )
