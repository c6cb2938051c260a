# SPDX-License-Identifier: Apache-2.0
"""One thread of LAPACK against as many as there are cores, in fresh processes.

JAX calls the LAPACK of SciPy, an OpenBLAS with threads of its own, beside those of XLA. Each line
is the same work in a process that has compiled it before; its seconds are those of the work alone.
"""

import os
import sys

from race import race
from timing import Fresh

START = """
import tempfile, time, warnings
warnings.simplefilter("ignore")
import numpyro
numpyro.enable_x64()
import jax
import jax.numpy as jnp
import numpy as np
import bayesrg as brg
"""
WORK = {
    "evidence and gradient, n = {n}": """
X = np.random.default_rng(0).standard_normal(({n}, 8))
y = np.sin(X.sum(1))
def evidence(theta):
    kernel = brg.kernels.RBF(jnp.exp(theta[:8]), jnp.exp(theta[8]))
    return brg.gp.marginal(kernel, X, jnp.exp(theta[9])).log_prob(y)
both = jax.jit(jax.value_and_grad(evidence))
def work():
    jax.block_until_ready(both(jnp.zeros(10)))
""",
    "fit of gp_regression": """
from bayesrg.models import gp_regression
data = gp_regression.demo(jax.random.key(0))
data = brg.data.Data(data.X[:{m}], data.y[:{m}])
def work():
    brg.fit(gp_regression.model, data, key=0, draws={d}, warmup={d}, chains=4, progress=False)
""",
    "main job of gp_regression": """
from bayesrg.models import gp_regression
data = gp_regression.demo(jax.random.key(0))
def work():
    brg.inference.coarse_grain(gp_regression.model, data, key=0, draws={d}, warmup={d}, chains=4,
                               prepare=gp_regression.prepare, progress=False)
""",
}
TIMED = """
work()
spent = []
for _ in range({repeats}):
    start = time.perf_counter()
    work()
    spent.append(time.perf_counter() - start)
t = time.perf_counter() - sorted(spent)[len(spent) // 2]
"""


def figures(options):
    """Yield names and records: evidence, `fit` and the main job at both settings."""
    sizes = {"n": 2000, "m": 200, "d": 200, "repeats": 3}
    if options.quick:
        sizes = {"n": 60, "m": 20, "d": 4, "repeats": 1}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for name, code in list(WORK.items())[: 1 if options.quick else None]:
        line = f"exec({(START + code + TIMED).format(**sizes)!r}, globals())"
        contenders = {
            f"{count} threads" if count > 1 else "one thread": Fresh(
                sys.executable,
                line,
                role,
                {"OPENBLAS_NUM_THREADS": str(count)},
                warm_up=not options.quick,
            )
            for count, role in ((1, "ours"), (max(cores, 2), "peer"))
        }
        title = f"Threads of LAPACK, {name.format(**sizes)}"
        yield name.split(",")[0], race(title, contenders, options.rounds)
