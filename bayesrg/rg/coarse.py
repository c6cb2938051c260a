# SPDX-License-Identifier: Apache-2.0
"""A coarse-graining step as a NumPyro reparameterisation."""

from collections.abc import Callable

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.handlers import reparam
from numpyro.infer.reparam import Reparam

from .. import _checks
from .._checks import ArrayLike
from ..gp.effective import RULES


class Coarse(Reparam):
    r"""Split a Gaussian-process site into explicit low modes and the likelihood given these.

    The site ``name`` becomes two sites. ``name_modes`` (..., cutoff) are the low modes, a priori
    standard normal. ``name`` has the function made of them as its mean, and noise that contains the
    eliminated modes. With the c outputs of a `bayesrg.gp.MatrixMercerNormal`, ``name_modes`` is
    (..., cutoff, c).

    Parameters
    ----------
    cutoff : int
        Number of modes kept explicit. With 0 no site is added.
    rule : str
        What replaces the eliminated modes: "exact" (their covariance matrix; evidence and
        posteriors do not change), "local" (its diagonal), "dressed" (a ridge to all orders in their
        learnability), "universal" (their total variance), "truncate" (nothing).
    n : int, optional
        Number of training points, the first rows of the site; all by default.
    eigen : (vectors, eigenvalues), optional
        Eigenpairs of the eliminated part, from `bayesrg.gp.eigenpairs`, for rule "exact". With them
        no step of a sampler factorises a matrix.
    max_dense : int
        Largest number of points for which every evaluation may factorise a matrix.
    centered : bool
        True: ``name`` stays a random variable, given the low modes. It can be observed or
        integrated out. False: for a latent function, whose likelihood is another site. Then
        ``name`` is deterministic, computed from the low modes and from ``name_white`` (..., n), a
        priori standard normal, which stands for all that is not a low mode.

    Raises
    ------
    ValueError
        On use, for a site that cannot be split, a masked distribution, a cutoff out of range, or
        an observed site under ``centered=False``.

    Notes
    -----
    Each member of a batch (plate, ``expand``, ``to_event``, batched parameters) has its own modes.
    A distribution can be cut if it has a method ``split(cutoff, rule, n=, eigen=, max_dense=)``
    that returns the columns of the low modes and the distribution of the rest, and if the latter
    has a method ``shift(mean)``.

    Under the exact rule a latent site keeps its distribution for every cutoff, with ``centered``
    True or False. The ridge of a latent site is the variance of an independent part of the function
    at each point, such as a jitter of 1e-6. The model sets it, and `Coarse` adds nothing to it. To
    integrate the eliminated modes out of a likelihood that is not Gaussian see
    `bayesrg.gp.LaplaceMarginal`.

    References
    ----------
    arXiv 2405.06008, equations 33 and 34.

    Examples
    --------
    `bayesrg.rg.coarsen` applies `Coarse` to a model, here to the site ``y``:

    >>> from bayesrg import rg
    >>> from bayesrg.models.gp_regression import model
    >>> coarse = rg.coarsen(model, y=rg.Coarse(32, "local"))
    """

    def __init__(
        self,
        cutoff: int,
        rule: str = "exact",
        *,
        n: int | None = None,
        eigen: tuple[ArrayLike, ArrayLike] | None = None,
        max_dense: int = 1000,
        centered: bool = True,
    ):
        self.cutoff = _checks.whole("cutoff", cutoff, least=0)
        self.rule = _checks.choice("rule", rule, RULES)
        self.centered = _checks.flag("centered", centered)
        if eigen is not None and rule != "exact":
            raise ValueError(f'eigen belongs to rule="exact", not to {rule!r}; leave it out')
        n = n if n is None else _checks.whole("n", n)
        max_dense = _checks.whole("max_dense", max_dense, least=0)
        self.given = {"n": n, "eigen": eigen, "max_dense": max_dense}

    def __call__(self, name, fn, obs):
        """Return the new distribution of site ``name`` and its value, drawing the low modes."""
        base, batch, event_dim = self._unwrap(fn)
        self._check(name, base, obs)
        root, rest = base.split(self.cutoff, self.rule, **self.given)
        outer = event_dim - base.event_dim  # axes of `to_event`

        def white(kind, axis, size):
            """Draw standard-normal variables, and name their axes for ArviZ."""
            shape = (size, *base.event_shape[1:])
            fn = dist.Normal(jnp.zeros((), root.dtype), 1.0).expand((*batch, *shape))
            names = [axis, *getattr(base, "event_dims", ())[1:]]
            names = [d for d in ("output", "output_bis") if d not in names][:outer] + names
            return numpyro.sample(
                f"{name}_{kind}", fn.to_event(outer + len(shape)), infer={"event_dims": names}
            )

        if self.cutoff:
            modes = white("modes", "mode", self.cutoff)
            if hasattr(rest, "_given"):  # it keeps the functions of the modes apart
                rest = rest._given(root, modes)
            else:
                many = base.event_dim > 1
                rest = rest.shift(root @ modes if many else (root @ modes[..., None])[..., 0])
        if not self.centered:
            return None, rest.colour(white("white", "white", base.event_shape[0]))
        return self._wrap(rest, batch, event_dim), obs

    def _check(self, name, base, obs):
        """Raise if a site with distribution ``base`` cannot be cut."""
        if self.rule == "exact":
            _checks.require_x64('rg.Coarse with rule="exact"')
        kind = f"site {name!r} is a {type(base).__name__}"
        if isinstance(base, dist.MaskedDistribution):
            raise ValueError(
                f"site {name!r} is masked, and a mask would act on the whole vector of points; "
                "leave the masked rows out of the data instead"
            )
        if not hasattr(base, "split"):
            raise ValueError(
                f"{kind}, which has no modes to keep; take a gp.MercerNormal that was not cut yet"
            )
        if not self.centered and obs is not None:
            raise ValueError(
                f"site {name!r} is observed or has a value, so it cannot be made of white noise; "
                "leave centered=True, or observe another site that depends on it"
            )
        if not self.centered and not hasattr(base, "colour"):
            raise ValueError(f"{kind}, whose function is integrated out; leave centered=True")


