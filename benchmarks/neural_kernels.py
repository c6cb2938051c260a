# SPDX-License-Identifier: Apache-2.0
"""Gram matrices of wide networks: covariance and tangent kernel, against peers and one product.

A relu network with three hidden layers in 64 bits. The floor is the matrix product X X^T that every
kernel of inner products needs. Two numbers of memory are measured in a separate process: what the
compiled program reserves in addition to inputs and result; and the peak of the process minus what
it held before and minus the result.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import jax
import jax.numpy as jnp
import numpy as np
from peers import python_of
from race import Call, Worker, others_busy, race, serve, table, when

DEPTH, WEIGHT, BIAS = 3, 2.0, 0.1
BLOCK = 2**26  # bytes of the tiles


def inputs(n, d):
    return jnp.asarray(np.random.default_rng(0).standard_normal((n, d)))


def bayesrg(block_bytes, method="both"):
    from bayesrg import kernels  # the environment of the peer lacks it

    return getattr(kernels.NTK(DEPTH, "relu", WEIGHT, BIAS, block_bytes=block_bytes), method)


@jax.jit
def plain(X):
    """Compute both kernels by the plain recursion, in whatever memory it takes."""
    K = WEIGHT / X.shape[1] * X @ X.T + BIAS
    theta = K
    for _ in range(DEPTH):
        a = jnp.diagonal(K)
        area = jnp.sqrt(jnp.maximum(a[:, None] * a - K**2, 0.0))
        angle = jnp.arctan2(area, K)
        slope = WEIGHT * (jnp.pi - angle) / (2 * jnp.pi)
        K = WEIGHT * (area + (jnp.pi - angle) * K) / (2 * jnp.pi) + BIAS
        theta = K + slope * theta
    return K, theta


def neural_tangents():
    from neural_tangents import stax

    layers = []
    for _ in range(DEPTH):
        layers += [stax.Dense(1, W_std=WEIGHT**0.5, b_std=BIAS**0.5), stax.Relu()]
    layers.append(stax.Dense(1, W_std=WEIGHT**0.5, b_std=BIAS**0.5))
    kernel = jax.jit(stax.serial(*layers)[2], static_argnames="get")
    return lambda X: kernel(X, None, get=("nngp", "ntk"))


def contender(function, X, role):
    """Return a call whose answer is the first rows and columns of both kernels."""
    return Call(
        lambda: jax.block_until_ready(function(X)),
        role=role,
        answer=lambda result: np.ravel([np.asarray(v)[:3, :3] for v in result]),
    )


def gram(options):
    """Time both kernels at rows of as many inputs as an image of digits has."""
    n, d = (100, 784) if options.quick else (2000, 784)
    X, notes, workers = inputs(n, d), [], []
    product = jax.jit(lambda X: X @ X.T)
    contenders = {
        "bayesrg, both": contender(bayesrg(BLOCK), X, "ours"),
        "plain JAX, both": contender(plain, X, "other"),
        "X @ X.T": Call(lambda: jax.block_until_ready(product(X)), role="floor"),
    }
    python, reason = python_of("neural-tangents") if options.peers else (None, "")
    if python:
        workers = [Worker(python, __file__, f"--n={n}", f"--d={d}")]
    elif reason:
        notes = [f"neural-tangents is left out: {reason}"]
    title = f"NNGP and NTK, n = {n}, {d} inputs, {DEPTH} hidden layers"
    given = {"workers": workers, "notes": notes, "tolerance": 1e-6}
    return race(title, contenders, options.rounds, **given)


def memory(options):
    """Compare the memory of one large tangent kernel with its budget, in a process of its own."""
    n, d = (300, 784) if options.quick else (10_000, 784)
    sizes = ["--memory", f"--n={n}", f"--d={d}"]
    out = subprocess.run([sys.executable, __file__, *sizes], check=True, stdout=subprocess.PIPE)
    row = json.loads(out.stdout.splitlines()[-1])
    text = f"The budget is {BLOCK / 2**20:.0f} MiB, the result has {8 * n * n / 2**20:.0f} MiB."
    row |= {"role": "ours"}
    record = {"rows": {"bayesrg, NTK": row}, "notes": [text], "busy": others_busy(), **when()}
    record["title"] = f"Memory of an NTK, n = {n}, {d} inputs"
    print(f"\n{record['title']}", *table(record), sep="\n", flush=True)
    return record


def measure_memory(options):
    """Print what one tangent kernel takes beyond its inputs and its result."""
    kernel, X = bayesrg(BLOCK, "__call__"), inputs(options.n, options.d)
    program = jax.jit(kernel).lower(X).compile()
    reserved = program.memory_analysis().temp_size_in_bytes
    call = Call(lambda: jax.block_until_ready(program(X)), role="ours", reserved=reserved)
    found = call.first()
    found["peak"] = found["peak"] and found["peak"] - 8 * options.n**2
    print(json.dumps(found | {k: [v] for k, v in call.round().items()}))


def figures(options):
    """Yield names and records of both figures."""
    yield "gram", gram(options)
    yield "memory", memory(options)


def main():
    parser = argparse.ArgumentParser(description="Time neural-tangents, or measure memory.")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--d", type=int, default=784)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if options.memory:
        return measure_memory(options)
    X = inputs(options.n, options.d)
    name = f"neural-tangents 0.6.5 (jax {jax.__version__}), both"
    serve({name: contender(neural_tangents(), X, "peer")})


if __name__ == "__main__":
    main()
