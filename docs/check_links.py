"""Check every link of the built site and of the texts beside it, without a network.

    python docs/check_links.py docs/_build/html

Within the site every address, fragment, picture, script and style must exist. A page must load nothing from another
host. Links to other hosts are not fetched: only their form is checked. Links of README, CONTRIBUTING, CHANGELOG and of
the tutorials to files of the repository must exist, and so must the headings that they point to.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
# Attributes that make a browser load something when it opens the page.
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src"), ("audio", "src")}
LOADED_LINKS = {"stylesheet", "preload", "icon", "modulepreload", "preconnect", "dns-prefetch"}


class Page(HTMLParser):
    """The anchors of a page, where it links to, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the addresses of one element."""
        known = {name: value or "" for name, value in attrs}
        self.anchors.update(known[name] for name in ("id", "name") if known.get(name))
        if tag == "a" and "href" in known:
            self.links.add(known["href"])
        if tag == "link" and LOADED_LINKS & set(known.get("rel", "").split()):
            self.loads.add(known["href"])
        self.loads.update(known[name] for element, name in LOADED if element == tag and known.get(name))


@cache
def page(path: Path) -> Page:
    """Read a page once."""
    return Page(path.read_text(encoding="utf-8"))


def fault_of_form(address: str) -> str | None:
    """Return what is wrong with the form of an address on another host, or None."""
    parts = urlsplit(address)
    if parts.scheme == "mailto":
        return None if "@" in parts.path else "no address"
    if parts.scheme != "https":
        return "not https"
    if not re.fullmatch(r"[a-z0-9.-]+\.[a-z]{2,}(:\d+)?", parts.netloc) or ".." in parts.netloc:
        return "no such form of a host"
    if re.search(r"\s|[<>\"`]|[.,;]$", address) or address.count("(") != address.count(")"):
        return "ends or contains what no address has"
    if parts.netloc in {"doi.org", "dx.doi.org"} and not re.match(r"/10\.\d{4,}/\S+", parts.path):
        return "no DOI"
    return None


def is_local(address: str) -> bool:
    """Whether an address lies within the site."""
    return not (urlsplit(address).scheme or address.startswith("//"))


def faults_of_page(path: Path, site: Path) -> list[str]:
    """Return what is wrong with the links of one page."""
    faults = []
    for address in sorted(page(path).links | page(path).loads):
        if not is_local(address):
            if address in page(path).loads and not address.startswith("data:"):
                faults.append(f"loads {address} from another host")
            elif not address.startswith(("data:", "javascript:")) and (fault := fault_of_form(address)):
                faults.append(f"{address}: {fault}")
            continue
        parts = urlsplit(address)
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        target = target / "index.html" if target.is_dir() else target
        if not target.is_relative_to(site) or not target.exists():
            faults.append(f"{address}: no such file")
        elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in page(target).anchors:
            faults.append(f"{address}: no such place on that page")
    return faults


def faults_of_style(path: Path) -> list[str]:
    """Return the addresses on other hosts that a style sheet loads."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")]+)", text)
    return [f"loads {address} from another host" for address in found]


def anchors_of_text(text: str) -> set[str]:
    """Return the anchors that a forge gives to the headings of a Markdown text."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def faults_of_text(path: Path) -> list[str]:
    """Return what is wrong with the links of a Markdown text or a notebook of the repository."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    faults = []
    for address in re.findall(r"\]\(\s*<?([^)\s>]+(?:\([^)\s]*\)[^)\s>]*)?)", prose):
        if not is_local(address):
            if fault := fault_of_form(address):
                faults.append(f"{address}: {fault}")
            continue
        name, _, fragment = address.partition("#")
        target = path.parent / unquote(name) if name else path
        if not target.exists():
            faults.append(f"{address}: no such file")
        elif fragment and target.suffix == ".md":
            if fragment not in anchors_of_text(target.read_text(encoding="utf-8")):
                faults.append(f"{address}: no such heading")
    return faults


def built_pages(site: Path) -> list[Path]:
    """Return the pages that belong to the site, without those that an earlier build left behind."""
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    names = json.loads(index[index.index("{") : index.rindex("}") + 1])["docnames"]
    return [*sorted(site.glob("*.html")), *(site / f"{name}.html" for name in sorted(names) if "/" in name)]


def main(site: Path) -> int:
    """Print every fault, and return how many there are."""
    site = site.resolve()
    found: dict[Path, list[str]] = {}
    pages = built_pages(site)
    for path in pages:
        found[path.relative_to(site)] = faults_of_page(path, site)
    for path in sorted(site.rglob("*.css")):
        found[path.relative_to(site)] = faults_of_style(path)
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "tutorials").glob("*.ipynb"))]:
        found[path.relative_to(ROOT)] = faults_of_text(path)
    count = sum(len(faults) for faults in found.values())
    for path, faults in found.items():
        for fault in faults:
            print(f"{path}: {fault}")
    print(f"links of {len(pages)} pages checked, {count} faults (other hosts: their form only)")
    return count


if __name__ == "__main__":
    sys.exit(min(1, main(Path(sys.argv[1]))))
