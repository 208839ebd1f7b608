"""What the `gpu` preset builds can be built, and takes its first steps: here on the CPU, with the steps of `smoke`."""

import os
import subprocess
import sys

import nbformat
import pytest

from tests.notebooks import lessons


@pytest.mark.slow
@pytest.mark.parametrize("stem", lessons.stems())
def test_the_gpu_sizes_take_a_step(stem, tmp_path):
    """All cells up to the exercises; figures are drawn, claims recorded and not asserted."""
    notebook = nbformat.read(lessons.FOLDER / f"{stem}.ipynb", as_version=4)
    code = []
    for cell in notebook.cells:
        if any(level == 2 and words == "Exercises" for level, words in lessons.headings(cell)):
            break
        if cell.cell_type == "code" and "raises-exception" not in cell.metadata.get("tags", []):
            code.append(cell.source)
    program = tmp_path / f"{stem}.py"
    program.write_text("\n\n".join(code), encoding="utf-8")
    environment = os.environ | {"MINIVLM_PRESET": "gpu-smoke", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, str(program)], cwd=lessons.ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{stem} at the sizes of gpu:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