class coarsen(reparam):  # noqa: N801
    """Apply a `Coarse` to each of the named sites of a model.

    Plain ``handlers.reparam`` with the same sites does the same, but it does nothing, or fails with
    a message of its own, in the cases that raise here.

    Parameters
    ----------
    model : callable
    **sites : Coarse
        One for each site to cut, by name.

    Returns
    -------
    callable
        The model with its arguments unchanged.

    Raises
    ------
    ValueError
        When the model runs: for a site it does not have (also one inside ``handlers.scope``, or
        with an ``obs_mask``), and for a site that is cut twice.
    """

    def __init__(self, model: Callable | None = None, **sites: Reparam):
        if model is not None:
            _checks.function("model", model, "a NumPyro model")
        for name, site in sites.items():
            _checks.instance(f"site {name!r}", site, Coarse, "given an rg.Coarse")
        self._met: set[str] = set()
        self._seen: list[str] = []
        super().__init__(model, config=sites)

    def __enter__(self):
        self._met, self._seen = set(), []
        return super().__enter__()

    def __exit__(self, exc_type, exc_value, traceback):
        result = super().__exit__(exc_type, exc_value, traceback)
        missing = sorted(set(self.config) - self._met)
        if exc_type is None and missing:
            raise ValueError(
                f"the model has no site {', '.join(map(repr, missing))} to coarse-grain, only "
                f"{', '.join(map(repr, self._seen)) or 'none'}; mind handlers.scope, which renames "
                "sites: put it outside"
            )
        return result

    def process_message(self, msg):
        """Cut the site of a message if it was asked for."""
        if msg["type"] != "sample":
            return
        name = msg["name"]
        self._seen.append(name)
        observed = name.removesuffix("_observed")
        if observed != name and observed in self.config:
            raise ValueError(
                f"site {observed!r} has an obs_mask, so NumPyro splits it in two; leave the "
                "missing rows out of the data instead"
            )
        if name not in self.config:
            return
        if msg.get("coarse"):
            raise ValueError(f"site {name!r} is cut twice; give it one Coarse")
        super().process_message(msg)
        if msg["type"] == "deterministic":  # NumPyro keeps the plates, not the other axes
            outer = msg["value"].ndim - len(msg["cond_indep_stack"]) - 1
            msg["infer"] = {"event_dims": ["output", "output_bis"][:outer] + ["point"]}
        msg["coarse"] = True
        self._met.add(name)
