"""Check the spelling of the pages, the tutorials and the docstrings, in British English, without a network.

    python docs/check_spelling.py

Words are looked up in the dictionary of pyspellchecker, in codespell's list of British spellings, and in
spelling_words.txt beside this file: names and terms, one a line, sorted. Code, formulae, links, abbreviations in
capitals and names with capitals inside are left out; of docstrings, where names of authors and classes abound, only
words in small letters are looked up.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from spellchecker import SpellChecker

ROOT = Path(__file__).parents[1]
OWN = Path(__file__).with_name("spelling_words.txt")
SKIPPED = re.compile(
    r"\A---\n.*?\n---\n"  # front matter
    r"|^ *(```+|~~~+|:::+).*?^ *\1"  # code blocks and directives
    r"|\$\$.*?\$\$|\$[^$\n]+(?:\n[^$\n]+)?\$"  # formulae
    r"|<!--.*?-->|<[^>\n]+>|\{[\w:+-]+\}(?=`)|``.*?``|`[^`]*`"
    r"|\]\([^)]*\)|https?://\S+|\b10\.\d{4,}/\S+|\S+@\S+|[\w./-]+\.(?:py|md|csv|html|ipynb|toml|cff|txt|com|org)\b",
    re.MULTILINE | re.DOTALL,
)
WORD = re.compile(r"(?<![\w.^/=\\@-])[^\W\d_]{3,}(?:['’][a-z]+)?(?![\w(=^])")
# The title of a cited work, as its authors wrote it: from the year to the end of the entry.
TITLE = re.compile(r"\b(?:1[6-9]|20)\d\d[a-z]?(?:\)[,.:]?|,)\s.*?(?=[;)]|\n\s*\n|\n\s*[-*] |\Z)", re.DOTALL)
# American forms that are British in another sense, or everywhere in computing.
ALSO_BRITISH = {
    *("practice", "practices", "program", "programs", "license", "licenses", "licensed", "writable", "math", "routing"),
    *("biased", "focused", "focuses", "focusing", "judgment", "judgments", "artifact", "artifacts", "meters"),
}


def british_and_american() -> tuple[set[str], set[str]]:
    """Return British spellings, and the American ones in their place."""
    table = (files("codespell_lib") / "data" / "dictionary_en-GB_to_en-US.txt").read_text(encoding="utf-8")
    pairs = [line.lower().rstrip(",").split("->") for line in table.splitlines() if "->" in line]
    british = {pair[0] for pair in pairs}
    return british, {pair[1].strip() for pair in pairs} - british - ALSO_BRITISH


def texts() -> Iterator[tuple[Path, str]]:
    """Yield the prose of pages and tutorials."""
    pages = [path for path in sorted((ROOT / "docs").rglob("*.md")) if not {"_build", "tutorials"} & set(path.parts)]
    for path in [*sorted(ROOT.glob("*.md")), *pages]:
        yield path, path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "tutorials").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield path, "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def docstrings() -> Iterator[tuple[Path, str]]:
    """Yield the docstrings of the library, without their examples."""
    for path in sorted((ROOT / "probseq").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                yield (
                    path,
                    re.sub(
                        r"^\s*(?:>>>|\.\.\.).*$|^\s*[\w, *]+ : .*$|^\s*\w+(?:, \w+)*$", "", text, flags=re.MULTILINE
                    ),
                )


def words_of(text: str) -> set[str]:
    """Return the words of a text that a dictionary may know."""
    words = {re.sub(r"['’].*$", "", word) for word in WORD.findall(SKIPPED.sub(" ", text))}
    return {word for word in words if len(word) > 2 and (word.islower() or word.istitle())}


def main() -> int:
    """Print every word that is in no dictionary or American, and return whether there is one."""
    own = OWN.read_text(encoding="utf-8").splitlines()
    if own != sorted(set(own), key=lambda word: (word.lower(), word)):
        print(f"{OWN.name}: one word a line, sorted, none twice")
        return 1
    british, american = british_and_american()
    known = {word.lower() for word in own} | british | american
    found: dict[str, set[Path]] = defaultdict(set)
    foreign: dict[str, set[Path]] = defaultdict(set)
    for reader, takes in ((texts, lambda word: True), (docstrings, str.islower)):
        for path, text in reader():
            for word in filter(takes, words_of(text)):
                found[word].add(path)
            for word in words_of(TITLE.sub(" ", text)) & american:
                foreign[word].add(path)
    dictionary = SpellChecker(language="en", distance=1)
    unknown = {word for word in found if word.lower() not in known and not dictionary.known([word.lower()])}
    for word in sorted({*unknown, *foreign}, key=str.lower):
        places = ", ".join(str(path.relative_to(ROOT)) for path in sorted(foreign.get(word) or found[word])[:3])
        print(f"{word}: {'American' if word in foreign else 'in no dictionary'} ({places})")
    if unknown:
        print(f"Mend them, or add names and terms to docs/{OWN.name}.")
    print(f"{len(found)} words checked, {len(unknown) + len(foreign)} faults")
    return int(bool(unknown or foreign))


if __name__ == "__main__":
    sys.exit(main())
