"""A Chromium for the tests that see a page as a reader does."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

VARIABLE = "MINIVLM_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}


def missing() -> str:
    """What has to be installed before a page can be looked at, and how; an empty text if nothing."""
    given = os.environ.get(VARIABLE)
    if given and not shutil.which(given):
        return f"{VARIABLE} says that Chromium is {given}, and no such program is there; on Debian: apt-get install chromium"
    if not given and not any(map(shutil.which, NAMES)):
        return (
            "no Chromium on this machine, so JupyterLab and the site were not looked at. Install it (on Debian, as root: "
            f"apt-get install chromium), or say where it is: {VARIABLE}=/path/to/chrome"
        )
    if not all(importlib.util.find_spec(name) for name in ("playwright", "axe_playwright_python")):
        return 'playwright or axe is not installed; python -m pip install -e ".[test]" brings both'
    return ""


@contextmanager
def chromium() -> Iterator["playwright.sync_api.Browser"]:
    """A running headless Chromium: `$MINIVLM_CHROMIUM`, or the first of NAMES.

    Where one is missing the test is skipped; but whoever names one, as .ci/run does where it has one, is told by a failure.
    """
    if missing():
        pytest.fail(missing()) if os.environ.get(VARIABLE) else pytest.skip(missing())
    from playwright.sync_api import sync_playwright

    program = shutil.which(os.environ.get(VARIABLE) or next(filter(shutil.which, NAMES)))
    with sync_playwright() as driver, driver.chromium.launch(executable_path=program) as browser:
        yield browser
