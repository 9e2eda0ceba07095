"""Draw every study in results/ again from its records, and fill the tables of the texts with its numbers.

    python scripts/results.py            # make results

A text marks a table by `<!-- table NAME STUDY … -->` and `<!-- end -->`; the names are those of `TABLES`.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr  # type: ignore[import-untyped]

from pags.figures.sweeps import UNTRAINED, along, described
from pags.report.pages import write_report
from pags.report.words import strip_models, subject_title
from pags.store import Store

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
TEXTS = ("README.md", "docs/results.md")
IMAGES = {
    "natural-images.png": "cifar10-jpeg/figures/natural-images.png",
    "cifar10-figure-3.png": "cifar10-jpeg/figures/figure-03.png",
    "digits-bayes-line.png": "digits/figures/bayes-line.png",
    "digits-manifold.png": "digits/figures/manifold.png",
    "demo-figure-3.png": "digits/figures/figure-03.png",
}
"""Pictures of the texts, and the figures that they are."""
SIMILARITIES = {"lpips": "1 − LPIPS", "cosine": "cosine", "bayes cosine": "cosine with the Bayes direction"}
MARKED = re.compile(r"(<!-- table ([\w-]+)((?: [\w/-]+)+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main() -> None:
    for study in studies():
        written = write_report(study)
        for image, figure in IMAGES.items():
            if (source := RESULTS / figure).is_relative_to(study):
                (ROOT / "docs" / "images" / image).write_bytes(source.read_bytes())
        for path in written:
            if path.suffix not in (".svg", ".html"):
                path.unlink(missing_ok=True)  # what a browser shows is enough
    for text in TEXTS:
        path = ROOT / text
        path.write_text(filled(path.read_text()))


def studies() -> list[Path]:
    """The folders that hold a study's records."""
    return sorted(path.parent.parent for path in RESULTS.glob("*/records/reproduction.json"))


def filled(text: str) -> str:
    """A text with its tables made again from the records."""
    return MARKED.sub(lambda m: f"{m[1]}\n{TABLES[m[2]](*m[3].split())}\n\n{m[5]}", text)


def models(study: str) -> str:
    """One row per network of a study, with the headline quantities and their 95 % intervals."""
    record: Any = Store(RESULTS / study).read_record("records/sweep.json")
    lines = [line for sweep in record["sweeps"] for line in along(record, sweep)]
    unique = {found["name"]: found for found in [record["models"][0], *lines]}
    norm = record["settings"]["measures"]["norm"]
    rows = [
        [
            described(record, found), interval(found["means"]["correct"]),
            interval(found["ratios"][f"off/on {norm:.4g}"]), interval(found["ratios"]["rho1"]),
            interval(found["means"]["lpips logit"]), interval(found["means"]["shuffled lpips logit"]),
            interval(found["means"]["bayes cosine logit"]), found["regime"]["name"] or "–",
        ]
        for found in unique.values()
    ]  # fmt: skip
    heading = [
        "network", "accuracy", f"off/on, norm {norm:.3g}", f"ρ1 (chance {record['chance']['rho2']:.3g})",
        "1 − LPIPS with the score", "… with another image’s score", "cosine with the Bayes direction",
        "regime",
    ]  # fmt: skip
    return table(heading, rows)


def headline(study: str) -> str:
    """The standard network, the accurate one most similar to the score, and the strongest of its sweep."""
    record: Any = Store(RESULTS / study).read_record("records/sweep.json")
    norm = record["settings"]["measures"]["norm"]
    rows = [
        [
            described(record, found), interval(found["means"]["correct"]),
            interval(found["ratios"][f"off/on {norm:.4g}"]), interval(found["means"]["lpips logit"]),
            interval(found["means"]["bayes cosine logit"]),
        ]
        for found in strip_models(record).values()
    ]  # fmt: skip
    heading = [
        "network", "accuracy", f"off/on, norm {norm:.3g}", "1 − LPIPS with the score",
        "cosine with the Bayes direction",
    ]  # fmt: skip
    return table(heading, rows)


