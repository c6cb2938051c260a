# SPDX-License-Identifier: Apache-2.0
"""The rules of the house: layers, sizes, docstrings, names, examples, a light import."""

import ast
import bisect
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bayesrg

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bayesrg"
LAYERS = {
    "_linalg": 0, "_activations": 0, "_fixedpoint": 0, "_covariance": 0, "_checks": 0,
    "_callables": 0, "_kinds": 0, "_numbers": 0, "_posterior": 0, "_prior": 0, "_reading": 0,
    "_paths": 0, "_trajectory": 0, "_warnings": 0,
    "kernels": 1, "spectrum": 1, "data": 1,
    "deep_linear": 2, "gp": 2, "rg": 2, "theory": 2, "dynamics": 2, "networks": 2, "ensembles": 2,
    "models": 3, "inference": 3, "diagnostics": 3, "io": 3,
    "plots": 4,
    "cli": 5,
}  # fmt: skip
WITHIN_A_LAYER = {
    ("_activations", "_callables"), ("_activations", "_checks"), ("_activations", "_linalg"),
    ("_checks", "_kinds"), ("_checks", "_numbers"), ("_checks", "_warnings"),
    ("_covariance", "_linalg"), ("_covariance", "_warnings"), ("_linalg", "_warnings"),
    ("_covariance", "_numbers"), ("_kinds", "_numbers"), ("_posterior", "_checks"),
    ("_covariance", "_prior"), ("_prior", "_checks"), ("_prior", "_linalg"),
    ("_trajectory", "_callables"), ("_trajectory", "_checks"), ("_trajectory", "_warnings"),
    ("spectrum", "kernels"),
    ("rg", "gp"), ("deep_linear", "networks"), ("theory", "deep_linear"), ("theory", "rg"),
    ("inference", "io"), ("diagnostics", "io"),
}  # fmt: skip
ONLY_FROM = {"xarray": 3, "arviz": 3, "matplotlib": 4, "typer": 5, "rich": 3}
RESULTS_OF_THE_CONTRACT = {
    "deep_linear.Exact",
    "deep_linear.Saddle",
    "gp.MatrixMercerNormal",
    "gp.Posterior",
    "spectrum.Functionals",
    "theory.Curve",
    "theory.Equivalent",
    "theory.Hermite",
    "theory.LayerMoments",
}  # users get them from functions, and may name them in annotations
NUMERICAL = {"deep_linear", "gp", "rg", "spectrum", "theory"}
NUMPYRO_IN = {"gp", "rg", "ensembles", "models", "inference", "cli"}
FILES = sorted(PACKAGE.rglob("*.py")) + sorted((ROOT / "models").glob("*.py"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
TEXT = {path: path.read_text() for path in FILES + EXAMPLES}
TREE = {path: ast.parse(text) for path, text in TEXT.items()}


def home(path):
    """Top-level module of a file: the name by which its layer is known."""
    if path.parent == ROOT / "models":
        return "models"
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    """Modules a file imports anywhere, in-house ones by their top-level name."""
    depth = len(path.relative_to(PACKAGE).parts) if PACKAGE in path.parents else 0
    for node in ast.walk(TREE[path]):
        if isinstance(node, ast.Import):  # of other packages, such as io of the standard library
            yield from {a.name.split(".")[0] for a in node.names} - set(LAYERS)
        if isinstance(node, ast.ImportFrom):
            names = (node.module or "").split(".") if node.module else []
            if node.level == 0:
                yield names[0]
            elif node.level == depth:
                yield from names[:1] or [a.name for a in node.names]


IMPORTS = {path: set(imports(path)) for path in FILES}


def wrong_imports():
    for path, names in IMPORTS.items():
        here = home(path)
        if here == "__init__":
            continue
        for name in names:
            inside = name in LAYERS and name != here
            if inside and LAYERS[name] >= LAYERS[here] and (here, name) not in WITHIN_A_LAYER:
                yield f"{path}: {here} imports {name}"
            if LAYERS[here] < ONLY_FROM.get(name, 0):
                yield f"{path}: {here} imports {name}"
            if name == "numpyro" and here not in NUMPYRO_IN:
                yield f"{path}: {here} imports numpyro"


def test_imports_go_down_the_layers():
    assert not list(wrong_imports())


def test_the_layer_table_has_no_dead_entry():
    """Every edge inside a layer that is allowed is used."""
    assert {(home(f), name) for f in FILES for name in IMPORTS[f]} >= WITHIN_A_LAYER


def test_a_file_is_small_and_says_its_licence_and_subject():
    for path in FILES:
        names = {node.id for node in ast.walk(TREE[path]) if isinstance(node, ast.Name)}
        assert TEXT[path].startswith("# SPDX-License-Identifier: Apache-2.0\n"), path
        assert len([line for line in TEXT[path].splitlines() if line.strip()]) <= 400, path
        assert ast.get_docstring(TREE[path]), path
        assert "print" not in names and "utils" not in path.name, path


PUBLIC = [n for n in bayesrg.__all__ if inspect.ismodule(getattr(bayesrg, n))]


def exported(module):
    """Names in ``__all__``, else those that the module defines."""
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__]
    return getattr(module, "__all__", [n for n in own if not n.startswith("_")])


def public(path, module):
    """Public names of a module and of the public modules in it."""
    for n in exported(module):
        value = getattr(module, n)
        if inspect.ismodule(value):
            if value.__name__ == f"bayesrg.{path}.{n}":  # else it is shown from two places
                yield from public(f"{path}.{n}", value)
        else:
            yield f"{path}.{n}", value


OBJECTS = dict(o for n in PUBLIC for o in public(n, importlib.import_module(f"bayesrg.{n}")))


def results():
    """Classes that public functions return; users meet them, whether exported or not."""
    for name, function in OBJECTS.items():
        if inspect.isroutine(function):
            found = inspect.signature(function).return_annotation
            for kind in getattr(found, "__args__", [found]):
                if inspect.isclass(kind) and kind.__module__.startswith("bayesrg."):
                    yield f"{name} -> {kind.__name__}", kind


CLASSES = {n: v for n, v in OBJECTS.items() if inspect.isclass(v)} | dict(results())


ROUTINES = {name: value for name, value in OBJECTS.items() if inspect.isroutine(value)}


def undescribed(name, function):
    doc = inspect.getdoc(function) or ""
    signature = inspect.signature(function)
    if not doc:
        yield f"{name}: no docstring"
    for q in signature.parameters.values():
        found = re.search(rf"(?<!\w){re.escape(q.name)}(?!\w)", doc)
        if not (q.name.startswith("_") or found):
            yield f"{name}: {q.name} is not described"
    if signature.return_annotation is not signature.empty:
        if not re.search(r"[Rr]eturn|Read|: \(|->", doc):
            yield f"{name}: no result"


def test_functions_say_what_they_take_and_give():
    assert not [fault for name, f in ROUTINES.items() for fault in undescribed(name, f)]


def test_numerical_functions_state_shapes():
    numerical = {n: f for n, f in ROUTINES.items() if n.split(".")[0] in NUMERICAL}
    shape = re.compile(r"\([a-z0-9., ]*\)")
    assert not [name for name, f in numerical.items() if not shape.search(inspect.getdoc(f))]


def test_classes_are_documented():
    for name, value in CLASSES.items():
        assert value.__doc__, name
        for method, function in vars(value).items():
            overrides = any(method in vars(base) for base in value.__mro__[1:])
            if inspect.isfunction(function) and not method.startswith("_") and not overrides:
                assert function.__doc__, f"{name}.{method}"


def test_names_are_unique_in_a_subpackage():
    for name in PUBLIC:
        names = exported(importlib.import_module(f"bayesrg.{name}"))
        assert len(names) == len(set(names)), name


def identifiers(tree):
    """Names, attributes and imported names of a program."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield name
            case ast.alias(name=name):
                yield name.split(".")[-1]


def recipes(path):
    """Python programs of a page, as one tree."""
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(), re.S)
    return ast.parse("\n".join(blocks))


def test_every_public_name_has_a_user():
    """A model, an example, the code of a page, or another room calls it."""
    used = {home(path): set() for path in FILES}
    for path in FILES:
        used[home(path)] |= set(identifiers(TREE[path]))
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    pages += sorted((ROOT / "docs" / "explanation").glob("*.md"))
    outside = {name for path in EXAMPLES for name in identifiers(TREE[path])}
    outside |= {name for path in pages for name in identifiers(recipes(path))}
    used.pop("__init__")

    def users(full):
        room, name = full.split(".")[0], full.split(".")[-1]
        return name in outside or any(name in names for r, names in used.items() if r != room)

    assert not [full for full in OBJECTS if full not in RESULTS_OF_THE_CONTRACT and not users(full)]


def hidden(tree):
    """Imports from this package that are not public."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bayesrg")):
            continue
        where = importlib.import_module(node.module)
        names = [a.name for a in node.names]
        if node.module.count(".") > 1 or any(
            part.startswith("_") for part in node.module.split(".")
        ):
            yield ast.unparse(node)
        elif node.module != "bayesrg.models" and not set(names) <= set(exported(where)):
            yield ast.unparse(node)


