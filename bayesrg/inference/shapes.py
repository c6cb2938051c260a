# SPDX-License-Identifier: Apache-2.0
"""Names of the axes of sites, and checks of shapes before anything is sampled."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ..io.labels import stored
from .dependence import known, reach

# Supports that have no parameters. Each is one object, shared by all distributions of NumPyro.
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
    """Return the names of the axes of a site.

    Batch axes are named by their plates, event axes by ``event_dims``. These are aligned on the
    right, so that if a name is missing, it is missing on the left.
    """
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

    # an axis without a name gets one made of the site's name; the result allows no slash in a name
    # and no name twice
    missing = [i for i, given in enumerate(names) if given is None]
    for count, i in enumerate(missing):
        names[i] = unnamed + "_bis" * count
    names = tuple(stored(str(axis)) for axis in names)
    twice = sorted({axis for axis in names if names.count(axis) > 1} | {"chain", "draw"} & {*names})
    if twice:
        raise ValueError(
            f"site {name!r} has the axes {names}: {', '.join(map(repr, twice))} is taken already; "
            "rename a plate or an entry of event_dims, and put no plate over the points of a "
            "Gaussian process, which are an axis of their own"
        )
    return names


def _of_deterministic(name, shape, plates, event):
    """Return the names of the axes of a deterministic site, None for an axis without a name.

    Its value may have the axes of plates first, or where a sampled site would have them.
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


def check_shape(name, site):
    """Raise if an observed value does not have the shape of its distribution.

    NumPyro would broadcast the two, and the density would count some values more than once.
    """
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
            f"take the site out of plate {', '.join(map(repr, within))}, because the distribution "
            "already has an axis for its points"
        )
    raise ValueError(
        f"site {name!r} is observed with shape {shape} but its distribution has shape {law}: "
        f"NumPyro would broadcast them and may count values more than once; {hint}"
    )


def check_factor(name, site):
    """Raise if an action factor stands in a plate, which would count it once per entry."""
    for frame in site["cond_indep_stack"]:
        raise ValueError(
            f"the action factor {name!r} stands in plate {frame.name!r}, so NumPyro would count it "
            f"{frame.size} times; take it out of the plate"
        )


def fixed_support(fn):
    """Return the support of an unwrapped distribution, or None if it depends on parameters."""
    support = getattr(fn, "support", None)
    while hasattr(support, "base_constraint"):  # a vector whose entries have this support each
        support = support.base_constraint
    return support if any(support is fixed for fixed in _FIXED) else None


def check_support(name, kind, support, value):
    """Raise if an observed value lies outside the support of its distribution.

    Supports are counts, labels 0 and 1, or positive numbers. ``kind`` is the name of the
    distribution. If ``support`` is None, nothing is checked.
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
    """List the arrays of a Gaussian process that its kernel has computed at the points.

    They have no batch axis: a plate shares them.
    """
    fn = getattr(fn, "prior", fn)
    names = ("features", "residual", "eigen")  # fields made from the kernel and the points only
    return jax.tree.leaves([getattr(fn, name, None) for name in names])


def check_kernels(program, structure, plates):
    """Raise if one kernel is shared by a plate but depends on a site that varies over this plate.

    Example: l (c,) is meant as one lengthscale per output, and the inputs happen to have c columns.
    Then ``kernels.RBF(l)`` takes l as one lengthscale per column. The kernel cannot see the
    mistake. The traced program can: it shows that the kernel depends on l.

    Parameters
    ----------
    program : the traced model, a Jaxpr
    structure : tree structure of what ``program`` returns. Its first two entries are dicts by name:
        values of the latent sites, and `at_points` of the observed sites.
    plates : dict from the name of a site to the names of its plates
    """
    latents, kernels, *_ = jax.tree.unflatten(structure, program.outvars)
    for site, parts in kernels.items():
        for latent, variable in latents.items():
            shared = sorted(plates[site] & plates[latent])
            # a latent site whose prior depends on this one has its own plates, checked by itself
            others = known(latents.values()) - known([variable])
            if shared and reach(program, [variable], others) & known(parts):
                raise ValueError(
                    f"site {site!r} stands in plate {shared[0]!r}, over which {latent!r} varies, "
                    f"but the whole plate shares one kernel that depends on {latent!r}: a kernel "
                    "takes a vector as one number per column. Give each entry of the plate its own "
                    f"site, or, if columns are meant, sample {latent!r} in another plate"
                )


def distinct(dims, shapes):
    """Return the names of the axes of all sites, such that a result can hold them.

    If two sites give axes of the same name different lengths, the name of the site is prefixed.

    Parameters
    ----------
    dims : dict from the name of each site to the names of its axes
    shapes : dict from the name of each site to the shape of its value

    Raises
    ------
    ValueError
        If two sites would have the same name in the result, or if a site is called "X" or like an
        axis.
    """
    lengths = {}
    for site, names in dims.items():
        for name, length in zip(names, shapes[site], strict=False):
            lengths.setdefault(name, set()).add(length)
    found = {}
    for site, names in dims.items():
        prefix = stored(site).removesuffix("_modes")
        found[site] = tuple(f"{prefix}_{n}" if len(lengths.get(n, ())) > 1 else n for n in names)

    taken, owners = {"chain", "draw"}.union(*found.values()), {"X": "the inputs"}
    for site in found:
        name = stored(site)
        if name in taken:
            raise ValueError(
                f"site {site!r} is called like an axis of the result; give it another name"
            )
        if name in owners:
            raise ValueError(
                f"site {site!r} is stored as {name!r}, like {owners[name]}; rename the site"
            )
        owners[name] = f"site {site!r}"
    return found
