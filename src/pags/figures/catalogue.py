"""All figures as rows of one table, in the paper's order; and making them: a record each, and tensors."""

from collections.abc import Iterable, Sequence
from functools import partial

from pags.errors import UsageError
from pags.figures import measures, phenomena, pictures
from pags.figures.kinds import Figure, FigureData, Parts, stem
from pags.store import Store


def _sums(number: str, objective: str, how: str) -> Figure:
    title = f"Gradients of models trained with {how}"
    return Figure(number, title, "C", ("sweep",), partial(pictures.of_sum, objective=objective, title=title))


FIGURES = (
    Figure("1", "Gradients of robust models look like the score", "1", ("sweep",),
           pictures.standard_and_robust),
    Figure("2", "Signal and distractor", "3.2, Definition 3", ("world",), phenomena.signal_and_distractor),
    Figure("3", "Robust models are off-manifold robust, and aligned", "4.1, 4.2", ("sweep",),
           measures.robustness_and_alignment),
    Figure("4", "Alignment of adversarially trained models", "4.2", ("sweep", "transfer"),
           measures.at_two_resolutions),
    Figure("5", "Robust models are relatively robust to noise on a distractor", "4.3", ("distractor",),
           phenomena.noise_robustness),
    Figure("6", "Gradients from weak through Bayes-aligned to excessive robustness", "4.2, 5", ("sweep",),
           pictures.regimes),
    Figure("7", "Random perturbations on and off the manifold", "B.6", ("sweep",), pictures.directions),
    Figure("8", "Perturbations of different size", "C", ("sweep",), pictures.sizes),
    Figure("9", "On- and off-manifold robustness at several norms", "C; 4.1", ("sweep",),
           measures.at_several_norms),
    _sums("10", "gradient-norm", "gradient-norm regularisation"),
    _sums("11", "pgd", "projected gradient descent"),
    _sums("12", "smoothness", "a smoothness penalty"),
    _sums("13", "smoothing", "randomised smoothing"),
    Figure("14", "Gradients of one class, l2-PGD", "C; 4.2", ("sweep",), pictures.of_one_class),
    Figure("15", "Gradients scaled down to the score's resolution, l2-PGD", "C; B.8", ("sweep", "transfer"),
           pictures.at_higher_resolution),
    Figure("16", "Digits with a distractor", "B.9", ("distractor",), phenomena.digits_with_distractor),
    Figure("17", "Alignment with the conditional score", "B.4", ("sweep",), measures.with_score_of_class),
    Figure("phenomenon-2", "What following the gradient makes", "1, Phenomenon 2", ("sweep", "generation"),
           phenomena.made_by_gradients),
    Figure("phenomenon-2-pictures", "Images made by following the gradient", "1, Phenomenon 2",
           ("sweep", "generation"), phenomena.synthesised),
    Figure("phenomenon-3", "SmoothGrad and robustness", "1, Phenomenon 3", ("sweep", "smoothgrad"),
           measures.smoothgrad),
    Figure("manifold", "How the numbers depend on the tangent spaces", "4; B.6", ("sweep", "manifold"),
           measures.manifold_dependence),
    Figure("bayes-line", "Networks beside the denoiser's own classifier", "5; 3.3", ("sweep", "bayes"),
           measures.bayes_line),
    Figure("score-share", "Where the score points", "A, proof of Theorem 2", ("sweep", "score"),
           measures.score_share),
    Figure("natural-images", "Gradients of networks of no to excessive robustness", "1", ("shipped",),
           pictures.natural_images),
)  # fmt: skip
"""A new figure is a row here; its function may stand here too. A user's is a `Figure` of their own."""


def chosen(names: Sequence[str], *, more: Iterable[Figure] = ()) -> list[Figure]:
    """The figures that are asked for; "all" stands for all of the paper's.

    Args:
        names: of figures.
        more: a user's own, which are always among the chosen.

    Raises:
        UsageError: no figure has such a name, or two have the same.
    """
    own = list(more)
    known = {figure.name: figure for figure in (*FIGURES, *own)}
    if len(known) < len(FIGURES) + len(own):
        raise UsageError(
            "a figure of a new name", got=", ".join(f.name for f in own), suggestion='Figure("my-figure", …)'
        )
    unknown = [name for name in names if name not in known and name != "all"]
    if unknown or not (names or own):
        raise UsageError(
            f"figures among all, 1 to 17, {', '.join(name for name in known if not name.isdigit())}",
            got=", ".join(unknown) or "none",
            suggestion="pags reproduce all --data digits",
        )
    return [f for f in known.values() if "all" in names or f.name in names or f in own]


def make(figure: Figure, sources: Parts, store: Store) -> FigureData:
    """A figure's data, written as `records/STEM.json`, its pictures as `records/STEM.safetensors`."""
    found = figure.data(sources)
    about = {
        "figure": figure.name, "heading": figure.heading, "place": figure.place, "needs": list(figure.needs)
    }  # fmt: skip
    record = about | {"title": figure.title} | found.record | {"tensors": bool(found.tensors)}
    if found.tensors:
        store.write_tensors(f"records/{figure.stem}.safetensors", found.tensors)
    store.write_record(f"records/{figure.stem}.json", record)
    return FigureData(record, found.tensors)


def read(store: Store, name: str) -> FigureData | None:
    """A figure's data from its records; None where it has not been made."""
    path = f"records/{stem(name)}"
    if not store.has(f"{path}.json"):
        return None
    record = store.read_record(f"{path}.json")
    tensors = store.read_tensors(f"{path}.safetensors")[0] if record["tensors"] else {}
    return FigureData(record, tensors)
