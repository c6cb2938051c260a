# SPDX-License-Identifier: Apache-2.0
"""Mode functions that are networks, trained on mini-batches, without a Gram matrix."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax, random
from jax.scipy.linalg import solve_triangular
from jaxtyping import Float, PyTree

from .. import _checks
from .._callables import Held, hold
from .._checks import ArrayLike
from .._linalg import ratio
from .._trajectory import optax_descent, position, run
from ..kernels import Kernel, empirical
from ..kernels.products import product
from ..kernels.rows import equal_rows
from .base import Spectrum
from .nystrom import NystromSpectrum


class NeuralSpectrum(Spectrum):
    r"""Spectrum whose mode functions are networks. Made by `neural`.

    The residual is independent noise: it has the variance that the modes leave out, but no
    correlations between inputs. (The functions are only nearly eigenfunctions, so the kernel minus
    these modes need not be positive semi-definite.) `project` returns a spectrum that splits the
    kernel exactly.

    Attributes
    ----------
    mixing : (k, k)
        Matrix from the network's outputs to the mode functions, nearly diagonal after training.
    error : (k,)
        Root mean square of :math:`K\phi/\lambda - \phi`, which is zero for an eigenfunction.
    objective : (steps,)
        Objective at each step of the training.
    """

    kernel: Kernel
    apply: Held
    params: PyTree
    mixing: Float[Array, "output mode"]
    values: Float[Array, " mode"]
    degeneracy: Float[Array, " mode"]
    error: Float[Array, " mode"]
    objective: Float[Array, " step"]

    def features(self, X):
        return self.apply(self.params, _checks.inputs("X", X)) @ self.mixing

    def residual_cov(self, X, Z=None):
        X = _checks.inputs("X", X)
        Z = X if Z is None else _checks.inputs("Z", Z)
        return jnp.where(equal_rows(X, Z), self.residual(X)[:, None], 0.0)

    def project(self, X_ref: ArrayLike) -> NystromSpectrum:
        r"""Return a spectrum that splits the kernel exactly, by functionals on a sample.

        With :math:`\Psi` the mode functions at r rows and :math:`K` the Gram matrix there, the new
        functions are :math:`K(x, X_r)\Psi U/r`, where :math:`U^T\Psi^T K^2 \Psi U = r^3` and
        :math:`U^T\Psi^T K\Psi U = r^2\Lambda^{-1}`. No r x r array is made.

        Parameters
        ----------
        X_ref : (r, d)
            Reference sample, independent of the training inputs.

        Returns
        -------
        NystromSpectrum
            With k modes. The residual is the covariance of the function given k functionals, so it
            is positive semi-definite. Values are at most those of `nystrom` on this sample; their
            error is of second order in the error of the mode functions.
        """
        X_ref = _checks.inputs("X_ref", X_ref)
        values, projection = _project(self, X_ref)
        if _checks.known(values) and not (np.asarray(values) > 0).all():
            raise ValueError(
                f"X_ref of {len(X_ref)} rows spans fewer than the {len(values)} modes; give more "
                "rows that differ"
            )
        ones = jnp.ones_like(values)
        return NystromSpectrum(self.kernel, X_ref, values, ones, projection, dropped=0)


@eqx.filter_jit
def _project(spectrum, X_ref):
    """Values (k,) and projection (r, k) of `NeuralSpectrum.project`."""
    r, Psi = X_ref.shape[0], spectrum.features(X_ref)
    image = product(spectrum.kernel, X_ref, X_ref, Psi) / r
    values, U = _pencil(image.T @ image / r, Psi.T @ image / r)
    return values, Psi @ (U / jnp.sqrt(values)) / r


def neural(
    kernel: Kernel,
    X: ArrayLike,
    modes: int,
    *,
    key: Array | int,
    apply: Callable | None = None,
    params: PyTree = None,
    optimizer: optax.GradientTransformation | None = None,
    steps: int = 3000,
    batch: int = 256,
    rows: int = 4096,
) -> NeuralSpectrum:
    r"""Train a network whose outputs are the first eigenfunctions of a kernel.

    The functions :math:`\psi_j` have mean square 1. With
    :math:`R_{ij} = E\,\psi_i(x) k(x, z) \psi_j(z)` each of them maximises
    :math:`R_{jj} - \sum_{i<j} R_{ij}^2/R_{ii}`, with the functions before it held fixed. The
    maximum is at the eigenfunctions in falling order. After training, :math:`R` is diagonalised.

    Parameters
    ----------
    kernel : Kernel
    X : (n, d)
        Sample of the distribution of the inputs.
    modes : int
        Number k of functions.
    key : JAX key, or int
        Randomness of the batches, and of the weights of the default network.
    apply : callable (params, X (n, d)) -> (n, k), optional
        The network; it must act on each row alone. By default it has two hidden layers of 64 sines.
    params : pytree, optional
        Parameters from which training starts. Give it with ``apply``.
    optimizer : optax.GradientTransformation, optional
        By default Adam, with a rate that falls from 0.003 to zero.
    steps : int
        Number of training steps, one batch each.
    batch : int
        Rows per batch, drawn with replacement; if n is not larger, all rows. Pairs of equal rows
        have a weight of ``1 / batch`` in the mean over a batch. This biases the functions, unless
        the variance of the prior is the same everywhere.
    rows : int
        Largest number of rows from which values and ``error`` are computed after training. A value
        is too large by about the sum of the later eigenvalues divided by this number.

    Returns
    -------
    NeuralSpectrum
        One evaluation costs one pass of the network per point, for any n.

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        If sizes are out of range, if the network returns another shape or mixes rows, if its
        outputs are linearly dependent or not finite after training, if the kernel has fewer modes,
        or if JAX traces an argument.

    Notes
    -----
    In training each term of the objective is divided by the size of its :math:`R_{jj}`, so that
    small modes learn as fast as large ones. Modes whose ``error`` is above some tenths are not
    learnt: take more steps, or fewer modes. Do not trust the functions where X has no points.

    References
    ----------
    arXiv 2205.00165 (the objective); arXiv 2307.14531, arXiv 2405.06008 (the uses).
    """
    _checks.require_x64("spectrum.neural")
    _checks.instance("kernel", kernel, Kernel, _checks.KERNEL)
    X = _checks.inputs("X", X)
    steps, batch = _checks.whole("steps", steps), _checks.whole("batch", batch)
    n, rows = X.shape[0], _checks.whole("rows", rows)
    modes = _checks.whole("modes", modes, most=min(n, rows))

    if (apply is None) != (params is None):
        raise ValueError("apply and params belong together; give both or neither")
    start, order, key = random.split(_checks.random_key(key), 3)
    given = apply is not None
    if given:
        _checks.function("apply", apply)
        params = position("params", params)
    else:
        apply, params = _network, _initial(start, X, modes)
    apply = hold(apply)

    shape = jax.eval_shape(lambda p, x: _checks.returned("apply", apply(p, x)), params, X).shape
    if shape != (n, modes):
        raise ValueError(f"apply returns shape {shape}; return one column per mode, {(n, modes)}")
    if given:
        empirical.check_rows_apart(jax.jit(empirical.mixing)(apply, params, X))

    if optimizer is None:
        optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    task = _Objective(kernel, apply, X, min(batch, n))
    rule = optax_descent(task.loss, _checks.optimizer("optimizer", optimizer), task.one)
    found = run(rule, params, steps, key, steps, allow_divergence=True)  # reported below

    params, objective = found.last.x, found.observables[:-1]
    if not _checks.known(objective):
        raise ValueError(
            "spectrum.neural runs under a JAX transformation, where it would train at every call; "
            "build the spectrum once outside and pass it in"
        )

    sample = X if rows >= n else X[random.permutation(order, n)[:rows]]
    least, values, mixing, error = _solve(kernel, apply, params, sample)
    if not least > 1e-10:  # also if it is nan
        raise ValueError(
            f"after {steps} steps the {modes} functions are linearly dependent or not finite; "
            "lower the learning rate, take more steps, or fewer modes"
        )
    host = np.asarray(values)
    usable = int((host > len(sample) * np.finfo(host.dtype).eps * host[0]).sum())
    if usable < modes:
        raise ValueError(
            f"only {usable} of {modes} functions have a value above the rounding error, so the "
            f"kernel has no more modes; ask for {usable}"
        )
    ones = jnp.ones_like(values)
    return NeuralSpectrum(kernel, apply, params, mixing, values, ones, error, objective)


@eqx.filter_jit
def _solve(kernel, apply, params, sample):
    """Diagonalise the kernel in the span of trained functions, on a sample (n, d).

    Returns the least eigenvalue of the correlations of the functions (zero if they are linearly
    dependent), then ``values``, ``mixing`` and ``error`` of `NeuralSpectrum`.
    """
    Psi, n = apply(params, sample), len(sample)
    gram = Psi.T @ Psi / n
    sizes = jnp.sqrt(jnp.diagonal(gram))
    least = jnp.linalg.eigvalsh(ratio(gram, sizes * sizes[:, None], otherwise=0.0))[0]

    image = product(kernel, sample, sample, Psi) / n
    values, mixing = _pencil(Psi.T @ image / n, gram)
    error = jnp.sqrt(((image @ mixing / values - Psi @ mixing) ** 2).mean(0))
    return least, values, mixing, error


class _Objective(eqx.Module):
    """The objective on a batch of rows, and the random batches."""

    kernel: Kernel
    apply: Callable
    X: Array
    batch: int = eqx.field(static=True)

    def loss(self, params, rows):
        """Return what is minimised, and the objective."""
        Psi = self.apply(params, rows)
        Psi = Psi / jnp.sqrt((Psi**2).mean(0))  # functions of mean square 1
        image = self.kernel(rows) @ Psi / self.batch**2
        R = lax.stop_gradient(Psi).T @ image  # the functions before j are held fixed
        own = (Psi * image).sum(0)  # the diagonal of R
        size = lax.stop_gradient(own)  # dividing by it lets small modes learn as fast as large ones
        terms = own - jnp.triu(R**2 / size[:, None], 1).sum(0)
        return -(terms / size).sum(), terms.sum()

    def one(self, key):
        n, b = len(self.X), self.batch
        return self.X[None] if b == n else self.X[random.randint(key, (1, b), 0, n)]


def _pencil(A, B):
    """Solve ``A U = B U diag(values)`` with ``U^T B U = 1``; return falling values (k,), and U."""
    # with B = L L^T and W = L^T U it is the ordinary problem of C = L^-1 A L^-T
    L = jnp.linalg.cholesky(B)
    half = solve_triangular(L, A, lower=True)
    C = solve_triangular(L, half.T, lower=True)
    values, W = jnp.linalg.eigh(0.5 * (C + C.T))
    return values[::-1], solve_triangular(L, W[:, ::-1], lower=True, trans=1)


@partial(jax.jit, static_argnames="modes")
def _initial(key, X, modes):
    """Random layers (weights, biases); the first centres inputs and scales their variance to 1."""
    sizes = (X.shape[1], 64, 64, modes)
    layers = []
    for i, k in enumerate(random.split(key, 3)):
        w, b = random.split(k)
        scale = np.sqrt((3.0 if i < 2 else 1.0) / sizes[i])
        W = scale * random.normal(w, sizes[i : i + 2], X.dtype)
        layers.append((W, random.uniform(b, sizes[i + 1 : i + 2], X.dtype, -np.pi, np.pi)))
    spread = X.std(0)
    W = layers[0][0] / jnp.where(spread > 0, spread, 1.0)[:, None]  # constant columns stay
    layers[0] = (W, layers[0][1] - X.mean(0) @ W)
    layers[-1] = (layers[-1][0], jnp.zeros_like(layers[-1][1]))
    return layers


def _network(layers, X):
    """Outputs (n, k) of a network of sines at X (n, d)."""
    for W, b in layers[:-1]:
        X = jnp.sin(X @ W + b)
    W, b = layers[-1]
    return X @ W + b
