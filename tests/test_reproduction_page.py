"""The page of a reproduction: from records alone, whole in itself, and usable in a browser."""

import base64
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from conftest import seeded
from pags.errors import PagsError
from pags.experiments.figures.kinds import FigureData, Line, Panel, Series, curves, grid
from pags.report import reproduction
from pags.report.explorer import KINDS, TARGETS, explorer, signed
from pags.report.figures import TICKS, draw
from pags.report.reproduction import read_reproduction, subject_title, write_reproduction
from pags.store import Record, Store

OBJECTIVES = ("pgd", "smoothing", "gradient-norm", "smoothness")
STRENGTHS = (0.0, 0.3, 0.6, 1.0)
REGIMES = ("weak", "Bayes-aligned", "Bayes-aligned / excessive", "excessive")


def about(estimate: float) -> Record:
    return {"estimate": estimate, "low": estimate - 0.01, "high": estimate + 0.01, "level": 0.95}


def sweeps_record(objectives: Sequence[str], strengths: Sequence[float]) -> Record:
    """What a finished sweep says, with numbers that tell the models apart."""
    models = []
    for place, objective in enumerate(objectives):
        for step, strength in enumerate(strengths):
            if strength == 0 and place:
                continue  # the same network for every objective
            means = {"correct": about(0.99 - 0.01 * step)}
            for target in TARGETS:
                means |= {
                    f"similarity {target}": about(0.5 + 0.01 * min(step, 2)),
                    f"shuffled {target}": about(0.4),
                }
                means |= {f"rho2 {target}": about(0.7)}
            ratios = {"off/on": about(0.9 - 0.01 * step), "rho1": about(0.5)}
            name = {"objective": objective, "strength": strength, "regime": REGIMES[min(step, 3)]}
            models.append(name | ratios | {"means": means})
    lines = {
        f"{line} {kind}": about(0.3)
        for line in ("floor", "ceiling")
        for kind in ("conditional", "unconditional")
    }
    settings = {"sweeps": [{"objective": name, "strengths": list(strengths)} for name in objectives]}
    return {"settings": settings, "models": models, "lines": lines, "chance": {"rho2": 0.75, "k": 4}}


def gallery_of(record: Record, images: int, shape: tuple[int, int, int]) -> dict[str, Tensor]:
    draws = seeded(1)
    found = {"images": torch.rand((images, *shape), generator=draws), "labels": torch.arange(images) % 10}
    for kind in ("conditional", "unconditional"):
        found[f"score {kind}"] = torch.randn((images, *shape), generator=draws)
        found[f"on score {kind}"] = found[f"score {kind}"] / 2
    for model in record["models"]:
        for target in TARGETS:
            key = f"{model['objective']} {model['strength']:g} {target}"
            found[f"gradient {key}"] = torch.randn((images, *shape), generator=draws)
            mask = torch.rand((images, *shape), generator=draws)
            found[f"on gradient {key}"] = found[f"gradient {key}"] * mask
            found[f"similarity {key}"] = torch.rand(images, generator=draws)
            found[f"layers {key}"] = torch.rand((images, 5), generator=draws) / 5
    return found


def claims() -> list[Record]:
    def one(key: str, subject: str, verdict: str) -> Record:
        texts = {"statement": f"What {key} says.", "rule": f"rule of {key}", "place": "4.1"}
        return {"claim": key, "sweep": subject, "verdict": verdict} | texts | about(0.25)

    kept = [one(key, name, "supported") for name in OBJECTIVES for key in ("off-falls", "peaks-inside")]
    return [*kept, one("synthesis", "pgd 0.6", "contradicted"), one("on-signal", "null bar", "undecided")]


def figures(strengths: int = 30) -> dict[str, FigureData]:
    draws = seeded(2)
    lines = [
        Line("image", torch.rand((3, 1, 8, 8), generator=draws)),
        Line("gradient", torch.randn((3, 1, 8, 8), generator=draws), signed=True, numbers=[0.1, 0.2, 0.3]),
    ]
    points = [about(0.1 * step) for step in range(strengths)]
    ticks = [f"{0.1 * step:g}" for step in range(strengths)]
    panel = Panel("Sweep", "strength ε", ticks, "change", [Series("on the manifold", "on", points)])
    return {
        "figure-01": grid("Pictures", "A caption with <b> & “quotes”.", lines),
        "figure-03": curves("Curves", "Bands are intervals.", [[panel]]),
    }


