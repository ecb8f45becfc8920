"""The site: Markdown pages, and the docstrings of all public names. Built by `make docs`.

Nothing is fetched, neither when it is built nor when it is read: the theme has the system's fonts,
and formulas become MathML, which browsers draw by themselves.
"""

from __future__ import annotations

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

import ganloss_fast

project = "ganloss_fast"
release = ganloss_fast.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"ganloss_fast {release}"
html_math_renderer = "mathml"

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 2
myst_disable_syntax = ["html_inline"]  # C++ templates in tables: perturb_kernel<double>
autodoc_typehints = "none"  # the docstrings give types in words
autodoc_inherit_docstrings = False  # torch's, of Module.forward
napoleon_use_rtype = False
python_use_unqualified_type_names = True


def _mathml(formula: str, display: str) -> str:
    """With words upright: softplus is a name, not a product of eight variables."""
    return convert(
        re.sub(r"(?<![\\A-Za-z])[A-Za-z]{2,}", r"\\text{\g<0>}", formula), display=display
    )


def _inline(self, node: nodes.math) -> None:
    self.body.append(_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _block(self, node: nodes.math_block) -> None:
    self.body.append(_mathml(node.astext(), "block"))
    raise nodes.SkipNode


def _check_names(app: Sphinx, env) -> None:
    """A public name without an entry is a warning, which the build turns into an error."""
    documented = {name for name, *_ in env.domains["py"].get_objects()}
    for name in ganloss_fast.__all__:
        if f"ganloss_fast.{name}" not in documented:
            logging.getLogger(__name__).warning("ganloss_fast.%s is not documented", name)


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("env-check-consistency", _check_names)
