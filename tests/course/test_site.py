"""The site of a small course: built from a read-only checkout, offline, and asking nothing of the network."""

import re
import shutil

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, writes

from minivlm.course.files import Course, CourseError
from minivlm.course.site import build_site
from minivlm.course.sources import METADATA

MARKUP = re.compile(r"<(?:script|img|iframe|link|source)\b[^>]*?(?:src|href)=[\"']((?:https?:)?//[^\"']*)", re.IGNORECASE)


def make(root, text="# Title\n\n$x^2$"):
    here = Course.here().root
    shutil.copytree(here / "docs", root / "docs")
    (root / "notebooks").mkdir()
    code = new_code_cell("print(1)", outputs=[new_output("stream", text="1\n")], execution_count=1)
    notebook = new_notebook(cells=[new_markdown_cell(text), code], metadata=METADATA)
    (root / "notebooks" / "01_toy.ipynb").write_text(writes(notebook))
    return Course(root)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("course")
    course = make(root)
    (root / "docs").chmod(0o555)
    assert build_site(course, root / "out" / "site") == 0
    return root / "out" / "site"


def test_pages(site):
    for page in ("index", "architecture", "contributing", "notebooks/01_toy"):
        assert (site / f"{page}.html").exists()
    assert "notebooks/01_toy.html" in (site / "index.html").read_text()
    assert "<title>minivlm</title>" in (site / "index.html").read_text()


def test_math_is_local(site):
    page = (site / "notebooks" / "01_toy.html").read_text()
    assert "mathjax/tex-svg.js" in page
    assert (site / "_static" / "mathjax" / "tex-svg.js").stat().st_size > 1_000_000
    assert (site / "_static" / "mathjax" / "LICENSE").exists()


def test_nothing_is_asked_of_the_network(site):
    for page in site.rglob("*.html"):
        assert not MARKUP.findall(page.read_text()), f"{page} asks the network for {MARKUP.findall(page.read_text())}"
    for style in site.rglob("*.css"):
        remote = re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//[^\"')]*", style.read_text())
        assert not remote, f"{style} asks the network for {remote}"


def test_a_dead_link_fails_and_leaves_the_old_site(tmp_path, capfd):
    course = make(tmp_path, "# Title\n\n[gone](nowhere.ipynb)")
    assert build_site(course, tmp_path / "site") == 1
    assert "nowhere" in capfd.readouterr().err
    assert not (tmp_path / "site").exists()


def test_a_folder_with_other_files_is_refused(tmp_path):
    course = make(tmp_path)
    with pytest.raises(CourseError, match="holds other files than a site"):
        build_site(course, tmp_path)
