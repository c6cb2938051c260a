# SPDX-License-Identifier: Apache-2.0
"""Renormalisation group, Gaussian processes and deep-network posteriors for NumPyro.

Use it as ``import bayesrg as brg``. The import changes no JAX setting and starts no JAX backend.
Each subpackage is loaded when it is first used.
"""

import importlib

__version__ = "0.1.0"

# functions and types that users reach as `brg.fit`, and the subpackages that hold them
_HOME = {"Data": "data", "fit": "inference", "open_run": "io", "predict": "inference"}
_SUBPACKAGES = (
    "data",
    "deep_linear",
    "diagnostics",
    "dynamics",
    "ensembles",
    "gp",
    "inference",
    "io",
    "kernels",
    "models",
    "networks",
    "plots",
    "rg",
    "spectrum",
    "theory",
)
__all__ = sorted([*_HOME, *_SUBPACKAGES])


def __getattr__(name):
    if name in _SUBPACKAGES:
        return importlib.import_module(f".{name}", __name__)
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module 'bayesrg' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return [*__all__, "__version__"]
