# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # two workers: their threads would wait in turn
# Most of the default run is compilation, a third less of it without the backend's optimisations;
# the slow tests run longer than they compile, and set this to nothing.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import numpy as np
import numpyro
import pytest

pytest_plugins = ["programs"]

numpyro.enable_x64()
jax.config.update("jax_num_cpu_devices", 2)  # before the backend starts; the only such place
# Each worker keeps its large programs for the next run, where no other worker writes. To keep the
# small ones too would cost the first run a tenth of its time.
programs = Path(__file__).parents[1] / ".pytest_cache" / "jax"
programs = programs / os.environ.get("PYTEST_XDIST_WORKER", "alone")
jax.config.update("jax_compilation_cache_dir", str(programs))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


GENERATORS = {}  # of test modules: the generator ``rng`` and its state after the import


def pytest_collection_modifyitems(items):
    for module in {getattr(item, "module", None) for item in items}:
        rng = getattr(module, "rng", None)
        if isinstance(rng, np.random.Generator):
            GENERATORS.setdefault(module.__name__, (rng, rng.bit_generator.state))


@pytest.fixture(autouse=True)
def same_numbers(request):
    """A test draws the same numbers from its module's ``rng``, whichever tests ran before."""
    if request.module.__name__ in GENERATORS:
        rng, state = GENERATORS[request.module.__name__]
        rng.bit_generator.state = state


@pytest.fixture(scope="session")
def digits():
    import bayesrg as brg

    return brg.data.load("digits", n=60)


@pytest.fixture(scope="session")
def spectrum(digits):
    """Nystrom spectrum of a network kernel, kept to 40 modes so that much is left over."""
    import bayesrg as brg

    return brg.spectrum.nystrom(brg.kernels.NNGP(1), digits.X_ref[:300], rank=40)