def finished(
    folder: Path,
    *,
    strengths: Sequence[float] = STRENGTHS,
    images: int = 3,
    shape: tuple[int, int, int] = (1, 8, 8),
    parts: Sequence[str] = ("sweep",),
) -> Store:
    """A store as a reproduction leaves it, made by hand."""
    store = Store(folder)
    for stem, drawn in figures().items():
        more = {"figure": stem[-1], "place": "4.1", "needs": ["sweep"], "tensors": bool(drawn.tensors)}
        store.write_record(f"records/{stem}.json", more | drawn.record)
        if drawn.tensors:
            store.write_tensors(f"records/{stem}.safetensors", drawn.tensors)
    sweep = sweeps_record(OBJECTIVES, strengths)
    store.write_record("records/sweep.json", sweep)
    store.write_tensors("records/gallery.safetensors", gallery_of(sweep, images, shape))
    data = {"name": "patterns", "train": 100, "test": 50, "shape": list(shape)}
    settings = {"sweep": {"data": "patterns", "seed": 5, "repeats": 1, "norm": 0.5}}
    record = {
        "scale": "smoke", "settings": settings, "parts": list(parts), "figures": ["1", "3"],
        "data": data if "sweep" in parts else None, "claims": claims(),
    }  # fmt: skip
    store.write_record("records/reproduction.json", record)
    return store


class Links(HTMLParser):
    """Every address that a page names, and the text that is read."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[Path], str]:
    store = finished(tmp_path_factory.mktemp("finished"))
    paths = write_reproduction(store, read_reproduction(store))
    return store, paths, paths[-1].read_text()


def test_every_figure_is_written_in_three_formats_and_every_link_leads_to_a_file(
    written: tuple[Store, list[Path], str],
) -> None:
    store, paths, page = written
    names = {path.relative_to(store.root).as_posix() for path in paths}
    stems = ("figure-01", "figure-03")
    assert names == {f"figures/{s}.{end}" for s in stems for end in ("svg", "pdf", "png")} | {"report.html"}
    beside = [link for link in Links(page).found if not link.startswith(("data:", "#"))]
    assert len(beside) >= 8
    assert all((store.root / link).is_file() for link in beside)


def test_a_redrawing_elsewhere_is_the_same_to_the_byte(
    written: tuple[Store, list[Path], str], tmp_path: Path
) -> None:
    store, paths, _ = written
    shutil.copytree(store.root / "records", tmp_path / "records")
    again = write_reproduction(Store(tmp_path), read_reproduction(Store(tmp_path)))
    for before, after in zip(paths, again, strict=True):
        assert before.read_bytes() == after.read_bytes(), after.name


def test_the_pdfs_embed_their_fonts_and_no_date(written: tuple[Store, list[Path], str]) -> None:
    for path in (path for path in written[1] if path.suffix == ".pdf"):
        content = path.read_bytes()
        assert b"/FontFile2" in content
        assert b"/Type3" not in content
        assert b"CreationDate" not in content


def test_the_page_needs_nothing_but_itself(written: tuple[Store, list[Path], str]) -> None:
    page = written[2]
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"@import|url\((?!%23)|fetch\(|XMLHttpRequest|(src|href)=.?//", page)
    drawings = re.findall(r'src="data:image/svg\+xml,([^"]+)"', page)
    assert len(drawings) == 2
    for vector in map(unquote, drawings):
        assert not re.search(r"""(?<!xmlns:)href="(?!#|data:)""", vector)
        assert "<script" not in vector


def test_all_claims_stand_on_the_page_with_what_they_are_judged_on(
    written: tuple[Store, list[Path], str],
) -> None:
    text = Links(written[2]).text
    for claim in claims():
        assert claim["statement"] in text
        assert claim["rule"] in text
        assert subject_title(claim["sweep"]) in text
    assert "8 verdicts are supported, 1 contradicted, 1 undecided" in text
    assert len(re.findall(r'<td class="verdict"', written[2])) == len(claims())


