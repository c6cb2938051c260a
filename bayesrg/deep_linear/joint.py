# SPDX-License-Identifier: Apache-2.0
"""Joint density of the targets of several outputs and the factors of their order parameter."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from scipy.special import gammaln

from .. import _checks
from .._fixedpoint import hessian, least_point
from .._linalg import quad_logdet
from .order import bartlett_sizes, order_parameter
from .problem import Problem


class Joint(eqx.Module):
    r"""Joint density of targets and Bartlett factors, in coordinates without bounds.

    A point x (k,) holds, for l = L..1, the logarithms of the squared diagonal ``c{l}`` and then the
    entries ``t{l}`` below the diagonal. For D outputs :math:`k = LD(D+1)/2` if all widths are at
    least D. ``problem`` has JAX arrays in 64 bits, as `joint_of` makes them.
    """

    problem: Problem

    @property
    def sizes(self):
        """Sizes of the random factors, from the last hidden layer to the first."""
        return bartlett_sizes(self.problem.widths, self.problem.outputs)

    @property
    def dof(self) -> Float[np.ndarray, " pivot"]:
        """Degrees of freedom of all squared diagonals, (k',), in their order in x."""
        return np.concatenate([size.dof for size in self.sizes])

    @property
    def squared(self) -> np.ndarray:
        """True for the coordinates that are logarithms of squared diagonals, (k,)."""
        return np.concatenate(
            [np.arange(size.rank + size.normals) < size.rank for size in self.sizes]
        )

    def split(self, x):
        """Split x (..., k) into logarithms of squared diagonals and entries below diagonals."""
        return x[..., self.squared], x[..., ~self.squared]

    def draws(self, rng, count):
        """Draw ``count`` points (count, k) of the prior with a NumPy generator."""
        x = rng.standard_normal((count, self.squared.size))
        x[:, self.squared] = np.log(rng.chisquare(self.dof, (count, self.dof.size)))
        return x

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
        powers = 0.5 * (self.dof * logs - jnp.exp(logs)).sum() - 0.5 * (normals**2).sum()
        return powers + self.log_front()

    def log_front(self):
        """Return the logarithm of the constant in front of the prior density."""
        half, normals = self.dof / 2.0, self.squared.size - self.dof.size
        gamma = -half * np.log(2.0) - gammaln(half)
        return gamma.sum() - 0.5 * normals * np.log(2 * np.pi)

    def terms(self, x):
        """Return both terms of -2 log likelihood at x (k,), the second log |C|, and Q (c, c)."""
        problem = self.problem
        Q, _ = order_parameter(problem.widths, problem.outputs, self.latents(x))
        noise = problem.ridge * jnp.eye(problem.outputs, dtype=Q.dtype)
        M = problem.values[:, None, None] * Q + noise
        quad, log_det = quad_logdet(M, problem.targets[:, None, :])

        # Add what the range of the kernel leaves out, where there is only noise.
        log_det = log_det.sum() + problem.outputs * problem.log_det_outside
        log_det = log_det + problem.targets.size * np.log(2 * np.pi)
        return quad.sum() + problem.outside.sum(), log_det, Q

    def log_likelihood(self, x):
        """Return the log density of the targets given x (k,), in the units of the user's y."""
        misfit, log_det, _ = self.terms(x)
        count = self.problem.points * self.problem.outputs
        return count * self.problem.log_scale - 0.5 * (misfit + log_det)

    def least(self, counts, occam=True):
        """Return the least point (k,) of the energy, and the function `_energy` of x, on the host.

        The least point is the better one of those found from two starts. The first start is
        typical of the prior. In the second the squared diagonals are scaled so that the order
        parameter has the size of the targets.
        """
        flag = jnp.asarray(float(occam))

        def energy(x):
            return tuple(np.asarray(v) for v in _energy(self, counts, flag, x))

        targets, values = (np.asarray(v) for v in (self.problem.targets, self.problem.values))
        energies = targets**2 / values[:, None]
        typical = np.log(max(energies.mean() if energies.size else 0.0, 1e-8))
        shift = max(typical / len(self.problem.widths), -5.0)
        x = np.full(self.squared.size, 0.1)
        x[self.squared] = np.log(counts)
        return least_point(lambda x: energy(x)[:2], [x, x + shift * self.squared]), energy

    def mode(self):
        """Return the point (k,) of highest density, minus the Hessian (k, k), log density ()."""
        x, energy = self.least(self.dof)
        root, V = np.linalg.eigh(hessian(energy, x))
        precision = (V * np.clip(root, 1e-6 * np.abs(root).max(), None)) @ V.T
        units = self.problem.points * self.problem.outputs * float(self.problem.log_scale)
        return x, precision, float(self.log_front() + units - energy(x)[0])

    def laplace(self) -> float:
        """Return the log evidence by Laplace's method at the `mode`, in units of the user's y."""
        x, precision, density = self.mode()
        return density + 0.5 * (x.size * np.log(2 * np.pi) - np.linalg.slogdet(precision)[1])


@eqx.filter_jit
def _energy(joint, counts, occam, x):
    r"""Return the energy at x (k,), its gradient (k,), and the order parameter (c, c).

    For logarithms a of squared diagonals and entries t the energy is
    :math:`\frac12[\sum_i(e^{a_i} - n_ia_i) + \sum_jt_j^2]` minus the log likelihood, whose
    determinant counts ``occam`` times. With the degrees of freedom as ``counts`` n (k',) this is
    minus the log joint density up to a constant, and with the widths it is the action.
    """

    def energy(x):
        logs, normals = joint.split(x)
        misfit, log_det, Q = joint.terms(x)
        prior = (jnp.exp(logs) - counts * logs).sum() + (normals**2).sum()
        return 0.5 * (prior + misfit + occam * log_det), Q

    (value, Q), gradient = jax.value_and_grad(energy, has_aux=True)(x)
    return value, gradient, Q


def joint_of(problem: Problem) -> Joint:
    """Return the `Joint` density of a problem that has NumPy arrays; it needs 64-bit floats."""
    _checks.require_x64("deep_linear with several outputs")
    # only predictions use the kernel: without it one compiled program serves all kernels
    return Joint(dataclasses.replace(problem, kernel=None, loadings=None).as_jax())
