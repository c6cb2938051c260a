# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration. The build needs no network; everything listed here is in the package.

Set BAYESRG_INTERSPHINX=1 to link names of other libraries, which downloads their inventories.
"""

import importlib
import inspect
import os
import pkgutil
import re
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

import bayesrg

HERE = Path(__file__).parent
GENERATED = HERE / "reference" / "generated"

project = "bayesrg"
author = "The bayesrg developers"
version = release = bayesrg.__version__
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "sg_execution_times.rst", "gallery/sg_execution_times.rst"]
templates_path = ["_templates"]
default_role = "py:obj"
myst_enable_extensions = ["attrs_block", "dollarmath"]
myst_heading_anchors = 3

if os.environ.get("BAYESRG_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "arviz": ("https://python.arviz.org/en/stable", None),
        "jax": ("https://docs.jax.dev/en/latest", None),
        "numpyro": ("https://num.pyro.ai/en/stable", None),
        "python": ("https://docs.python.org/3", None),
    }

# -- reference: pages come from the subpackages themselves ------------------------------------
autosummary_generate = True
autosummary_imported_members = True
autodoc_typehints = "none"  # docstrings give shapes and units
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False

# -- gallery: every plot_*.py of examples/ runs, and an exception ends the build --------------
sphinx_gallery_conf = {
    "examples_dirs": ["../examples"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "reset_modules": ("matplotlib",),
    "backreferences_dir": "reference/generated/examples",
    "doc_module": ("bayesrg",),
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 5,
    "parallel": 2,
    "capture_repr": ("_repr_html_",),  # tables, but no lists of artists
    "ignore_repr_types": r"matplotlib|arviz_plots",
    "remove_config_comments": True,
}

# -- appearance --------------------------------------------------------------------------------
html_theme = "pydata_sphinx_theme"
html_title = "bayesrg"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_math_renderer = "mathml"
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 8,
    "secondary_sidebar_items": {  # none beside whole files: room for lines of 100 characters
        "*": ["page-toc"],
        "explanation/*": ["page-toc"],
        "howto/*": ["page-toc"],
        "reference/**": ["page-toc"],
        "reference/generated/bayesrg.models": [],
    },
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "tutorial": [], "howto": [], "conventions": [], "design": []}
copyright = "The bayesrg developers, Apache-2.0"


def write_reference(app, config):
    """Write one page a subpackage: its docstring and a table of its public names."""
    modules = {"bayesrg": bayesrg}
    modules |= {f"bayesrg.{name}": getattr(bayesrg, name) for name in bayesrg.__all__}
    for name, module in modules.items():
        if inspect.ismodule(module):
            write(GENERATED / f"{name}.rst", page(name, module))
            clashing = [n for n in public_names(module) if n != n.lower() in public_names(module)]
            # Flow and flow are one file where file names have no case
            config.autosummary_filename_map |= {f"{name}.{n}": f"{name}.{n}_" for n in clashing}


def page(name, module):
    """Document a module: public names, or for a folder of model files their sources."""
    lines = [name, "=" * len(name), "", f".. automodule:: {name}", "   :no-members:", ""]
    names = public_names(module)
    if names:
        lines += [f".. currentmodule:: {name}", "", ".. autosummary::", "   :toctree: objects", ""]
        lines += [f"   {public}" for public in names]
        found = results(module, names)
        if found:
            lines += ["", "Classes that functions of this page return:", ""]
            lines += [
                ".. currentmodule:: bayesrg",
                "",
                ".. autosummary::",
                "   :toctree: objects",
                "",
            ]
            lines += [f"   {path}" for path in found]
        return "\n".join(lines) + "\n"
    for info in pkgutil.iter_modules(module.__path__):
        path = Path(importlib.import_module(f"{name}.{info.name}").__file__)
        source = os.path.relpath(path, GENERATED)
        lines += [info.name, "-" * len(info.name), "", f".. literalinclude:: {source}", ""]
    return "\n".join(lines) + "\n"


def results(module, names):
    """Paths of the classes that public functions return and that no subpackage exports."""
    returned = set()
    for name in names:
        if inspect.isroutine(getattr(module, name)):
            kind = inspect.signature(getattr(module, name)).return_annotation
            returned |= set(getattr(kind, "__args__", [kind]))
    rooms = [getattr(bayesrg, name) for name in bayesrg.__all__]
    shown = [getattr(r, n) for r in rooms if inspect.ismodule(r) for n in public_names(r)]
    return sorted(
        f"{kind.__module__}.{kind.__name__}".removeprefix("bayesrg.")
        for kind in returned
        if inspect.isclass(kind) and kind.__module__.startswith("bayesrg.") and kind not in shown
    )


def public_names(module):
    """Names in ``__all__``, else those that the module defines; submodules apart."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
    ]
    return sorted(n for n in names if not inspect.ismodule(getattr(module, n)))


def write(path, text):
    """Write a file unless it has this text already, so that a second build is quick."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


# -- mathematics: MathML, which browsers draw without a script ---------------------------------
def visit_math(translator, node):
    """Write a formula. If it cannot be translated, warn, which is an error with -W.

    Wide spaces split a displayed formula into a row of parts, which a narrow page can break.
    """
    block = isinstance(node, nodes.math_block)
    text = re.sub(r"frac(\d)(\d)", r"frac{\1}{\2}", node.astext())  # else 12 over what follows
    parts = re.split(r"\\q?quad(?![a-z])", text) if block else [text]
    try:
        formula = "".join(tex2mathml(part, as_block=block) for part in parts)
    except MathError as error:
        logging.getLogger(__name__).warning("%s: %s", error, node.astext(), location=node)
        formula = translator.encode(node.astext())
    tag = "div" if block else "span"
    translator.body.append(f'<{tag} class="mathml">{formula}</{tag}>')
    raise nodes.SkipNode


def setup(app):
    app.connect("config-inited", write_reference)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