def test_the_largest_figures_are_reduced_where_all_take_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = finished(tmp_path)
    record = read_reproduction(store)
    monkeypatch.setattr(reproduction, "FOR_FIGURES", 60_000)
    page = write_reproduction(store, record)[-1].read_text()
    assert page.count("Shown at a reduced resolution") == page.count('src="data:image/jpeg') == 1
    vector = (
        store.path("figures/figure-01.svg").stat().st_size,
        store.path("figures/figure-03.svg").stat().st_size,
    )
    largest = ("Pictures", "Curves")[vector[1] > vector[0]]
    assert re.search(rf'src="data:image/jpeg[^"]*" alt="Figure \d: {largest}"', page)


def test_subjects_are_named_for_people() -> None:
    assert subject_title("pgd 0.6") == "Adversarial training (l2-PGD), ε = 0.6"
    assert subject_title("null bar") == "null bar"


def test_titles_and_captions_come_from_the_records_as_text(written: tuple[Store, list[Path], str]) -> None:
    text = Links(written[2]).text
    assert "A caption with <b> & “quotes”." in text
    assert "Figure 3. Curves" in text


def test_text_in_the_records_cannot_leave_the_script(tmp_path: Path) -> None:
    store = finished(tmp_path)
    sweep = store.read_record("records/sweep.json")
    for model in sweep["models"]:
        model["regime"] = "</script><b>weak</b>"
    store.write_record("records/sweep.json", sweep)
    page = write_reproduction(store, read_reproduction(store))[-1].read_text()
    assert "</script><b>" not in page
    held = re.search(r'id="explorer-data">(.*?)</script>', page, re.DOTALL)
    assert held
    assert json.loads(held[1])["objectives"][0]["models"][0]["regime"] == "</script><b>weak</b>"


def test_without_the_sweeps_there_is_no_explorer(tmp_path: Path) -> None:
    store = finished(tmp_path, parts=("world",))
    store.path("records/gallery.safetensors").unlink()
    page = write_reproduction(store, read_reproduction(store))[-1].read_text()
    assert "<canvas" not in page
    assert "explorer-data" not in page
    assert "posterior is known" in page


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(PagsError, match=r"reproduction\.json.*pags reproduce"):
        read_reproduction(Store(tmp_path))
    store = finished(tmp_path)
    store.path("records/figure-03.json").unlink()
    with pytest.raises(PagsError, match="figure 3"):
        write_reproduction(store, read_reproduction(store))
    sweep = sweeps_record(OBJECTIVES, STRENGTHS)
    gallery = gallery_of(sweep, 2, (1, 4, 4))
    del gallery["layers smoothing 0.3 logit"]
    with pytest.raises(PagsError, match=r"layers smoothing 0\.3 logit"):
        explorer(sweep, gallery, budget=10**7)


def pixels(uri: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7)])
def test_a_sprite_holds_each_models_picture_at_its_place(shape: tuple[int, int, int]) -> None:
    sweep = sweeps_record(OBJECTIVES, STRENGTHS)
    gallery = gallery_of(sweep, 3, shape)
    shown = explorer(sweep, gallery, budget=10**7)
    _, height, width = shape
    for place, (objective, strength) in enumerate([("pgd", 0.0), ("smoothing", 0.3), ("smoothing", 1.0)]):
        gradient = gallery[f"gradient {objective} {strength:g} sum-of-logits"][2].double().numpy()
        truth = 128 + 127 * gradient / np.abs(gradient).max()
        found = shown["objectives"][1]["targets"]["sum-of-logits"]["gradient"]
        row = (0, 1, 3)[place]
        cell = pixels(found)[row * height : (row + 1) * height, 2 * width :]
        assert cell.shape == ((height, width, 3) if shape[0] == 3 else (height, width))
        assert np.abs(cell.reshape(height, width, -1).transpose(2, 0, 1) - truth).max() <= 0.5001


def test_the_parts_have_the_scale_of_their_gradient() -> None:
    """So that the bytes of the parts add up to the gradient's."""
    sweep = sweeps_record(OBJECTIVES, STRENGTHS)
    found = explorer(sweep, gallery_of(sweep, 3, (3, 8, 8)), budget=10**7)["objectives"][0]["targets"][
        "logit"
    ]
    whole, on, off = (pixels(found[kind]).astype(float) - 128 for kind in KINDS)
    assert np.abs(on + off - whole).max() <= 1.5  # three roundings
    assert np.abs(on).mean() > 10


def test_bytes_of_vectors_are_symmetric_about_grey() -> None:
    vectors = torch.tensor([0.0, 2.0, -2.0, 5.0, torch.nan]).reshape(1, 1, 1, 5)
    assert signed(vectors, torch.tensor([2.0])).flatten().tolist() == [128, 255, 1, 255, 128]


