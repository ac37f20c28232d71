"""What importing costs, and what a long series costs."""

import subprocess
import sys

import pytest


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_lazy():
    heavy = {"torch", "pandas", "xarray", "sklearn", "scipy", "numba", "numpy", "matplotlib", "lightning", "pyro"}
    assert run(f"import probseq, sys; dir(probseq); print(sorted({heavy!r} & set(sys.modules)))") == "[]"


def test_every_public_name_loads():
    run("import probseq; [getattr(probseq, name) for name in probseq.__all__ if name not in ('cli', 'report')]")


def test_an_unknown_name_raises_attribute_error():
    import probseq

    with pytest.raises(AttributeError, match="no attribute 'Lstm'"):
        _ = probseq.Lstm


MILLION = """
import gc, resource, sys
import numpy as np, torch
torch.set_num_threads(1)
import probseq as ps
rng = np.random.default_rng(0)
s = 8
model = ps.HMM(s).with_parameters(
    initial=np.full(s, 1 / s), transition=np.full((s, s), 0.02) + 0.84 * np.eye(s),
    mean=np.arange(s)[:, None] * 1.0, scale=np.ones((s, 1)),
)
model.log_prob(rng.normal(size=1000))
x = rng.normal(3, 2, 1_000_000)
def peak():
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return int(lines["VmHWM"].split()[0]) * 1024, int(lines["VmRSS"].split()[0]) * 1024
gc.collect()
try:
    open("/proc/self/clear_refs", "w").write("5")  # resets the peak where the kernel allows it
except OSError:
    pass
before = peak()[1]
total = float(model.log_prob(x))
print(total, peak()[0] - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory from /proc")
def test_a_million_steps_of_eight_states():
    total, used = run(MILLION).split()
    assert -4e6 < float(total) < -1e6
    assert float(used) < 4 * 64e6, f"{float(used) / 64e6:.1f} times the table of emissions"
