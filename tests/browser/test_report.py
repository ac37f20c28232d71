"""The report of ``probseq compare`` in a real browser: on a desk, on a phone, at night and on paper."""

import os
import re
from pathlib import Path

import pytest
from chromium import Browser
from typer.testing import CliRunner

from probseq import cli

SHOTS = Path(os.environ.get("SCREENSHOTS", Path(__file__).parents[2] / "build" / "screenshots"))
VIEWS = {
    "desk": {"width": 1200},
    "phone": {"width": 390, "height": 844, "phone": True, "scale": 2.0},
    "small-phone": {"width": 320, "height": 640, "phone": True},
    "night": {"width": 1200, "dark": True},
    "paper": {"width": 718, "media": "print", "dark": True},
}
REPORTS = {
    "air_passengers": [],
    "earthquakes": ["--models", "hmm,arma,iid"],
}


@pytest.fixture(scope="session")
def browser():
    with Browser() as found:
        yield found


@pytest.fixture(scope="session", params=list(REPORTS))
def report(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / f"{request.param}.html"
    done = CliRunner().invoke(cli.app, ["compare", request.param, *REPORTS[request.param], "--out", str(path)])
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture(params=list(VIEWS))
def view(request, browser, report):
    page = browser.page()
    page.open(report, **VIEWS[request.param])
    page.name = request.param
    yield page
    page.close()


def test_page_asks_for_nothing_and_complains_of_nothing(view, report):
    assert view.evaluate("document.title").endswith("models compared")
    assert view.requests == []
    assert view.errors == []
    view.screenshot(SHOTS / f"{report.stem}-{view.name}.png")


def test_page_is_no_wider_than_the_window(view):
    width, window = view.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= window == VIEWS[view.name]["width"]
    over = view.evaluate(
        """[...document.querySelectorAll('main *')].filter(e =>
            !e.closest('.scroll, pre, .formula, svg') && e.getBoundingClientRect().right > innerWidth + 0.5
        ).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert over == []


def test_every_figure_is_seen_in_one_version(view):
    figures = view.evaluate(
        """[...document.querySelectorAll('figure')].map(f => [...f.querySelectorAll('svg')].map(s => {
            const r = s.getBoundingClientRect(); return [r.width, r.height, s.querySelectorAll('path').length];
        }))"""
    )
    assert len(figures) >= 10
    for pictures in figures:
        shown = [(width, height) for width, height, paths in pictures if width > 0 and height > 0 and paths > 5]
        assert len(shown) == 1
        assert shown[0][0] >= 200 and shown[0][1] >= 60


def test_texts_are_large_enough(view):
    sizes = view.evaluate(
        "[...document.querySelectorAll('p, li, td, th, dd, dt, figcaption, pre')].map(e => "
        "parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= (9.3 if view.name == "paper" else 13)  # 7 points on paper
    labels = view.evaluate(
        """[...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().width).flatMap(s =>
            [...s.querySelectorAll('text')].map(t => t.getBoundingClientRect().height)).filter(h => h > 0)"""
    )
    assert labels and min(labels) >= 6


def test_background_and_ink_follow_the_mode(view):
    ground, ink = view.evaluate(
        """[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"""
    )
    light = {name: sum(map(int, re.findall(r"\d+", color)[:3])) / 765 for name, color in (("g", ground), ("i", ink))}
    if view.name == "night":
        assert light["g"] < 0.15 < 0.85 < light["i"]
    else:
        assert light["g"] == 1 and light["i"] < 0.2
    # Colours that drew the pictures follow too.
    line = view.evaluate("getComputedStyle(document.querySelector('figure svg path[style*=stroke]')).stroke")
    assert line.startswith("rgb")


def test_anchors_lead_to_their_sections(browser, report):
    page = browser.page().open(report, **VIEWS["desk"])
    names = page.evaluate("[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href').slice(1))")
    assert len(names) >= 9
    page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    for name in names:
        page.evaluate(f"document.querySelector('nav a[href=\"#{name}\"]').click()")
        top, at_end = page.evaluate(
            f"[document.getElementById('{name}').getBoundingClientRect().top,"
            "innerHeight + scrollY >= document.documentElement.scrollHeight - 2]"
        )
        assert abs(top) < 40 or at_end, name
        assert page.evaluate("location.hash") == f"#{name}"
    page.close()


def test_keys_reach_links_and_wide_tables_with_a_visible_focus(browser, report):
    page = browser.page().open(report, **VIEWS["phone"])
    seen = []
    for _ in range(16):
        page.press("Tab")
        seen.append(
            page.evaluate("[document.activeElement.className, getComputedStyle(document.activeElement).outlineStyle]")
        )
    assert all(outline == "solid" for _, outline in seen)
    assert "scroll" in {name for name, _ in seen}
    page.close()


def test_wide_tables_scroll_in_their_box(browser, report):
    page = browser.page().open(report, **VIEWS["phone"])
    moved = page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(b => b.scrollWidth > b.clientWidth).map(b => {"
        "b.scrollLeft = 50; return b.scrollLeft; })"
    )
    assert moved and all(moved)
    page.close()


def test_screen_readers_hear_names_of_pictures_and_tables(browser, report):
    page = browser.page().open(report, **VIEWS["desk"])
    nameless = page.evaluate(
        "[...document.querySelectorAll('svg, .scroll, nav, math')].filter(e => !e.getAttribute('aria-label')).length"
    )
    assert nameless == 0
    page.close()


def test_paper_keeps_figures_whole(browser, report):
    """Invisible links at the head and the foot of every figure tell on which pages of the PDF these are."""
    page = browser.page().open(report, **VIEWS["desk"])
    count = page.evaluate(
        """(() => { const all = [...document.querySelectorAll('figure, .formula, tr')];
            all.forEach((f, i) => {
                const home = f.tagName === 'TR' ? f.firstElementChild : f;
                home.style.position = 'relative';
                for (const end of ['top', 'bottom']) {
                    const a = document.createElement('a');
                    a.href = `https://mark.invalid/${end}/${i}`;
                    a.textContent = 'x';
                    a.style.cssText = `position:absolute;left:0;${end}:0;font-size:4px;line-height:1;opacity:.01`;
                    a.className = 'mark'; home.append(a);
                }
            });
            const style = document.createElement('style');
            style.textContent = '@media print{a.mark::after{content:none !important}}';
            document.head.append(style);
            return all.length; })()"""
    )
    path = page.pdf(SHOTS / f"{report.stem}.pdf", preferCSSPageSize=True)
    places = marks_by_page(path.read_bytes())
    assert 4 <= len(places) <= 30
    where = {mark: number for number, marks in enumerate(places) for mark in marks}
    assert len(where) == 2 * count
    split = [i for i in range(count) if where[f"top/{i}"] != where[f"bottom/{i}"]]
    assert split == []
    page.open(report, **VIEWS["desk"]).pdf(SHOTS / f"{report.stem}.pdf", preferCSSPageSize=True)
    page.close()


def marks_by_page(pdf):
    """The marks of every page of a PDF as Chromium writes it, in the order of its pages."""
    objects = {int(n): body for n, body in re.findall(rb"(\d+) 0 obj\s(.*?)\sendobj", pdf, re.DOTALL)}
    root = next(body for body in objects.values() if b"/Type /Pages" in body and b"/Parent" not in body)

    def leaves(body):
        if b"/Type /Pages" not in body:
            return [body]
        kids = re.search(rb"/Kids\s*\[(.*?)\]", body, re.DOTALL)[1]
        return [leaf for n in re.findall(rb"(\d+) 0 R", kids) for leaf in leaves(objects[int(n)])]

    found = []
    for page in leaves(root):
        listed = re.search(rb"/Annots\s*\[(.*?)\]", page, re.DOTALL)
        bodies = [objects[int(n)] for n in re.findall(rb"(\d+) 0 R", listed[1])] if listed else []
        text = b"\n".join([*bodies, listed[1] if listed else b""])
        found.append([mark.decode() for mark in re.findall(rb"https://mark\.invalid/([^)]+)\)", text)])
    return found