def test_numbers_that_are_none_are_said_to_be_none() -> None:
    sweep = sweeps_record(OBJECTIVES, STRENGTHS)
    gallery = gallery_of(sweep, 3, (1, 4, 4))
    gallery["similarity pgd 0.6 logit"][1] = torch.nan
    gallery["gradient pgd 0.6 logit"].zero_()
    gallery["on gradient pgd 0.6 logit"].zero_()
    found = explorer(sweep, gallery, budget=10**7)["objectives"][0]["targets"]["logit"]
    assert found["similarity"][2][1] is None
    assert (pixels(found["gradient"])[8:12] == 128).all()


@pytest.mark.parametrize(("shape", "images"), [((3, 32, 32), 10), ((3, 224, 224), 4)])
def test_large_galleries_are_cut_to_what_a_page_may_take(shape: tuple[int, int, int], images: int) -> None:
    strengths = [0.1 * step for step in range(30 if shape[1] == 32 else 5)]
    sweep = sweeps_record(OBJECTIVES, strengths)
    budget = 3_000_000
    shown = explorer(sweep, gallery_of(sweep, images, shape), budget=budget)
    size = len(json.dumps(shown))
    assert size < 1.05 * budget
    assert size > 0.6 * budget or shown["averaged"]  # averaged noise is faint, and takes fewer bytes
    kept = [model["strength"] for model in shown["objectives"][2]["models"]]
    assert len(kept) == shown["shown"]["strengths"]
    assert kept[0] == "0"
    assert kept[-1] == f"{strengths[-1]:g}"
    assert len(shown["labels"]) == shown["shown"]["images"]
    assert shown["averaged"] == (shape[1] > 64)


def test_a_large_reproduction_makes_a_page_below_15_megabytes(tmp_path: Path) -> None:
    strengths = [0.1 * step for step in range(30)]
    store = finished(tmp_path, strengths=strengths, images=10, shape=(3, 32, 32))
    path = write_reproduction(store, read_reproduction(store))[-1]
    assert 5e6 < path.stat().st_size < 15e6
    text = Links(path.read_text()).text
    assert re.search(r"it shows \d+ of 10 images and \d+ of 30 strengths", text)


def test_long_sweeps_have_few_ticks_with_both_ends() -> None:
    axis = draw(figures(30)["figure-03"]).axes[0]
    labels = [tick.get_text() for tick in axis.get_xticklabels()]
    assert len(labels) <= TICKS
    assert (labels[0], labels[-1]) == ("0", "2.9")
    assert (
        len(
            {
                len(range(int(a), int(b)))
                for a, b in zip(axis.get_xticks(), axis.get_xticks()[1:], strict=False)
            }
        )
        <= 2
    )


# In a browser, where there is one.

WIDE, PHONE = {"width": 1200, "height": 900}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if executable is None:
        pytest.skip("no chromium")
    with api.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(
    browser: Any, written: tuple[Store, list[Path], str], request: pytest.FixtureRequest
) -> Iterator[Any]:
    """The page in a browser that must say nothing and ask for nothing."""
    options = getattr(request, "param", {"viewport": WIDE})
    context = browser.new_context(**options)
    opened = context.new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda asked: said.append(asked.url) if not asked.url.startswith("data:") else None)
    address = written[1][-1].as_uri()
    opened.goto(address)
    drawn(opened, "pgd 2 logit")  # the most aligned of the accurate models
    yield opened
    assert said == [address]
    context.close()


def drawn(page: Any, choice: str) -> None:
    """Wait until the pictures of a choice are drawn."""
    page.wait_for_selector(f'#cards[data-drawn="{choice}"]', timeout=10_000)


def canvas(page: Any, name: str) -> Any:
    """The bytes of the first canvas with such a label."""
    script = """name => { const shown = document.querySelector(`canvas[aria-label="${name}"]`);
        const copy = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
        copy.drawImage(shown, 0, 0);
        return [...copy.getImageData(0, 0, shown.width, shown.height).data]; }"""
    return np.array(page.evaluate(script, name)).reshape(8, 8, 4)[..., 0]


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.id || document.activeElement.name")


