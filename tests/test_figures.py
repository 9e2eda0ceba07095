"""The figures: rows of one table, true to their records, with what a user brings; and how they are drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import made_records as made
from conftest import seeded
from pags.arrays import cosines
from pags.errors import UsageError
from pags.figures import audits, catalogue, measures, sweeps
from pags.figures.kinds import Figure, FigureData, Line, Panel, Parts, Series, curves, grid
from pags.figures.theory import theory_figures
from pags.records import Record
from pags.report.charts import TICKS, columns_of, draw_curves, legend_of
from pags.report.grids import PALETTE, coloured, peaks, signed_bytes
from pags.report.layout import draw
from pags.report.style import render
from pags.store import Store

GRIDS = ("1", "6", "10", "11", "12", "13", "14", "15")


@pytest.fixture(scope="module")
def parts() -> Any:
    return made.parts()


def row(name: str) -> Figure:
    return next(figure for figure in catalogue.FIGURES if figure.name == name)


def panels(data: FigureData | None) -> list[Record]:
    assert data is not None
    return [panel for line in data.record["panels"] for panel in line]


# The table ---------------------------------------------------------------------------------------------


def test_the_table_has_the_papers_figures_in_its_order() -> None:
    names = [figure.name for figure in catalogue.FIGURES]
    assert names[:17] == [str(number) for number in range(1, 18)]
    assert len(set(names)) == len({figure.title for figure in catalogue.FIGURES}) == len(names)
    assert row("3").stem == "figure-03"
    assert (row("phenomenon-2").stem, row("phenomenon-2").heading) == ("phenomenon-2", "Phenomenon 2")


@pytest.mark.parametrize("figure", catalogue.FIGURES, ids=lambda figure: figure.stem)
def test_every_figure_is_drawn_again_from_its_records_alone(
    figure: Figure, parts: Any, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    first = catalogue.make(figure, parts, store)
    again = catalogue.read(Store(tmp_path), figure.name)
    assert again is not None
    assert again.record["title"].startswith(figure.title.split(",")[0])
    assert render(draw(again), "svg") == render(draw(first), "svg")


def test_what_is_asked_for_comes_in_the_papers_order_and_a_users_figure_after_it() -> None:
    mine = Figure("mine", "My own", "", ("sweep",), measures.at_several_norms)
    assert [f.name for f in catalogue.chosen(["5", "3"], more=[mine])] == ["3", "5", "mine"]
    assert len(catalogue.chosen(["all"])) == len(catalogue.FIGURES)
    for names in (["18"], []):
        with pytest.raises(UsageError, match="figures among all, 1 to 17"):
            catalogue.chosen(names)
    with pytest.raises(UsageError, match="new name"):
        catalogue.chosen(["3"], more=[Figure("3", "Mine", "", (), measures.at_several_norms)])


def test_a_users_figure_is_made_and_read_like_ours(parts: Any, tmp_path: Path) -> None:
    def data(found: Parts) -> FigureData:
        return grid("Seen.", [Line("image", found.gallery["images"])])

    made_one = catalogue.make(Figure("mine", "My own", "", ("sweep",), data), parts, Store(tmp_path))
    read = catalogue.read(Store(tmp_path), "mine")
    assert read is not None
    assert read.record == made_one.record
    assert torch.equal(read.tensors["cells"][0], parts.gallery["images"])
    assert catalogue.read(Store(tmp_path), "3") is None


# True to the records -----------------------------------------------------------------------------------


def cosine_numbers(gallery: dict[str, Tensor], record: Record) -> dict[str, Tensor]:
    """The gallery with the cosine of each gradient and its score in the place of the numbers."""
    return gallery | {
        f"lpips {m['name']} {t}": cosines(gallery[f"gradient {m['name']} {t}"], gallery[f"score {t}"])
        for m in record["models"]
        for t in made.TARGETS
        if f"gradient {m['name']} {t}" in gallery
    }


@pytest.mark.parametrize("name", GRIDS)
def test_a_number_belongs_to_the_gradient_and_the_score_that_are_shown(name: str) -> None:
    """Recomputed from the pictures of the figure itself."""
    parts = made.parts()
    parts.gallery = cosine_numbers(parts.gallery, parts.sweep)
    parts.transfer_gallery = cosine_numbers(parts.transfer_gallery, parts.transfer)
    found = row(name).data(parts)
    lines, cells = found.record["lines"], found.tensors["cells"]
    score = next(place for place, line in enumerate(lines) if line["label"] == "score")
    told = [place for place, line in enumerate(lines) if line["numbers"] is not None]
    assert len(told) >= 2
    for place in told:
        truth = cosines(cells[place], cells[score])
        assert torch.allclose(torch.tensor(lines[place]["numbers"]), truth, atol=1e-6)
    own = "own class" if name in ("1", "6", "14", "15") else "sum of the logits"
    assert own in found.record["caption"]


def test_figure_3_shows_the_means_of_each_model(parts: Any) -> None:
    found = row("3").data(parts).record["panels"]
    assert len(found) == 2 + len(made.METRICS)
    assert [panel["title"] for panel in found[0]] == [made.TITLES[n][0] for n in made.OBJECTIVES[:3]]
    line = parts.sweep["sweeps"][2]
    for place, model in enumerate(["standard", "pgd 0.3", "pgd 0.6", "pgd 1"]):
        means = sweeps.model(parts.sweep, model)["means"]
        values = {series["name"]: series["points"][place] for r in found for series in r[2]["series"]}
        assert values["on the manifold"] == means["on 0.5"]
        assert values["accuracy"] == means["correct"]
        assert found[1][2]["series"][0]["points"][place] == means["lpips logit"]
    assert found[0][2]["ticks"] == [f"{strength:g}" for strength in line["strengths"]]
    assert found[0][2]["regimes"] == list(made.REGIMES)
    assert found[1][2]["references"] == {"ceiling": 0.8, "floor": 0.15}


def test_an_objective_a_metric_and_a_target_of_a_user_stand_in_figure_3() -> None:
    record = made.sweep_record(
        ("pgd", "trades"), targets=("logit", "my-target"), metrics=("lpips", "my-metric")
    )  # fmt: skip
    found = measures.main_figure(record).record["panels"]
    assert [panel["title"] for panel in found[0]] == ["Adversarial training (l2-PGD)", "My trades"]
    assert [panel["x"] for panel in found[0]] == ["strength ε", "strength τ"]
    assert [line[1]["y"] for line in found[1:3]] == ["1 − LPIPS with the score", "my-metric with the score"]
    assert "gradient of the my-target" in [series["name"] for series in found[1][1]["series"]]
    assert row("14").data(made.parts(record)).record["kind"] == "grid"


def test_the_best_model_is_the_accurate_one_with_the_largest_similarity() -> None:
    record = made.sweep_record(("pgd", "smoothing"))
    sweeps.model(record, "smoothing 1")["means"]["lpips logit"] = made.about(0.99)  # excessive
    sweeps.model(record, "smoothing 0.3")["means"]["lpips logit"] = made.about(0.9)
    sweeps.model(record, "pgd 0.3")["means"]["lpips logit"] = None
    assert sweeps.best(record)["name"] == "smoothing 0.3"
    assert sweeps.best(record, "pgd")["name"] == "pgd 0.6"


def test_figures_of_audits_and_theory_hold_the_records_numbers() -> None:
    record = made.audit_record()
    model = record["models"][1]
    robust = panels(audits.robustness(record["models"]))[1]
    assert [point["estimate"] for point in robust["series"][1]["points"]] == pytest.approx(
        [model["means"][f"off {norm:g}"]["estimate"] for norm in made.NORMS]  # type: ignore[index]
    )
    dots = panels(audits.targets(model))[0]
    assert dots["ticks"] == ["logit", "loss", "sum of logits"]
    assert dots["series"][0]["points"][1] == model["means"]["lpips loss"]
    assert dots["series"][1]["points"][0] == model["means"]["smooth 0.1 lpips logit"]
    model["settings"]["compared with"] = {}
    assert audits.targets(model) is None
    decay = panels(theory_figures(made.theory_record())["argument_2"])[1]
    assert decay["series"][-1]["points"][2]["estimate"] == pytest.approx(0.35 * (4000 / 250) ** -0.5)


# Drawn -------------------------------------------------------------------------------------------------


def long_panel(points: int, **more: Any) -> FigureData:
    found = [made.about(0.1 * step) for step in range(points)]
    ticks = [f"{0.1 * step:g}" for step in range(points)]
    return curves(
        "Bands.", [[Panel("Sweep", "strength", ticks, "change", [Series("on", "on", found)], **more)]]
    )


def test_long_sweeps_have_few_ticks_with_both_ends() -> None:
    axis = draw_curves(long_panel(30).record).axes[0]
    labels = [tick.get_text() for tick in axis.get_xticklabels()]
    assert len(labels) <= TICKS
    assert (labels[0], labels[-1]) == ("0", "2.9")
    gaps = np.diff(axis.get_xticks())
    assert gaps.max() - gaps.min() <= 1


def test_what_is_not_defined_is_left_out() -> None:
    found = long_panel(4).record
    points = found["panels"][0][0]["series"][0]["points"]
    points[1], points[2] = None, {"estimate": None, "low": None, "high": None}
    line = draw_curves(found).axes[0].lines[0]
    assert np.isnan(np.asarray(line.get_ydata())).tolist() == [False, True, True, False]


def test_columns_have_the_scale_of_the_whole_figure(parts: Any) -> None:
    record = row("3").data(parts).record
    record["panels"][0][0]["series"][0]["points"][0] = made.about(5.0)
    whole = draw_curves(record)
    drawn = [draw_curves(column, legend=False) for column in columns_of(record)]
    assert len(drawn) == 3
    for place, column in enumerate(drawn):
        assert column.axes[0].get_ylim() == whole.axes[place].get_ylim()
        assert column.axes[0].get_ylim()[1] > 5
    names = [entry["name"] for entry in legend_of(record)]
    assert len(names) == len(set(names))
    assert {"on the manifold", "accuracy", "floor", "ceiling"} <= set(names)


def test_regimes_are_shaded_and_a_border_halves_its_tick() -> None:
    regimes = ["weak", "weak / Bayes-aligned", "excessive", "excessive"]
    axis = draw_curves(long_panel(4, regimes=regimes).record).axes[0]
    patches: list[Any] = list(axis.patches)
    spans = [(p.get_x(), p.get_x() + p.get_width()) for p in patches]
    assert spans == [(-0.5, 1.0), (1.0, 1.5), (1.5, 3.5)]
    assert [text.get_text() for text in axis.texts] == ["weak", "excessive"]  # where there is room


@pytest.mark.parametrize("channels", [1, 3])
def test_vectors_have_one_scale_and_zero_in_the_middle(channels: int) -> None:
    vectors = torch.randn((2, channels, 3, 4), generator=seeded(0)) * 7
    shown = signed_bytes(vectors, peaks(vectors)).double()
    truth = vectors.double() / vectors.double().abs().amax((1, 2, 3), keepdim=True)
    assert torch.allclose((shown - 128) / 127, truth, atol=0.5 / 127 + 1e-6)
    assert signed_bytes(torch.zeros(1, channels, 2, 2), torch.ones(1)).unique().tolist() == [128]
    assert signed_bytes(torch.full((1, channels, 1, 1), torch.nan), torch.ones(1)).unique().tolist() == [128]
    assert coloured(signed_bytes(vectors, peaks(vectors))[0]).shape == (3, 4, 3)


DICHROMATS = {  # Machado, Oliveira and Fernandes 2009, severity 1, of linear RGB
    "protanopia": [
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]
    ],
}  # fmt: skip


@pytest.mark.parametrize("sight", DICHROMATS)
def test_signs_are_told_apart_without_red_or_green(sight: str) -> None:
    """Half of the largest value: opposite sides of blue against yellow, in linear light."""
    linear = (PALETTE / 255.0) ** 2.2
    seen = linear @ np.array(DICHROMATS[sight]).T
    opposed = seen[:, 2] - seen[:, :2].mean(1)  # blue against yellow
    assert opposed[64] > 0.15
    assert opposed[192] < -0.05
    assert abs(opposed[128]) < 0.03


def test_long_paths_of_models_leave_room_for_the_figure() -> None:
    """Once the axes collapsed; two files of one name stay two."""
    folders = ("/home/somebody/a/very/long/way/down", "/home/somebody/else/and/as/long/a/way")
    models = made.audit_record([f"{folder}/mine.py:network" for folder in folders])["models"]
    assert audits.labels(models) == ["mine.py:network (1)", "mine.py:network (2)"]
    for data in (audits.robustness(models), audits.similarity(models)):
        assert data is not None
        assert render(draw(data), "svg")
