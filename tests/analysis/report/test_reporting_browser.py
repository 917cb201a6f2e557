"""A person opens the report in a browser: pictures enlarge, the slider moves, nothing is fetched and nothing fails."""

import shutil

import pytest

from lightning_viz.analysis.report.report import report
from lightning_viz.analysis.results import Fault, ModelReport

from .invented import TAGS, finding, picture, study

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
EVIL = '<script>alert("evil")</script>'


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    alone = study(EVIL)
    alone.techniques["dreams"] = finding(20, ["dreams/classes"])
    long = "averyveryverylongnamewithoutanyplacetobreakit" * 2
    alone.views[20].picture(picture(f"filters/{long}", 20, title=long), 20)
    alone.views[20].scalar(f"statistics/{long}", 1.0, 20)
    alone.views[20].numbers["fares"][long] = 0.5
    alone.views[20].faults.append(Fault("samples", long))
    pages = {"alone": report([alone]), "compared": report([study("First"), study("Second", steps=(5,))])}
    pages["single"] = report([ModelReport("Net", {3: finding(3, TAGS)})])
    for name, html in pages.items():
        (folder / f"{name}.html").write_text(html)
    return folder


@pytest.fixture
def opened(browser, reports):
    """Opens a report; when the test has ended, nothing may have been said on the console or fetched."""
    pages, said, fetched = [], [], []

    def open_report(name="alone", *, width=1280, height=900, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: fetched.append(request.url))
        page.goto((reports / f"{name}.html").as_uri())
        pages.append(page)
        return page

    yield open_report
    for page in pages:
        page.close()
    assert said == []
    assert [url for url in fetched if not url.startswith(("data:", "file:"))] == []
    assert sum(url.startswith("file:") for url in fetched) == len(pages)


def first(page, tag="filters/conv"):
    """The picture of a tag that is shown."""
    return page.locator(f'[aria-label="{tag}"] .frame:visible')


def ground(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_the_slider_changes_the_pictures(opened):
    page = opened()
    last = first(page).locator("img").get_attribute("src")
    slider = page.get_by_label("Step of training")
    slider.focus()
    slider.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == page.locator("#now").inner_text() == "step 10"
    assert "step 10" in first(page).inner_text()
    assert first(page).locator("img").get_attribute("src") != last
    slider.press("Home")
    assert "step 0" in first(page).inner_text()
    assert "only at step 20" in first(page, "dreams/classes").inner_text()
    slider.press("End")
    assert first(page).locator("img").get_attribute("src") == last


def test_playing_goes_through_all_steps_and_stops(opened):
    page = opened()
    page.clock.install()
    page.get_by_label("Play the steps").click()
    assert page.locator("#now").inner_text() == "step 0"
    page.clock.run_for(1000)
    assert page.locator("#now").inner_text() == "step 10"
    page.clock.run_for(5000)
    assert page.locator("#now").inner_text() == "step 20"
    assert page.get_by_label("Play the steps").get_attribute("aria-pressed") == "false"


def test_a_click_enlarges_and_the_arrows_go_on(opened):
    page = opened()
    large, shown = page.locator("#large"), page.locator("#shown img")
    small = first(page).locator("img")
    small.click()
    assert large.is_visible()
    assert shown.get_attribute("src") == small.get_attribute("src")
    assert shown.bounding_box()["width"] > 1.3 * small.bounding_box()["width"]
    assert "A sentence of its own." in large.inner_text()
    page.keyboard.press("ArrowDown")
    assert "step 10" in large.inner_text()
    page.keyboard.press("ArrowRight")
    assert shown.get_attribute("alt") != small.get_attribute("alt")
    page.keyboard.press("ArrowLeft")
    assert "Picture of filters/conv" in shown.get_attribute("alt")
    large.get_by_label("Close").click()
    assert not large.is_visible()


def test_the_keyboard_alone_enlarges_and_comes_back(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    first(page).locator("button").focus()
    page.keyboard.press("Enter")
    assert page.locator("#large").is_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    assert not page.locator("#large").is_visible()
    page.wait_for_function("document.activeElement.closest('.row')?.ariaLabel == 'filters/conv'")  # the close event
    assert page.evaluate("document.activeElement.matches(':focus-visible')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system_and_the_button(opened, scheme):
    page = opened(scheme=scheme)
    before = ground(page)
    assert (before == "rgb(251, 250, 247)") == (scheme == "light")
    page.get_by_label("Light or dark").click()
    assert (ground(page) == "rgb(251, 250, 247)") == (scheme == "dark")
    page.get_by_label("Light or dark").click()
    assert ground(page) == before


@pytest.mark.parametrize("name", ["alone", "compared", "single"])
@pytest.mark.parametrize("width", [360, 800, 1280])
def test_nothing_is_wider_than_the_screen(opened, name, width):
    page = opened(name, width=width)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    first(page).first.locator("button").click()
    assert page.evaluate("document.getElementById('large').scrollWidth") <= width


def test_models_stand_side_by_side(opened):
    page = opened("compared")
    left, right = (one.bounding_box() for one in first(page).all())
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] < right["x"]


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (color) => {
    canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (!color.endsWith(", 0)")) return color;
    }
  };
  const texts = [...document.querySelectorAll("body *")].filter((node) =>
    node.checkVisibility() && [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim()));
  return texts.map((node) => {
    const [a, b] = [light(getComputedStyle(node).color), light(ground(node))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), node.outerHTML.slice(0, 80)];
  }).filter(([ratio]) => ratio < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(opened, scheme):
    assert opened(scheme=scheme).evaluate(CONTRAST) == []
