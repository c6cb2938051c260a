# SPDX-License-Identifier: Apache-2.0
"""Extremes that are valid and must not be refused: changes to the problems of the fuzz script."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

X = np.linspace(-1.0, 1.0, 6).reshape(6, 1) * np.array([1.0, 0.5])
EDGES = [dict(ridge=0.0), dict(n=1e-3), dict(n=1e12), dict(n=np.int64(7)), dict(tail=0.0),
         dict(values=[1.0], degeneracy=[1]), dict(values=np.zeros(4)), dict(values=[1, 1, 1, 1]),
         dict(degeneracy=[1, 3, 5, 7])]  # fmt: skip
KEYS = [dict(key=np.uint32(3)), dict(key=np.array(3)), dict(key=jnp.asarray(3)), dict(key=-1),
        dict(key=jax.random.PRNGKey(0)), dict(key=jax.random.key(0)),
        dict(key=2**63 - 1)]  # fmt: skip
VALID = {
    "kernels.RBF": [dict(lengthscale=1e-8), dict(lengthscale=1e8), dict(lengthscale=[1.0, 2.0]),
                    dict(variance=1e-30), dict(variance=np.float32(2)), dict(lengthscale=3)],
    "kernels.Linear": [dict(bias=0), dict(variance=1e10)],
    "kernels.NNGP": [dict(depth=0), dict(depth=np.int8(2)), dict(depth=np.array(2)), dict(skip=0),
                     dict(bias_var=0), dict(layernorm=np.False_), dict(block_bytes=1),
                     dict(weight_var=[1.0, 2.0, 3.0])],
    "kernels.Kernel": [dict(X=X[:1]), dict(X=[[1, 2]]), dict(X=pd.DataFrame(X)),
                       dict(X=xr.DataArray(X)), dict(X=1e8 * X), dict(X=np.zeros((6, 2))),
                       dict(X=X.astype(np.float16)), dict(X=X > 0), dict(X=list(map(list, X))),
                       dict(X=np.ma.masked_array(X)), dict(X=X[::-1]), dict(X=np.asfortranarray(X)),
                       dict(X=jnp.asarray(X)), dict(Z=X[:1]), dict(Z=None)],
    "kernels.Kernel.__mul__": [dict(other=0), dict(other=np.float32(2)), dict(other=jnp.ones(()))],
    "kernels.Kernel.on": [dict(columns=[1, 0]), dict(columns=-1), dict(columns=np.int32(0))],
    "kernels.random_features": KEYS + [dict(units=1), dict(units=np.int64(2))],
    "kernels.critical_point": [dict(bias_var=0), dict(bracket=[1e-3, 1e3]),
                               dict(bracket=np.array([0.01, 100]))],
    "spectrum.nystrom": [dict(rank=0), dict(rank=np.int64(1)), dict(rank=None), dict(rtol=0),
                         dict(X_ref=X[:1], rank=1), dict(X_ref=pd.Series([1, 2, 3]))],
    "spectrum.fourier": [dict(modes=1), dict(modes=np.int64(2))],
    "spectrum.sphere": [dict(degree=0), dict(explicit=True), dict(radius=1e3)],
    "spectrum.maps.scale": [dict(c=0), dict(c=1e12)],
    "spectrum.maps.lift": [dict(r=1), dict(r=np.int64(4))],
    "gp.condition": [dict(ridge=np.full(6, 0.1)), dict(ridge=1e6), dict(mean=None),
                     dict(y=np.zeros(6)), dict(y=np.arange(6)), dict(y=np.eye(6)),
                     dict(y=[True, False, True, False, True, False]),
                     dict(X=[[0, 0]] * 6), dict(y=pd.Series(range(6)))],
    "gp.Posterior.sample": [*KEYS[:4], dict(draws=1), dict(draws=np.int64(1))],
    "gp.Posterior.predict": [dict(Z=X[:1]), dict(noise=np.True_)],
    "gp.MercerNormal": [dict(residual=None), dict(scale=0.0), dict(ridge=1e-10)],
    "gp.PriorAt.eigenpairs": [dict(cutoff=0), dict(cutoff=np.int64(4))],
    "networks.DeepLinear": [dict(widths=1), dict(widths=[3, 2]), dict(widths=np.array([3])),
                            dict(ridge=0), dict(widths=(np.int64(2),))],
    "networks.train": [dict(epochs=np.int64(2)), dict(every=None), dict(batch=1)],
    "dynamics.step_count": [dict(rates=0.0), dict(tol=1e-300), dict(step_size=1e9)],
    "dynamics.LinearDynamics.residual": [dict(t=0), dict(t=np.inf), dict(t=[0, 1, 2])],
    "rg.effective_ridge": EDGES, "rg.learnability": EDGES,
    "rg.cutoff": [dict(threshold=1e-9), dict(threshold=0.999), dict(ridge=0), dict(scan="uv")],
    "rg.dressed_ridge": [dict(cutoff=0), dict(cutoff=4), dict(cutoff=[0, 4]),
                         dict(cutoff=np.array([1, 2], np.uint8))],
    "theory.learning_curve": [dict(label_noise=0), dict(n=[1, 2, 3]), dict(power=[1, 0, 0, 0])],
    "theory.ridge_equivalent": [dict(n=0.0), dict(ridge=np.inf), dict(noise_variance=None)],
    "theory.gcv": [dict(ridge=0), dict(ridge=[0.0, 1.0, 1e9])],
    "theory.hermite": [dict(variance=0), dict(variance=[0, 1]), dict(mean=-3)],
    "theory.learning_curve_mc": [dict(n=[1, 2]), dict(n=np.array(3)), dict(poisson=np.True_)],
    "residual.Residual.apply": [dict(X=pd.DataFrame(X)), dict(X=np.ones((4, 2), int)),
                                dict(X=[[1, 2]])],
    "residual.wasserstein": [dict(max_points=None, key=None), dict(max_points=np.int64(2)),
                             dict(x=X, z=pd.DataFrame(X[::-1])), dict(x=X[:, 0], z=X[::-1, 1])],
    "residual.layer_action": [dict(weights=[1, 2, 3, 0]), dict(weights=pd.Series([1, 2, 3, 4])),
                              dict(per_feature=np.True_)],
    "data.load": [*KEYS[:3], dict(n=np.int64(1)), dict(task=(0, 1)), dict(task=None, n=1795)],
}  # fmt: skip
