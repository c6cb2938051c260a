# SPDX-License-Identifier: Apache-2.0
"""Which values of a traced model depend on which of its sites."""

import jax
import jax.numpy as jnp
from jax.extend.core import Var
from numpyro import handlers
from numpyro.infer.initialization import init_to_sample
from numpyro.primitives import Messenger

from .action import UNNORMALISED

# equations that are one call of an inner program with the same inputs and outputs
_CALLS = {"jit", "pjit", "closed_call", "checkpoint", "custom_jvp_call"}


def known(variables):
    """Return the set of ``variables`` without literals, which are not variables."""
    return {v for v in variables if isinstance(v, Var)}


def reach(program, start, stops=frozenset()):
    """Return the variables of a program that depend on ``start``, itself included.

    A variable in ``stops`` is not entered, so what depends on ``start`` only through it is left
    out. An output of a loop or of a condition counts as dependent if any input is; inside
    ``jax.jit`` inputs and outputs are followed one by one.

    Parameters
    ----------
    program : Jaxpr
    start : variables
    stops : set of variables
    """
    found = known(start)
    for equation in program.eqns:
        inputs = known(equation.invars)
        if found & inputs:
            found |= _touched(equation, found) - stops
    return found


def _touched(equation, found):
    """Return the outputs of one equation that depend on the variables ``found``."""
    inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    inner = getattr(inner, "jaxpr", inner)
    if equation.primitive.name not in _CALLS or inner is None:
        return set(equation.outvars)
    pairs = zip(equation.invars, inner.invars, strict=True)
    inside = reach(inner, [i for o, i in pairs if isinstance(o, Var) and o in found])
    pairs = zip(equation.outvars, inner.outvars, strict=True)
    return {o for o, i in pairs if isinstance(i, Var) and i in inside}


def check_strengths(program, latents, strengths):
    """Raise if the strength of an action factor depends on a latent site.

    Parameters
    ----------
    program : the traced model, a Jaxpr
    latents : dict from the name of each latent site to the variable that is its value
    strengths : dict from the name of each action factor to the variable that is its strength
    """
    for latent, value in latents.items():
        others = known(latents.values()) - known([value])
        found = reach(program, [value], others) if strengths else set()
        for site, strength in strengths.items():
            if isinstance(strength, Var) and strength in found:
                here = f"that of the factor {site!r} depends on the latent site {latent!r}"
                raise ValueError(UNNORMALISED.format(here))


class Without(Messenger):
    """Run a model with some of its latent sites left out.

    Each gets a value drawn with one fixed key, and no other handler sees the site.
    """

    def __init__(self, fn, names):
        super().__init__(fn)
        self.names = names

    def process_message(self, message):
        if message["name"] in self.names:
            message["kwargs"] = message["kwargs"] | {"rng_key": jax.random.key(0)}
            message["stop"] = True


def idle_sites(bound, X) -> frozenset[str]:
    """Return the names of the latent sites of ``model(X, None)`` that no factor depends on.

    Such are the targets, and what only these depend on. The integral over them is one, so the
    normaliser of the prior does not change if they are left out.
    """

    def run():
        model = handlers.substitute(handlers.seed(bound, 0), substitute_fn=init_to_sample)
        sites = handlers.trace(model).get_trace(X, None)
        sites = {name: site for name, site in sites.items() if site["type"] == "sample"}
        latent = [name for name, site in sites.items() if not site["is_observed"]]
        values = {name: sites[name]["value"] for name in latent}
        terms = {}
        for name, site in sites.items():
            scale = 1.0 if site["scale"] is None else site["scale"]
            terms[name] = jnp.sum(scale * site["fn"].log_prob(site["value"]))
        return values, terms

    try:
        program, shapes = jax.make_jaxpr(run, return_shape=True)()
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"the model fails with y=None ({type(error).__name__}: "
            f"{str(error).split(chr(10))[0]}); give y, or make the "
            "model accept None, e.g. with obs=None if y is None else y.T"
        ) from error
    program = program.jaxpr
    values, terms = jax.tree.unflatten(jax.tree.structure(shapes), program.outvars)

    reached = {name: reach(program, [value]) for name, value in values.items()}
    needed, new = set(), {name for name in terms if name not in values}
    # the densities of ``new`` are kept, so the sites that these depend on must be kept as well
    while new:
        kept = {v for name in new for v in known([terms[name]])}
        new = {name for name in values if name not in needed and reached[name] & kept}
        needed |= new
    return frozenset(values) - needed
