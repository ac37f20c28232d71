"""The reference: every public name on exactly one page of its kind, with a table of all of them at the start."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from types import ModuleType

from names import NAMES
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.logging import getLogger
from typer.testing import CliRunner

import probseq
import probseq.extend
import probseq.plotting
from probseq.cli import app as command_line

# Pages whose classes are described by their parameters: their methods are called by the library, not by users.
CONFIGURATIONS = {"emissions", "chains", "transforms", "inference"}
# Members inherited from other libraries are documented there.
MEMBERS = (":members:", ":inherited-members: object,BaseException,BaseEstimator,Distribution,Module,tuple,dict")


def check_groups() -> None:
    """Raise unless every public name stands on exactly one page."""
    public = [name for name in probseq.__all__ if not name.startswith("__")]
    placed = Counter(name for names in NAMES.values() for name in names)
    missing = [name for name in public if name not in placed]
    twice = [name for name, times in placed.items() if times > 1]
    gone = [name for name in placed if name not in public]
    if missing or twice or gone:
        raise ExtensionError(
            "docs/_ext/names.py: every public name stands on exactly one page of the reference; "
            f"on none: {missing}; on two: {twice}; not public: {gone}."
        )


def _link(name: str) -> str:
    item = getattr(probseq, name)
    if isinstance(item, ModuleType):
        return f"{{py:mod}}`~{item.__name__}`"
    if isinstance(item, type):
        return f"{{py:class}}`~probseq.{name}`"
    return f"{{py:func}}`~probseq.{name}`" if callable(item) else f"{{py:data}}`~probseq.{name}`"


def summary(page: str) -> str:
    """Return a table of the names on a page with one line each."""
    rows = [f"| {_link(name)} | {line} |" for name, line in NAMES[page].items()]
    return "\n".join(["| name | what it is |", "|---|---|", *rows])


def index_tables(pages: dict[str, str]) -> str:
    """Return the tables of all pages, headed by the titles of the pages."""
    return "\n\n".join(f"## [{title}]({page}.md)\n\n{summary(page)}" for page, title in pages.items())


def _directive(kind: str, target: str, *options: str) -> str:
    lines = "".join(f"   {option}\n" for option in options)
    return f"```{{eval-rst}}\n.. {kind}:: {target}\n{lines}```\n"


def entry(name: str, page: str) -> str:
    """Return the section of one public name."""
    item = getattr(probseq, name)
    if isinstance(item, ModuleType):
        return _directive("automodule", item.__name__, ":imported-members:", *MEMBERS)
    if isinstance(item, type):
        return _directive("autoclass", f"probseq.{name}", *(() if page in CONFIGURATIONS else MEMBERS))
    return _directive("autofunction" if callable(item) else "autodata", f"probseq.{name}")


def module_entries(module: ModuleType) -> str:
    """Return the classes and functions that a module names as public."""
    sections = []
    for name in module.__all__:
        item = getattr(module, name)
        if inspect.isclass(item):
            sections.append(_directive("autoclass", f"{module.__name__}.{name}", *MEMBERS))
        elif inspect.isfunction(item):
            sections.append(_directive("autofunction", f"{module.__name__}.{name}"))
    return "\n".join(sections)


def command_help() -> str:
    """Return the help of every command, as the command line prints it."""
    printed = {"TERMINAL_WIDTH": "80", "NO_COLOR": "1"}
    sections = []
    for name in (command.name or command.callback.__name__ for command in command_line.registered_commands):
        answer = CliRunner().invoke(command_line, [name, "--help"], env=printed, prog_name="probseq")
        if answer.exit_code:
            raise ExtensionError(f"probseq {name} --help failed: {answer.output}")
        lines = "\n".join(line.rstrip() for line in answer.output.strip("\n").splitlines())
        sections.append(f"## probseq {name}\n\n```text\n{lines}\n```\n")
    return "\n".join(sections)


def _titles(app: Sphinx) -> dict[str, str]:
    titles = {}
    for page in NAMES:
        text = (app.srcdir / "reference" / f"{page}.md").read_text(encoding="utf-8")
        titles[page] = re.search(r"^# (.+)$", text, re.MULTILINE)[1]
    return titles


def fill_reference(app: Sphinx, docname: str, source: list[str]) -> None:
    """Write tables and sections where the pages of the reference ask for them."""
    folder, _, page = docname.partition("/")
    if folder != "reference":
        return
    text = source[0]
    if "<!-- tables -->" in text:
        text = text.replace("<!-- tables -->", index_tables(_titles(app)))
    if page in NAMES:
        entries = "\n".join(entry(name, page) for name in NAMES[page])
        text = text.replace("<!-- summary -->", summary(page)).replace("<!-- names -->", entries)
    if "<!-- plotting -->" in text:
        text = text.replace("<!-- plotting -->", module_entries(probseq.plotting))
    if "<!-- bases -->" in text:
        text = text.replace("<!-- bases -->", module_entries(probseq.extend))
    if "<!-- commands -->" in text:
        text = text.replace("<!-- commands -->", command_help())
    source[0] = text


def report_missing(app: Sphinx, env: object, node: object, contnode: object) -> None:
    """Warn of a role that points to a name of probseq that no page describes."""
    if node.get("refdomain") == "py" and node.get("reftarget", "").startswith("probseq."):
        message = "%s `%s` is described on no page of the reference"
        getLogger(__name__).warning(message, node["reftype"], node["reftarget"], location=node, type="reference")


def setup(app: Sphinx) -> dict[str, bool]:
    """Check the groups, then fill the pages."""
    app.connect("builder-inited", lambda app: check_groups())
    app.connect("source-read", fill_reference)
    app.connect("missing-reference", report_missing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
