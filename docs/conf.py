"""Configuration of the documentation, which `make docs` builds with Sphinx.

Pages are Markdown (MyST). `_ext/reference.py` writes the parts that come from `conf/` and the
schema, `_ext/links.py` resolves links to files of the project.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

_project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

project = "crosstune"
author = "The crosstune authors"
copyright = author
version = release = _project["version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "links",
    "reference",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "myst-nb"}

html_theme = "furo"
html_title = "crosstune"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# Types of other projects have no pages here, and the build reads no network to find theirs.
# Of our own types, these stand in signatures and are not meant to be built on.
nitpick_ignore_regex = [
    ("py:.*", r"(?!crosstune\.).*"),
    ("py:class", r"crosstune\.(config\.schema\.Run|data\.windows\.EncodedDataset)"),
    ("py:class", r"crosstune\.data\.readers\.tables\.TableLayout"),
]
# Where `[project.urls]` names the source repository, links to files lead there.
source_url = (_project.get("urls", {}).get("Source") or "").rstrip("/")
assert not source_url or re.match("https://", source_url)  # noqa: S101
