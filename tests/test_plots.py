"""What notebooks show: short texts, first screens, figures and tables, and what is written and read."""

import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

import made_records as made
import pags
from pags.errors import PagsError, UsageError
from pags.records import Result
from test_reproduction_page import AUDITED, finished, folder_of


@pytest.fixture(scope="module")
def audits() -> dict[str, pags.Audit]:
    """Of an untrained and of a linear classifier, on digits."""
    data = pags.load_data("digits")
    evaluation = pags.EvaluationSet.of(
        data.test.sample(16), tangent=pags.manifold.LocalPCA(data.train.images, 8),
        denoiser=pags.score.IdealDenoiser(data.train.images, data.train.labels),
        directions=1, smooth_samples=1,
    )  # fmt: skip
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    models = {"untrained": pags.new_classifier(data.train), "linear": linear}
    return {name: pags.audit(model, evaluation, gallery=2) for name, model in models.items()}


@pytest.fixture(scope="module")
def shown(audits: dict[str, pags.Audit], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One of everything that shows itself."""
    data = pags.load_data("digits")
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("reproduction", "audit", "theory")}
    for kind, folder in folders.items():
        folder_of(kind, folder)
    return {
        "images": data.test, "data": data, "audit": audits["linear"],
        "comparison": pags.compare(audits, resamples=20),
        **{f"result of {kind}": pags.load_results(folder) for kind, folder in folders.items()},
    }  # fmt: skip


KINDS = (
    "images", "data", "audit", "comparison", "result of reproduction", "result of audit", "result of theory"
)  # fmt: skip
RECORDS = KINDS[2:]


@pytest.mark.parametrize("kind", KINDS)
def test_a_repr_is_at_most_ten_short_lines(shown: dict[str, Any], kind: str) -> None:
    lines = repr(shown[kind]).splitlines()
    assert 1 <= len(lines) <= 10
    assert max(map(len, lines)) <= 150
    assert "tensor(" not in repr(shown[kind])


def test_reprs_say_what_was_found(shown: dict[str, Any]) -> None:
    accuracy = float(shown["audit"].columns["correct"].mean())
    assert f"{accuracy:.3g}" in repr(shown["audit"])
    assert "16 images of 1×8×8" in repr(shown["audit"])
    assert {"untrained", "linear"} <= set(repr(shown["comparison"]).split())
    assert "297 test images of 1×8×8, 10 classes" in repr(shown["data"])
    claims = shown["result of reproduction"]["claims"]
    supported = sum(claim["verdict"] == "supported" for claim in claims)
    assert f"{supported} supported, 1 contradicted" in repr(shown["result of reproduction"])


@pytest.mark.parametrize("kind", RECORDS)
def test_a_notebook_shows_the_first_screen_of_the_page_in_a_frame(shown: dict[str, Any], kind: str) -> None:
    html = shown[kind]._repr_html_()
    assert html.startswith("<iframe title=")
    page = unescape(re.search(r'srcdoc="([^"]*)"', html)[1])  # type: ignore[index]
    assert page.count("<h1>") == 1
    assert "What the numbers mean" not in page  # which is folded, below
    assert "<footer>" not in page
    assert len(html) < 400_000


def test_a_notebook_shows_images_as_a_sheet(shown: dict[str, Any]) -> None:
    for kind in ("images", "data"):
        assert re.search(r'<img alt="[^"]+" src="data:image/png;base64,', shown[kind]._repr_html_())


@pytest.mark.parametrize("kind", KINDS)
def test_plot_and_show_are_figures_that_notebooks_draw(shown: dict[str, Any], kind: str) -> None:
    for figure in (shown[kind].plot(), shown[kind].show(2)):
        assert isinstance(figure, Figure)
        assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_become_a_table(shown: dict[str, Any], kind: str) -> None:
    assert len(shown[kind].to_pandas()) > 0


def test_the_table_of_an_audit_has_a_row_per_image_and_the_columns_as_they_are(shown: dict[str, Any]) -> None:
    audit = shown["audit"]
    table = audit.to_pandas()
    assert list(table) == list(audit.columns)
    assert table["correct"].mean() == pytest.approx(float(audit.columns["correct"].mean()))
    rows = shown["result of reproduction"].to_pandas()
    found = rows[(rows.model == "pgd 0.6") & (rows.quantity == "correct")].iloc[0]
    assert (found.objective, found.strength, found.estimate) == ("pgd", 0.6, pytest.approx(0.96))


def test_without_pandas_the_error_says_how_to_get_it(
    shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(PagsError, match=r"try pip install -e '\.\[pandas\]'"):
        shown["audit"].to_pandas()


@pytest.mark.parametrize("kind", RECORDS)
def test_what_is_saved_is_read_again(shown: dict[str, Any], kind: str, tmp_path: Path) -> None:
    files = shown[kind].save(tmp_path)
    assert all(file.is_file() for file in files)
    assert repr(pags.load_results(tmp_path)) == repr(shown[kind])


def test_the_page_of_an_audit_is_that_of_its_records(shown: dict[str, Any], tmp_path: Path) -> None:
    page = shown["audit"].report(tmp_path)
    before = page.read_bytes()
    assert pags.load_results(tmp_path).report() == page
    assert page.read_bytes() == before


def test_images_that_are_saved_are_data_again(shown: dict[str, Any], tmp_path: Path) -> None:
    data = shown["data"]
    (path,) = data.save(tmp_path)
    again = pags.load_data(f"npz:{path}")
    assert torch.equal(again.test.pixels, data.test.pixels)
    assert torch.equal(again.train.labels, data.train.labels)
    assert again.train.classes == data.train.classes


def test_an_audit_and_its_comparison_need_a_folder_for_their_page(shown: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="a folder for the page"):
        shown["audit"].report()


def cells(figure: Any) -> int:
    return sum(len(axis.images) for axis in figure.axes)


def test_gradients_are_drawn_from_vectors_and_from_classifiers() -> None:
    data = pags.load_data("digits").test.take(slice(0, 3))
    model = pags.new_classifier(data)
    gradient = pags.input_gradient(model, data.images)
    figure = pags.plot_gradients(data.images, {"of a model": model, "given": gradient}, gradient)
    assert cells(figure) == 4 * 3  # image, score and both gradients
    words = {text.get_text() for text in figure.axes[0].texts}
    assert words == {"image", "score", "of a model", "given"}
    pictures = [image.get_array() for image in figure.axes[0].images]
    assert (pictures[6] == pictures[9]).all()  # the first of either
    with pytest.raises(UsageError, match="given"):
        pags.plot_gradients(data.images, {"given": gradient[:2]})


def test_every_plot_goes_into_axes_of_a_caller(shown: dict[str, Any], audits: dict[str, pags.Audit]) -> None:
    figure = Figure()
    axes = figure.subplots(1, 5)
    images = pags.load_data("digits").test.images[:2]
    sweep = shown["result of reproduction"]
    drawn = [
        pags.plot_gradients(images, {"same": images}, ax=axes[0]),
        pags.plot_sweep(sweep, objective="pgd", quantity="lpips", ax=axes[1]),
        pags.plot_audit(audits, metric="cosine", ax=axes[2]),
        pags.plot_audit(audits["linear"], quantity="robustness", ax=axes[3]),
        shown["images"].plot(ax=axes[4]),
    ]
    assert all(found is figure for found in drawn)
    assert all(axis.has_data() for axis in axes)
    assert axes[1].get_ylabel().replace("\n", " ") == "1 − LPIPS with the score"
    assert axes[2].get_xlabel() == "cosine with the score"


def test_a_sweep_is_drawn_whole_by_objective_and_by_quantity(shown: dict[str, Any], tmp_path: Path) -> None:
    sweep = shown["result of reproduction"]
    rows = 2 + len(made.METRICS)
    assert len([a for a in pags.plot_sweep(sweep).axes if a.has_data()]) == rows * 3
    assert len(pags.plot_sweep(sweep, objective="pgd").axes) == rows
    assert len(pags.plot_sweep(sweep.folder, quantity="accuracy").axes) == 3
    with pytest.raises(UsageError, match="objective among gradient-norm"):
        pags.plot_sweep(sweep, objective="bribery")
    with pytest.raises(UsageError, match="quantity among robustness"):
        pags.plot_sweep(sweep, quantity="speed")
    finished(tmp_path, parts=(), names=("2",))
    with pytest.raises(UsageError, match="a result with sweeps"):
        pags.plot_sweep(tmp_path)


def test_what_was_not_measured_is_said(audits: dict[str, pags.Audit]) -> None:
    with pytest.raises(UsageError, match="quantity among similarity, robustness"):
        pags.plot_audit(audits, quantity="speed")
    with pytest.raises(UsageError, match="a metric among"):
        pags.plot_audit(audits, metric="smell")
    alone = pags.audit(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)),
                       pags.load_data("digits").test.sample(4))  # fmt: skip
    assert repr(alone)
    with pytest.raises(UsageError, match=r"with tangent="):
        pags.plot_audit(alone, quantity="robustness")
    with pytest.raises(UsageError, match=r"with denoiser="):
        alone.plot()


def test_a_result_is_still_its_record(shown: dict[str, Any]) -> None:
    result = shown["result of audit"]
    assert isinstance(result, Result)
    assert result == made.audit_record(AUDITED)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PagsError, match="pags demo"):
        pags.load_results(tmp_path)


def test_importing_pags_imports_neither_torch_nor_matplotlib() -> None:
    code = "import sys, pags; pags.plot_gradients; print({'torch', 'matplotlib'} & set(sys.modules))"
    plain = "import sys, pags; print({'torch', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", plain], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "matplotlib" not in done.stdout
