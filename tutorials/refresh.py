"""Run notebooks anew and keep them small: ``python tutorials/refresh.py [NOTEBOOK ...]``, without arguments all.

Outputs are those of this run. Times of execution are left out, so that a second run changes only what the library
changed, and pictures are stored with as many colours as they need.
"""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from PIL import Image

_COLOURS = 128
_LIMIT = 180


def run(path: Path) -> float:
    """Execute a notebook in place; seconds that it took."""
    begin = time.perf_counter()
    execute = Path(sys.executable).with_name("jupyter-execute")
    subprocess.run([execute, "--inplace", "--timeout=900", path], check=True)
    return time.perf_counter() - begin


def tidy(path: Path) -> None:
    """Drop the times of execution and shrink the pictures."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = _smaller(data["image/png"])
    nbformat.write(notebook, path)


def _smaller(png: str) -> str:
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    kept = io.BytesIO()
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(kept, "PNG", optimize=True)
    text = base64.b64encode(kept.getvalue()).decode()
    return text if len(text) < len(png) else png


if __name__ == "__main__":
    named = [Path(name) for name in sys.argv[1:]] or sorted(Path(__file__).parent.glob("*.ipynb"))
    for notebook in named:
        seconds = run(notebook)
        tidy(notebook)
        size = notebook.stat().st_size / 1000
        late = f"; more than the {_LIMIT} s that a tutorial may take" if seconds > _LIMIT else ""
        print(f"{notebook.name}: {seconds:.0f} s, {size:.0f} kB{late}")
