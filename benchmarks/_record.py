"""What one run of a benchmark found, and where and with what it ran, as one JSON file.

A benchmark makes a ``Record``, adds what it measured and calls ``finish``. With ``--write`` that writes
``docs/benchmarks/results/NAME.json``, from which the documentation is made; with ``--results FOLDER`` it writes into a
folder of one's own; with neither it writes nothing. A smoke run never takes the place of a whole one.

Speed comes as seconds of every round on both sides. A ratio is the median over rounds of the peer's seconds over ours
in the same round, so that above 1 is faster than the peer; its spread is from the lower to the upper quartile.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "docs" / "benchmarks" / "results"
# Their versions are written down wherever they are installed and loaded.
LIBRARIES = ("probseq", "numpy", "scipy", "numba", "torch", "lightning")
FIELDS = ("name", "title", "measured", "smoke", "command", "date", "seconds", "machine", "versions", "threads", "load")
# These say where the results go, or where data lies, and no more.
_FOLDERS = ("--results", "--data", "--out")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--write`` and ``--results``."""
    parser.add_argument("--write", action="store_true", help="write what is found into the documentation's results")
    parser.add_argument("--results", type=Path, help="write what is found into this folder")


class Record:
    """One run: made before the first measurement, finished after the last.

    Parameters
    ----------
    name : str
        The name of the file, without its ending.
    title, measured : str
        What it is about, and what was timed or counted, in what unit and how often.
    options : argparse.Namespace
        As ``add_options`` and the benchmark's own ``--smoke`` fill it.
    peers : sequence of str
        Distributions beside ``LIBRARIES`` whose versions belong to the result, as far as they are installed.
    threads : int
        Of every library.
    """

    def __init__(
        self,
        name: str,
        title: str,
        measured: str,
        options: argparse.Namespace,
        peers: Sequence[str] = (),
        threads: int = 1,
    ) -> None:
        self.folder = options.results or (RESULTS if options.write else None)
        self.smoke = bool(options.smoke)
        self.begun = time.perf_counter()
        self.before = _load()
        self.found: dict[str, Any] = {
            "name": name,
            "title": title,
            "measured": measured,
            "smoke": self.smoke,
            "command": _command(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": machine(),
            "versions": versions(*LIBRARIES, *peers),
            "threads": threads,
            "speed": [],
            "values": {},
            "marks": [],
        }

    def speed(
        self, task: str, case: str, peer: str, ours: Sequence[float], theirs: Sequence[float], **others: Any
    ) -> None:
        """Add the seconds of both sides, a round each, in the order in which they were taken.

        ``peer`` is the name of a distribution with an optional addition: ``"statsforecast, CSS-ML"``.
        """
        pairs = [(_short(a), _short(b)) for a, b in zip(ours, theirs, strict=True)]
        ratios = [b / a for a, b in pairs]
        row = {"task": task, "case": case, "peer": peer, "version": version(peer.split(",")[0])}
        row |= {"rounds": len(pairs), "ratio": _short(statistics.median(ratios)), "spread": quartiles(ratios)}
        row |= {"ours": [a for a, _ in pairs], "theirs": [b for _, b in pairs]}
        self.found["speed"].append(row | others)

    def value(self, table: str, **cells: Any) -> None:
        """Add a row to a table of figures that are no ratios of times; the names of the cells are its columns."""
        self.found["values"].setdefault(table, []).append({key: _plain(cell) for key, cell in cells.items()})

    def mark(self, what: str, value: float, wanted: float, at_least: bool = True) -> None:
        """Add a figure beside what was aimed at."""
        met = value >= wanted if at_least else value <= wanted
        row = {"what": what, "value": _plain(value), "wanted": wanted, "at_least": at_least, "met": bool(met)}
        self.found["marks"].append(row)

    @property
    def quiet(self) -> bool:
        """Whether nothing else ran when this began, so that time on the wall says something."""
        return not self.before or self.before[0] < 1.0

    def finish(self) -> None:
        """Write the file, if one was asked for, and say where it is."""
        self.found["seconds"] = round(time.perf_counter() - self.begun, 1)
        self.found["load"] = {"before": self.before, "after": _load()}
        check(self.found)
        if self.folder is None:
            return
        path = self.folder / f"{self.found['name']}.json"
        if self.smoke and path.exists() and not json.loads(path.read_text(encoding="utf-8"))["smoke"]:
            print(f"{path} holds a whole run; this short one is not written")
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(_dump(self.found) + "\n", encoding="utf-8")
        print(f"written: {path}")


def check(found: dict[str, Any]) -> None:
    """Raise ValueError for a record that lacks a field, holds no figure or one that is not finite."""
    lacking = [field for field in FIELDS if field not in found]
    if lacking:
        raise ValueError(f"the record {found.get('name')} lacks {', '.join(lacking)}")
    if not found["speed"] and not any(found["values"].values()):
        raise ValueError(f"the record {found['name']} holds no figure")
    for row in found["speed"]:
        ratios = [b / a for a, b in zip(row["ours"], row["theirs"], strict=True)]
        if not all(math.isfinite(ratio) and ratio > 0 for ratio in ratios):
            raise ValueError(f"{found['name']}: times of {row['task']}, {row['case']} are not positive and finite")
        if not math.isclose(row["ratio"], statistics.median(ratios), rel_tol=1e-4) or row["rounds"] != len(ratios):
            raise ValueError(f"{found['name']}: the ratio of {row['task']}, {row['case']} is not that of its rounds")
    for name, rows in found["values"].items():
        for row in rows:
            wrong = [key for key, cell in row.items() if isinstance(cell, float) and not math.isfinite(cell)]
            if wrong:
                raise ValueError(f"{found['name']}, {name}: {', '.join(wrong)} of {row} is not finite")


def summary(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a benchmark, task and peer: geometric mean, least and greatest ratio over the cases."""
    rows = []
    for found in records:
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in found["speed"]:
            groups.setdefault((row["task"], row["peer"]), []).append(row)
        for (task, peer), each in groups.items():
            ratios = [row["ratio"] for row in each]
            rows.append(
                {
                    "benchmark": found["name"],
                    "task": task,
                    "peer": peer,
                    "version": each[0]["version"],
                    "cases": len(each),
                    "mean": math.exp(statistics.fmean(map(math.log, ratios))),
                    "least": min(ratios),
                    "most": max(ratios),
                }
            )
    return rows


def load_results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All records of a folder, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower and upper quartile; of one value, that value twice."""
    if len(values) == 1:
        return [_short(values[0])] * 2
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return [_short(low), _short(high)]


def machine() -> dict[str, Any]:
    """Processor, its vector instructions, cores, memory in GiB, operating system, Python."""
    model, flags, system = platform.processor() or platform.machine(), "", platform.system()
    if Path("/proc/cpuinfo").exists():
        facts = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
        facts = {key.strip(): value.strip() for key, value in facts.items()}
        model, flags = facts.get("model name", model), facts.get("flags", "")
    if Path("/etc/os-release").exists():
        lines = Path("/etc/os-release").read_text().splitlines()
        system = next((line[13:-1] for line in lines if line.startswith("PRETTY_NAME=")), system)
    vectors = [word for word, flag in (("AVX2", "avx2"), ("AVX-512", "avx512f")) if flag in flags.split()]
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    return {
        "processor": model,
        "architecture": platform.machine(),
        "vectors": vectors[-1] if vectors else None,
        "cores": os.cpu_count(),
        "memory": memory,
        "system": system,
        "python": platform.python_version(),
    }


def version(name: str) -> str | None:
    """None if there is no such distribution."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions(*names: str) -> dict[str, str]:
    """Versions of those that are installed."""
    found = {name: version(name) for name in names}
    return {name: number for name, number in found.items() if number is not None}


def _load() -> list[float]:
    """Programs that wanted a core, on average over the last 1, 5 and 15 minutes."""
    return [round(one, 2) for one in os.getloadavg()] if hasattr(os, "getloadavg") else []


def _command() -> str:
    """The command of this run without the folders of this machine."""
    words, skip = [f"benchmarks/{Path(sys.argv[0]).name}"], False
    for word in sys.argv[1:]:
        name = word.split("=")[0]
        if not skip and name != "--write" and name != "--results":
            words.append(f"{name} FOLDER" if name in _FOLDERS else shlex.quote(word))
        skip = word in _FOLDERS
    return "python " + " ".join(words)


def _short(value: float) -> float:
    """Five digits, which is more than a clock is good for."""
    return float(f"{float(value):.5g}")


def _plain(cell: Any) -> Any:
    """A number of Python with six digits, or the cell as it is."""
    if isinstance(cell, (str, bool, int)) or cell is None:
        return cell
    return float(f"{float(cell):.6g}")


def _dump(found: dict[str, Any]) -> str:
    """One row a line, so that a change of a figure is a change of a line."""
    lines = []
    for key, value in found.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n    ".join(json.dumps(row, ensure_ascii=False) for row in value)
            text = f"[\n    {rows}\n  ]"
        elif key == "values" and value:
            tables = []
            for name, each in value.items():
                rows = ",\n      ".join(json.dumps(row, ensure_ascii=False) for row in each)
                tables.append(f"{json.dumps(name)}: [\n      {rows}\n    ]")
            text = "{\n    " + ",\n    ".join(tables) + "\n  }"
        else:
            text = json.dumps(value, ensure_ascii=False)
        lines.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}"


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    print(json.dumps(summary(load_results(folder)), indent=1, ensure_ascii=False))
