"""The pages: from records alone, whole in themselves, and usable in a browser."""

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

import made_records as made
from pags.errors import PagsError
from pags.figures import catalogue
from pags.report import layout, words
from pags.report.explore import KINDS, explorer
from pags.report.grids import PALETTE
from pags.report.pages import write_report
from pags.store import Store

AUDITED = ("nets/old/standard.pt?arch=resnet18&normalise=cifar10", "robust")
REGIMES = made.REGIMES
KINDS_OF_PAGE = ("reproduction", "audit", "theory", "generate")


def finished(
    folder: Path,
    *,
    strengths: Sequence[float] = made.STRENGTHS,
    images: int = 3,
    shape: tuple[int, int, int] = (1, 8, 8),
    parts: Sequence[str] = ("sweep",),
    names: Sequence[str] = ("1", "3"),
    objectives: Sequence[str] = made.OBJECTIVES,
) -> Store:
    """A store as a reproduction leaves it, made by hand."""
    store = Store(folder)
    sweep = made.sweep_record(objectives, strengths, shape=shape)
    found = made.parts(sweep)
    found.gallery = made.gallery_of(sweep, images)
    for figure in catalogue.chosen(names):
        catalogue.make(figure, found, store)
    if "sweep" in parts:
        store.write_record("records/sweep.json", sweep)
        store.write_tensors("records/gallery.safetensors", found.gallery)
    store.write_record("records/reproduction.json", made.reproduction_record(parts, names))
    return store


def folder_of(kind: str, folder: Path) -> Store:
    """A folder as each command leaves it."""
    if kind == "reproduction":
        return finished(folder)
    store = Store(folder)
    if kind == "audit":
        record = made.audit_record(AUDITED)
        store.write_record("audit.json", record)
        store.write_tensors("audit.safetensors", made.audit_tensors(record))
    elif kind == "theory":
        store.write_record("theory.json", made.theory_record())
    else:
        generation = made.generation_record()
        store.write_record("records/generate.json", generation)
        store.write_tensors("records/generate.safetensors", made.generation_panels(generation))
    return store


class Page(HTMLParser):
    """Every address that a page names, its text, its ids, and the pictures without a name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.nameless: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.links += [known[name] or "" for name in ("src", "href", "xlink:href", "action") if name in known]
        self.ids += [known["id"] or ""] if "id" in known else []
        if (tag == "img" and not known.get("alt")) or (
            tag == "svg" and not (known.get("role") == "img" and known.get("aria-label"))
        ):
            self.nameless.append(str(known))

    def handle_data(self, data: str) -> None:
        self.text += data


Written = dict[str, tuple[Store, list[Path], str]]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Each kind of page: its folder, the files written, its text."""
    found = {}
    for kind in KINDS_OF_PAGE:
        store = folder_of(kind, tmp_path_factory.mktemp(kind))
        paths = write_report(store)
        found[kind] = (store, paths, paths[-1].read_text())
    return found


@pytest.fixture(scope="module")
def written(pages: Written) -> tuple[Store, list[Path], str]:
    return pages["reproduction"]


# All pages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS_OF_PAGE)
def test_every_figure_is_written_in_three_formats_and_every_link_leads_to_a_file(
    pages: Written, kind: str
) -> None:
    store, paths, page = pages[kind]
    names = [path.relative_to(store.root).as_posix() for path in paths]
    assert names[-1] == "report.html"
    assert all(path.is_file() for path in paths)
    stems = {name.rsplit(".", 1)[0] for name in names[:-1]}
    assert set(names[:-1]) == {f"{stem}.{ending}" for stem in stems for ending in ("svg", "pdf", "png")}
    read = Page(page)
    beside = [link for link in read.links if not link.startswith(("data:", "#"))]
    assert len(beside) >= 3 * len(stems)
    assert all((store.root / link).is_file() for link in beside)
    assert {link[1:] for link in read.links if link.startswith("#")} <= set(read.ids)


@pytest.mark.parametrize("kind", KINDS_OF_PAGE)
def test_a_redrawing_elsewhere_is_the_same_to_the_byte(pages: Written, kind: str, tmp_path: Path) -> None:
    store, paths, _ = pages[kind]
    shutil.copytree(
        store.root, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("figures", "*.html")
    )
    again = write_report(Store(tmp_path))
    for before, after in zip(paths, again, strict=True):
        assert before.read_bytes() == after.read_bytes(), after.name


