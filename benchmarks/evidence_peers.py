# SPDX-License-Identifier: Apache-2.0
"""Evidence with its gradient, and its maximum, by GPyTorch, GPJax and gpboost.

`evidence.py` and `search.py` run this file in the environment of each of them, and use its data.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from race import Call, serve

INPUTS, JITTER = 8, 0.0


def problem(n):
    """Return inputs (n, 8), targets (n,) and log parameters: 8 lengthscales, variance, noise."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, INPUTS))
    y = np.sin(X @ rng.standard_normal(INPUTS)) + 0.3 * rng.standard_normal(n)
    return X, y, np.log([*rng.uniform(1.5, 3.0, INPUTS), 1.2, 0.1])


def parameters(found):
    """Return log parameters as one array, from a dict of positive numbers."""
    return np.log(
        np.concatenate([np.ravel(found[k]) for k in ("lengthscale", "variance", "noise")])
    )


def log_evidence(X, y, theta):
    """Return the log evidence of an RBF kernel at log parameters, by NumPy alone."""
    length, variance, noise = np.exp(theta[:INPUTS]), *np.exp(theta[INPUTS:])
    Z = X / length
    r2 = (Z**2).sum(1)[:, None] + (Z**2).sum(1) - 2 * Z @ Z.T
    K = variance * np.exp(-0.5 * np.maximum(r2, 0.0)) + noise * np.eye(len(y))
    L = np.linalg.cholesky(K)
    whitened = np.linalg.solve(L, y)
    return -whitened @ whitened / 2 - np.log(np.diag(L)).sum() - len(y) / 2 * np.log(2 * np.pi)


class GPyTorch:
    """A model of GPyTorch with exact Cholesky factors; parameters are logs of positive numbers."""

    def __init__(self, kernel, n, theta):
        import gpytorch
        import torch

        torch.set_default_dtype(torch.float64)
        self.torch, self.gpytorch = torch, gpytorch
        X, y, _ = problem(n)
        self.X, self.y = torch.as_tensor(X), torch.as_tensor(y)
        self.theta = torch.tensor(theta, requires_grad=True)
        ard = {"ard_num_dims": INPUTS}
        base = gpytorch.kernels.RBFKernel(**ard) if kernel == "RBF" else None
        base = base or gpytorch.kernels.MaternKernel(nu=int(kernel[-2]) / 2, **ard)
        likelihood = gpytorch.likelihoods.GaussianLikelihood(
            noise_constraint=gpytorch.constraints.Positive()
        )

        class Exact(gpytorch.models.ExactGP):
            def __init__(model, X, y):
                super().__init__(X, y, likelihood)
                model.mean_module = gpytorch.means.ZeroMean()
                model.covar_module = gpytorch.kernels.ScaleKernel(base)

            def forward(model, x):
                return gpytorch.distributions.MultivariateNormal(
                    model.mean_module(x), model.covar_module(x)
                )

        self.model, self.likelihood = Exact(self.X, self.y), likelihood
        self.model.train()
        self.mll = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, self.model)
        places = {
            "covar_module.base_kernel.raw_lengthscale": self.theta[:INPUTS][None],
            "covar_module.raw_outputscale": self.theta[INPUTS],
            "likelihood.noise_covar.raw_noise": self.theta[INPUTS + 1][None],
        }
        own = dict(self.model.named_parameters())
        for name, start in places.items():
            constraint = self.model.constraint_for_parameter_name(name)
            own[name].data = constraint.inverse_transform(start.detach().exp()).clone()
        self.own, self.order = own, list(places)

    def exact(self):
        settings = self.gpytorch.settings
        return settings.fast_computations(False, False, False)

    def value_and_gradient(self):
        with self.exact():
            self.model.zero_grad()
            value = self.mll(self.model(self.X), self.y) * len(self.y)
            value.backward()
        return value, [self.own[name] for name in self.order]

    def answer(self, result):
        """Return value and gradient in the logs of the parameters."""
        value, raws = result
        gradient = []
        for raw, name in zip(raws, self.order, strict=True):
            constraint = self.model.constraint_for_parameter_name(name)
            probe = raw.detach().clone().requires_grad_()
            constraint.transform(probe).log().sum().backward()
            gradient += (raw.grad / probe.grad).ravel().tolist()
        return np.array([float(value.detach()), *gradient])

    def maximise(self, steps):
        """Search by L-BFGS with a line search, as its documentation does; return log parameters."""
        torch = self.torch
        # the loss is per point: a change of 1e-8 is 1e-5 of the evidence of 1,000 points
        rule = torch.optim.LBFGS(
            self.model.parameters(),
            lr=1.0,
            max_iter=steps,
            history_size=10,
            line_search_fn="strong_wolfe",
            tolerance_change=1e-8,
        )

        def closure():
            rule.zero_grad()
            loss = -self.mll(self.model(self.X), self.y)
            loss.backward()
            return loss

        with self.exact():
            rule.step(closure)
        kernel = self.model.covar_module
        return parameters(
            {
                "lengthscale": kernel.base_kernel.lengthscale.detach().numpy(),
                "variance": kernel.outputscale.detach().numpy(),
                "noise": self.likelihood.noise.detach().numpy(),
            }
        )


