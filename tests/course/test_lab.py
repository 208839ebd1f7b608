import socket

import pytest

from minivlm.__main__ import main
from minivlm.course import lab
from minivlm.course.files import Course, CourseError


@pytest.fixture
def taken_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_the_next_free_port_is_taken(taken_port):
    assert lab.free_port(taken_port) > taken_port


def test_no_free_port(taken_port):
    with pytest.raises(CourseError, match=f"no free port from {taken_port} to {taken_port}"):
        lab.free_port(taken_port, tries=1)


def test_no_free_port_on_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(lab, "is_free", lambda port: False)
    assert main(["lab", "--port", "9000"]) == 2
    assert "no free port from 9000 to 9049" in capsys.readouterr().err


@pytest.mark.parametrize("port", [0, -1, 70000])
def test_no_such_port(port):
    with pytest.raises(CourseError, match="from 1 to 65535"):
        lab.free_port(port)


def test_a_port_of_the_system(monkeypatch):
    monkeypatch.setattr(lab, "is_free", lambda port: False)
    with pytest.raises(CourseError, match="--port 80: ports below 1024 are the system's"):
        lab.free_port(80)


def test_command_opens_the_first_notebook(tmp_path):
    command = lab.command(Course(tmp_path), 9000, browser=False)
    assert "--LabApp.default_url=/lab/tree/notebooks/00a_start_here.ipynb" in command
    assert "--ServerApp.port=9000" in command
    assert command[-1] == "--no-browser"


def test_first_notebook_must_be_there(tmp_path):
    with pytest.raises(CourseError, match="is missing"):
        lab.open_lab(Course(tmp_path))
