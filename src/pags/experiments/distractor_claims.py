"""What section 4.3 and the hypotheses say of signal and distractor, as claims and their verdicts."""

from functools import partial

import torch
from torch import Tensor

from pags.experiments.claims import Verdict, judged
from pags.experiments.distractor import ROBUST, STANDARD, Distractor, Variant, positive
from pags.experiments.workshop import Columns
from pags.measure.regimes import TOLERANCE
from pags.seeds import generator
from pags.store import Record


def distractor_claims(state: Distractor) -> list[Record]:
    """What 4.3 and the hypotheses say, of the paper's distractor and of the others."""
    config = state.config
    records = [r for variant in config.variants if not variant.informative for r in _of_null(state, variant)]
    pairs = [
        (null, told)
        for null in config.variants
        for told in config.variants
        if null.distractor == told.distractor and not null.informative and told.informative == 1
    ]
    return records + [r for null, told in pairs for r in _of_slider(state, null, told)]


def _of_null(state: Distractor, variant: Variant) -> list[Record]:
    """Claims about a distractor that says nothing of the label."""
    places = positive(state.config)
    names = [f"{part} {place}" for part in ("signal", "distractor") for place in places]
    names += ["energy on signal", "pixels on signal"]
    both = [state.measures(variant, kind) for kind in (STANDARD, ROBUST)]
    table = torch.stack([columns[name] for columns in both for name in names], 1).cpu()

    def parts(means: Tensor) -> list[Tensor]:
        standard, robust = means.chunk(2, 1)
        logs = [_mean_log_ratio(half, len(places)) for half in (standard, robust)]
        return [*logs, standard[:, -2], robust[:, -2], robust[:, -1]]

    draws, resamples = partial(generator, state.config.seed, "distractor claim"), state.config.resamples
    subject = variant.name + _warning(both)
    rules = (
        Verdict(
            "standard-ignores-distractor", "4.3, Fig. 5",
            "The standard model is more robust to noise on the distractor than to noise on the signal.",
            "mean over noise levels of ln(change under noise on signal / on distractor), standard model",
            lambda m: parts(m)[0],
        ),
        Verdict(
            "robust-ignores-distractor-more", "4.3, Fig. 5; Hypothesis 2",
            "The robust model is relatively much more robust to noise on the distractor.",
            "the same for the robust model, less that of the standard model",
            lambda m: parts(m)[1] - parts(m)[0],
        ),
        Verdict(
            "gradients-on-signal", "Phenomenon 1; Hypothesis 1",
            "The gradients of the robust model highlight the signal and ignore the distractor.",
            "share of the robust model's gradient energy on the signal − share of pixels on the signal",
            lambda m: parts(m)[3] - parts(m)[4],
        ),
        Verdict(
            "robust-gradients-more-on-signal", "Phenomenon 1; 4.3",
            "They do so more than those of the standard model.",
            "share of gradient energy on the signal, robust − standard",
            lambda m: parts(m)[3] - parts(m)[2],
        ),
    )  # fmt: skip
    return [
        judged(rule, subject, table, draws=draws(rule.key, variant.name), resamples=resamples)
        for rule in rules
    ]


def _of_slider(state: Distractor, null: Variant, variant: Variant) -> list[Record]:
    """Claims about a distractor that tells the label: it is part of the signal then (Definition 3)."""
    table = torch.stack([state.measures(v, ROBUST)["energy on signal"] for v in (null, variant)], 1).cpu()
    rule = Verdict(
        "informative-distractor-is-signal", "Definition 3; Theorem 2",
        "What depends on the label belongs to the signal: gradients turn to an informative distractor.",
        "share of the robust model's gradient energy on the digit, distractor null − informative",
        lambda m: m[:, 0] - m[:, 1],
    )  # fmt: skip
    draws = generator(state.config.seed, "distractor claim", rule.key)
    return [judged(rule, variant.name, table, draws=draws, resamples=state.config.resamples)]


def _mean_log_ratio(means: Tensor, levels: int) -> Tensor:  # (b, 2 levels + …) -> (b,)
    tiny = torch.finfo(means.dtype).tiny
    signal, distractor = means[:, :levels].clamp_min(tiny), means[:, levels : 2 * levels].clamp_min(tiny)
    return (signal / distractor).log().mean(1)


def _warning(both: list[Columns]) -> str:
    """What must be known of a robust network that is no longer accurate: it is another regime's."""
    standard, robust = (float(columns["accuracy on all"].mean()) for columns in both)
    return f" (robust network's accuracy {robust:.0%})" if standard - robust > TOLERANCE else ""