@pytest.mark.parametrize("kind", KINDS_OF_PAGE)
def test_the_page_needs_nothing_but_itself(pages: Written, kind: str) -> None:
    page = re.sub(r'xmlns(:\w+)?="[^"]*"', "", pages[kind][2])
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|(src|href)=.?//", page)


@pytest.mark.parametrize("kind", KINDS_OF_PAGE)
def test_every_picture_has_a_name_and_every_id_is_its_own(pages: Written, kind: str) -> None:
    read = Page(pages[kind][2])
    assert read.nameless == []
    assert len(read.ids) == len(set(read.ids))
    assert pages[kind][2].count("<h1>") == 1


@pytest.mark.parametrize("kind", KINDS_OF_PAGE)
def test_the_page_says_what_made_it_and_what_words_mean(pages: Written, kind: str) -> None:
    text = Page(pages[kind][2]).text
    for told in ("commit 0123abc", "date 2026-11-27", "machine 2 cores", "What the numbers mean", "Settings"):
        assert told in text


def test_drawings_take_the_colour_of_the_text(pages: Written) -> None:
    """In the dark too: no ground, and ink in `currentColor`."""
    drawing = pages["audit"][0].path("figures/audit-robustness.svg").read_text()
    assert "currentColor" in drawing
    assert not re.search(r"fill: ?#(fff|ffffff)", drawing)
    picture = Image.open(pages["audit"][0].path("figures/audit-robustness.png"))
    assert picture.convert("RGBA").getpixel((1, 1)) == (255, 255, 255, 255)


def test_the_pdfs_embed_their_fonts_and_no_date(written: tuple[Store, list[Path], str]) -> None:
    for path in (path for path in written[1] if path.suffix == ".pdf"):
        content = path.read_bytes()
        assert b"/FontFile2" in content
        assert b"/Type3" not in content
        assert b"CreationDate" not in content


def test_a_folder_of_several_commands_gets_a_page_of_each(tmp_path: Path) -> None:
    folder_of("generate", tmp_path)
    finished(tmp_path, names=("3",))
    names = [path.name for path in write_report(Store(tmp_path))]
    assert names[-1] == "report.html"
    assert "generate-0.svg" not in names  # these images belong to the reproduction
    (tmp_path / "records" / "reproduction.json").unlink()
    assert [path.name for path in write_report(Store(tmp_path))][-1] == "generate.html"


# Reproduction ------------------------------------------------------------------------------------------


def test_all_claims_stand_on_the_page_once_with_what_they_are_judged_on(
    written: tuple[Store, list[Path], str],
) -> None:
    read = Page(written[2])
    sweep = cast(Any, written[0].read_record("records/sweep.json"))
    for claim in made.claims():
        assert claim["statement"] in read.text
        assert words.subject_title(claim["subject"], sweep) in read.text
        assert read.text.count(f"{claim['rule']} (4.1)") == 1
    assert "12 supported" in read.text
    assert "1 contradicted" in read.text
    verdicts = re.findall(r'<td data-label="[^"]*"><span class="chip (\w+)"', written[2])
    assert sorted(verdicts) == sorted(claim["verdict"] for claim in made.claims())
    assert "“rule of synthesis” is above 0. The whole interval lies below 0" in read.text
    assert re.search(r"ε = 0\.6 −0\.250 \[−0\.260, −0\.240\]", read.text)
    assert "The smallest gain stands at the last strength." in read.text


def test_claims_that_carry_the_explanation_come_first() -> None:
    tables = words.claim_tables(made.claims(), str.upper)
    assert [row[0]["claim"] for row in tables[0]["rows"]] == [
        "alignment-peaks-inside", "off-falls-monotonically", "sum-of-logits-agrees"
    ]  # fmt: skip
    assert tables[0]["subjects"] == [name.upper() for name in made.OBJECTIVES]


def test_the_first_screen_answers_in_two_sentences() -> None:
    record = made.sweep_record(("smoothing", "pgd"))
    aligned, explained = words.sweep_answer(record)
    assert "aligns input gradients" in aligned
    assert "Randomised smoothing, σ = 0.6 (1 − LPIPS 0.55 against 0.3" in aligned
    assert "less off the manifold than on it (off/on 0.8 against 1.3)" in explained
    assert "excessive regularisation (σ = 1) similarity is 0.35" in explained
    for model in record["models"]:
        model["means"]["lpips logit"] = made.about(0.3)
        model["ratios"]["off/on 0.5"] = made.about(1.0)
    aligned, explained = words.sweep_answer(record)
    assert aligned.startswith("No accurate robust network aligns its gradients measurably")
    assert "about as much off the manifold as on it" in explained


