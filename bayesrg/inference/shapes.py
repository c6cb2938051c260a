# SPDX-License-Identifier: Apache-2.0
"""Name the axes of sites, and refuse wrong shapes before anything is sampled."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.extend.core import Var
from numpyro.distributions import constraints

# Supports without parameters, as NumPyro's distributions share them.
_FIXED = (
    constraints.boolean,
    constraints.nonnegative_integer,
    constraints.positive_integer,
    constraints.nonnegative,
    constraints.positive,
    constraints.unit_interval,
)


def unwrap(fn):
    """Return the distribution inside plates and ``to_event``."""
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution):
        fn = fn.base_dist
    return fn


def axes(name, site):
    """Name the axes of a site: plates where they stand, then event axes, from the right."""
    plates = {frame.dim: frame for frame in site["cond_indep_stack"]}
    event = site.get("infer", {}).get("event_dims", [])
    event = [event] if isinstance(event, str) else list(event)
    if site["type"] == "deterministic":
        names = _of_deterministic(name, jnp.shape(site["value"]), plates, event)
        unnamed = f"{name}_axis"
    else:
        fn = site["fn"]
        event = event or list(getattr(unwrap(fn), "event_dims", ()))
        unnamed = "output" if event else f"{name}_axis"
        batch = len(fn.batch_shape)
        names = [plates[i - batch].name if i - batch in plates else None for i in range(batch)]
        names += [None] * (fn.event_dim - len(event)) + event[max(0, len(event) - fn.event_dim) :]

    # axes without a name get one of the site's, and the result can hold no slash and no name twice
    missing = [i for i, given in enumerate(names) if given is None]
    for count, i in enumerate(missing):
        names[i] = unnamed + "_bis" * count
    names = tuple(str(axis).replace("/", ".") for axis in names)
    twice = sorted({axis for axis in names if names.count(axis) > 1} | {"chain", "draw"} & {*names})
    if twice:
        raise ValueError(
            f"site {name!r} has the axes {names}: {', '.join(map(repr, twice))} is taken already; "
            "rename a plate or an entry of event_dims, and put no plate over the points of a "
            "Gaussian process, which are an axis of their own"
        )
    return names


def _of_deterministic(name, shape, plates, event):
    """Names of the axes of a deterministic site, None for an axis without a name.

    Plates lead its shape, or stand where they would stand in a sampled site.
    """
    frames = [plates[dim] for dim in sorted(plates)]
    lead = tuple(frame.size for frame in frames)
    if shape[: len(lead)] == lead:
        names = [frame.name for frame in frames] + event
    elif not event and all(-d <= len(shape) and shape[d] == f.size for d, f in plates.items()):
        names = [plates[i].name if i in plates else None for i in range(-len(shape), 0)]
    else:
        names = None
    if names is None or len(names) > len(shape):
        inside = ", ".join(f"{frame.name!r} of size {frame.size}" for frame in frames)
        raise ValueError(
            f"deterministic site {name!r} has shape {shape}, without an axis for each of "
            f"{inside or 'its event_dims'}{f' and {event}' if event and inside else ''}; give it "
            "those axes, or move it out of the plate"
        )
    return names + [None] * (len(shape) - len(names))


def refuse_broadcast(name, site):
    """Require that an observed value has one entry for each term of its density."""
    shape, law = jnp.shape(site["value"]), tuple(site["fn"].shape())
    try:
        if np.broadcast_shapes(shape, law) == shape:
            return
    except ValueError:  # they do not even broadcast
        pass
    within = [frame.name for frame in site["cond_indep_stack"]]
    hint = "give both one shape"
    if shape[-1:] == (1,) and law[-1:] != (1,):
        hint = "leave out the last axis of y, y[:, 0]"
    elif within and site["fn"].event_dim and law[len(law) - len(shape) :] == shape:
        hint = (
            f"take the site out of plate {', '.join(map(repr, within))}: the distribution has an "
            "axis for its points already"
        )
    raise ValueError(
        f"site {name!r} is observed with shape {shape} but its distribution has shape {law}: "
        f"NumPyro would broadcast them and may count numbers more than once; {hint}"
    )


def fixed_support(fn):
    """Return the support of an unwrapped distribution if it depends on no parameter, else None."""
    support = getattr(fn, "support", None)
    while hasattr(support, "base_constraint"):  # one for each point of a vector
        support = support.base_constraint
    return support if any(support is fixed for fixed in _FIXED) else None


def refuse_outside_support(name, kind, support, value):
    """Require observed values of a site within a support: counts, labels 0 and 1, positive numbers.

    ``kind`` names the distribution. Without a `fixed_support` nothing is checked.
    """
    value = np.asarray(value)
    outside = ~np.asarray(support(value)) if support is not None else np.zeros(())
    if outside.any():
        raise ValueError(
            f"site {name!r} is a {kind} and cannot have the observed value {value[outside][0]:g}, "
            f"the first of {outside.sum()} outside its support ({support}); change the data, e.g. "
            "labels to 0 and 1, or the distribution"
        )


def at_points(fn):
    """List the arrays of a Gaussian-process law that its kernel makes; they have no batch axis."""
    fn = getattr(fn, "prior", fn)
    names = ("features", "residual", "eigen")  # fields that the kernel and the points alone make
    return jax.tree.leaves([getattr(fn, name, None) for name in names])


def refuse_shared_kernel(program, structure, plates):
    """Refuse a kernel that a whole plate shares but that depends on what varies over the plate.

    If l (c,) is meant as one lengthscale per output and the inputs have c columns, then
    ``kernels.RBF(l)`` reads it as one per column. The kernel cannot tell the two apart, but the
    traced program that makes the kernel can: it shows whether the kernel depends on l.

    Parameters
    ----------
    program : traced model, a Jaxpr
    structure : of what it returns: latent sites and `at_points` of observed ones, by name, first
    plates : dict from a site to the names of its plates
    """
    latents, kernels, *_ = jax.tree.unflatten(structure, program.outvars)
    for site, parts in kernels.items():
        for latent, variable in latents.items():
            shared = sorted(plates[site] & plates[latent])
            if shared and _reach(program, variable, latents) & _known(parts):
                raise ValueError(
                    f"site {site!r} stands in plate {shared[0]!r}, over which {latent!r} varies, "
                    f"but its kernel is one for all and depends on {latent!r}: a kernel reads a "
                    "vector as one number per column. Give each entry of the plate a site of its "
                    f"own, or, if columns are meant, sample {latent!r} in another plate"
                )


def _known(variables):
    return {v for v in variables if isinstance(v, Var)}


def _reach(program, start, latents):
    """Return the variables of a program that depend on ``start`` other than through latent sites.

    A site whose prior depends on ``start`` has its own plates, which are looked at by themselves.
    """
    found = _known([start])
    stops = _known(latents.values()) - found
    for equation in program.eqns:
        if found & _known(equation.invars):
            found |= set(equation.outvars) - stops
    return found


def refuse_names(sites):
    """Refuse names that the result cannot tell apart, or that it uses itself."""
    stored = {"X": "the inputs"}
    for site in sites:
        name = site.name.replace("/", ".")
        if name in stored:
            raise ValueError(
                f"site {site.name!r} is stored as {name!r}, like {stored[name]}; rename the site"
            )
        stored[name] = f"site {site.name!r}"