def test_models_examples_and_benchmarks_use_public_names_only():
    scripts = [
        f for folder in ("models", "examples", "benchmarks") for f in (ROOT / folder).glob("*.py")
    ]
    private = re.compile(r"\b(?:brg|bayesrg)(?:\.\w+)*\._\w+")
    texts = {path: path.read_text() for path in scripts}
    wrong = {p.name: [*hidden(ast.parse(t)), *private.findall(t)] for p, t in texts.items()}
    assert not {name: found for name, found in wrong.items() if found}


def checks_by_hand(tree):
    """Is this a whole number, is this matrix symmetric: `_checks` answers that."""
    for node in ast.walk(tree):
        text = ast.unparse(node) if isinstance(node, ast.Call | ast.Compare | ast.Attribute) else ""
        symmetric = r"(\w+) (-|==|!=) \1\.(T|mT)\b|allclose\((\w+), \4\.m?T"
        whole = r"is_integer\b|operator\.index|Integral\b|(np|jnp)\.integer\b|% 1\b"
        if re.search(symmetric, text) or re.search(whole, text):
            yield text


def test_checks_of_numbers_and_symmetry_stand_in_one_place():
    assert list(checks_by_hand(ast.parse("if abs(K - K.T).max() > tol: pass")))
    doors = {"_checks.py", "_kinds.py", "_numbers.py", "_reading.py"}
    found = {f: list(checks_by_hand(TREE[f])) for f in FILES if f.name not in doors}
    assert not {path: lines for path, lines in found.items() if lines}


