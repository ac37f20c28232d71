"""The tutorials in the site: copies of the executed notebooks, and a gallery of their questions and first pictures."""

from __future__ import annotations

import base64
import io
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import nbformat
from PIL import Image
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

_WIDTH = 480
_HEAD = """# Tutorials

Each opens with a question, answers it with real data, and ends with how far the answer can be trusted. The notebooks
lie in the folder `tutorials` of the repository. They are shown here with the outputs that they were stored with, and
run again before every change of the library.

"""


@dataclass(frozen=True)
class Tutorial:
    """What the gallery shows of one notebook."""

    name: str
    title: str
    question: str
    picture: bytes | None


def _write(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _first_picture(notebook: nbformat.NotebookNode) -> bytes | None:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            drawn = output.get("data", {}).get("image/png")
            if drawn:
                picture = Image.open(io.BytesIO(base64.b64decode(drawn))).convert("RGB")
                picture.thumbnail((_WIDTH, _WIDTH))
                stored = io.BytesIO()
                picture.save(stored, "PNG", optimize=True)
                return stored.getvalue()
    return None


def read_tutorial(path: Path) -> tuple[Tutorial, bytes]:
    """Return what the gallery shows of a notebook, and the notebook with links as they are within the site."""
    notebook = nbformat.read(path, as_version=4)
    blocks = [block.strip() for block in notebook.cells[0].source.split("\n\n") if block.strip()]
    if not blocks or not re.match(r"# \S", blocks[0]):
        raise ExtensionError(f"{path.name} must begin with a heading of the first level, `# Title`.")
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\((?:\.\./)+docs/", "](../", cell.source)
    title = blocks[0].splitlines()[0].removeprefix("# ").strip()
    question = blocks[1] if len(blocks) > 1 else ""
    tutorial = Tutorial(path.stem, title, question.strip("*").replace("\n", " "), _first_picture(notebook))
    return tutorial, nbformat.writes(notebook).encode()


def _card(tutorial: Tutorial) -> str:
    picture = f'<img src="{tutorial.name}.png" alt="" loading="lazy">' if tutorial.picture else ""
    return (
        f'<a class="card-link" href="{tutorial.name}.html">{picture}'
        f"<strong>{tutorial.name[:2]} · {tutorial.title}</strong><span>{tutorial.question}</span></a>"
    )


def copy_tutorials(app: Sphinx) -> None:
    """Copy every notebook that changed, and write the gallery."""
    target = Path(app.srcdir) / "tutorials"
    shown = []
    for path in sorted((Path(app.srcdir).parent / "tutorials").glob("[0-9][0-9]_*.ipynb")):
        tutorial, copy = read_tutorial(path)
        _write(target / path.name, copy)
        if tutorial.picture:
            _write(target / "pictures" / f"{tutorial.name}.png", tutorial.picture)
        shown.append(tutorial)
    kept = {tutorial.name for tutorial in shown}
    for old in [*target.glob("*.ipynb"), *target.glob("pictures/*.png")]:
        if old.stem not in kept:
            old.unlink()
    cards = "\n".join(_card(tutorial) for tutorial in shown)
    names = "\n".join(tutorial.name for tutorial in shown)
    page = f'{_HEAD}<div class="cards">\n{cards}\n</div>\n\n```{{toctree}}\n:hidden:\n\n{names}\n```\n'
    _write(target / "index.md", page.encode())


def place_pictures(app: Sphinx, error: Exception | None) -> None:
    """Put the small pictures beside the gallery, whose links are plain HTML."""
    source = Path(app.srcdir) / "tutorials" / "pictures"
    if error is None and app.builder.format == "html" and source.is_dir():
        for picture in source.glob("*.png"):
            shutil.copy(picture, Path(app.outdir) / "tutorials" / picture.name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Copy before pages are looked for."""
    app.connect("builder-inited", copy_tutorials)
    app.connect("build-finished", place_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
