# SPDX-License-Identifier: Apache-2.0
"""Maximise the evidence over 8 lengthscales, variance and noise, from one start, by four packages.

All must reach the same log evidence, which NumPy computes from what each returns.
"""

from pathlib import Path

import numpy as np
from evidence_peers import INPUTS, log_evidence, parameters, problem
from peers import python_of
from race import Call, Worker, race
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as sk

from bayesrg import gp, kernels

FAR = (1e-5, 1e5)


def ours(X, y):
    def make(theta):
        return kernels.RBF(theta["lengthscale"], theta["variance"])

    def call():
        start = {"lengthscale": np.ones(INPUTS), "variance": 1.0, "ridge": 1.0}
        theta = gp.maximise_evidence(make, start, X, y, restarts=0).theta
        return parameters({**theta, "noise": theta["ridge"]})

    return call


def scikit_learn(X, y):
    def call():
        kernel = sk.ConstantKernel(1.0, FAR) * sk.RBF(np.ones(INPUTS), FAR) + sk.WhiteKernel(1, FAR)
        found = GaussianProcessRegressor(kernel, alpha=0.0).fit(X, y).kernel_
        return np.array([*found.theta[1:-1], found.theta[0], found.theta[-1]])

    return call


def figures(options):
    """Yield the name and the record of the one figure."""
    n = 100 if options.quick else 1000
    X, y, _ = problem(n)
    searches = {"bayesrg": (ours(X, y), "ours"), "scikit-learn": (scikit_learn(X, y), "peer")}
    contenders = {
        name: Call(call, role=role, answer=lambda theta: [log_evidence(X, y, theta)], least=0.0)
        for name, (call, role) in searches.items()
    }
    workers, notes = [], []
    for peer in ("gpytorch", "gpboost") if options.peers else ():
        python, reason = python_of(peer)
        if python is None:
            notes.append(f"{peer} is left out: {reason}")
        else:
            file = Path(__file__).parent / "evidence_peers.py"
            workers.append(Worker(python, file, f"{peer}_search", f"--n={n}"))
    title = f"Greatest evidence of an RBF kernel with 8 lengthscales, n = {n}"
    given = {"workers": workers, "notes": notes, "absolute": 1e-3}
    yield "maximum", race(title, contenders, options.rounds, **given)
