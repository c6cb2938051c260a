# SPDX-License-Identifier: Apache-2.0
"""Predictions at new inputs from the draws of a posterior."""

import json
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .. import _checks, io
from .._callables import Held, hold
from .._checks import ArrayLike
from ..io.labels import read_group, stored
from .sites import bind, fingerprint, law, layout_of, one_at_a_time, over_draws

_ROWS = 500  # new rows predicted at a time, which bounds the memory


@one_at_a_time
def predict(
    dt: xr.DataTree,
    model: Callable,
    X_new: ArrayLike,
    *,
    key: jax.Array | int,
    site: str | None = None,
    **hyper,
) -> xr.DataTree:
    """Predict the function and observations of a fitted model at new inputs, for every draw.

    Parameters
    ----------
    dt : DataTree
        Result of `fit`. Its posterior draws, inputs and observations are used.
    model : callable
        The model that was fitted.
    X_new : (m, d)
        New inputs.
    key : JAX key or int
    site : str, optional
        Name of the observed site to predict; needed if the model has several.
    **hyper
        The hyper-arguments that were given to `fit`.

    Returns
    -------
    DataTree
        Two groups, with arrays (chain, draw, [output,] point_new):

        - ``predictions``: ``f``, a draw of the function without noise, and ``y``, a draw of an
          observation. If ``X_new`` is X itself, this group is ``posterior_predictive``, and the
          last dimension is point.
        - ``predictive_moments``: ``mean`` and ``variance`` of f at each draw of the parameters.

    Raises
    ------
    ValueError
        For inputs of the wrong width, a site that does not exist, hyper-arguments that differ
        from those of the fit, a latent site whose draws the fit did not keep (``store``), or a
        model that samples a function point by point.

    Notes
    -----
    - A coarse model with the exact rule is conditioned on the observations, so its marginalised
      modes are predicted too. With another rule only the low modes predict, and the variance of
      the others is added.
    - Each point is drawn from its own marginal distribution, so a prediction does not depend on
      the other rows. For joint draws see `bayesrg.gp.Posterior.sample`.
    - For a site that is not a Gaussian process ``f`` is its mean. Other observed sites are drawn
      again.
    - For a `bayesrg.gp.LaplaceMarginal` ``f`` is the latent function, and ``y`` is drawn from the
      likelihood at ``f``.

    References
    ----------
    Rasmussen and Williams (2006), equations 2.25 and 2.26.
    """
    posterior = read_group(dt, "posterior")
    X = jnp.asarray(read_group(dt, "constant_data", "X")["X"].to_numpy())
    X_new = _checks.finite("X_new", X_new, ndim=X.ndim)
    shape = (max(1, X_new.shape[0]), *X.shape[1:])
    X_new = _checks.shaped("X_new", X_new, shape, "at least one point, with the columns of the fit")
    key = _checks.random_key(key)
    bound = bind(model, hyper)
    _check_hyper(dt, hyper)
    seen = read_group(dt, "observed_data")
    if site is None and len(seen) == 1:
        (site,) = seen
    y = seen[_checks.choice("site", site, list(seen))]

    # names in the result differ from those that the model uses; ``given`` has the latter
    layout = layout_of(bound, X, None)
    names = {stored(name): name for name in layout.dims}
    if site not in names:
        raise ValueError(
            f"model has no site {site!r}, which the fit observed; give the fit's model"
        )
    for name in layout.latents:
        if name in dt.attrs.get("left_out", "").split(", "):
            raise ValueError(
                f"the fit did not keep the latent site {name!r}, which predictions need; fit again "
                "with store= that names it"
            )
    given = {name: stored(name) for name in layout.latents if stored(name) in posterior}
    rows = {"point", "white", *layout.dims[names[site]][-1:]}
    _check_predictable({name: layout.dims[name] for name in given}, rows)
    latents = {name: jnp.asarray(posterior[there].to_numpy()) for name, there in given.items()}

    lead = tuple(posterior.sizes[axis] for axis in ("chain", "draw"))
    keys, rows = jax.random.split(key, lead), jnp.arange(X_new.shape[0])
    held, data, parts = hold(bound), (X, jnp.asarray(y.to_numpy())), []
    for i in range(0, X_new.shape[0], _ROWS):
        new = X_new[i : i + _ROWS], rows[i : i + _ROWS]
        parts.append(jax.device_get(_predicted(held, names[site], data, new, (latents, keys))))
    mean, variance, f, observed = (np.concatenate(x, -1) for x in zip(*parts, strict=True))

    own = X_new.shape == X.shape and bool((X_new == X).all())
    point = "point" if own else "point_new"
    ours = "point" if "point" in y.dims else y.dims[-1]  # a plate may have another name
    dims = (*(d for d in y.dims if d != ours), point)
    groups = {
        "posterior_predictive" if own else "predictions": {"f": f, "y": observed},
        "predictive_moments": {"mean": mean, "variance": variance},
        "constant_data" if own else "predictions_constant_data": {"X": X_new},
    }
    axes = dict.fromkeys(("f", "y", "mean", "variance"), dims)
    axes["X"] = (point, "feature")[: X.ndim]
    return io.to_datatree(groups, axes, attrs=dict(dt.attrs))


