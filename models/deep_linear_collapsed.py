# SPDX-License-Identifier: Apache-2.0
"""Deep linear network, its order parameter alone sampled: as many latents at any width.

c_l ~ Gamma((N_l - i) / 2, 1/2), t_l ~ Normal(0, 1)     Bartlett factor B_l, l = L..1
G_l = G_{l+1} B_l / sqrt(N_l),  Q = G_1 G_1^T
y | Q ~ Normal(0, K (x) Q + ridge I)                    K = S X X^T / N_0

The density is that of deep_linear with the weights integrated out.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import bayesrg as brg
from bayesrg.models import deep_linear
from bayesrg.theory.deep_linear.observed import check_observed, noiseless
from bayesrg.theory.deep_linear.order import bartlett_sizes, order_parameter
from bayesrg.theory.deep_linear.weights import input_kernel

demo = deep_linear.demo


def model(
    X, y=None, *, widths=(8, 6), ridge=0.1, outputs=1, weight_scales=1.0,
    parametrisation="standard", richness=1.0, spectrum=None, eigen=None,
):  # fmt: skip
    """Wire the sites.

    Parameters
    ----------
    X : (n, d)
    y : (n,) for one output, (n, c) for several, optional
    widths : (N_1, ..., N_L)
    ridge : noise variance
    outputs : c
    weight_scales, parametrisation, richness : of `bayesrg.networks.DeepLinear`
    spectrum : of the input kernel, optional; then `bayesrg.rg.Coarse` can cut its modes
    eigen : from `prepare`, optional; spares a factorisation at every step
    """
    options = {"outputs": outputs, "weight_scales": weight_scales, "richness": richness}
    net = deep_linear.network(widths, ridge, parametrisation=parametrisation, **options)
    y, latents = check_observed(net, X, y, weights=False), {}
    for size in bartlett_sizes(net.widths, outputs):
        squares = dist.Gamma(jnp.asarray(size.pivots / 2), 0.5)
        latents |= _site(f"c{size.layer}", squares, "pivot")
        white = dist.Normal(0.0, 1.0).expand((size.entries,))
        latents |= _site(f"t{size.layer}", white, "entry")
    Q, chain = order_parameter(net.widths, outputs, latents)
    with numpyro.plate("output", outputs, dim=-2), numpyro.plate("output_bis", outputs, dim=-1):
        numpyro.deterministic("Q", Q)
    prior = input_kernel(net, X.shape[1]) if spectrum is None else spectrum
    noise, factor = net.noise_variance, chain[0] if chain else None
    if outputs == 1 and not noiseless(ridge):  # the law that every rule of a cut knows
        law = brg.gp.marginal(prior, X, noise, scale=Q[0, 0], eigen=eigen)
    else:
        law = brg.gp.matrix_marginal(prior, X, noise, Q, factor=factor, eigen=eigen)
    numpyro.sample("y", law, obs=None if y is None else y.reshape(law.event_shape))


def _site(name, fn, dim):
    if fn.batch_shape == (0,):
        return {}
    return {name: numpyro.sample(name, fn.to_event(1), infer={"event_dims": [dim]})}


def prepare(data, *, spectrum=None, **hyper):
    """Eigenpairs of the input kernel at X, made once, outside the sampler."""
    if spectrum is not None:
        return {"eigen": spectrum.at(data.X).eigenpairs()}
    prior = input_kernel(deep_linear.network(**hyper), data.X.shape[1])
    return {"eigen": brg.gp.eigenpairs(data.X, jnp.full(data.X.shape[1], prior.variance))}


def exact(data, *, eigen=None, **hyper):
    """Posterior means of the order parameter and its factors, and the evidence."""
    net = deep_linear.network(**hyper)
    excess = brg.theory.deep_linear.exact(net, data.X, data.y).layer_excess
    factors = {f"c{i}": excess + width for i, width in enumerate(net.widths, 1)}
    return factors | deep_linear.exact(data, **hyper)
