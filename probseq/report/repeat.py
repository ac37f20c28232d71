"""How to make the same report again: command, code, data, versions."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version

import probseq
from probseq.report.markup import paragraphs
from probseq.report.study import Study

__all__ = ["code", "repeat"]

_PACKAGES = ("numpy", "scipy", "pandas", "xarray", "torch", "lightning", "numba", "matplotlib")


def repeat(study: Study, command: str) -> str:
    """The section that says how to repeat the study."""
    line = f"<p>On the command line:</p><pre tabindex=0>{escape(command)}</pre>" if command else ""
    print_ = study.fingerprint
    return (
        f"{line}<p>In Python:</p><pre tabindex=0>{escape(code(study))}</pre>"
        f"<p>Fingerprint of the data (SHA-256 of values and name): <code>{print_}</code></p>"
        f"{paragraphs(f'{_seeds(study)} {versions()}', kind='note')}"
    )


def _seeds(study: Study) -> str:
    if not study.chosen:
        return "Random numbers follow the random_state of each model."
    return f"Random numbers start from the seed {study.seed}; the networks may differ in the last digits elsewhere."


def code(study: Study) -> str:
    """Python code that makes the same comparison; it runs where the data are at hand."""
    models = "\n".join(f"    {json.dumps(name, ensure_ascii=False)}: {study.code(name)}," for name in study.models)
    return (
        f"import probseq as ps\n{study.source.code}\n"
        f'assert ps.sequences(y).fingerprint() == "{study.fingerprint}"\n'
        f"train, test = ps.split(y, horizon={study.horizon})\n"
        f"models = {{\n{models}\n}}\nfor model in models.values():\n    model.fit(train)\n"
        f"print(ps.compare(models, test, history=train))\n"
    )


def versions() -> str:
    """The packages that took part, the machine and the time."""
    found = [f"probseq {probseq.__version__}", f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return f"{', '.join(found)}; {platform.system()} {platform.machine()}. Made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
