"""Links from pages to files and folders of the project, written as paths that work in a checkout.

With `source_url` (conf.py) they lead to the repository. Without it a file is a download, and a
folder its name alone. A link to what does not exist stays a warning.
"""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]


def link_to_project(app: Sphinx, doctree: nodes.document) -> None:
    """Resolve a page's links to files and folders of the project."""
    page = Path(app.env.doc2path(app.env.docname))
    links = [*doctree.findall(addnodes.download_reference), *doctree.findall(addnodes.pending_xref)]
    for link in links:
        target = link["reftarget"].partition("#")[0]
        path = (page.parent / target).resolve()
        is_file = isinstance(link, addnodes.download_reference)
        if not (link.get("reftype") == "myst" and ROOT in path.parents):
            continue
        if not (path.is_file() if is_file else path.is_dir()):
            continue
        if app.config.source_url:
            kind = "blob" if is_file else "tree"
            uri = f"{app.config.source_url}/{kind}/main/{path.relative_to(ROOT)}"
            link.replace_self(nodes.reference("", "", *link.children, refuri=uri))
        elif not is_file:
            link.replace_self(link.children)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the resolution."""
    app.add_config_value("source_url", "", "env")
    app.connect("doctree-read", link_to_project)
    return {"parallel_read_safe": True}