def gpytorch_evidence(options):
    X, y, theta = problem(options.n)
    model = GPyTorch(options.kernel, options.n, theta)
    return {"GPyTorch": Call(model.value_and_gradient, answer=model.answer)}


def gpjax_evidence(options):
    import gpjax as gpx
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    X, y, theta = map(jnp.asarray, problem(options.n))
    shape = {"RBF": "RBF", "Matern12": "Matern12"}.get(options.kernel, options.kernel)

    @jax.jit
    @jax.value_and_grad
    def evidence(theta, X, y):
        length, (variance, noise) = jnp.exp(theta[:INPUTS]), jnp.exp(theta[INPUTS:])
        kernel = getattr(gpx.kernels, shape)(lengthscale=length, variance=variance)
        mean = gpx.mean_functions.Zero()
        prior = gpx.gps.Prior(kernel=kernel, mean_function=mean, jitter=JITTER)
        model = prior * gpx.likelihoods.Gaussian(obs_stddev=jnp.sqrt(noise))
        return gpx.objectives.conjugate_mll(model, gpx.Dataset(X, y[:, None]))

    compiled = evidence.lower(theta, X, y).compile()
    call = Call(
        lambda: jax.block_until_ready(compiled(theta, X, y)),
        answer=lambda r: np.append(r[0], r[1]),
        reserved=compiled.memory_analysis().temp_size_in_bytes,
    )
    return {f"GPJax (jax {jax.__version__})": call}


def gpytorch_search(options):
    X, y, theta = problem(options.n)
    start = np.zeros_like(theta)

    def search():
        return GPyTorch("RBF", options.n, start).maximise(options.steps)

    return {"GPyTorch, L-BFGS": reached(search, X, y)}


def gpboost_search(options):
    import gpboost

    X, y, _ = problem(options.n)

    def search():
        # its Gaussian kernel is exp(-r^2 / range^2), so that range is sqrt(2) times a lengthscale
        model = gpboost.GPModel(gp_coords=X, cov_function="gaussian_ard", likelihood="gaussian")
        first = np.append([1.0, 1.0], np.full(INPUTS, np.sqrt(2.0)))  # noise, variance, ranges
        params = {"optimizer_cov": "lbfgs", "maxit": options.steps, "init_cov_pars": first}
        model.fit(y=y, params=params)
        noise, variance, *ranges = np.ravel(model.get_cov_pars(format_pandas=False))
        found = {"lengthscale": np.array(ranges) / np.sqrt(2.0)}
        return parameters(found | {"variance": variance, "noise": noise})

    return {"gpboost, L-BFGS": reached(search, X, y)}


def reached(search, X, y):
    """Return a contender whose answer is the evidence of the parameters that a search found."""
    return Call(search, answer=lambda theta: [log_evidence(X, y, theta)], least=0.0)


TASKS = {
    f.__name__: f for f in (gpytorch_evidence, gpjax_evidence, gpytorch_search, gpboost_search)
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--kernel", default="RBF")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    serve(TASKS[options.task](options))


if __name__ == "__main__":
    main()
