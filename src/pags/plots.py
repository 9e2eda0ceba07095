"""Figures of gradients, sweeps and audits as Matplotlib figures, and what notebooks show of every result.

The drawing is that of the pages: the same records, the same figures. Matplotlib is imported when something is
drawn.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from textwrap import shorten, wrap
from typing import Any, cast

from torch import Tensor, nn

from pags.arrays import Images
from pags.auditing.result import Audit, Comparison
from pags.data.imageset import DataSet, ImageSet
from pags.errors import PagsError, UsageError
from pags.figures import audits, sweeps
from pags.figures.kinds import FigureData, Line, grid
from pags.figures.measures import main_figure
from pags.measure.gradients import input_gradient
from pags.records import AuditRecord, ModelRecord, Record, ReproductionRecord, Result, SweepRecord
from pags.report import words
from pags.store import Store

LINES, COLUMNS = 10, 100
"""Of a `repr`, at most."""
SCREEN = 520
"""Pixels of the first screen of a page in a notebook."""
AUDIT_QUANTITIES = ("similarity", "robustness")


def plot_gradients(
    images: Images, gradients: Mapping[str, Any], score: Images | None = None, *, ax: Any = None
) -> Any:
    """Images, the score, and input gradients beneath each other, each scaled by its largest absolute value.

    Args:
        images: (n, c, h, w) in [0, 1].
        gradients: by name: (n, c, h, w) of any scale, or a classifier: then its gradient of
            the logit of the predicted class.
        score: (n, c, h, w), to be shown beneath the images.
        ax: Matplotlib axes to draw into; None: a figure of its own.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        UsageError: gradients or score are not of the images' shape.
    """
    vectors = {} if score is None else {"score": score}
    vectors |= {
        name: input_gradient(each, images) if isinstance(each, nn.Module) else each
        for name, each in gradients.items()
    }
    wrong = {name: tuple(each.shape) for name, each in vectors.items() if each.shape != images.shape}
    if wrong:
        shape, (name, other) = tuple(images.shape), next(iter(wrong.items()))
        raise UsageError(
            f"vectors of shape {shape}, one per image",
            got=f"{other} for {name}",
            suggestion="the same images for all",
        )
    lines = [Line("image", images), *(Line(name, each, signed=True) for name, each in vectors.items())]
    return _drawn(grid("", lines), ax)


def plot_sweep(
    sweep: Any, *, objective: str | None = None, quantity: str | None = None, ax: Any = None
) -> Any:
    """Figure 3: robustness on and off the manifold, similarity with the score, and accuracy over strength.

    Args:
        sweep: a result of `pags.reproduce` or `pags.load_results`, its folder, or a sweep's record.
        objective: a single objective, such as "pgd"; None: all, or the first where a quantity is asked for.
        quantity: "robustness", a metric such as "lpips" or "cosine", or "accuracy"; None: all.
        ax: Matplotlib axes for a single panel, which is then of one objective and one quantity.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        UsageError: there is no sweep, or no such objective or quantity.
    """
    record = _sweep_of(sweep)
    known = [line["objective"] for line in record["sweeps"]]
    rows = ["robustness", *sweeps.metrics(record), "accuracy"]
    quantity = "robustness" if quantity is None and ax is not None else quantity
    for asked, names, what in ((objective, known, "objective"), (quantity, rows, "quantity")):
        if asked is not None and asked not in names:
            raise UsageError(
                f"{what} among {', '.join(names)}", got=repr(asked), suggestion=f"{what}={names[0]!r}"
            )
    if objective or ax is not None:
        chosen = objective or known[0]
        lines = [line for line in record["sweeps"] if line["objective"] == chosen]
        record = cast(SweepRecord, {**record, "sweeps": lines})
    data = main_figure(record)
    if quantity:
        panels = [data.record["panels"][rows.index(quantity)]]
        titles = [line["title"] for line in record["sweeps"]]
        panels = [[panel | {"title": title} for panel, title in zip(panels[0], titles, strict=False)]]
        data = replace(data, record=data.record | {"panels": panels})
    return _drawn(data, ax)


def _sweep_of(thing: Any) -> SweepRecord:
    if isinstance(thing, Mapping) and "sweeps" in thing:
        return cast(SweepRecord, thing)
    if (found := _SweepView.of(thing).sweep) is None:
        raise UsageError("a result with sweeps", got="one without", suggestion='pags.reproduce(["3"])')
    return found


def plot_audit(audit: Any, *, quantity: str = "similarity", metric: str | None = None, ax: Any = None) -> Any:
    """What an audit found, one model or several beside each other.

    Args:
        audit: an `Audit`, several by name, a `Comparison`, or a result of `pags.run_audit` or its folder.
        quantity: "similarity", a panel per metric with its reference values; or "robustness", a panel per
            model with the output change on and off the manifold.
        metric: a single metric of the similarity.
        ax: Matplotlib axes for a single panel, the first.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        UsageError: no such quantity or metric, or it was not measured.
    """
    record = _AuditView.of(audit).record
    if quantity not in AUDIT_QUANTITIES:
        raise UsageError(
            f"a quantity among {', '.join(AUDIT_QUANTITIES)}", got=repr(quantity), suggestion="similarity"
        )
    data = (audits.similarity if quantity == "similarity" else audits.robustness)(record["models"])
    metrics = record["models"][0]["settings"]["metrics"]
    if data is None or (metric is not None and metric not in metrics):
        wanted = f"a metric among {', '.join(metrics)}" if data else f"an audit that measured the {quantity}"
        needs = "with denoiser=…" if quantity == "similarity" else "with tangent=…"
        raise UsageError(
            wanted, got=metric if data else "none", suggestion=needs if data is None else metrics[0]
        )
    if metric is not None and quantity == "similarity":
        panels = [panel for row in data.record["panels"] for panel in row]
        data = replace(data, record=data.record | {"panels": [[panels[metrics.index(metric)]]]})
    return _drawn(data, ax)


def load_results(folder: Path | str) -> Result:
    """What a command left in a folder: of an audit, a reproduction or demo, or of the exact laboratory.

    Args:
        folder: such as "pags-out/demo".

    Returns:
        A `Result`: the record as a dictionary that prints, plots and tabulates itself.

    Raises:
        PagsError: there is no such record.
    """
    store = Store(Path(folder))
    for name in ("records/reproduction.json", "audit.json", "theory.json"):
        if store.has(name):
            return Result(store.read_record(name), store.root)
    wanted = "a folder of a finished demo, reproduction, audit or theory"
    raise PagsError(wanted, got=folder, suggestion="pags demo, whose folder is pags-out/demo")


def table_of(record: Mapping[str, Any]) -> list[Record]:
    """Every number of a record as rows: model (objective, strength), quantity, estimate, low, high.

    Args:
        record: of an audit, a sweep, or the exact laboratory, whose rows are its claims.
    """
    if "models" not in record:
        return [
            {"part": name} | {k: row[k] for k in ("claim", "estimate", "low", "high", "verdict")}
            for name, part in record["parts"].items()
            for row in part["rows"]
        ]  # fmt: skip
    return [
        {
            "model": model["name"], "objective": model.get("objective"), "strength": model.get("strength"),
            "quantity": quantity, "estimate": value["estimate"], "low": value["low"], "high": value["high"],
        }
        for model in record["models"]
        for quantity, value in {**model["means"], **model["ratios"]}.items()
        if value is not None
    ]  # fmt: skip


def csv_of(result: Result) -> bytes:
    """The numbers of a result as a CSV file, rows as in `to_pandas()`."""
    rows, buffer = view(result).rows(), io.StringIO(newline="")
    writer = csv.DictWriter(buffer, rows[0] if rows else ["quantity"])
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def _drawn(data: FigureData, ax: Any) -> Any:
    from pags.report.charts import draw_curves, draw_panel
    from pags.report.grids import draw_grid

    if data.record["kind"] == "grid":
        return draw_grid(data.record, data.tensors, axis=ax)
    return draw_curves(data.record) if ax is None else draw_panel(data.record["panels"][0][0], ax)


def _frame(rows: Any) -> Any:
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise PagsError(
            "the package pandas, for to_pandas()",
            got="none installed",
            suggestion="pip install -e '.[pandas]'",
        ) from error
    return DataFrame(rows)


def _text(head: str, answer: Sequence[str], models: Sequence[tuple[str, ModelRecord]]) -> str:
    """At most ten lines: what it is, the answer, the headline quantities of the models."""
    lines = [head, *wrap(" ".join(answer), COLUMNS, max_lines=4, placeholder=" …")]
    if models:
        columns = words.headlines(models[0][1])
        table = [["", *columns]] + [
            [name, *(_number(model, column) for column in columns.values())] for name, model in models
        ]
        shown = table[: LINES - len(lines) - 1]
        widths = [max(len(row[place]) for row in shown) for place in range(len(columns) + 1)]
        lines += [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in shown
        ]
        lines += [f"… and {len(table) - len(shown)} more"] if len(table) > len(shown) else []
    return "\n".join(lines[:LINES])


def _number(model: ModelRecord, column: str) -> str:
    value = words.estimate(model["ratios"].get(column) or model["means"].get(column))
    return "–" if value is None else f"{value:.3g}"


def _screen(template: str, record: Mapping[str, Any], content: Record) -> str:
    """The first screen of a page in a frame of its own, whose style is not that of the notebook."""
    from pags.report.layout import page

    html = page(template, record, first_screen=True, **content).decode()
    style = f"width: 100%; height: {SCREEN}px; border: 0"
    return f'<iframe title="{content["title"]}" style="{style}" srcdoc="{escape(html)}"></iframe>'


class _View:
    """What all views share; each has `text`, `html`, `plot`, `rows` and `save`, and some a `folder`."""

    def show(self: Any, n: int) -> Any:
        return self.plot()

    def to_pandas(self: Any) -> Any:
        return _frame(self.rows())

    def report(self: Any, folder: Path | None) -> Path:
        from pags.report.pages import write_report

        own = getattr(self, "folder", None)
        if (place := folder or own) is None:
            raise UsageError("a folder for the page", got="none", suggestion='.report("pags-out/audit")')
        if place != own:
            self.save(place)
        return write_report(place)[-1]


@dataclass(frozen=True)
class _DataView(_View):
    """Of images: counts, and a contact sheet."""

    parts: Mapping[str, ImageSet]

    def text(self) -> str:
        first = next(iter(self.parts.values()))
        counts = ", ".join(f"{len(part)} {name}".strip() for name, part in self.parts.items())
        classes = shorten(", ".join(first.classes), 60, placeholder=" …")
        shape = "×".join(map(str, first.shape))
        return f"{first.name}: {counts} images of {shape}, {len(first.classes)} classes: {classes}"

    def html(self) -> str:
        from pags.report.grids import data_uri

        sheet = data_uri(self._sheet(32))
        return f'<p>{escape(self.text())}</p><img alt="some of the images" src="{sheet}">'

    def plot(self, n: int = 128, ax: Any = None) -> Any:
        from pags.report.grids import draw_picture

        return draw_picture(self._sheet(n), ax)

    def show(self, n: int) -> Any:
        return self.plot(n)

    def rows(self) -> list[Record]:
        return [
            {"part": name, "label": label, "class": part.classes[label]}
            for name, part in self.parts.items()
            for label in part.labels.tolist()
        ]

    def save(self, folder: Path) -> list[Path]:
        import numpy as np

        names = {"": ("images", "labels"), "training": ("x_train", "y_train"), "test": ("x_test", "y_test")}
        first, buffer = next(iter(self.parts.values())), io.BytesIO()
        arrays: dict[str, Any] = {"classes": np.array(first.classes)}
        for name, part in self.parts.items():
            pixels, labels = names[name]
            arrays |= {pixels: part.pixels.cpu().numpy(), labels: part.labels.cpu().numpy()}
        np.savez_compressed(buffer, **arrays)
        return [Store(folder).write_bytes(f"{first.name}.npz", buffer.getvalue())]

    def _sheet(self, n: int) -> bytes:
        from pags.data.sheet import contact_sheet

        first = next(iter(self.parts.values()))
        columns = min(16, n)
        return contact_sheet(first.take(slice(None)), columns=columns, rows=-(-n // columns))


@dataclass(frozen=True)
class _AuditView(_View):
    """Of audits, one or several: the audit's record and the tensors beside it."""

    record: AuditRecord
    tensors: Mapping[str, Tensor]
    folder: Path | None = None
    columns: Mapping[str, Tensor] | None = None

    @classmethod
    def of(cls, audit: Any) -> "_AuditView":
        audit = load_results(audit) if isinstance(audit, str | Path) else audit
        if isinstance(audit, cls):
            return audit
        if isinstance(audit, Audit):
            return replace(cls._made({"classifier": audit}), columns=audit.columns)
        if isinstance(audit, Comparison):
            return cls._made(audit.audits, audit)
        if isinstance(audit, Result) and "pairs" in audit:
            store = Store(audit.folder)
            return cls(cast(AuditRecord, audit), store.read_tensors("audit.safetensors")[0], audit.folder)
        if isinstance(audit, Mapping) and audit and all(isinstance(each, Audit) for each in audit.values()):
            return cls._made(audit)
        raise UsageError("an audit or several by name", got=type(audit).__name__, suggestion="pags.audit(…)")

    @classmethod
    def _made(cls, found: Mapping[str, Audit], pairs: Mapping[str, Any] | None = None) -> "_AuditView":
        from pags.experiments.audit import tensors_of

        first = next(iter(found.values())).settings
        record: AuditRecord = {
            "settings": {}, "estimators": {"size": first["size"], "sigma": first["sigma"]},
            "data": {
                "name": "images", "train": 0, "images": first["n"], "shape": first["shape"],
                "classes": [str(place) for place in range(first["classes"])], "provenance": {},
            },
            "models": [each.summary(name=name) for name, each in found.items()],
            "pairs": list(pairs["pairs"]) if pairs else [],
        }  # fmt: skip
        return cls(record, tensors_of(list(found.values())))

    def text(self) -> str:
        data, models = self.record["data"], self.record["models"]
        head = f"Audit of {data['images']} images of {'×'.join(map(str, data['shape']))}"
        return _text(head, words.audit_answer(self.record), [(each["name"], each) for each in models])

    def html(self) -> str:
        from pags.report.pages import audit_screen

        return _screen("audit", cast(Record, self.record), audit_screen(self.record, self.tensors))

    def plot(self, **options: Any) -> Any:
        return plot_audit(self, **options)

    def show(self, n: int) -> Any:
        from pags.report.pages import panels_of

        lines = []
        for place, model in enumerate(self.record["models"]):
            panels, several = panels_of(self.tensors, place), len(self.record["models"]) > 1
            prefix = f"{model['name']}\n" if several else ""
            count = len(panels["image"])
            kept = [k for k in range(count) if k < -(-n // 2) or k >= count - n // 2]
            for name in ("image", "gradient", "score"):
                if name in panels:
                    lines.append(Line(f"{prefix}{name}", panels[name][kept], signed=name != "image"))
        return _drawn(grid("", lines), None)

    def to_pandas(self) -> Any:
        columns = self.columns
        return _frame(self.rows() if columns is None else {n: v.numpy() for n, v in columns.items()})

    def rows(self) -> list[Record]:
        return table_of(self.record)

    def save(self, folder: Path) -> list[Path]:
        from pags.experiments.audit import write_audit

        return write_audit(Store(folder), self.record, dict(self.tensors))


@dataclass(frozen=True)
class _SweepView(_View):
    """Of a reproduction: its record and folder, where the sweeps' record and gallery lie."""

    record: ReproductionRecord
    folder: Path

    @classmethod
    def of(cls, result: Any) -> "_SweepView":
        found = load_results(result) if isinstance(result, str | Path) else result
        if isinstance(found, cls):
            return found
        if not isinstance(found, Result) or "claims" not in found:
            raise UsageError(
                "a result of pags.reproduce",
                got=type(found).__name__,
                suggestion='pags.load_results("pags-out/demo")',
            )
        return cls(cast(ReproductionRecord, found), found.folder)

    @property
    def sweep(self) -> SweepRecord | None:
        if "sweep" not in self.record["parts"]:
            return None
        return cast(SweepRecord, Store(self.folder).read_record("records/sweep.json"))

    @property
    def gallery(self) -> Mapping[str, Tensor]:
        return Store(self.folder).read_tensors("records/gallery.safetensors")[0] if self.sweep else {}

    def text(self) -> str:
        verdicts = [claim["verdict"] for claim in self.record["claims"]]
        kinds = ("supported", "contradicted", "undecided")
        counts = ", ".join(f"{verdicts.count(kind)} {kind}" for kind in kinds)
        head = f"{self.record['command']}: claims {counts}"
        if (sweep := self.sweep) is None:
            return head
        models = [(sweeps.described(sweep, each), each) for each in words.headline_models(sweep)]
        return _text(head, words.sweep_answer(sweep), models)

    def html(self) -> str:
        from pags.report.pages import reproduction_screen

        content = reproduction_screen(self.record, self.sweep, self.gallery)
        return _screen("reproduction", cast(Record, self.record), content)

    def plot(self, **options: Any) -> Any:
        return plot_sweep(self, **options)

    def show(self, n: int, objective: str | None = None) -> Any:
        sweep = _sweep_of(self)
        gallery = {name: value[:n] for name, value in self.gallery.items() if "directions" not in name}
        line = objective or sweeps.best(sweep).get("objective", "")
        lines = sweeps.gradient_lines(sweep, gallery, line, sweeps.targets(sweep)[0])
        return _drawn(grid("", lines), None)

    def rows(self) -> list[Record]:
        return table_of(self.sweep or {"parts": {}})

    def save(self, folder: Path) -> list[Path]:
        from shutil import copytree

        if folder.resolve() != self.folder.resolve():
            copytree(self.folder / "records", folder / "records", dirs_exist_ok=True)
        return sorted((folder / "records").iterdir())


@dataclass(frozen=True)
class _TheoryView(_View):
    """Of the exact laboratory."""

    record: Record
    folder: Path

    def text(self) -> str:
        lines = [f"The exact laboratory, seed {self.record['seed']}"]
        for name, part in self.record["parts"].items():
            held = sum(row["verdict"] == "supported" for row in part["rows"])
            lines.append(f"  {name.replace('_', ' '):16}{held} of {len(part['rows'])} supported")
        return "\n".join(lines)

    def html(self) -> str:
        from pags.report.pages import theory_screen

        return _screen("theory", self.record, theory_screen(self.record, {}))

    def plot(self, part: str = "theorem_1", ax: Any = None) -> Any:
        from pags.figures.theory import theory_figures

        found = theory_figures(self.record)
        if part not in found:
            raise UsageError(f"a part among {', '.join(found)}", got=repr(part), suggestion="theorem_1")
        return _drawn(found[part], ax)

    def rows(self) -> list[Record]:
        return table_of(self.record)

    def save(self, folder: Path) -> list[Path]:
        return [Store(folder).write_record("theory.json", self.record)]


def view(thing: Any) -> Any:
    """What shows a thing: its text, page, plots and tables; see `pags.display.Displayed`."""
    if isinstance(thing, ImageSet):
        return _DataView({"": thing})
    if isinstance(thing, DataSet):
        return _DataView({"training": thing.train, "test": thing.test})
    if isinstance(thing, Result) and "pairs" not in thing:
        return (_SweepView if "claims" in thing else _TheoryView)(cast(Any, thing), thing.folder)
    return _AuditView.of(thing)
