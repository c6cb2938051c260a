# SPDX-License-Identifier: Apache-2.0
"""Joint density of the targets of several outputs and the factors of their order parameter."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._fixedpoint import hessian, least_point
from .._linalg import quad_logdet
from .order import bartlett_sizes, order_parameter
from .problem import Problem


class Joint(eqx.Module):
    r"""Joint density of targets and Bartlett factors, in coordinates without bounds.

    A point x (k,) holds, for l = L..1, the logarithms of the squared diagonal ``c{l}`` and then the
    entries ``t{l}`` below the diagonal. For D outputs :math:`k = LD(D+1)/2` if all widths are at
    least D.

    Attributes
    ----------
    problem : Problem
        With JAX arrays in 64 bits, as `joint_of` makes them.
    """

    problem: Problem

    @property
    def sizes(self):
        """Sizes of the random factors, from the last hidden layer to the first."""
        return bartlett_sizes(self.problem.widths, self.problem.outputs)

    @property
    def dof(self) -> Float[np.ndarray, " pivot"]:
        """Degrees of freedom of all squared diagonals, (k',), in their order in x."""
        return np.concatenate([np.empty(0), *(size.dof for size in self.sizes)])

    @property
    def squared(self) -> np.ndarray:
        """True for the coordinates that are logarithms of squared diagonals, (k,)."""
        parts = [np.arange(size.rank + size.normals) < size.rank for size in self.sizes]
        return np.concatenate([np.empty(0, bool), *parts])

    @property
    def dimension(self) -> int:
        """Length k of a point."""
        return self.squared.size

    def split(self, x):
        """Split x (..., k) into logarithms of squared diagonals and entries below diagonals."""
        return x[..., self.squared], x[..., ~self.squared]

    def join(self, logs, normals):
        """Join logarithms of squared diagonals and entries below diagonals to points (..., k)."""
        places = np.concatenate([np.flatnonzero(self.squared), np.flatnonzero(~self.squared)])
        return jnp.concatenate([logs, normals], -1)[..., np.argsort(places)]

    def latents(self, x) -> dict[str, Array]:
        """Return the squared diagonals ``c{l}`` and the entries ``t{l}`` at x (..., k), a dict."""
        result, start = {}, 0
        for size in self.sizes:
            middle, end = start + size.rank, start + size.rank + size.normals
            result[f"c{size.layer}"] = jnp.exp(x[..., start:middle])
            if size.normals:
                result[f"t{size.layer}"] = x[..., middle:end]
            start = end
        return result

    def log_prior(self, x):
        """Return the prior log density of x (k,), with the Jacobian of the logarithms."""
        logs, normals = self.split(x)
        half = jnp.asarray(self.dof / 2.0)
        gamma = half * (logs - np.log(2.0)) - 0.5 * jnp.exp(logs) - jax.lax.lgamma(half)
        return gamma.sum() - 0.5 * (normals**2 + np.log(2 * np.pi)).sum()

    def terms(self, x):
        """Return the two terms of -2 log likelihood at x (k,): quadratic form, log determinant."""
        problem = self.problem
        Q, _ = order_parameter(problem.widths, problem.outputs, self.latents(x))
        noise = problem.ridge * jnp.eye(problem.outputs, dtype=Q.dtype)
        M = problem.values[:, None, None] * Q + noise
        quad, log_det = quad_logdet(M, problem.targets[:, None, :])

        # Add what the range of the kernel leaves out, where there is only noise.
        log_det = log_det.sum() + problem.outputs * problem.log_det_outside
        log_det = log_det + problem.targets.size * np.log(2 * np.pi)
        return quad.sum() + problem.outside.sum(), log_det

    def log_likelihood(self, x):
        """Return the log density of the targets given x (k,), in the units of the user's Y."""
        misfit, log_det = self.terms(x)
        units = self.problem.points * self.problem.outputs * jnp.log(self.problem.output_scale)
        return units - 0.5 * (misfit + log_det)

    def log_density(self, x):
        """Return the joint log density of the targets and x (k,)."""
        return self.log_prior(x) + self.log_likelihood(x)

    def mode(self) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "k k_bis"]]:
        """Return the highest point found from two starts, and minus the Hessian at that point.

        Returns
        -------
        x : (k,)
        precision : (k, k) positive definite
        """
        energy = partial(_value_and_grad, self)
        x = least_point(energy, self.starts(jnp.log(self.dof)))
        root, V = np.linalg.eigh(hessian(energy, x))
        return x, (V * np.clip(root, 1e-6 * np.abs(root).max(initial=0.0), None)) @ V.T

    def starts(self, logs):
        """Return two points to start a search from.

        The first has the logarithms ``logs`` of squared diagonals. In the second they are shifted
        so that the order parameter has the scale of the targets.
        """
        problem = self.problem
        energies = np.asarray(problem.targets**2 / problem.values[:, None])
        typical = np.log(max(energies.mean() if energies.size else 0.0, 1e-8))
        shift = max(typical / max(1, len(problem.widths)), -5.0)
        normals = jnp.full(self.dimension - self.dof.size, 0.1)
        return [self.join(logs, normals), self.join(logs + shift, normals)]

    def laplace(self) -> float:
        """Return the log evidence by Laplace's method at the `mode`, in units of the user's Y."""
        if not self.problem.widths:
            return float(self.log_density(jnp.zeros(0)))
        x, precision = self.mode()
        log_det = np.linalg.slogdet(precision)[1]
        value = -float(_value_and_grad(self, x)[0])
        return float(value + 0.5 * (x.size * np.log(2 * np.pi) - log_det))


def joint_of(problem: Problem) -> Joint:
    """Return the `Joint` density of a problem that has NumPy arrays; it needs 64-bit floats."""
    _checks.require_x64("deep_linear with several outputs")
    return Joint(problem.as_jax())


def _energy(joint, x):
    return -joint.log_density(x)


_value_and_grad = eqx.filter_jit(lambda joint, x: jax.value_and_grad(_energy, 1)(joint, x))
