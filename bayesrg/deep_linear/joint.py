# SPDX-License-Identifier: Apache-2.0
"""Joint density of several outputs' targets and the random factors of their order parameter."""

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
    r"""Density of targets and Bartlett factors in coordinates without bounds; see `joint_of`.

    A point x (k,) holds for l = L..1 the logarithms of the squared diagonal ``c{l}`` and then the
    entries ``t{l}`` below it, :math:`k = LD(D+1)/2` for D outputs at any widths from D on.

    Attributes
    ----------
    widths : :math:`(N_1, ..., N_L)`
    outputs : D
    values : (r,) positive eigenvalues of the kernel
    targets : (r, D) targets in its eigenvectors, in units of the standard network
    ridge : () noise variance in these units
    constant : () log density of what no function can meet, and the change of units
    """

    widths: tuple[int, ...] = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    values: Float[Array, " mode"]
    targets: Float[Array, "mode output"]
    ridge: Float[Array, ""]
    constant: Float[Array, ""]

    @property
    def sizes(self):
        """Sizes of the random factors, from the readout down."""
        return bartlett_sizes(self.widths, self.outputs)

    @property
    def dof(self) -> Float[np.ndarray, " pivot"]:
        """Degrees of freedom of all squared diagonals, in their order in x."""
        return np.concatenate([np.empty(0), *(size.dof for size in self.sizes)])

    @property
    def dimension(self) -> int:
        """Length k of a point."""
        return sum(size.rank + size.normals for size in self.sizes)

    def split(self, x):
        """Logarithms of the squared diagonals and entries below them of x (..., k), both flat."""
        logs, normals, start = [x[..., :0]], [x[..., :0]], 0
        for size in self.sizes:
            middle, end = start + size.rank, start + size.rank + size.normals
            logs.append(x[..., start:middle])
            normals.append(x[..., middle:end])
            start = end
        return jnp.concatenate(logs, -1), jnp.concatenate(normals, -1)

    def join(self, logs, normals):
        """Undo `split`."""
        pieces, i, j = [logs[..., :0]], 0, 0
        for size in self.sizes:
            pieces += [logs[..., i : i + size.rank], normals[..., j : j + size.normals]]
            i, j = i + size.rank, j + size.normals
        return jnp.concatenate(pieces, -1)

    def latents(self, x) -> dict[str, Array]:
        """Squared diagonals ``c{l}``, all of them, and entries ``t{l}`` at x (..., k)."""
        result, start = {}, 0
        for size in self.sizes:
            middle, end = start + size.rank, start + size.rank + size.normals
            result[f"c{size.layer}"] = jnp.exp(x[..., start:middle])
            if size.normals:
                result[f"t{size.layer}"] = x[..., middle:end]
            start = end
        return result

    def log_prior(self, x):
        """Log density of x (k,), the Jacobian of the logarithms included."""
        logs, normals = self.split(x)
        half = jnp.asarray(self.dof / 2.0)
        gamma = half * (logs - np.log(2.0)) - 0.5 * jnp.exp(logs) - jax.lax.lgamma(half)
        return gamma.sum() - 0.5 * (normals**2 + np.log(2 * np.pi)).sum()

    def log_likelihood(self, x):
        """Log density of the targets given x (k,), in the units in which they were given."""
        Q, _ = order_parameter(self.widths, self.outputs, self.latents(x))
        eye = jnp.eye(self.outputs, dtype=Q.dtype)
        M = self.values[:, None, None] * Q + self.ridge * eye
        quad, log_det = quad_logdet(M, self.targets[:, None, :])
        rest = self.targets.size * np.log(2 * np.pi)
        return self.constant - 0.5 * (quad.sum() + log_det.sum() + rest)

    def log_density(self, x):
        """Log density of targets and x (k,) together."""
        return self.log_prior(x) + self.log_likelihood(x)

    def mode(self) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "k k_bis"]]:
        """Return the highest point found from two starts, and minus the Hessian there.

        Returns
        -------
        x : (k,)
        precision : (k, k) positive definite
        """
        energies = np.asarray(self.targets**2 / self.values[:, None])
        typical = np.log(max(energies.mean() if energies.size else 0.0, 1e-8))
        shifts = (0.0, max(typical / max(1, len(self.widths)), -5.0))

        # the prior, and the scale of the targets
        normals = jnp.full(self.dimension - self.dof.size, 0.1)
        starts = [self.join(jnp.log(self.dof) + shift, normals) for shift in shifts]
        energy = partial(_value_and_grad, self)
        x = least_point(energy, starts)
        root, V = np.linalg.eigh(hessian(energy, x))
        return x, (V * np.clip(root, 1e-6 * np.abs(root).max(initial=0.0), None)) @ V.T

    def laplace(self) -> float:
        """Log evidence by Laplace's method at the `mode`, in the units of the targets."""
        if not self.widths:
            return float(self.log_density(jnp.zeros(0)))
        x, precision = self.mode()
        log_det = np.linalg.slogdet(precision)[1]
        value = -float(_value_and_grad(self, x)[0])
        return float(value + 0.5 * (x.size * np.log(2 * np.pi) - log_det))


def joint_of(problems: list[Problem]) -> Joint:
    """Gather ``problems``, one per output, in a density in 64 bits.

    Returns
    -------
    Joint
    """
    _checks.require_x64("deep_linear with several outputs")
    first, c = problems[0], len(problems)
    missed = sum(p.missed for p in problems) / first.ridge if first.ridge else 0.0
    unseen = (first.points - first.values.size) * c
    outside = unseen * np.log(2 * np.pi * first.ridge) if unseen else 0.0
    units = first.points * c * float(np.log(first.output_scale))
    return Joint(
        first.widths, c, jnp.asarray(first.values),
        jnp.asarray(np.stack([p.target for p in problems], 1)), jnp.asarray(first.ridge),
        jnp.asarray(units - 0.5 * (missed + outside)),
    )  # fmt: skip


def _energy(joint, x):
    return -joint.log_density(x)


_value_and_grad = eqx.filter_jit(lambda joint, x: jax.value_and_grad(_energy, 1)(joint, x))
