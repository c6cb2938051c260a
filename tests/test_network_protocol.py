# SPDX-License-Identifier: Apache-2.0
"""One face for all networks: init, white_shapes, weights, layers, apply."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesrg import networks, theory


def of_first(weights):
    return weights[0][:, :2] / 2


SCALES = (0.5, 2.0, 1.5)
NETWORKS = {  # what makes a network, the shape of one input, the shape of the outputs at it
    "DeepLinear": (
        lambda: networks.DeepLinear((4, 3), ridge=0.1, outputs=2, weight_scales=SCALES), (5,), 2
    ),
    "Rainbow": (lambda: networks.Rainbow((4, 3), (np.diag([1.0, 2, 3, 4, 5]), of_first)), (5,), 3),
    "ConvLinear": (
        lambda: networks.ConvLinear((3, 2), (3, 2), (2, 1), ridge=0.1, weight_scales=SCALES),
        (2, 7), 1,
    ),
}  # fmt: skip


def test_every_network_is_here():
    made = {
        name
        for name in networks.__all__
        if isinstance(getattr(networks, name), type)
        and issubclass(getattr(networks, name), networks.Network)
    }
    assert made - {"Network"} == set(NETWORKS)
    assert theory.deep_linear.ConvLinear is networks.ConvLinear


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network(name):
    make, size, outputs = NETWORKS[name]
    net = make()
    inputs = size if len(size) > 1 else size[0]
    shapes, n, draws = net.white_shapes(inputs), 6, 4000
    X = np.random.default_rng(0).standard_normal((n, *size))

    # weights, layers and outputs have their shapes, and the last layer is the output
    white = [np.random.default_rng(1).standard_normal((draws, *shape)) for shape in shapes]
    keys = jax.random.split(jax.random.key(0), draws)

    @jax.jit
    def both(keys, white):
        drawn = jax.vmap(lambda key: net.init(key, inputs))(keys)
        made = jax.vmap(lambda *z: net.weights(z, inputs))(*white)
        W = [w[0] for w in made]
        return drawn, made, net.layers(W, X), net.apply(W, X)

    drawn, made, layers, f = both(keys, white)
    assert len(drawn) == len(made) == len(shapes)
    assert layers[0].shape == X.shape and {h.shape[0] for h in layers} == {n}
    assert len(layers) == 1 + len(shapes) and f.shape == (n, outputs)
    np.testing.assert_array_equal(layers[-1], f)

    # weights(white) has the law of init: means, second and fourth moments of every entry
    for a, b in zip(drawn, made, strict=True):
        assert a.shape == b.shape
        for power in (1, 2, 4):
            x, z = np.asarray(a) ** power, np.asarray(b) ** power
            error = np.sqrt((x.var(0) + z.var(0)) / draws)
            assert (np.abs(x.mean(0) - z.mean(0)) < 5 * error).all()
        x, z = (np.asarray(w).reshape(draws, -1) for w in (a, b))
        error = np.sqrt(2 * np.outer((x**2).mean(0), (x**2).mean(0)) * 3 / draws)
        assert (np.abs(x.T @ x - z.T @ z) / draws < 5 * error).all()

    # one draw repeats, and wrong shapes are named
    again = net.init(0, inputs)
    np.testing.assert_array_equal(again[0], net.init(jax.random.key(0), inputs)[0])
    with pytest.raises(ValueError, match=f"white has 1 arrays for {len(shapes)} layers"):
        net.weights([jnp.zeros(shapes[0])], inputs)
    with pytest.raises(ValueError, match=r"weights\[0\] has shape \(1,\); give .*, as init does"):
        net.apply((jnp.zeros(1), *again[1:]), X)
    with pytest.raises(ValueError, match=f"weights has 1 arrays for {len(shapes)} layers; give"):
        net.layers(again[:1], X)
