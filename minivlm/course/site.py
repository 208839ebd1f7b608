"""The notebooks as web pages that need no network: sphinx, myst-nb and furo, with MathJax from docs/_static."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from minivlm.course.files import Course, CourseError, require


def build_site(course: Course, out: Path) -> int:
    """Build docs/ and every notebook into `out`. Returns the exit status; a warning (a dead link, say) is a failure.

    The pages are made in a temporary folder and put in place whole. Nothing in the checkout is written.

    Raises CourseError if sphinx is not installed, if there is no notebook, or if `out` is not a folder of ours.
    """
    require("the site", "sphinx", "myst_nb", "furo")
    notebooks = sorted(course.notebooks.glob("*.ipynb"))
    if not notebooks:
        raise CourseError(f"no notebooks in {course.notebooks}; make them with: python -m minivlm build")
    if out.exists() and any(out.iterdir()) and not (out / "objects.inv").exists():
        raise CourseError(f"--out {out} holds other files than a site; give a new or an empty folder")
    with tempfile.TemporaryDirectory(prefix="minivlm-site-") as scratch:
        source, pages = Path(scratch, "source"), Path(scratch, "pages")
        shutil.copytree(course.root / "docs", source)
        source.chmod(0o755)  # the checkout may be read-only, and copytree copies that too
        (source / "notebooks").mkdir()
        for path in notebooks:
            shutil.copyfile(path, source / "notebooks" / path.name)
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(Path(scratch, "doctrees"))]
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        status = subprocess.run([*command, str(source), str(pages)], env=environment).returncode
        if status:
            print(f"the site was not built: sphinx found something wrong (above); {out} is as it was", file=sys.stderr)
            return 1
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(pages, out)
    print(f"{len(notebooks)} notebooks: {out / 'index.html'}")
    return 0
