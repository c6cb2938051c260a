# SPDX-License-Identifier: Apache-2.0
"""Evidence of a dense kernel and its gradient in all parameters, against peers and LAPACK.

The kernel has one lengthscale for each of 8 inputs. The floor is the work that every method of
this kind needs: a Cholesky factor and its inverse, by LAPACK through SciPy.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tinygp
from evidence_peers import INPUTS, problem
from peers import python_of
from race import Call, Worker, race
from scipy.linalg import lapack
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as sk

from bayesrg import gp, kernels

HERE = Path(__file__).parent


def split(theta):
    return jnp.exp(theta[:INPUTS]), *jnp.exp(theta[INPUTS:])


def ours(kernel, theta, X, y):
    length, variance, noise = split(theta)
    return gp.marginal(getattr(kernels, kernel)(length, variance), X, noise).log_prob(y)


def by_tinygp(kernel, theta, X, y):
    length, variance, noise = split(theta)
    shape = {"RBF": "ExpSquared", "Matern12": "Exp"}.get(kernel, kernel)
    distance = tinygp.kernels.distance.L2Distance()
    form = variance * getattr(tinygp.kernels, shape)(distance=distance)
    return tinygp.GaussianProcess(form, X / length, diag=noise).log_probability(y)


PROFILES = {
    "RBF": lambda r2: jnp.exp(-0.5 * r2),
    "Matern12": lambda r2: jnp.exp(-root(r2)),
    "Matern32": lambda r2: (1 + root(3 * r2)) * jnp.exp(-root(3 * r2)),
    "Matern52": lambda r2: (1 + root(5 * r2) + 5 * r2 / 3) * jnp.exp(-root(5 * r2)),
}


def root(r2):
    return jnp.where(r2 > 0, jnp.sqrt(jnp.where(r2 > 0, r2, 1.0)), 0.0)


def plain(kernel, theta, X, y):
    """The formula in JAX as it stands in a textbook."""
    length, variance, noise = split(theta)
    Z = X / length
    K = variance * PROFILES[kernel](((Z[:, None] - Z[None]) ** 2).sum(-1)) + noise * jnp.eye(len(y))
    L = jnp.linalg.cholesky(K)
    white = jax.scipy.linalg.solve_triangular(L, y, lower=True)
    return -white @ white / 2 - jnp.log(jnp.diag(L)).sum() - len(y) / 2 * jnp.log(2 * jnp.pi)


def compiled(function, role, *args):
    """Return a contender: value and gradient in the first argument, compiled as one program."""
    program = jax.jit(jax.value_and_grad(function)).lower(*args).compile()
    return Call(
        lambda: jax.block_until_ready(program(*args)),
        role=role,
        answer=lambda r: np.append(r[0], r[1]),
        reserved=program.memory_analysis().temp_size_in_bytes,
    )


def scikit_learn(theta, X, y):
    length, (variance, noise) = np.exp(theta[:INPUTS]), np.exp(theta[INPUTS:])
    kernel = sk.ConstantKernel(variance) * sk.RBF(length) + sk.WhiteKernel(noise)
    model = GaussianProcessRegressor(kernel, optimizer=None, alpha=0.0).fit(X, y)
    at = model.kernel_.theta

    def call():
        return model.log_marginal_likelihood(at, eval_gradient=True, clone_kernel=False)

    def answer(result):
        value, (variance, *lengths, noise) = result[0], result[1]
        return [value, *lengths, variance, noise]

    return Call(call, answer=answer)


def factor_and_inverse(kernel, theta, X):
    """Return the floor: potrf and potri of this covariance, in place."""
    length, variance, noise = split(theta)
    K = getattr(kernels, kernel)(length, variance)(X) + noise * jnp.eye(len(X))
    K = np.asfortranarray(K)

    def call(A):
        factor, failed = lapack.dpotrf(A, lower=1, clean=0, overwrite_a=1)
        assert not failed
        lapack.dpotri(factor, lower=1, overwrite_c=1)

    return Call(call, role="floor", before=lambda: (K.copy(order="F"),))


def workers(kernel, n, wanted):
    found, notes = [], []
    for peer in ("gpytorch", "gpjax") if wanted else ():
        python, reason = python_of(peer)
        if python is None:
            notes.append(f"{peer} is left out: {reason}")
        else:
            size = [f"--n={n}", f"--kernel={kernel}"]
            found.append(Worker(python, HERE / "evidence_peers.py", f"{peer}_evidence", *size))
    return found, notes


def figures(options):
    """Yield names and records: RBF at three sizes, and Matern kernels beside it."""
    sizes = [60] if options.quick else [500, 2000, 4000]
    for n in sizes:
        for kernel in ("RBF", "Matern52", "Matern32", "Matern12"):
            if (options.quick or n == 4000) and kernel not in ("RBF", "Matern52"):
                continue
            X, y, theta = map(jnp.asarray, problem(n))
            forms = {"bayesrg": (ours, "ours"), "tinygp": (by_tinygp, "peer")}
            forms["plain JAX"] = (plain, "other")
            contenders = {
                name: compiled(partial(form, kernel), role, theta, X, y)
                for name, (form, role) in forms.items()
            }
            if kernel == "RBF" and n <= 2000:
                contenders["scikit-learn"] = scikit_learn(*problem(n)[2:], *problem(n)[:2])
            if kernel != "RBF":
                contenders["bayesrg, RBF"] = compiled(partial(ours, "RBF"), "other", theta, X, y)
                contenders["bayesrg, RBF"].answer = None
            contenders["LAPACK potrf + potri"] = factor_and_inverse(kernel, theta, X)
            others, notes = workers(kernel, n, options.peers)
            title = f"Evidence and gradient, {kernel} with 8 lengthscales, n = {n}"
            notes.append(f"One n x n array has {8 * n * n / 2**20:.1f} MiB.")
            yield (
                f"{kernel} {n}",
                race(title, contenders, options.rounds, workers=others, rough=1e-5, notes=notes),
            )