def test_the_slider_moves_the_pictures_by_keyboard(page: Any, written: tuple[Store, list[Path], str]) -> None:
    gallery = written[0].read_tensors("records/gallery.safetensors")[0]
    name = "gradient at the image of class 0"
    for key, place, strength in [("", 2, "0.6"), ("ArrowRight", 3, "1"), ("Home", 0, "0")]:
        if key:
            page.locator("#strength").press(key)
        drawn(page, f"pgd {place} logit")
        gradient = gallery[f"gradient pgd {strength} logit"][0, 0]
        truth = 128 + 127 * gradient / gradient.abs().max()
        assert np.abs(canvas(page, name) - truth.numpy()).max() <= 0.501
        spoken = page.get_attribute("#strength", "aria-valuetext")
        assert spoken == f"ε = {strength}, {REGIMES[place]}, accuracy {0.99 - 0.01 * place:.2f}"
        assert page.inner_text("#strength-now") == f"ε = {strength}"
        assert page.inner_text("#fact-regime") == REGIMES[place]


def test_objective_and_target_change_pictures_and_numbers(page: Any) -> None:
    before = [
        page.locator(".cards li p").nth(1).inner_text(),
        canvas(page, "score at the image of class 1").tobytes(),
    ]
    page.get_by_label("Randomised smoothing").check()
    drawn(page, "smoothing 2 logit")
    page.get_by_label("sum of the logits").check()
    drawn(page, "smoothing 2 sum-of-logits")
    after = [
        page.locator(".cards li p").nth(1).inner_text(),
        canvas(page, "score at the image of class 1").tobytes(),
    ]
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert "Randomised smoothing, σ = 0.6, gradient of the sum of the logits" in page.inner_text(
        "#explorer-what"
    )


def test_the_order_of_the_keyboard_is_that_of_the_eye(page: Any) -> None:
    page.locator('input[name="objective"]').first.focus()
    order = [focused(page)]
    for _ in range(3):
        page.keyboard.press("Tab")
        order.append(focused(page))
    assert order == ["objective", "strength", "target", "score-parts"]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    label = "score at the image of class 0, part on the manifold"
    assert not page.locator(f'canvas[aria-label="{label}"]').is_visible()
    page.keyboard.press("Space")
    assert page.locator(f'canvas[aria-label="{label}"]').is_visible()


def test_every_control_and_picture_has_a_name(page: Any) -> None:
    assert page.get_by_role("slider", name="Strength").count() == 1
    assert page.get_by_role("group", name="Objective").get_by_role("radio").count() == len(OBJECTIVES)
    assert page.get_by_role("checkbox", name="also show the score").count() == 1
    names = [each.get_attribute("aria-label") for each in page.locator("canvas").all()]
    assert len(names) == 3 * 7
    assert len(set(names)) == len(names)
    assert page.locator("img:not([alt])").count() == 0


@pytest.mark.parametrize(
    "page", [{"viewport": PHONE, "color_scheme": s} for s in ("light", "dark")], indirect=True
)
def test_a_phone_needs_no_sideways_scrolling(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    page.check("#score-parts")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert all(box.bounding_box()["width"] >= 40 for box in page.locator("canvas").all())


@pytest.mark.parametrize(
    ("page", "dark"),
    [
        ({"viewport": WIDE, "color_scheme": "light"}, False),
        ({"viewport": WIDE, "color_scheme": "dark"}, True),
    ],
    indirect=["page"],
)
def test_text_stands_out_in_both_colour_schemes(page: Any, dark: bool) -> None:
    """Contrast of at least 4.5 (WCAG 2.1, AA) of ink, links and asides on both backgrounds."""
    script = """names => { const style = getComputedStyle(document.documentElement);
        return names.map(name => style.getPropertyValue(name).trim()); }"""
    paper, soft, *inks = page.evaluate(script, ["--paper", "--soft", "--ink", "--accent", "--quiet"])
    assert (luminance(paper) < 0.1) == dark
    for ink in inks:
        for background in (paper, soft):
            low, high = sorted((luminance(ink), luminance(background)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, background)


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_printing_keeps_the_pictures_and_drops_the_controls(page: Any) -> None:
    page.emulate_media(media="print")
    assert not page.locator("#strength").is_visible()
    assert page.locator("canvas").first.is_visible()
    assert page.locator("#explorer-what").is_visible()
    content = page.pdf(format="A4")
    assert content.startswith(b"%PDF")
    assert len(content) > 20_000
