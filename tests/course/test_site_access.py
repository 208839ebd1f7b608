"""The site as it is published, in a browser: for readers with a screen reader, a keyboard or a phone."""

import json

import pytest

from minivlm import survey
from minivlm.course.files import Course
from minivlm.course.site import build_site
from tests.course import browser

PAGES = ("index", "notebooks/00a_start_here", "notebooks/01_clip")
BY_AXE = ("index", "notebooks/01_clip")  # axe-core needs many seconds for a page
SMALLEST = 12  # pixels of a letter
# Contrast is costly to compute and code has thousands of coloured words: a block whose every colour was seen is left out.
MARK_BLOCKS = """() => {
    const seen = new Set();
    for (const block of document.querySelectorAll(".highlight")) {
        const colours = [...block.querySelectorAll("span")].map(word => block.parentElement.className + word.className);
        block.classList.toggle("colours-seen", colours.every(colour => seen.has(colour)));
        colours.forEach(colour => seen.add(colour));
    }
}"""
# A box may be wider than the page if something around it, inside the text, scrolls sideways.
TOO_WIDE = """() => {
    const edge = document.documentElement.clientWidth, article = document.querySelector("article");
    const scrolls = box => ["auto", "scroll"].includes(getComputedStyle(box).overflowX);
    const held = box => box !== article && (scrolls(box) || held(box.parentElement));
    return [...article.querySelectorAll("*")]
        .filter(box => box.getBoundingClientRect().right > edge + 1 && !held(box.parentElement))
        .map(box => `${box.tagName} ${box.className}: ${box.textContent.trim().slice(0, 60)}`);
}"""
# A drawer that is closed waits outside the window.
SIDES = """() => {
    const boxes = { article: document.querySelector("article") };
    if (matchMedia("(min-width: 63em)").matches) boxes["sidebar-drawer"] = document.querySelector(".sidebar-drawer");
    if (getComputedStyle(document.querySelector(".toc-drawer")).position !== "fixed")
        boxes["toc-sticky"] = document.querySelector(".toc-sticky");
    return Object.fromEntries(Object.entries(boxes).map(([name, box]) => {
        const { left, right } = box.getBoundingClientRect();
        return [name, [left, right]];
    }));
}"""
TOO_SMALL = """smallest => {
    const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
    while (words.nextNode()) {
        const text = words.currentNode.data.trim(), box = words.currentNode.parentElement;
        if (!text || box.matches("script, style, noscript") || !box.checkVisibility()) continue;
        const size = parseFloat(getComputedStyle(box).fontSize);
        if (size < smallest) found.push(`${size} px, ${box.tagName} ${box.className}: ${text.slice(0, 60)}`);
    }
    return found;
}"""
IMAGES = """async () => {
    const images = [...document.querySelectorAll("article img")];
    await Promise.all(images.map(image => image.decode().catch(() => {})));
    return images.map(image => {
        const { left, right } = image.getBoundingClientRect();
        return { alt: image.alt, file: image.src.split("/").pop(), loaded: image.naturalWidth > 0, left, right };
    });
}"""


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def site(chromium, tmp_path_factory):  # after chromium: without one, nothing is built
    out = tmp_path_factory.mktemp("published") / "site"
    assert build_site(Course.here(), out) == 0, "the site was not built; sphinx says why, above"
    return out


@pytest.fixture(scope="module")
def opened(chromium, site):
    """A function that gives a page of the site at a size; each is opened once."""
    pages = {}

    def open_page(name, size):
        if (name, size["width"]) not in pages:
            page = pages[name, size["width"]] = chromium.new_page(viewport=size, color_scheme="light")
            page.set_default_timeout(300_000)
            page.asked = []
            page.on("request", lambda request: page.asked.append(request.url))
            page.goto((site / f"{name}.html").as_uri())
        return pages[name, size["width"]]

    return open_page


def violations(page, context, options) -> str:
    """What axe-core finds wrong, in words, if it is serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, context, options | {"resultTypes": ["violations"]}).response["violations"]
    return "\n".join(
        f"{rule['id']} ({rule['impact']}): {rule['help']}\n    {node['html'][:200]}\n    {node['failureSummary']}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"][:3]
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [browser.DESK, browser.PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("name", BY_AXE)
def test_a_screen_reader_and_a_keyboard_can_follow(opened, name, size):
    found = violations(opened(name, size), None, {"rules": {"color-contrast": {"enabled": False}}})
    assert not found, f"{name}.html, {size['width']} pixels wide:\n{found}"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", BY_AXE)
def test_words_stand_out_from_the_paper(opened, name, scheme):
    page = opened(name, browser.DESK)
    page.emulate_media(color_scheme=scheme)
    page.evaluate(MARK_BLOCKS)
    found = violations(page, {"exclude": [".colours-seen"]}, {"runOnly": ["color-contrast"]})
    assert not found, f"{name}.html, {scheme}:\n{found}"


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_need_not_scroll_sideways(opened, name):
    page = opened(name, browser.PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= browser.PHONE["width"], f"{name}.html scrolls sideways"
    wide = page.evaluate(TOO_WIDE)
    assert not wide, f"{name}.html: cut off at the right edge of a phone:\n" + "\n".join(wide)


@pytest.mark.parametrize("width", [1000, 1280, 1328, 1366, 1440, 1600, 1712, 1920])
def test_the_sidebars_of_a_wide_window_are_whole(opened, width):
    page = opened("notebooks/01_clip", browser.DESK)
    page.set_viewport_size({"width": width, "height": browser.DESK["height"]})
    sides = page.evaluate(SIDES)
    page.set_viewport_size(browser.DESK)
    for name, (left, right) in sides.items():
        assert 0 <= left < right <= width, f"at {width} pixels, {name} goes from {left} to {right}"
    assert "article" in sides, f"at {width} pixels the text is hidden"
    assert ("toc-sticky" in sides) == (width > 82 * 16), f"the theme shows the list of sections beyond 82em; got {sides}"


@pytest.mark.parametrize("name", PAGES)
def test_figures_fit_a_phone_and_say_what_they_show(opened, name):
    for image in opened(name, browser.PHONE).evaluate(IMAGES):
        assert image["loaded"], f"{name}.html: {image['file']} is missing or damaged"
        assert image["left"] >= 0, f"{name}.html: {image} is cut off at the left"
        assert image["right"] <= browser.PHONE["width"], f"{name}.html: {image} is cut off at the right"
        assert " " in image["alt"], f"{name}.html: {image['file']} has no words for who cannot see it, but {image['alt']!r}"


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("size", [browser.DESK, browser.PHONE], ids=["desk", "phone"])
def test_no_letter_is_too_small(opened, name, size):
    small = opened(name, size).evaluate(TOO_SMALL, SMALLEST)
    assert not small, f"{name}.html, {size['width']} pixels wide:\n" + "\n".join(small)


def test_a_table_that_a_cell_makes_is_a_table(opened):
    rows = opened("notebooks/00a_start_here", browser.DESK).locator(".cell_output table tbody tr").count()
    assert rows >= len(survey.MODELS), f"00a shows a table of the {len(survey.MODELS)} models; the page has {rows} rows"


@pytest.mark.parametrize("name", PAGES)
def test_a_browser_asks_nothing_of_the_network(opened, name):
    remote = [url for url in opened(name, browser.DESK).asked if not url.startswith(("file:", "data:"))]
    assert not remote, f"{name}.html asked for {json.dumps(remote)}"
