"""JupyterLab as `make lab` starts it, with a reader who opens notebook 01 and chooses Run All Cells."""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from minivlm.course import lab
from minivlm.course.files import Course, read
from tests.course import browser

NAME = "01_clip"
PATIENCE = 600  # seconds until the test gives up; on a free machine it takes a twentieth of that
OPENED = """() => {
    const panel = window.jupyterapp?.shell.currentWidget;
    return panel?.content?.widgets && panel.context?.isReady && panel.sessionContext?.isReady
        && panel.sessionContext.session?.kernel?.status === "idle";
}"""
# The promise is not returned but kept: it ends with the last cell, or with the first error.
RUN = """() => {
    window.allRan = false;
    window.jupyterapp.commands.execute("notebook:run-all-cells").finally(() => { window.allRan = true; });
}"""
# Lab draws only the cells near the window, so each is brought there before it is looked at.
SEE = """async () => {
    const notebook = window.jupyterapp.shell.currentWidget.content, seen = [];
    for (const [i, cell] of notebook.widgets.entries()) {
        if (cell.model.type !== "code") continue;
        await notebook.scrollToItem(i);
        await cell.ready;
        const images = [...cell.node.querySelectorAll(".jp-OutputArea-output img")];
        await Promise.all(images.map(image => image.decode().catch(() => {})));
        const all = query => [...cell.node.querySelectorAll(query)];
        seen.push({
            source: cell.model.sharedModel.source,
            prompt: cell.node.querySelector(".jp-InputPrompt").textContent,
            errors: all("[data-mime-type='application/vnd.jupyter.error'], [data-mime-type='application/vnd.jupyter.stderr']")
                .map(output => output.textContent),
            images: images.map(image => image.naturalWidth ? [image.clientWidth, image.clientHeight] : [0, 0]),
        });
    }
    return seen;
}"""


def bare(name: str):
    """A stored notebook with nothing in it that a run would have to put there."""
    notebook = read(Course.here().notebook(name))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def settings(folder: Path) -> dict[str, str]:
    """The environment of a Lab that has no settings of this machine's user, and can be spoken to from its own page."""
    (folder / "labconfig").mkdir(parents=True)
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}  # asks a question at the start
    (folder / "labconfig" / "page_config.json").write_text(json.dumps(quiet))
    open_door = {"IdentityProvider": {"token": ""}, "LabApp": {"expose_app_in_browser": True}}
    (folder / "jupyter_config.json").write_text(json.dumps(open_door))
    own = {name: str(folder) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    return os.environ | own | {"MINIVLM_PRESET": "smoke"}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where a JupyterLab serves a folder with nothing but the bare notebook. (In the checkout, Lab would save over it.)"""
    if browser.missing():
        with browser.chromium():  # skips or fails
            return
    root, own = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("jupyter")
    (root / "notebooks").mkdir()
    nbformat.write(bare(NAME), root / "notebooks" / f"{NAME}.ipynb")
    port = lab.free_port(18888)
    log = own / "log"
    with log.open("w") as stream:
        command = lab.command(Course(root), port, browser=False)
        server = subprocess.Popen(command, cwd=root, env=settings(own / "config"), stdout=stream, stderr=stream)
    try:
        wait_until_served(f"http://127.0.0.1:{port}/api", server, log)
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/{NAME}.ipynb"
    finally:
        server.terminate()  # it stops its kernels too
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_until_served(url: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert server.poll() is None, f"JupyterLab stopped by itself:\n{log.read_text()}"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"JupyterLab does not answer at {url}:\n{log.read_text()}")


@pytest.fixture(scope="module")
def seen(address):
    """What is to be seen of each code cell after Run All Cells."""
    with browser.chromium() as chromium:
        page = chromium.new_page(viewport=browser.DESK)
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(address)
        page.wait_for_function(OPENED, polling=250)  # the default, animation frames, never come without a screen
        page.evaluate(RUN)
        page.wait_for_function("window.allRan", polling=250)
        return page.evaluate(SEE)


def title(cell: dict) -> str:
    return f"{cell['prompt']} {cell['source'].splitlines()[0][:80]}"


@pytest.mark.slow
def test_no_cell_shows_an_error(seen):
    for cell in seen:
        assert not cell["errors"], f"{title(cell)} shows:\n" + "\n".join(cell["errors"])


@pytest.mark.slow
def test_every_cell_ran_in_order(seen):
    assert [cell["prompt"] for cell in seen] == [f"[{i}]:" for i in range(1, len(seen) + 1)]
    stored = [cell for cell in read(Course.here().notebook(NAME)).cells if cell.cell_type == "code"]
    assert [cell["source"] for cell in seen] == [cell.source for cell in stored], "Lab shows other cells than are stored"


@pytest.mark.slow
def test_every_figure_is_drawn(seen):
    """The cells that show a figure in the stored notebook show one here."""
    stored = [cell for cell in read(Course.here().notebook(NAME)).cells if cell.cell_type == "code"]
    with_figure = [i for i, cell in enumerate(stored) if any("image/png" in out.get("data", {}) for out in cell.outputs)]
    assert with_figure, f"{NAME} has no figures any more"
    for i in with_figure:
        assert seen[i]["images"], f"{title(seen[i])} shows no figure"
    for cell in seen:
        for size in cell["images"]:
            assert min(size) >= 30, f"{title(cell)}: a figure is {size[0]} x {size[1]} pixels; none at all where it is damaged"


# --- and where there is no Chromium


def test_a_reader_without_chromium_is_told_what_to_do(monkeypatch):
    monkeypatch.delenv(browser.VARIABLE, raising=False)
    monkeypatch.setattr(browser, "NAMES", ("no-such-browser",))
    with pytest.raises(pytest.skip.Exception, match=re.escape("apt-get install chromium")), browser.chromium():
        pass


def test_where_chromium_is_expected_its_absence_is_a_failure(monkeypatch):
    monkeypatch.setenv(browser.VARIABLE, "/nowhere/chromium")
    with pytest.raises(pytest.fail.Exception, match="/nowhere/chromium, and no such program"), browser.chromium():
        pass


@pytest.mark.parametrize(
    ("user", "tools", "said"),
    [
        (0, ["apt-get"], "asked for: install -y -qq --no-install-recommends chromium"),
        (0, [], "no chromium, and no apt-get to install it"),
        (1000, ["apt-get"], "no chromium, and only root can install it"),
        (1000, ["apt-get", "chromium"], ""),
    ],
)
def test_continuous_integration_brings_chromium_or_says_why_not(tmp_path, user, tools, said):
    script = Course.here().root / ".ci" / "run"
    fakes = {"id": f"echo {user}", "make": 'echo "tests run with $MINIVLM_CHROMIUM"'}
    fakes |= dict.fromkeys(tools, 'echo "asked for: $@"')
    for name, does in fakes.items():
        (tmp_path / name).write_text(f"#!{shutil.which('bash')}\n{does}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "dirname").symlink_to(shutil.which("dirname"))
    done = subprocess.run([shutil.which("bash"), script], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    named = "chromium" if "chromium" in tools else ""  # apt-get installs nothing here: then the tests are to be skipped
    assert done.stdout.endswith(f"tests run with {named}\n"), done.stdout
    if said:
        assert said in done.stdout + done.stderr
    else:
        assert done.stdout + done.stderr == "tests run with chromium\n", "Chromium is there, and something was installed"
