# SPDX-License-Identifier: Apache-2.0
"""Learning curves of a trained network's read-out on MNIST: theory against measured ridge.

Two relu layers without biases are trained on even against odd; at some epochs their features are
frozen and new read-outs are fitted. Of the 10,000 test images 25 % train the weights, 40 % give
the moments of the features, and from 35 % read-outs are fitted, each tested on those that it has
not seen. As a control, data sets are drawn with repetitions from the images that gave the moments,
and tested on these. Then the population is known, and deviations mean that features are not
Gaussian. The table also has ridge regression on the pixels. Deviations are means over splits, with
standard errors.
"""

import argparse
import json

import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from timing import facts

import bayesrg as brg

RIDGES = np.array([0.1, 1.0, 10.0, 100.0])
SHARES = np.cumsum([0.25, 0.4])


def trained(net, X, y, epochs, key):
    """Return the weights of the hidden layers at each of ``epochs``, which begin with 0."""
    params = (net.init(key, X.shape[1]), jnp.zeros(net.widths[-1]))
    scale = 1.0 / jnp.sqrt(net.widths[-1])

    def apply(params, X):
        return net.apply(params[0], X) @ params[1] * scale

    more = {"optimizer": optax.adam(1e-3), "epochs": epochs[-1], "batch": 100, "every": 1}
    out = brg.networks.train(apply, params, X, y, key=key + 1, **more)
    return [[W[e] for W in out.snapshots[0]] for e in epochs], np.asarray(out.loss)


def measured(F, y, sizes, draws, rng, replace=False):
    """Return mean test errors (n, ridge) of read-outs that are fitted to rows of F (N, p).

    Rows that were not drawn test them; with ``replace`` all rows do.
    """
    found = np.zeros((len(sizes), len(RIDGES)))
    for i, n in enumerate(sizes):
        for _ in range(draws):
            rows = rng.choice(len(y), n, replace=replace)
            values, vectors = np.linalg.eigh(F[rows].T @ F[rows])
            overlap = vectors.T @ (F[rows].T @ y[rows])
            weights = vectors @ (overlap[:, None] / (np.clip(values, 0, None)[:, None] + RIDGES))
            tested = slice(None) if replace else np.setdiff1d(np.arange(len(y)), rows)
            found[i] += ((F[tested] @ weights - y[tested, None]) ** 2).mean(0) / draws
    return found


def one_split(args, key):
    """Return theory, measured error and control (epoch, n, ridge), and results of the training."""
    data = brg.data.load(args.data, n=args.images, key=key)
    X, y = np.asarray(data.X), np.asarray(data.y)
    borders = (SHARES * len(X)).astype(int)
    (Xw, Xm, Xr), (yw, ym, yr) = np.split(X, borders), np.split(y, borders)
    net, rng = brg.networks.Rainbow((args.width,) * 2, activations="relu"), np.random.default_rng(0)
    sizes = np.array([n for n in args.sizes if n <= 5 * len(yr) // 7])
    weights, loss = trained(net, Xw, yw, args.epochs, 10 * key)
    theory, seen, control, right = [], [], [], []
    for W in weights:
        Fm, Fr = np.asarray(net.apply(W, Xm)), np.asarray(net.apply(W, Xr))
        moments = brg.theory.moments(Fm, ym)
        found = brg.theory.ridge_equivalent(moments, sizes[:, None].astype(float), RIDGES)
        theory.append(np.asarray(found.test))
        seen.append(measured(Fr, yr, sizes, args.draws, rng))
        control.append(measured(Fm, ym, sizes, args.draws, rng, replace=True))
        readout = np.linalg.solve(Fm.T @ Fm + 10 * np.eye(Fm.shape[1]), Fm.T @ ym)
        right.append(((Fr @ readout > 0) == (yr > 0)).mean())
    linear = measured(Xr, yr, sizes, 2, rng)
    arrays = {"theory": theory, "measured": seen, "control": control, "linear": linear}
    return arrays | {"loss": loss, "right": right, "n": sizes, "ratio": len(ym) / args.width}


def main():
    """Print tables of theory, measured error and deviation, and write them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--images", type=int, default=9998)
    parser.add_argument("--width", type=int, default=200)
    parser.add_argument("--epochs", type=int, nargs="+", default=[0, 2, 10, 50])
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200, 400, 1000, 2400])
    parser.add_argument("--draws", type=int, default=10, help="read-outs of each size")
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument("--json", help="file for the numbers")
    parser.add_argument("--quick", action="store_true", help="only try whether it runs")
    args = parser.parse_args()
    if args.quick:
        small = {"data": "digits", "images": 1795, "width": 20, "epochs": [0, 2], "splits": 2}
        vars(args).update(small | {"sizes": [50, 200], "draws": 2})
    numpyro.enable_x64()
    print(facts("jax", "numpy"))
    splits = [one_split(args, key) for key in range(args.splits)]
    found = {name: np.stack([split[name] for split in splits]) for name in splits[0]}
    print(f"{args.data}, width {args.width}, {args.splits} splits, N/p = {found['ratio'][0]:.3g}")
    heads = " | ".join(f"ridge {r:g}" for r in RIDGES)
    head = f"| n | {heads} |\n{'|---' * (len(RIDGES) + 1)}|"
    print("Cells: theory / measured (deviation; that of the control)")
    for e, epoch in enumerate(args.epochs):
        loss = f"training loss {found['loss'][:, epoch - 1].mean():.4f}, " if epoch else ""
        print(f"\nEpoch {epoch}: {loss}right {found['right'][:, e].mean():.1%}\n{head}")
        theory, seen, control = (found[k][:, e] for k in ("theory", "measured", "control"))
        off, known = deviation(seen, theory), deviation(control, theory)
        for i, n in enumerate(found["n"][0]):
            pairs = zip(theory.mean(0)[i], seen.mean(0)[i], off[i], known[i], strict=True)
            cells = " | ".join("{:.3f} / {:.3f} ({}; {})".format(*pair) for pair in pairs)
            print(f"| {n} | {cells} |")
    print(f"\nLinear regression, measured\n{head}")
    for n, row in zip(found["n"][0], found["linear"].mean(0), strict=True):
        print(f"| {n} | {' | '.join(f'{v:.3f}' for v in row)} |")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({k: v.tolist() for k, v in found.items()} | {"args": vars(args)}, file)


def deviation(found, theory):
    """Return mean relative deviations over splits with standard errors, as text (n, ridge)."""
    off = found / theory - 1
    error = off.std(0, ddof=1) / np.sqrt(len(off))
    words = [f"{a:+.1%} ± {b:.1%}" for a, b in zip(off.mean(0).flat, error.flat, strict=True)]
    return np.reshape(words, error.shape)


if __name__ == "__main__":
    main()
