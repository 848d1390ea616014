"""How Sphinx builds the documentation: ``make docs``, or ``python -m sphinx -W docs build/docs``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found,ignore::FutureWarning"  # of what notebooks load: widgets, Lightning
sys.path.insert(0, str(Path(__file__).parent))  # so that the extension beside this file is found

import ancestral

project, author, copyright = "ancestral", "the authors of ancestral", "the authors of ancestral, Apache-2.0"
version = release = ancestral.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "extension"]
exclude_patterns = ["extension", "README.md"]

myst_enable_extensions = ["dollarmath", "deflist", "attrs_block"]
myst_heading_anchors = 3
nb_execution_mode = "cache"  # a notebook runs again when it changed; its outputs are kept in the build folder alone
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_cache_path = str(Path(__file__).parent.parent / "build" / "notebooks")
nb_merge_streams = True
suppress_warnings = ["ref.python"]  # a type of the same name in two modules is no fault

default_role = "code"
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
maximum_signature_line_length = 90
autodoc_preserve_defaults = True
napoleon_custom_sections = [("Attributes", "params_style")]  # several names may share a line
napoleon_use_rtype = False
python_use_unqualified_type_names = True
add_module_names = False

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "ancestral"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sphinx = False