def test_a_users_objective_stands_beside_the_papers(tmp_path: Path) -> None:
    store = finished(tmp_path, objectives=("pgd", "trades"))
    page = Page(write_report(store)[-1].read_text())
    assert "My trades, τ = 0.6" in page.text
    assert page.text.count("My trades") >= 3  # first table, explorer, every model


def test_the_largest_figures_are_reduced_where_all_take_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = finished(tmp_path)
    sizes = [len(page) for page in re.findall(r"<svg.*?</svg>", write_report(store)[-1].read_text(), re.S)]
    monkeypatch.setattr(layout, "FOR_FIGURES", sum(sizes) - 1)
    page = write_report(store)[-1].read_text()
    assert page.count("Shown at a reduced resolution") == page.count('src="data:image/jpeg') == 1


def test_subjects_are_named_for_people() -> None:
    sweep = made.sweep_record()
    assert words.subject_title("pgd 0.6", sweep) == "Adversarial training (l2-PGD), ε = 0.6"
    assert words.subject_title("pgd", sweep) == "Adversarial training (l2-PGD)"
    assert words.subject_title("null bar", sweep) == "null bar"


def test_texts_in_the_records_stay_texts(tmp_path: Path) -> None:
    store = finished(tmp_path)
    sweep = store.read_record("records/sweep.json")
    for model in sweep["models"]:
        model["regime"]["name"] = "</script><b>faint</b>"
    store.write_record("records/sweep.json", sweep)
    page = write_report(store)[-1].read_text()
    assert "</script><b>" not in page
    assert "<b>faint</b>" not in page
    held = re.search(r'id="explorer-data">(.*?)</script>', page, re.DOTALL)
    assert held
    assert json.loads(held[1])["objectives"][0]["models"][0]["regime"] == "</script><b>faint</b>"


def test_without_the_sweeps_there_is_no_explorer(tmp_path: Path) -> None:
    store = finished(tmp_path, parts=("world",), names=("2",))
    page = write_report(store)[-1].read_text()
    assert "<canvas" not in page
    assert "explorer-data" not in page
    assert "Without sweeps" in page


def test_without_figure_3_the_page_has_it_all_the_same(tmp_path: Path) -> None:
    page = Page(write_report(finished(tmp_path, names=("1",)))[-1].read_text())
    assert "Robustness and alignment over strength" in page.text


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(PagsError, match=r"reproduction\.json.*pags reproduce"):
        write_report(Store(tmp_path))
    store = finished(tmp_path)
    store.path("records/figure-03.json").unlink()
    with pytest.raises(PagsError, match="figure 3"):
        write_report(store)
    sweep = made.sweep_record()
    gallery = made.gallery_of(sweep, 2)
    del gallery["layers smoothing 0.3 logit"]
    with pytest.raises(PagsError, match=r"layers smoothing 0\.3 logit"):
        explorer(sweep, gallery, budget=10**7)


# Audit -------------------------------------------------------------------------------------------------


def test_the_verdict_on_a_model_follows_its_intervals() -> None:
    model = made.audit_record()["models"][1]
    assert words.is_aligned(model) is True
    said = words.verdict(model)
    assert "more similar (by 1 − LPIPS and cosine) to the score of their own image" in said
    assert "1 − LPIPS 0.550, another image's score 0.280, floor 0.150, ceiling 0.800" in said
    assert "less off the manifold than on it (0.80 times, 95 % interval 0.79 to 0.81)" in said
    for column in model["above_shuffled"]:
        model["above_shuffled"][column] = made.about(0.0)
    assert words.is_aligned(model) is False
    assert "no more similar" in words.verdict(model)
    model["above_shuffled"] = {}
    assert words.is_aligned(model) is None
    model["regime"]["name"] = None
    assert words.verdict(model).startswith("Alignment was not measured. Its regime is unknown")