def correlations(study: str) -> str:
    """Spearman's rank correlation over all trained networks of a study: what goes with alignment."""
    record: Any = Store(RESULTS / study).read_record("records/sweep.json")
    trained = [found for found in record["models"] if found["objective"] != UNTRAINED]
    norm = record["settings"]["measures"]["norm"]

    def of(group: str, column: str) -> list[float]:
        return [found[group][column]["estimate"] for found in trained]

    similar, shuffled = of("means", "lpips logit"), of("means", "shuffled lpips logit")
    alignments = {
        "1 − LPIPS with the score": similar,
        "… above that with another image’s score": [a - b for a, b in zip(similar, shuffled, strict=True)],
        "cosine with the Bayes direction": of("means", "bayes cosine logit"),
    }
    beside = {
        "−ρ1": [-value for value in of("ratios", "rho1")],
        f"−off/on, norm {norm:.3g}": [-value for value in of("ratios", f"off/on {norm:.4g}")],
        "power at low frequencies": of("means", "low frequency logit"), "accuracy": of("means", "correct"),
    }  # fmt: skip
    rows = [
        [name, *(ranked(values, each) for each in alignments.values())] for name, values in beside.items()
    ]
    return table([f"rank correlation, {len(trained)} networks", *alignments], rows)


def ranked(a: list[float], b: list[float]) -> str:
    """Their rank correlation."""
    return f"{spearmanr(a, b).statistic:.2f}".replace("-", "−")


def audits(study: str) -> str:
    """One row per network that others trained: how, and the headline quantities."""
    record: Any = Store(RESULTS / study).read_record("audit.json")
    settings = record["models"][0]["settings"]
    radius, norm = settings["radii"][1], settings["norm"]
    rows = []
    for found in record["models"]:
        means, ratios = found["means"], found["ratios"]
        numbers = (
            means["correct"], means[f"robust {radius:g}"], ratios[f"off/on {norm:.4g}"], ratios["rho1"],
            means["low frequency logit"], means["lpips logit"], means["shuffled lpips logit"],
            means["bayes cosine logit"],
        )  # fmt: skip
        rows.append([*published(found), *map(interval, numbers), found["regime"]["name"] or "–"])
    chance = record["models"][0]["means"]["chance rho2"]["estimate"]
    heading = [
        "network", "training", "accuracy", f"robust accuracy, radius {radius:g}", f"off/on, norm {norm:.3g}",
        f"ρ1 (chance {chance:.3g})", "power at low frequencies", "1 − LPIPS with the score",
        "… with another image’s score", "cosine with the Bayes direction", "regime",
    ]  # fmt: skip
    return table(heading, rows)


def estimates(*studies: str) -> str:
    """The same networks, compared with several estimates of the score: those of each study."""
    records: list[Any] = [Store(RESULTS / study).read_record("audit.json") for study in studies]
    rows = [
        [published(found)[0]]
        + [
            interval(record["models"][place]["means"][f"{measure} logit"])
            for measure in SIMILARITIES
            for record in records
        ]
        for place, found in enumerate(records[0]["models"])
    ]
    names = [Path(study).name for study in studies]
    return table(["network", *(f"{said}, {n}" for said in SIMILARITIES.values() for n in names)], rows)


def published(found: Mapping[str, Any]) -> tuple[str, str]:
    """Title and training of a network that others trained."""
    told = tomllib.loads((RESULTS / "published" / "networks.toml").read_text())
    own = told[found["name"].partition("?")[0]]
    return own["title"], own["training"]


def verdicts(study: str) -> str:
    """One row per claim: the statistic with its interval, and the verdict, for each subject."""
    store = Store(RESULTS / study)
    claims = store.read_record("records/claims.json")["claims"]
    sweep: Any = store.read_record("records/sweep.json")
    subjects = list(dict.fromkeys(claim["subject"] for claim in claims))
    found = {(claim["claim"], claim["subject"]): claim for claim in claims}
    rows = []
    for name in dict.fromkeys(claim["claim"] for claim in claims):
        cells = [found.get((name, subject)) for subject in subjects]
        rows.append([f"`{name}`", *("" if cell is None else verdict(cell) for cell in cells)])
    return table(["claim", *(subject_title(subject, sweep) for subject in subjects)], rows)


def verdict(claim: Mapping[str, Any]) -> str:
    """A verdict with what decides it."""
    return f"**{claim['verdict']}** {interval(claim)}" if claim["estimate"] is not None else claim["verdict"]


def interval(found: Mapping[str, Any] | None) -> str:
    """An estimate with its interval, two to three digits."""
    if found is None or found["estimate"] is None:
        return "–"
    number, low, high = (
        "–" if found[n] is None else f"{found[n]:.3g}".replace("-", "−") for n in ("estimate", "low", "high")
    )
    return f"{number} [{low}, {high}]"


def table(heading: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [heading, ["---"] * len(heading), *rows])


TABLES: dict[str, Callable[..., str]] = {
    "headline": headline, "models": models, "verdicts": verdicts, "audits": audits,
    "correlations": correlations, "estimates": estimates,
}  # fmt: skip
"""What a mark in a text may name."""

if __name__ == "__main__":
    main()
