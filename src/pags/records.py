"""The schema of every record: what is written as JSON, read back, and drawn.

Tables, figures and pages are functions of these alone. Quantities are columns with one name everywhere:

* `correct`, `confidence`, `robust R`: accuracy, probability of the predicted class, accuracy under all l2
  attacks that the settings name, of radius R (`pgd R`: under PGD alone, where there are others);
* `training loss`, `training correct`: cross-entropy and accuracy on as many training images, in sweeps;
* `on N`, `off N`, `any N`: change of the output under perturbations of norm N inside the tangent space, in
  its complement, and isotropic (chance level); `squared change off`, `squared change`: Definition 1;
* `rho2 T`: share of the energy of the gradient of target T outside the tangent space; `chance rho2`;
* `M T`: similarity by metric M (lpips, cosine, …) of the gradient of target T and its score. In front of a
  name stand, in this order, `control ` (the untrained network), `shuffled ` (the score of another image),
  `smooth L ` (SmoothGrad of noise L), `bayes ` (the Bayes direction in place of the score);
* `floor M K`, `ceiling M K`, `rho2 score K`: of noise, a second estimate, and the score itself, for the
  score of kind K ("all classes", "predicted class", "true class").
"""

from pathlib import Path
from typing import Any, NotRequired, TypedDict

from pags.display import Displayed

Record = dict[str, Any]
"""Plain data: what JSON can hold, read back equal to the last digit."""
TEMPORARY = ".writing-"
"""The start of the name of a file that is being written; the machine and the process follow."""


class Result(Displayed, Record):
    """The record of a finished audit, reproduction or theory run: a dictionary that shows itself.

    Args:
        record: plain data, as in the JSON file.
        folder: where the file lies, and the tensors beside it.
    """

    def __init__(self, record: Record, folder: Path) -> None:
        super().__init__(record)
        self.folder = folder


class IntervalRecord(TypedDict):
    """An estimate with its confidence interval; None for what is not defined."""

    estimate: float | None
    low: float | None
    high: float | None
    level: float


class RegimeRecord(TypedDict):
    """The regime of a model by the written rule; the name is None where the rule cannot be applied."""

    name: str | None
    accuracy_lost: IntervalRecord | None
    rule: str
    at_tolerance: NotRequired[dict[str, str]]
    """The name by each of `TOLERANCES`, other shares of accuracy that an aligned model may have lost."""


class ModelRecord(TypedDict):
    """One model measured on an evaluation set."""

    name: str
    """"standard", "untrained", "pgd 0.6", or what the user called it."""
    about: Record
    settings: Record
    means: dict[str, IntervalRecord | None]
    """By column; None for a quantity that no image has."""
    ratios: dict[str, IntervalRecord | None]
    """`off/on N` for each norm, and `rho1`."""
    above_shuffled: dict[str, IntervalRecord | None]
    regime: RegimeRecord
    objective: NotRequired[str]
    strength: NotRequired[float]
    runs: NotRequired[list[dict[str, float | None]]]
    """The mean of each column for every seed."""


class ClaimRecord(TypedDict):
    """A verdict on one claim."""

    claim: str
    subject: str
    """What it is judged on: an objective, a model, a variant of the data."""
    place: str
    statement: str
    rule: str
    estimate: float | None
    low: float | None
    high: float | None
    level: float
    verdict: str
    note: NotRequired[str]
    """What a reader has to know beside the verdict: "of this network", a tie, what is missing."""


class SweepLine(TypedDict):
    """One objective of a sweep, with its words for people."""

    objective: str
    strengths: list[float]
    title: str
    symbol: str


class DataRecord(TypedDict):
    """Which images."""

    name: str
    train: int
    images: int
    """How many are measured."""
    shape: list[int]
    classes: list[str]
    provenance: Record


class SweepRecord(TypedDict):
    """All models of all sweeps: `records/sweep.json`. Its pictures are in `records/gallery.safetensors`.

    The gallery holds `images`, `labels`, `directions` (several, n, c, h, w) and `directions on`; for each
    target T `score T` and `on score T`; for each model M and target T `gradient M T`, `on gradient M T`,
    `METRIC M T` (one number per image) and `layers M T` (n, 5). There gradients and scores are those of the
    image's own class, so that a number belongs to the two pictures beside it.
    """

    key: str
    settings: Record
    data: DataRecord
    estimators: Record
    chance: Record
    """`rho2` and `k`."""
    sweeps: list[SweepLine]
    models: list[ModelRecord]
    """The untrained control, the standard network, then every sweep's."""
    missing: NotRequired[list[Record]]
    """Models that were asked for and are not there: `objective`, `strength`, `reason`."""


class AuditRecord(TypedDict):
    """Several models on one evaluation set: `audit.json`."""

    settings: Record
    data: DataRecord
    estimators: Record
    models: list[ModelRecord]
    pairs: list[Record]
    """`first`, `second` and `differences` by column, paired by image."""
    made: NotRequired[Record]
    """Command, date, machine and versions."""


class ReproductionRecord(TypedDict):
    """What `pags demo` and `pags reproduce` ran: `records/reproduction.json`."""

    command: str
    scale: str
    settings: Record
    parts: list[str]
    figures: list[str]
    data: DataRecord | None
    claims: list[ClaimRecord]
    missing: NotRequired[list[str]]
    """Figures, and networks with the reason, that were asked for and are not there."""
    made: NotRequired[Record]
    """Versions, commit, machine, date: for a page's footer; no part of any key."""