def test_the_rows_of_a_model_hold_every_measured_quantity_and_its_reference_values() -> None:
    model = made.audit_record()["models"][0]
    rows = {row.title: row for row in words.rows(model)}
    assert rows["accuracy"].value == model["means"]["correct"]
    assert rows["ρ2 of the loss"].lines == {"chance": 0.75, "untrained": 0.74, "the score itself": 0.4}
    similar = rows["1 − LPIPS, SmoothGrad of logit and score of predicted class"]
    assert similar.value == model["means"]["smooth 0.1 lpips logit"]
    assert similar.lines == pytest.approx({"floor": 0.15, "another image's score": 0.3, "ceiling": 0.8})
    assert len(words.rows(model, chosen=["logit"])) < len(rows)
    model["means"]["correct"] = None
    assert "accuracy" not in [row.title for row in words.rows(model)]


def test_a_page_of_two_audited_models_has_differences_of_headline_quantities_only(pages: Written) -> None:
    page = pages["audit"][2]
    read = Page(page)
    assert "standard.pt − robust" in read.text
    assert read.text.count("arch=resnet18&normalise=cifar10") == 1
    pairs = page[page.index("Differences of the headline quantities") :]
    cells = re.findall(r'data-label="([^"]*)"', pairs[: pairs.index("</table>")])
    assert cells == [
        "accuracy", "robust, radius 0.5", "off/on, norm 0.5", "ρ2", "1 − LPIPS with the score",
        "other image’s score", "Bayes cosine",
    ]  # fmt: skip
    assert "50 images only" in read.text


def test_many_models_are_counted_not_listed() -> None:
    record = made.audit_record(tuple("abcde"))
    record["models"][0]["ratios"] = {}
    said = " ".join(words.audit_answer(record))
    assert "Gradients: 5 of 5 models are aligned with the score." in said
    assert "off/on the manifold: from e -0.70 (excessive) to b 0.80 (Bayes-aligned / excessive)." in said


def pixels(uri: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7)])
def test_a_sprite_holds_each_models_picture_at_its_place(shape: tuple[int, int, int]) -> None:
    sweep = made.sweep_record(shape=shape)
    gallery = made.gallery_of(sweep, 3)
    shown = explorer(sweep, gallery, budget=10**7)
    _, height, width = shape
    for place, name in enumerate(["standard", "smoothing 0.3", "smoothing 1"]):
        gradient = gallery[f"gradient {name} sum-of-logits"][2].double().numpy()
        truth = 128 + 127 * gradient / np.abs(gradient).max()
        found = shown["objectives"][1]["targets"]["sum-of-logits"]["gradient"]
        row = (0, 1, 3)[place]
        cell = pixels(found)[row * height : (row + 1) * height, 2 * width :]
        assert cell.shape == ((height, width, 3) if shape[0] == 3 else (height, width))
        assert np.abs(cell.reshape(height, width, -1).transpose(2, 0, 1) - truth).max() <= 0.5001


def test_the_parts_have_the_scale_of_their_gradient() -> None:
    """So that the bytes of the parts add up to the gradient's."""
    sweep = made.sweep_record(shape=(3, 8, 8))
    found = explorer(sweep, made.gallery_of(sweep, 3), budget=10**7)["objectives"][0]["targets"]["logit"]
    whole, on, off = (pixels(found[kind]).astype(float) - 128 for kind in KINDS)
    assert np.abs(on + off - whole).max() <= 1.5  # three roundings
    assert np.abs(on).mean() > 10


def test_numbers_that_are_none_are_said_to_be_none() -> None:
    sweep = made.sweep_record(shape=(1, 4, 4))
    gallery = made.gallery_of(sweep, 3)
    gallery["lpips pgd 0.6 logit"][1] = torch.nan
    gallery["gradient pgd 0.6 logit"].zero_()
    gallery["on gradient pgd 0.6 logit"].zero_()
    found = explorer(sweep, gallery, budget=10**7)["objectives"][2]["targets"]["logit"]
    assert found["similarity"][2][1] is None
    assert (pixels(found["gradient"])[8:12] == 128).all()


@pytest.mark.parametrize(("shape", "images"), [((3, 32, 32), 10), ((3, 224, 224), 4)])
def test_large_galleries_are_cut_to_what_a_page_may_take(shape: tuple[int, int, int], images: int) -> None:
    strengths = [0.1 * step for step in range(30 if shape[1] == 32 else 5)]
    sweep = made.sweep_record(strengths=strengths, shape=shape)
    budget = 3_000_000
    shown = explorer(sweep, made.gallery_of(sweep, images), budget=budget)
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
    path = write_report(store)[-1]
    assert 5e6 < path.stat().st_size < 15e6
    text = Page(path.read_text()).text
    assert re.search(r"it shows \d+ of 10 images and \d+ of 30 strengths", text)


