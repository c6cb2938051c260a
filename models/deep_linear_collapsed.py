# SPDX-License-Identifier: Apache-2.0
"""Deep linear network, weights integrated out: only the order parameter is sampled.

c_l ~ Gamma((N_l - i) / 2, 1/2), t_l ~ Normal(0, 1)     Bartlett factor B_l, l = L..1
G_l = G_{l+1} B_l / sqrt(N_l),  Q = G_1 G_1^T
y | Q ~ Normal(0, K (x) Q + ridge I)                    K = S X X^T / N_0

K (x) Q is the Kronecker product, (N_0, N_1, ...) are the widths and S is the product of all s_l^2.
The number of latent variables does not depend on the widths. y has the same density as in
deep_linear. arXiv 2406.03260.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import bayesrg as brg
from bayesrg.models import deep_linear

demo = deep_linear.demo


def model(
    X,
    y=None,
    *,
    widths=(8, 6),
    ridge=0.1,
    outputs=1,
    weight_scales=1.0,
    parametrisation="standard",
    richness=1.0,
    spectrum=None,
    eigen=None,
):
    """Sample the Bartlett factors c1, t1, c2, ... of the order parameter Q and observe y.

    Parameters
    ----------
    X : (n, d)
    y : (n,) for one output, (n, c) for several, optional
    widths : (N_1, ..., N_L), units of the hidden layers
    ridge : noise variance
    outputs : number c of outputs
    weight_scales, parametrisation, richness : see `bayesrg.networks.DeepLinear`
    spectrum : spectrum of the input kernel, optional; with it `bayesrg.rg.Coarse` can cut modes
    eigen : eigenpairs from `prepare`, optional; no step of the sampler then factorises a matrix
    """
    options = {"outputs": outputs, "weight_scales": weight_scales, "richness": richness}
    net = deep_linear.network(widths, ridge, parametrisation=parametrisation, **options)
    y = brg.deep_linear.check_observed(net, X, y, weights=False)

    latents = bartlett_sites(brg.deep_linear.bartlett_sizes(net.widths, outputs))
    Q, chain = brg.deep_linear.order_parameter(net.widths, outputs, latents)
    with numpyro.plate("output", outputs, dim=-2), numpyro.plate("output_bis", outputs, dim=-1):
        numpyro.deterministic("Q", Q)

    prior = net.input_kernel(X.shape[1]) if spectrum is None else spectrum
    variance, factor = net.noise_variance, chain[0] if chain else None
    if outputs == 1 and not brg.deep_linear.noiseless(ridge):  # a cut can use every rule
        law = brg.gp.marginal(prior, X, variance, scale=Q[0, 0], eigen=eigen)
    else:
        law = brg.gp.matrix_marginal(prior, X, variance, Q, factor=factor, eigen=eigen)
    numpyro.sample("y", law, obs=None if y is None else y.reshape(law.event_shape))


def bartlett_sites(sizes):
    """Sample the Bartlett factors of ``sizes``; return a dict, without vectors that are empty."""
    latents = {}
    for size in sizes:
        squares = dist.Gamma(jnp.asarray(size.pivots / 2), 0.5)
        normals = dist.Normal(0.0, 1.0).expand((size.entries,))
        for name, law, dim in (("c", squares, "pivot"), ("t", normals, "entry")):
            if law.batch_shape != (0,):
                name, infer = f"{name}{size.layer}", {"event_dims": [dim]}
                latents[name] = numpyro.sample(name, law.to_event(1), infer=infer)
    return latents


def prepare(data, *, spectrum=None, **hyper):
    """Return the eigenpairs of the input kernel at X as a hyper-argument, made once."""
    if spectrum is not None:
        return {"eigen": spectrum.at(data.X).eigenpairs()}
    prior = deep_linear.network(**hyper).input_kernel(data.X.shape[1])
    return {"eigen": brg.gp.eigenpairs(data.X, jnp.full(data.X.shape[1], prior.variance))}


def exact(data, *, eigen=None, **hyper):
    """Return the log evidence and the posterior means of Q, f and the pivots, for one output."""
    net = deep_linear.network(**hyper)
    excess = brg.deep_linear.exact(net, data.X, data.y).layer_excess
    factors = {f"c{i}": excess + width for i, width in enumerate(net.widths, 1)}
    return factors | deep_linear.exact(data, **hyper)
