# SPDX-License-Identifier: Apache-2.0
"""Normal posterior of the weights of a model that is linear in them."""

import equinox as eqx
import jax.numpy as jnp
from jax import Array, random
from jaxtyping import Float

from . import _checks
from ._checks import ArrayLike


class LinearPosterior(eqx.Module):
    r"""Normal distribution of the weights w of a function :math:`f = Fw`, given observations.

    Attributes
    ----------
    mean : (k,), or (k, c) for c targets
    root : (k, k)
        A square root of the covariance, which is ``root @ root.T`` for every target.
    log_evidence : ()
        Log density of the observations with the weights integrated out, summed over targets;
        None if the weights were not fitted to observations.

    References
    ----------
    Rasmussen and Williams (2006), equations 2.7 to 2.11.
    """

    mean: Float[Array, "mode *output"]
    root: Float[Array, "mode mode_bis"]
    log_evidence: Float[Array, ""] | None = None

    @property
    def cov(self) -> Float[Array, "mode mode_bis"]:
        """Posterior covariance of w for each target, (k, k)."""
        return self.root @ self.root.T

    def predict(self, features: ArrayLike, ridge: ArrayLike = 0.0):
        """Return the mean (m,) or (m, c) and the variance (m,) of ``features @ w``.

        ``features`` is (m, k). The noise variance ``ridge`` is added to the variance.
        """
        features = _checks.finite("features", features, ndim=2)
        ridge = _checks.nonnegative("ridge", ridge, ndim=0)
        if features.shape[1] != self.mean.shape[0]:
            raise ValueError(
                f"features has {features.shape[1]} columns and the posterior {self.mean.shape[0]} "
                "weights; give the same features"
            )
        return features @ self.mean, ((features @ self.root) ** 2).sum(1) + ridge

    def sample(self, key: Array | int, draws: int = 1) -> Array:
        """Draw weights with ``key``: (draws, k) or (draws, k, c)."""
        key, draws = _checks.random_key(key), _checks.whole("draws", draws)
        white = random.normal(key, (draws, *self.mean.shape), self.mean.dtype)
        return self.mean + jnp.einsum("kl,dl...->dk...", self.root, white)
