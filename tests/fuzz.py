# SPDX-License-Identifier: Apache-2.0
"""Replace each argument of each public function by bad and extreme values, and count what happens.

Run as a script, without the type hook of the test suite, which would answer in the package's place:
``python tests/fuzz.py [start of a name, or 1/2 and 2/2 for two halves]``.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if not os.environ.get("XLA_FLAGS"):  # the slow tests set it to nothing
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
os.environ.setdefault("JAX_TRACEBACK_FILTERING", "off")
os.environ.setdefault("MPLBACKEND", "agg")

import ast
import collections
import datetime
import functools
import inspect
import pathlib
import re
import signal
import sys
import tempfile
import traceback
import warnings

import jax
import numpy as np
import numpyro

import bayesrg

PACKAGE = str(pathlib.Path(bayesrg.__file__).parent)
HERE = str(pathlib.Path(__file__).parent)
SECONDS = 20


class Hang(BaseException):
    """A call that takes too long."""


def numbers_of(base):
    """Bad dresses of an argument that is numbers, and dresses that are as good as its own."""
    base = np.asarray(base)
    first = np.zeros(base.shape, bool)
    first[(0,) * base.ndim] = True
    bad = {
        "nan in it": np.where(first, np.nan, base), "inf in it": np.where(first, np.inf, base),
        "complex": base + 0j, "masked": np.ma.masked_array(base, first),
        "dates": np.full(base.shape, "2026-01-01", "M8[D]"), "text in it": base.astype(str),
        "None in it": np.full(base.shape, None),
    }  # fmt: skip
    odd = {
        "tiny": 1e-100 * base,
        "1e-300 of it": 1e-300 * base,
        "1e300 of it": 1e300 * base,
        "deeper": base[None, None, None],
    }
    if base.ndim:
        odd |= {"minus": -base, "huge": 1e100 * base, "zeros": 0.0 * base, "empty": base[:0],
                "longer": np.concatenate([base, base[:1]])}  # fmt: skip
    good = {"big-endian": base.astype(base.dtype.newbyteorder(">")),
            "objects": base.astype(object), "nested list": base.tolist()}  # fmt: skip
    if base.dtype.kind == "f":
        good["long double"] = base.astype(np.longdouble)
    return bad, odd, good


FOREIGN = {
    "None": None, "nan": np.nan, "-inf": -np.inf, "a complex number": 1j, "text": "text",
    "a ragged list": [[1.0], [1.0, 2.0]], "a dict": {"a": 1.0}, "an object": object(),
    "a set": {1.0}, "a function": lambda *a: None, "a date": datetime.date(2026, 1, 1),
    "a random key": jax.random.key(0), "an array of text": np.array(["a", "b"]),
    "a generator": iter(()),
}  # fmt: skip
PARAMETERS = ("params", "x0")  # of the user's own function: any numbers will do
ODD_PARAMETERS = ("None", "nan", "-inf", "a complex number", "a dict", "a generator", "nan in it",
                  "inf in it", "complex", "None in it")  # fmt: skip
ALIASES = {  # what messages call some arguments
    "value": "observations", "other": "the other", "dt": "tree", "K": "kernel", "net": "widths",
    "Y": "y", "path": "result", "data": "inputs", "quantity": "variable", "var_name": "variable",
    "modes": "mode", "spectrum": "values", "weights": "W",
}  # fmt: skip
INFINITE = {
    ("ridge_equivalent", "ridge"),
    *(("least_action", name) for name in ("lambda0", "lambda_max")),
    *((name, "t") for name in ("ensemble", "residual", "remaining", "change", "smoother")),
}  # a limit that the docstring allows
EXTREME = {"-1": -1, "0": 0, "10^30": 10**30, "1e100": 1e100, "an empty list": [], "2.5": 2.5,
           "True": True}  # fmt: skip


def values_for(name, base):
    """List (value's name, value, whether it must be refused) for an argument of that base."""
    trial = []
    everything = FOREIGN | EXTREME

    def add(some, refuse):
        trial.extend((n, v, refuse) for n, v in some.items())

    if isinstance(base, bool):
        add(everything | {"True": 1}, True)
    elif name == "key":
        integers = {"-1", "0", "a random key"}
        add({n: v for n, v in everything.items() if n not in integers}, True)
    elif isinstance(base, int):
        small = {"-1", "0", "10^30"}
        add({n: v for n, v in everything.items() if n not in small}, True)
        add({n: EXTREME[n] for n in small}, name != "other" and None)
    elif (
        isinstance(base, str)
        or isinstance(base, tuple | list)
        and base
        and isinstance(base[0], str)
    ):
        add({n: v for n, v in everything.items() if n not in ("None", "0", "2.5")}, None)
        add({n: everything[n] for n in ("a dict", "an object", "a random key")}, True)
    elif isinstance(base, float | np.ndarray) or (
        isinstance(base, jax.Array) and not isinstance(base, jax.core.Tracer)
    ):
        bad, odd, _ = numbers_of(base)
        loose = {n: v for n, v in (FOREIGN | bad).items() if n in ODD_PARAMETERS}
        loose = loose if name in PARAMETERS else {}
        add({n: v for n, v in (FOREIGN | bad).items() if n not in loose}, True)
        add(loose, None)
        add(EXTREME | odd, None)
    elif callable(base) and not hasattr(base, "_fields"):
        add({n: v for n, v in everything.items() if n != "a function"}, True)
        add({"a function": FOREIGN["a function"]}, None)
    else:
        add(everything, None if isinstance(base, dict | tuple | list) else True)
    return trial


@functools.cache
def raising_lines(path):
    """Lines of a file that a raise statement covers."""
    tree = ast.parse(pathlib.Path(path).read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            found |= set(range(node.lineno, node.end_lineno + 1))
    return found


def made_by(error):
    """Say who raised: "package" by a raise statement, "user" in the problem's function, "raw"."""
    frames = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    inside = [i for i, (path, _) in enumerate(frames) if path.startswith(PACKAGE)]
    if inside and any(path.startswith(HERE) for path, _ in frames[inside[0] :]):
        return "user"
    path, number = frames[-1]
    ours = path.startswith(PACKAGE) and number in raising_lines(path)
    return "package" if ours else "raw"


def has_nan(result):
    """Say whether a result holds nan in any array that is seen."""
    leaves = [] if result is None or isinstance(result, str) else jax.tree.leaves(result)
    for leaf in leaves:
        leaf = getattr(leaf, "values", leaf) if not hasattr(leaf, "children") else 0.0
        dtype = getattr(leaf, "dtype", np.dtype(type(leaf) if isinstance(leaf, float) else object))
        if not jax.dtypes.issubdtype(dtype, np.floating) or callable(leaf):
            continue
        if np.isnan(np.asarray(leaf)).any():
            return True
    return False


def call(function, given):
    """Call; return (verdict, detail)."""

    def late(*_):
        raise Hang

    signal.signal(signal.SIGPROF, late)  # of processor time: other processes count for nothing
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        result = function(**given)
        return ("nan", "") if has_nan(result) else ("passed", "")
    except Hang:
        return "hang", ""
    except BaseException as error:  # noqa: B036
        if isinstance(error, KeyboardInterrupt):
            raise
        frame = [f for f in traceback.extract_tb(error.__traceback__)]
        ours = [f for f in frame if f.filename.startswith(PACKAGE)]
        where = f"{ours[-1].filename[len(PACKAGE) + 1 :]}:{ours[-1].lineno}" if ours else "?"
        message = f"{where} {type(error).__name__}: {str(error)!r}"
        return made_by(error), message
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def names_it(message, argument, given):
    """Say whether a message names the argument, or one that it must fit."""
    names = {argument, *given}
    names |= {ALIASES[name] for name in names & set(ALIASES)}
    return any(re.search(rf"(?<![a-z]){re.escape(n)}", message) for n in names)


def judge(name, function, given):
    """Try all values for all arguments; yield (argument, value's name, verdict, detail)."""
    verdict, detail = call(function, given)
    if verdict not in ("passed", "nan"):
        yield "", "as it is", "broken", f"{verdict} {detail}"
        return
    nan_before = verdict == "nan"
    for argument, base in given.items():
        optional = default_of(function, argument) is None or argument == "S"
        optional = optional or (name.endswith("level") and argument == "Z")
        for what, value, refuse in values_for(argument, base):
            if "inf" in what and (name.split(".")[-1].split()[0], argument) in INFINITE:
                refuse = None
            if what == "None" and optional:
                refuse = None
            verdict, detail = call(function, given | {argument: value})
            if verdict in ("package", "user"):
                unnamed = verdict == "package" and not names_it(detail, argument, given)
                verdict = "unnamed" if unnamed else "refused"
            elif verdict == "nan" and (nan_before or what in ODD_PARAMETERS):  # not finite itself
                verdict = "passed"
            if verdict == "passed" and refuse:
                verdict = "wrongly passed"
            yield argument, what, verdict, detail
        if isinstance(base, float | np.ndarray):
            for what, value in numbers_of(base)[2].items():
                arrays = argument == "value" or argument in PARAMETERS  # NumPyro's own check
                if what == "nested list" and (np.ndim(base) == 0 or arrays):
                    continue
                verdict, detail = call(function, given | {argument: value})
                good = verdict == "passed" or verdict == "nan" and nan_before
                yield argument, what, "passed" if good else "wrongly refused", f"{verdict} {detail}"


def valid(name, function, given):
    """Try the extremes that must pass."""
    import fuzz_valid

    for change in fuzz_valid.VALID.get(name, ()):
        verdict, detail = call(function, given | change)
        good = "passed" if verdict == "passed" else "wrongly refused"
        yield ",".join(change), f"{change}"[:60], good, f"{verdict} {detail}"


def default_of(function, argument):
    try:
        parameter = inspect.signature(function).parameters.get(argument)
    except (TypeError, ValueError):
        return ""
    if parameter is None:  # of a function within: taken as optional
        return None
    return parameter.default


def chosen(objects, which):
    """List (full name, function, its smallest problem) of the problems to try."""
    import fuzz_problems
    import fuzz_upper
    import fuzz_weights

    everything = []
    layers = fuzz_problems.LOWER | fuzz_weights.WEIGHTS | fuzz_upper.UPPER
    for home, problems in layers.items():
        everything += [(f"{home}.{name}", *problem) for name, problem in problems(objects).items()]
    if "/" in which:
        part, parts = map(int, which.split("/"))
        return everything[part - 1 :: parts]
    return [problem for problem in everything if problem[0].startswith(which)]


def main(which=""):
    """Print what is wrong and the table of counts; return the number of faults."""
    import fuzz_problems

    numpyro.enable_x64()
    programs = pathlib.Path(HERE).parent / ".pytest_cache" / "jax" / "fuzz"  # as in conftest
    jax.config.update("jax_compilation_cache_dir", str(programs))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    warnings.simplefilter("ignore")
    os.chdir(tempfile.mkdtemp())  # some values are names of files
    with np.errstate(all="ignore"):
        objects = fuzz_problems.common()
        counts, faults = collections.defaultdict(collections.Counter), 0
        problems = chosen(objects, which)
        if not problems:
            sys.exit(f"no problem's name starts with {which!r}")
        for name, function, given in problems:
            found = [*judge(name, function, given), *valid(name, function, given)]
            for argument, what, verdict, detail in found:
                counts[name.split(".")[0]][verdict] += 1
                if verdict not in ("refused", "passed"):
                    faults += 1
                    print(f"{verdict}: {name}({argument}={what}) {detail[:200]}", flush=True)
    verdicts = ["refused", "passed", "raw", "unnamed", "wrongly passed", "wrongly refused", "nan",
                "hang", "broken"]  # fmt: skip
    print(f"{'':12}" + "".join(f"{v:>16}" for v in verdicts))
    total = sum(counts.values(), collections.Counter())
    for home, count in [*counts.items(), ("all", total)]:
        print(f"{home:12}" + "".join(f"{count[v]:16}" for v in verdicts))
    return faults


if __name__ == "__main__":
    sys.exit(min(main(*sys.argv[1:]), 1))
