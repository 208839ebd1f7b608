"""What every test run needs, so that plain `pytest --nbval` is right on any machine.

Kernels that nbval starts inherit this process's environment. Nothing of minivlm may be imported here: jaxtyping's
import hook (see pyproject.toml) has to come first.
"""

import os
import tempfile
from pathlib import Path

import pytest

# Shared by the two processes of `-n 2`, one for each user of the machine.
SCRATCH = Path(tempfile.gettempdir()) / f"minivlm-tests-{getattr(os, 'getuid', lambda: 'user')()}"

os.environ["MINIVLM_PRESET"] = "cpu"  # the stored outputs are those of this preset
os.environ["MINIVLM_SEED"] = "0"
os.environ["OMP_NUM_THREADS"] = "1"  # many small sums: two threads are four times slower than one
os.environ["MPLCONFIGDIR"] = str(SCRATCH / "matplotlib")  # an unwritable home would print a warning into a cell
os.environ["IPYTHONDIR"] = str(SCRATCH / "ipython")  # and a learner's own start-up files would run in every kernel
os.environ["JUPYTER_RUNTIME_DIR"] = str(SCRATCH / "jupyter")
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(SCRATCH / "hypothesis"))
for name in ("MINIVLM_ARMS", "MINIVLM_RESULTS"):
    os.environ.pop(name, None)
for name in ("MPLCONFIGDIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
    Path(os.environ[name]).mkdir(parents=True, exist_ok=True)


def pytest_configure(config: pytest.Config) -> None:
    """Build matplotlib's font cache now: done inside a cell, it may print a line that no stored output has."""
    if not hasattr(config, "workerinput"):
        import matplotlib.font_manager  # noqa: F401


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """With `-n`, keep each file in one process: the cells of a notebook need each other, in order."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "loadfile"