@eqx.filter_jit
def _predicted(bound: Held, site, data, new, draws):
    """Return mean, variance and a draw of the function at new rows, and a draw of y.

    Each has one entry per posterior draw. A site that is not a Gaussian process has no function:
    its mean is returned for it. ``new`` are the new inputs and their indices, ``draws`` the latent
    sites and a key for each draw.
    """
    bound, (X, y), (X_new, rows) = bound.open(), data, new
    together, n = jnp.concatenate([X, X_new]), X.shape[0]

    def at(draw):
        latents, key = draw
        fn = law(bound, together, latents, site)
        if hasattr(fn, "krige"):
            if fn.event_shape[:1] != together.shape[:1]:
                raise ValueError(
                    f"site {site!r} has {fn.event_shape[0]} points at {together.shape[0]} inputs; "
                    "the model must make its distribution from the X that it receives"
                )
            mean, variance, noise = fn.krige(y)
            if fn.event_dim == 2:  # several outputs in one distribution: put the points last
                mean, variance = (jnp.swapaxes(x, -1, -2) for x in (mean, variance))

            # each row by itself: correlations with the other rows would need their covariance
            f, white = _draw(key, rows, mean, variance)
            observed = f + jnp.sqrt(noise) * white
            if hasattr(fn, "likelihood"):
                # the likelihood is one of all points: pad the n training points, then drop them
                whole = jnp.concatenate([jnp.zeros(mean.shape[:-1] + (n,)), observed], -1)
                observed = fn.likelihood(whole).sample(key)[..., n:].astype(mean.dtype)
            return mean, variance, f, observed

        if fn.event_dim:
            raise ValueError(
                f"site {site!r} has the law {type(fn).__name__} and no function to predict: its "
                "points depend on each other, and predict conditions only Gaussian processes of "
                "this package, such as gp.MercerNormal; for new data sample the distribution at "
                "draws of the posterior"
            )

        shape = y.shape[:-1] + together.shape[:1]
        observed = fn.expand(shape).sample(key)[..., n:].astype(X.dtype)
        mean = jnp.broadcast_to(fn.mean, shape)[..., n:].astype(X.dtype)
        return mean, jnp.zeros_like(mean), mean, observed

    return over_draws(at, draws)


def _draw(key, rows, mean, variance):
    """Return a draw of the function at each row, and white noise for its observation.

    Each row has its own key, made from its index, so a draw does not depend on the other rows.
    """

    def row(index):
        return jax.random.normal(jax.random.fold_in(key, index), (2,) + mean.shape[:-1], mean.dtype)

    white = jax.vmap(row, out_axes=-1)(rows)
    return mean + jnp.sqrt(variance) * white[0], white[1]


def _check_predictable(dims, rows):
    """Raise if a latent site has an axis of the training points: it has no value elsewhere."""
    for name, axes in dims.items():
        if not {"point", "white"} & set(axes) and rows & set(axes):
            raise ValueError(
                f"site {name!r} has one value per {axes[-1]} of the fit, so there is no function "
                "to predict at other inputs; compute what you need from the posterior draws"
            )
        if rows & set(axes):
            raise ValueError(
                f"site {name!r} holds a function at the training points, so the model has no "
                "value at other points; condition on the draws of the function, e.g. with "
                "gp.marginal(prior, [X, X_new], jitter).krige(f), or integrate the function out "
                "with gp.LaplaceMarginal"
            )


def _check_hyper(dt, hyper):
    """Raise if hyper-arguments differ from those whose fingerprint the fit stored."""
    was, now = json.loads(dt.attrs["hyper"]), json.loads(fingerprint(hyper))
    differing = sorted(k for k in was.keys() | now.keys() if was.get(k) != now.get(k))
    if differing:
        raise ValueError(
            f"hyper-argument {', '.join(map(repr, differing))} differs from the fit's; give "
            "predict the same hyper-arguments as fit"
        )
