# SPDX-License-Identifier: Apache-2.0
"""Gram matrices of wide networks: covariance and tangent kernel, against peers and one product.

A relu network with three hidden layers in 64 bits. Ratios are to the first line, the matrix product
X X^T that every kernel of inner products needs. All contenders must agree. Two numbers of memory
are printed: what the compiled program reserves in addition to inputs and result; and the peak of a
separate process, compilation included, minus what it held before and minus the result.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np

HERE = Path(__file__).resolve().parent
PEER = HERE / ".venv-neural-tangents"
PINS = "jax[cpu]==0.4.23", "numpy<2", "scipy<1.12", "neural-tangents==0.6.5"
DEPTH, WEIGHT, BIAS = 3, 2.0, 0.1


def inputs(n, d):
    return jnp.asarray(np.random.default_rng(0).standard_normal((n, d)))


def bayesrg(block_bytes):
    from bayesrg import kernels

    return kernels.NTK(DEPTH, "relu", WEIGHT, BIAS, block_bytes=block_bytes).both


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


def seconds(function, X):
    start = time.perf_counter()
    result = jax.block_until_ready(function(X))
    return time.perf_counter() - start, result


def peer_environment():
    """Return the Python of neural-tangents' environment, or None and the reason."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    pythons = sorted(versions.glob("3.10.*/bin/python"))
    if not pythons:
        return None, f"no Python 3.10 in {versions}"
    python = PEER / "bin" / "python"
    if not (PEER / "complete").exists():
        make = [pythons[-1], "-m", "venv", "--clear", PEER]
        fill = [python, "-m", "pip", "install", "-qq", "--only-binary", ":all:", *PINS]
        try:
            for command in (make, fill):
                subprocess.run(command, check=True, timeout=900)
        except (OSError, subprocess.SubprocessError) as error:
            return None, str(error)
        (PEER / "complete").touch()
    return python, ""


def serve(options):
    """Write K and Theta of a few rows, then the seconds of one call for every line read."""
    function, X = neural_tangents(), inputs(options.n, options.d)
    _, result = seconds(function, X)
    print(json.dumps([np.asarray(v[:3, :3]).tolist() for v in result]), flush=True)
    for _ in sys.stdin:
        print(seconds(function, X)[0], flush=True)


def peer(options):
    """Start the process of neural-tangents; its first line has numbers to compare."""
    python, reason = peer_environment()
    if python is None:
        print(f"neural-tangents is left out: {reason}")
        return None
    command = [python, __file__, "--worker", f"--n={options.n}", f"--d={options.d}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, text=True, **pipes)


def timings(options):
    X = inputs(options.n, options.d)
    contenders = {
        "X @ X.T": jax.jit(lambda X: X @ X.T),
        "bayesrg, both": bayesrg(options.block_bytes),
        "plain JAX, both": plain,
    }
    results = {name: seconds(function, X)[1] for name, function in contenders.items()}
    reference = [np.asarray(v) for v in results.pop("bayesrg, both")]
    for K, other in zip(reference, results["plain JAX, both"], strict=True):
        np.testing.assert_allclose(K, other, rtol=1e-6)
    del results
    spent = {name: [] for name in contenders}
    process = None if options.skip_peer else peer(options)
    if process:
        for K, corner in zip(reference, json.loads(process.stdout.readline()), strict=True):
            np.testing.assert_allclose(K[:3, :3], corner, rtol=1e-6)
        spent["neural-tangents 0.6.5 (jax 0.4.23), both"] = []
    for _ in range(options.repeats):
        for name, function in contenders.items():
            spent[name].append(seconds(function, X)[0])
        if process:
            process.stdin.write("\n")
            process.stdin.flush()
            spent[list(spent)[-1]].append(float(process.stdout.readline()))
    if process:
        process.stdin.close()
        process.wait()
    first = median(spent["X @ X.T"])
    print(f"\nn = {options.n}, d = {options.d}, depth {DEPTH}{'ms':>24}{'ratio':>8}")
    for name, times in spent.items():
        print(f"  {name:<44}{1e3 * median(times):10.1f}{median(times) / first:8.2f}")


def held(what):
    """Bytes that this process holds (VmRSS) or has held at most (VmHWM); Linux counts in kB."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{what}:")[1].split()[0])


def measure_memory(options):
    """Print the bytes that one tangent kernel takes beyond its inputs and its result."""
    from bayesrg import kernels

    jax.block_until_ready(kernels.NTK(DEPTH)(inputs(50, options.d)))
    X = inputs(options.n, options.d)
    before = held("VmRSS")
    kernel = kernels.NTK(DEPTH, "relu", WEIGHT, BIAS, block_bytes=options.block_bytes)
    result = jax.block_until_ready(kernel(X))
    print(held("VmHWM") - before - result.nbytes)
    print(jax.jit(lambda X: kernel(X)).lower(X).compile().memory_analysis().temp_size_in_bytes)


def memory(options):
    sizes = [f"--n={options.n_memory}", f"--d={options.d}", f"--block-bytes={options.block_bytes}"]
    command = [sys.executable, __file__, "--memory-worker", *sizes]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seen, reserved = (float(line) / 2**20 for line in out.splitlines()[-2:])
    print(
        f"\nNTK at n = {options.n_memory}: {options.n_memory**2 * 8 / 2**20:.0f} MiB of result, "
        f"{reserved:.0f} MiB reserved and {seen:.0f} MiB seen in addition; budget "
        f"{options.block_bytes / 2**20:.0f} MiB"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=200 if "--quick" in sys.argv else 2000)
    parser.add_argument("--d", type=int, default=784)
    parser.add_argument("--n-memory", type=int, default=1000 if "--quick" in sys.argv else 10_000)
    parser.add_argument("--block-bytes", type=int, default=2**26)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--skip-peer", action="store_true", help="no neural-tangents")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory-worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if options.worker:
        return serve(options)
    if options.memory_worker:
        return measure_memory(options)
    from timing import facts  # needs NumPyro, which the peer's environment lacks

    print(facts("jax", "jaxlib"))
    timings(options)
    memory(options)


if __name__ == "__main__":
    main()
