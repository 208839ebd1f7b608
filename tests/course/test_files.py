import pytest

from minivlm.course.files import Course, CourseError, matching, read, write

NAMES = ["00a_start_here", "00b_language_model", "01_clip", "03_blip", "04_blip2", "10_llava"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("01", ["01_clip"]),
        ("01_clip", ["01_clip"]),
        ("clip", ["01_clip"]),
        ("blip", ["03_blip"]),
        ("bli", ["03_blip", "04_blip2"]),
        ("00", ["00a_start_here", "00b_language_model"]),
        ("1", ["01_clip"]),
        ("CLIP", ["01_clip"]),
        ("99", []),
        ("", []),
    ],
)
def test_matching(text, meant):
    assert matching(text, NAMES) == meant


def test_unknown_notebook_lists_those_there_are(tmp_path):
    (tmp_path / "notebooks" / "src").mkdir(parents=True)
    (tmp_path / "notebooks" / "src" / "01_clip.py").touch()
    with pytest.raises(CourseError, match=r"no notebook '99'. There are: 01_clip"):
        Course(tmp_path).choose(["99"])
    for text in (".", "/", "notebooks/"):
        with pytest.raises(CourseError, match="no notebook"):
            Course(tmp_path).choose([text])
    assert Course(tmp_path).choose(["notebooks/01_clip.ipynb"]) == ["01_clip"]


def test_missing_or_broken_notebook(tmp_path):
    with pytest.raises(CourseError, match="does not exist yet"):
        read(tmp_path / "x.ipynb")
    (tmp_path / "x.ipynb").write_text("{")
    with pytest.raises(CourseError, match="not a notebook"):
        read(tmp_path / "x.ipynb")


def test_write_is_whole_or_nothing(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write(path, "new \udc80")
    assert path.read_text() == "old"
