"""Configuration of the documentation: built offline, with warnings as errors."""

import os
import re
import sys
from pathlib import Path

# Kernels that run the pages draw into them, whatever the caller draws with.
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
sys.path.insert(0, str(Path(__file__).parent / "_ext"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import probseq

project = "probseq"
author = "The probseq developers"
copyright = "The probseq developers"
release = version = probseq.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "benchmark_results",
    "layers",
    "mathml",
    "reference",
    "tutorials",
]
exclude_patterns = ["_build", "_ext", "_static"]
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_title = "probseq"
html_theme_options = {
    "logo": {"text": "probseq"},
    "header_links_before_dropdown": 8,
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],
    "navigation_with_keys": False,
    "show_toc_level": 1,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "github-dark",
}
html_sidebars = {"index": [], "get_started": [], "design": []}
html_show_sourcelink = False

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
# Pages with code cells run when they change; tutorials carry their outputs.
nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parent / "_build" / ".executed")
nb_execution_excludepatterns = ["tutorials/*"]
nb_execution_timeout = 180
nb_execution_raise_on_error = True
nb_output_stderr = "warn"
nb_merge_streams = True

napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
autodoc_inherit_docstrings = True

_CODE = re.compile(r"(``.*?``|`[^`]*`|:\w+:`[^`]*`)")
_MARKUP = re.compile(r"(?<![\w\\])\*{1,2}(?=\w)|(?<=\w)_(?!\w)|\|(?=\w)")

_INTERNAL = {"rules", "check_rules", "not_saved", "has_latent_paths", "has_likelihood", "has_states"}
_ROUTING = re.compile(r"set_\w+_request|get_metadata_routing")


def _escape(text):
    return _MARKUP.sub(lambda found: "".join("\\" + mark for mark in found[0]), text)


def escape_notation(app, what, name, obj, options, lines):
    """Write `*draw`, `params_` and `p(x|y)` of the docstrings as they are: reStructuredText reads them as markup.

    What a method inherits from torch, in another form of docstring, is left out.
    """
    if "Args:" in (line.strip() for line in lines):
        lines.clear()
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[i] = "".join(part if k % 2 else _escape(part) for k, part in enumerate(_CODE.split(line)))


def skip_internals(app, what, name, obj, skip, options):
    """Leave out what no user calls.

    Scikit-learn's generated methods of metadata routing, whose text refers to its own glossary; the rules by which
    parameters are checked; the classes behind an estimator; fields of tuples, which the tuple describes.
    """
    behind = (isinstance(obj, type) and name.islower()) or (name == "transform" and not callable(obj))
    nameless = str(getattr(obj, "__doc__", "")).startswith("Alias for field number")
    return True if behind or nameless or _ROUTING.fullmatch(name) or name in _INTERNAL else None


def setup(app):
    app.connect("autodoc-skip-member", skip_internals)
    app.connect("autodoc-process-docstring", escape_notation, priority=100)
