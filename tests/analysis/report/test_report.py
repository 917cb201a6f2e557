"""The report says everything that was found, in the order of the lectures, and what comes from data is only text."""

import re
from html import unescape
from html.parser import HTMLParser

import pytest
from markupsafe import escape

from lightning_viz.analysis.analyze import publish
from lightning_viz.analysis.report.report import Frames, report
from lightning_viz.analysis.report.tables import tables
from lightning_viz.analysis.results import Fault, ModelReport, Result
from lightning_viz.catalogue import CATALOGUE, SECTIONS
from lightning_viz.render.page import Picture

from .invented import TAGS, finding, picture, study

EVIL = """<script>alert(1)</script><img src=x onerror=alert(2)>'"&{{ 7 * 7 }}</style>"""


class Page(HTMLParser):
    """Elements with their attributes, and the text, as a browser would see them."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def sections(self):
        return [one["id"].removeprefix("section-") for one in self.all("section")]


def part(html, section):
    return html.split(f'id="section-{section}"')[1].split("</section>")[0]


def test_the_report_says_of_every_picture_what_the_catalogue_says():
    drawn = [entry for entry in CATALOGUE if entry.tags]
    html = report([study(tags=[f"{entry.tags[0]}/conv" for entry in drawn])])
    titles = re.findall(r'id="entry-[^"]*">\s*<h3>(.*?)</h3>', html)
    in_order = [entry for section in SECTIONS for entry in drawn if entry.section == section]
    assert [unescape(title) for title in titles] == [entry.title for entry in in_order]
    assert all(str(escape(entry.caption)) in html for entry in drawn)


def test_text_from_data_stays_text():
    evil = study(EVIL, steps=(0, 10))
    found = finding(20, [*TAGS, EVIL], title=EVIL)
    found.numbers["model"].update({"class": EVIL, "classes": [EVIL], EVIL: EVIL})
    found.numbers["model"]["layers"][0]["name"] = EVIL
    found.numbers["fares"][EVIL] = 0.5
    found.numbers[EVIL] = {EVIL: {EVIL: 1.0}}
    found.faults.append(Fault("filters", EVIL, 20))
    found.scalar(f"filters/{EVIL}", 1.0, 20)
    evil.views[20], evil.waiting = found, [EVIL]
    for html in (report([evil]), report([evil, study(EVIL)])):
        page, harmless = Page(html), Page(report([study()]))
        assert {tag for tag, _ in page.elements} - {tag for tag, _ in harmless.elements} <= {"b"}
        assert len(page.all("script")) == 1
        assert len(page.all("style")) == 1
        assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
        assert page.text.count("<script>alert(1)</script>") > 10
        assert "{{ 7 * 7 }}" in page.text
        assert any(EVIL.replace("  ", " ") in image["alt"] for image in page.all("img"))


def test_sections_are_in_the_order_of_the_lectures():
    backwards = Page(report([study(tags=TAGS)])).sections()
    assert backwards == [
        "model",
        "fares",
        "parameters",
        "activations",
        "embeddings",
        "attribution",
        "dreams",
        "adversarial",
    ]
    assert backwards == Page(report([study(tags=TAGS[::-1])])).sections()


def test_an_unknown_kind_comes_last_and_speaks_for_itself():
    html = report([study(tags=("own/thing", *TAGS))])
    assert Page(html).sections()[-1] == "others"
    assert "A sentence of its own." in part(html, "others")


def test_the_same_studies_give_the_same_bytes_without_any_other_file():
    html = report([study(), study("Other")])
    assert html == report([study(), study("Other")])
    links = [one[name] for _, one in Page(html).elements for name in ("src", "href") if name in one]
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"url\(|@import|fetch\(|https?:", html)


def test_links_lead_somewhere():
    page = Page(report([study(tags=("own/thing", "saliency/smooth_grad", *TAGS))]))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in page.all("a")} <= set(ids)


def test_equal_images_are_stored_once():
    one = Result()
    for tag in ("filters/a", "filters/b"):
        one.picture(picture(tag, 0, title="Same"), 0)
    images = [image for image in Page(report([ModelReport("Net", {0: one})])).all("img") if "alt" in image]
    assert ["src" in image for image in images] == [True, False]
    assert images[1]["data-same"] == images[0]["id"]


def test_each_position_shows_the_picture_of_its_step_or_the_nearest_earlier_one():
    net = study(steps=(0, 10, 20), tags=("filters/always",))
    net.views[10].picture(picture("filters/later", 10), 10)
    net.techniques["dreams"] = Result()
    net.techniques["dreams"].picture(picture("dreams/classes", 20), 20)
    rows = {row.tag: row.cells[0] for row in Frames([net]).rows()}
    assert [frame.at for frame in rows["filters/always"]] == [(0,), (1,), (2,)]
    assert [frame.at for frame in rows["filters/later"]] == [(0, 1, 2)]
    assert rows["dreams/classes"][0].only == "step 20"
    assert [frame.last for frame in rows["filters/always"]] == [False, False, True]


def test_pictures_of_one_tag_and_step_all_show():
    one = Result()
    for place in range(3):
        one.picture(picture("inversion", 0, color=(place, 0, 0)), 0)
    assert len(Frames([ModelReport("Net", {0: one})]).rows()) == 3


def test_models_are_side_by_side():
    lacking = study("Second", steps=(5,), tags=TAGS[1:])
    html = report([study("First"), lacking])
    frames = Frames([study("First"), lacking])
    assert all(len(row.cells) == 2 for row in frames.rows())
    assert frames.labels == ["look 1 of 3", "look 2 of 3", "look 3 of 3"]
    assert html.count("no such picture") == 1
    assert '<th scope="col">First</th><th scope="col">Second</th>' in part(html, "fares")
    assert re.search(r"accuracy</th><td>0.52</td><td>0.505</td>", part(html, "fares"))


def test_believability_stands_in_its_own_table():
    html = part(report([study(steps=(20,))]), "attribution")
    table = html.split("Can these maps be believed?")[1].split("</table>")[0]
    assert '<th scope="row">grad_cam/conv</th><td>0.27</td>' in table
    assert html.count("0.27") == 1


def test_numbers_over_the_steps_are_a_curve_and_a_table():
    html = part(report([study()]), "fares")
    assert html.count("<polyline") == 1
    assert "accuracy <i>0.5 to 0.52</i>" in html
    for value in ("0.5", "0.51", "0.52"):
        assert f"<td>{value}</td>" in html


def test_faults_and_what_is_left_to_do_are_said():
    net = study()
    net.views[20].faults.append(Fault("hyperplanes", "ValueError: no plane", 20))
    net.views[0].numbers["notes"] = ["the data set holds 600 samples"]
    net.views[20].numbers["left out"] = {"attacks": "Net is no classifier", "landscape": "Net is no classifier"}
    net.waiting = ["corruptions"]
    html = report([net])
    assert "left out: attacks, landscape: Net is no classifier." in part(html, "model")
    assert "the data set holds 600 samples" in part(html, "model")
    assert "hyperplanes at step 20: ValueError: no plane" in part(html, "parameters")
    assert "the same command goes on with: corruptions" in html.split("<section")[0]


def test_a_study_without_anything_is_a_page():
    assert Page(report([ModelReport("Net", waiting=["views-00000000"])])).sections() == ["model"]


def test_measured_values_become_tables():
    found = tables(
        "corruptions", [{"clean": 0.1, "worst": None, "errors": {"fog": [0.1, 0.2], "snow": [0.3, 0.4]}}], ["A"]
    )
    assert [one.rows for one in found] == [
        (("clean", "0.1"), ("worst", "–")),
        (("fog", "0.1", "0.2"), ("snow", "0.3", "0.4")),
    ]
    layers = {"conv": {"error": 0.1, "each": [0.1, 0.2]}, "fc": {"error": 0.5, "each": [0.4]}}
    (one,) = tables("inversions", [layers], ["A"])
    assert one.head == ("", "error", "each")
    assert one.rows == (("conv", "0.1", "0.1, 0.2"), ("fc", "0.5", "0.4"))
    (columns,) = tables("attacks", [{"fgsm": {"success": 1.0}}, {"fgsm": {"success": 0.5}}], ["A", "B"])
    assert columns.head == ("", "A", "B")
    assert columns.rows == (("fgsm · success", "1", "0.5"),)


def test_publishing_leaves_the_report_beside_tensorboard(tmp_path):
    path = publish(tmp_path, [study(steps=(0,))])
    assert path.read_text() == report([study(steps=(0,))])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["report.html", "tensorboard"]


def test_layers_of_other_names_stand_beside_each_other_in_a_comparison():
    def shows(name, tags):
        found = Result()
        for tag in tags:
            found.picture(Picture(tag, b"\x89PNG" + f"{name} {tag}".encode(), 2, 2, tag), 0)
        return ModelReport(name, {0: found})

    both = [shows("a", ["filters/conv1", "grad_cam/conv9"]), shows("b", ["filters/stem", "grad_cam/block.3"])]
    rows = Frames(both).rows()
    assert [[frames[0].alt for frames in row.cells] for row in rows] == [
        ["filters/conv1", "filters/stem"],
        ["grad_cam/conv9", "grad_cam/block.3"],
    ]


@pytest.mark.parametrize("nothing", [[], {}, None, [[]], [{}], {"a": []}])
@pytest.mark.parametrize("names", [["A"], ["A", "B"]])
def test_what_holds_nothing_is_no_table(nothing, names):
    assert tables("empty", [nothing] * len(names), names) == []


def test_a_list_of_lists_is_rows_and_columns():
    (table,) = tables("pairs", [[[1, 2], [3, 4]]], ["A"])
    assert table.rows == (("1", "1", "2"), ("2", "3", "4"))


def test_models_compared_at_steps_of_their_own_have_one_checkpoint_each():
    page = report([ModelReport("A", {3: finding(3)}), ModelReport("B", {5: finding(5)})])
    assert "One checkpoint of each." in page
    assert "look 1 of 1" not in page