# In a browser, where there is one.

WIDE, PHONE = {"width": 1200, "height": 900}, {"width": 360, "height": 740}


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
    drawn(opened, "gradient-norm 2 logit")  # the most aligned of the accurate models
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
    return np.array(page.evaluate(script, name)).reshape(8, 8, 4)[..., :3]


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.id || document.activeElement.name")


def test_the_slider_moves_the_pictures_by_keyboard(page: Any, written: tuple[Store, list[Path], str]) -> None:
    gallery = written[0].read_tensors("records/gallery.safetensors")[0]
    name = "gradient at the image 1 of class digit 0"
    for key, place, model in [
        ("", 2, "gradient-norm 0.6"),
        ("ArrowRight", 3, "gradient-norm 1"),
        ("Home", 0, "standard"),
    ]:
        if key:
            page.locator("#strength").press(key)
        drawn(page, f"gradient-norm {place} logit")
        gradient = gallery[f"gradient {model} logit"][0, 0]
        truth = PALETTE[(128 + 127 * gradient / gradient.abs().max()).round().int().numpy()]
        assert np.abs(canvas(page, name).astype(int) - truth).max() <= 3  # a neighbouring colour
        accuracy = (0.98, 0.97, 0.96, 0.75)[place]
        strength = f"λ = {model.partition(' ')[2] or 0}"
        spoken = page.get_attribute("#strength", "aria-valuetext")
        assert spoken == f"{strength}, {REGIMES[place]}, accuracy {accuracy:.2f}"
        assert page.inner_text("#strength-now") == strength
        assert page.inner_text("#fact-regime") == REGIMES[place]