def test_warnings_are_given_in_one_place():
    # numbers of calls between a warning and the user's line go wrong with every new helper
    here = {"_warnings.py"}
    assert [p.name for p in FILES if "warnings.warn(" in TEXT[p] and p.name not in here] == []


def test_a_formula_has_a_source():
    formula = re.compile(r"\.\. math::")
    source = re.compile(r"arXiv|[Rr]eference|ISBN|doi|\(\d{4}\)")
    described = OBJECTS | CLASSES
    found = {name: inspect.getdoc(value) or "" for name, value in described.items()}
    assert not [n for n, doc in found.items() if formula.search(doc) and not source.search(doc)]


def test_no_line_of_the_library_is_kept_from_the_formatter():
    assert not [path for path in FILES if "fmt: skip" in TEXT[path] or "fmt: off" in TEXT[path]]


def test_an_example_has_a_title_and_asserts_what_it_claims():
    for path in EXAMPLES:
        text, tree = TEXT[path], TREE[path]
        title = ast.get_docstring(tree).splitlines()
        asserts = any(isinstance(node, ast.Assert) for node in ast.walk(tree))
        assert path.name.startswith("plot_") and len(text.splitlines()) <= 90, path
        assert len(title) > 1 and set(title[1]) == {"="}, path
        assert asserts or "assert_" in text, path
        assert "enable_x64()" in text, path


def left_open(text):
    """Names of figures, axes and plots that one block of an example binds and a later one uses."""
    starts = [n for n, line in enumerate(text.splitlines(), 1) if line.startswith("# %%")]
    drawn, found = {}, []  # from a name to the block that binds it
    for statement in ast.parse(text).body:
        block = bisect.bisect(starts, statement.lineno)
        nodes = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
        bound = {node.id for node in nodes if isinstance(node.ctx, ast.Store)}
        used = {node.id for node in nodes} - bound
        found += [(n, statement.lineno) for n in sorted(used) if drawn.get(n, block) < block]
        drawn = {name: where for name, where in drawn.items() if name not in bound}
        if isinstance(statement, ast.Assign) and re.search(r"plt\.|plot", ast.unparse(statement)):
            drawn |= dict.fromkeys(bound, block)
    return found


def test_no_figure_is_used_after_the_block_that_makes_it():
    """The gallery takes a figure at the end of its block, and closes it."""
    wrong = """# %%
fig, axes = plt.subplots(1, 2)
pc = brg.plots.plot_flow(dt)
n = 3
for ax in axes:
    ax.plot([n])
# %%
for i, ax in enumerate(axes):
    ax.plot(i)
fig, ax = plt.subplots()
ax.plot(n)
# %%
pc.add_legend(n)
"""
    assert left_open(wrong) == [("axes", 8), ("pc", 13)]
    assert not [(path.name, *fault) for path in EXAMPLES for fault in left_open(TEXT[path])]


@pytest.mark.example
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_an_example_runs(path, tmp_path):
    environment = {"MPLBACKEND": "agg", "PATH": "", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, path], cwd=tmp_path, env=environment, check=True)


def test_importing_is_light():
    """No backend, no JAX setting, nothing that is not a dependency; jax only when it is used."""
    code = """
import sys
before = set(sys.modules)
import bayesrg, bayesrg.cli
assert not {"jax", "numpyro", "arviz", "matplotlib"} & set(sys.modules)
bayesrg.fit, bayesrg.gp.MercerNormal, bayesrg.rg.Coarse, bayesrg.kernels.NNGP, bayesrg.models
import jax
assert not jax._src.xla_bridge._backends
assert not jax.config.jax_enable_x64
roots = {m.split(".")[0] for m in set(sys.modules) - before}
assert not roots & {"sklearn", "tinygp", "torch", "tensorflow", "beartype"}, roots
try:
    bayesrg.nothing
except AttributeError as error:
    assert "has no attribute 'nothing'; it has Data" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