def test_objective_and_target_change_pictures_and_numbers(page: Any) -> None:
    before = [
        page.locator(".cards li p").first.inner_text(),
        canvas(page, "score at the image 2 of class digit 1").tobytes(),
    ]
    page.get_by_label("Randomised smoothing").check()
    drawn(page, "smoothing 2 logit")
    page.get_by_label("sum of the logits").check()
    drawn(page, "smoothing 2 sum-of-logits")
    after = [
        page.locator(".cards li p").first.inner_text(),
        canvas(page, "score at the image 2 of class digit 1").tobytes(),
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
    assert order == ["objective", "strength", "target", "show-parts"]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    label = "score at the image 1 of class digit 0, part on the manifold"
    assert not page.locator(f'canvas[aria-label="{label}"]').is_visible()
    page.keyboard.press("Space")
    assert page.locator(f'canvas[aria-label="{label}"]').is_visible()


def test_every_control_and_picture_has_a_name(page: Any) -> None:
    assert page.get_by_role("slider", name="Strength").count() == 1
    assert page.get_by_role("group", name="Objective").get_by_role("radio").count() == len(made.OBJECTIVES)
    assert page.get_by_role("checkbox", name="parts on and off").count() == 1
    names = [each.get_attribute("aria-label") for each in page.locator("canvas").all()]
    assert len(names) == 3 * 7
    assert len(set(names)) == len(names)
    assert page.locator("img:not([alt])").count() == 0


@pytest.mark.parametrize(
    "page", [{"viewport": PHONE, "color_scheme": s} for s in ("light", "dark")], indirect=True
)
def test_a_phone_needs_no_sideways_scrolling(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    page.check("#show-parts")
    page.check("#show-layers")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert all(box.bounding_box()["width"] >= 40 for box in page.locator("canvas").all())


def test_printing_keeps_the_pictures_and_drops_the_controls(page: Any) -> None:
    page.emulate_media(media="print")
    assert not page.locator("#strength").is_visible()
    assert page.locator("canvas").first.is_visible()
    assert page.locator("#explorer-what").is_visible()
    content = page.pdf(format="A4")
    assert content.startswith(b"%PDF")
    assert len(content) > 20_000


USABLE = """() => {
    const luminance = colour => colour.map(c => c / 255)
        .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
    const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
    const ground = each => { while (each) {
        const [r, g, b, alpha = 1] = numbers(getComputedStyle(each).backgroundColor);
        if (alpha > 0) return [r, g, b];
        each = each.parentElement; } return [255, 255, 255]; };
    const written = each => each.checkVisibility() && !each.closest("[aria-hidden], svg, option")
        && [...each.childNodes].some(part => part.nodeType === 3 && part.data.trim());
    const faint = [...document.querySelectorAll("body *")].filter(written).filter(each => {
        const both = [numbers(getComputedStyle(each).color).slice(0, 3), ground(each)].map(luminance);
        return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05) < 4.5; });
    const cut = [...document.querySelectorAll("main *:not(svg *)")].filter(each =>
        each.scrollWidth > each.clientWidth + 1 && each.clientWidth > 1
        && getComputedStyle(each).overflowX === "hidden");
    const nameless = [...document.querySelectorAll("img, canvas, svg:not(svg svg)")].filter(each =>
        !(each.alt || each.ariaLabel && (each.tagName !== "svg"
            || each.getAttribute("role") === "img" && each.querySelector(":scope > title"))));
    return Object.fromEntries(Object.entries({faint, cut, nameless})
        .map(([name, found]) => [name, found.map(each => each.outerHTML.slice(0, 80))])); }"""

BY_KEYBOARD = "a[href], input, button, summary, select, .scroll, pre"
UNREACHED = """wanted => [...document.querySelectorAll(wanted)].filter(each => each.checkVisibility()
    && !each.reached && !(each.type === "radio"
        && [...document.getElementsByName(each.name)].some(other => other.reached)))
    .map(each => each.outerHTML.slice(0, 80))"""
REACH = """() => { const each = document.activeElement, style = getComputedStyle(each);
    if (each === document.body || each.reached) return null;
    each.reached = true;
    return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2; }"""


@pytest.mark.parametrize("kind", KINDS_OF_PAGE)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_is_usable_on_every_screen(
    browser: Any, pages: Written, kind: str, scheme: str, width: int
) -> None:
    """Unfolded: nothing cut or faint (WCAG 2.1, AA), pictures named, all by keyboard, no request."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    opened, asked = context.new_page(), list[str]()
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(pages[kind][1][-1].as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.evaluate(USABLE) == {"faint": [], "cut": [], "nameless": []}
    paper = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    # Text in a drawing of curves, of 9 points, keeps nearly its natural size: at least 10 px.
    shrunk = """() => [...document.querySelectorAll(".drawings svg")].map(each =>
        each.getBoundingClientRect().width / parseFloat(each.style.getPropertyValue("--natural")))"""
    assert min([1.0, *opened.evaluate(shrunk)]) > 0.85
    # What a person reads first: the headline table is within the first screen of a desk.
    table = opened.locator(".first table").last.bounding_box()
    assert width < 1280 or table["y"] < 500
    assert (
        width < 1280 or opened.locator(".first .scroll").evaluate("e => e.scrollWidth - e.clientWidth") <= 1
    )
    focus = list[bool]()
    opened.keyboard.press("Tab")
    while (seen := opened.evaluate(REACH)) is not None:
        focus.append(seen)
        opened.keyboard.press("Tab")
    assert all(focus)
    assert opened.evaluate(UNREACHED, BY_KEYBOARD) == []
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
    context.close()


def test_two_audited_models_take_less_than_6000_pixels(browser: Any, pages: Written) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.goto(pages["audit"][1][-1].as_uri())
    assert opened.evaluate("document.documentElement.scrollHeight") < 6000
    # The answer, the chips, the strip and the first table are on the first screen.
    assert opened.locator("table.numbers").first.bounding_box()["y"] < 500
    context.close()


def test_what_is_folded_opens_with_the_keyboard_and_for_the_printer(browser: Any, pages: Written) -> None:
    context = browser.new_context(viewport=WIDE)
    opened = context.new_page()
    opened.goto(pages["audit"][1][-1].as_uri())
    was = opened.locator("details[open]").count()
    opened.locator("details:not([open]) > summary").first.focus()
    opened.keyboard.press("Enter")
    assert opened.locator("details[open]").count() == was + 1
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.locator("details:not([open])").count() == 0
    context.close()


def test_drawings_are_light_on_dark(browser: Any, pages: Written) -> None:
    context = browser.new_context(viewport=WIDE, color_scheme="dark")
    opened = context.new_page()
    opened.goto(pages["audit"][1][-1].as_uri())
    picture = Image.open(io.BytesIO(opened.locator(".drawings svg").first.screenshot())).convert("L")
    values = np.asarray(picture)
    assert np.median(values) < 40  # the ground
    assert values.max() > 220  # text and axes
    context.close()
