"""Which constructor arguments a file may ask for: names, kinds and ranges, before anything is built."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pags.errors import PagsError
from pags.score.edm.preconditioning import NETWORKS, PRECONDITIONERS

LARGEST = 65536  # of any whole number; the published networks stay below 1,001


def _whole(least: int, most: int = LARGEST) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _number(value: Any) -> bool:
    return type(value) in (int, float) and not math.isnan(value)


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _several(kind: Callable[[Any], bool], least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: (
        type(value) in (list, tuple) and least <= len(value) <= most and all(map(kind, value))
    )


ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        ("img_resolution", "img_channels", "in_channels", "out_channels", "model_channels",
         "channel_mult_emb", "channel_mult_noise", "M"),
        (_whole(1), f"from 1 to {LARGEST}"),
    ),
    **dict.fromkeys(("label_dim", "augment_dim"), (_whole(0), f"from 0 to {LARGEST}")),
    "num_blocks": (_whole(1, 64), "from 1 to 64"),
    "channel_mult": (_several(_whole(1, 1024), 1, 12), "1 to 12 whole numbers up to 1024"),
    "attn_resolutions": (_several(_whole(0), 0, 64), "at most 64 whole numbers"),
    "resample_filter": (_several(_number, 1, 32), "1 to 32 numbers"),
    **dict.fromkeys(("dropout", "label_dropout"), (_share, "from 0 to 1")),
    **dict.fromkeys(
        ("beta_d", "beta_min", "epsilon_t", "sigma_min", "sigma_max", "C_1", "C_2", "sigma_data", 
         "skip_scale", "eps"),
        (_number, "a number"),
    ),
    "use_fp16": (lambda value: type(value) is bool, "true or false"),
    **dict.fromkeys(
        ("embedding_type", "encoder_type", "decoder_type"), (lambda value: type(value) is str, "a name")
    ),
    "model_type": (lambda value: type(value) is str and value in NETWORKS, " or ".join(NETWORKS)),
}  # fmt: skip


PLAIN = (str, int, float, type(None))


def shown(value: object, longest: int = 60) -> str:
    """Something foreign as it may stand in an error: one short line of printable ASCII."""
    seen = list(value[:longest]) if isinstance(value, list | tuple) else value
    # Of anything else the type alone: it may hold the source text that a pickle carries.
    plain = all(isinstance(part, PLAIN) for part in (seen if isinstance(seen, list) else [seen]))
    text = ascii(seen) if plain else f"a {type(value).__name__}"
    return text if len(text) <= longest else text[: longest - 1] + "…"


def check_value(name: str, value: Any, source: str) -> None:
    """Raise unless the argument or attribute `name` may have this value.

    Args:
        name: of the argument.
        value: as the file has it.
        source: the file, for the error.

    Raises:
        PagsError: it may not.
    """
    allowed, range_of = ALLOWED[name]
    if not allowed(value):
        raise refused(f"{name}, {range_of}", shown(value), source)


def refused(expected: str, got: str, source: str) -> PagsError:
    """The one error of a file that is not a denoiser of EDM's kinds."""
    return PagsError(
        expected, got=f"{got} in {source}", suggestion="the file as it was published, or converting it again"
    )


def parameters(kind: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments of a preconditioner or network, in positional order, without a final `**`."""
    given = inspect.signature(kind).parameters
    return {name: one for name, one in given.items() if one.kind is not inspect.Parameter.VAR_KEYWORD}


def named(
    kind: Callable[..., Any], positional: Sequence[Any], keywords: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """Arguments by name, those by position first.

    Raises:
        PagsError: too many by position, or one given twice.
    """
    names = list(parameters(kind))
    if len(positional) > len(names):
        raise refused(f"at most {len(names)} arguments by position", str(len(positional)), source)
    first = dict(zip(names, positional, strict=False))
    if twice := sorted(set(first) & set(keywords)):
        raise refused("every argument once", f"{', '.join(twice)} twice", source)
    return first | dict(keywords)


def check_arguments(preconditioner: str, arguments: Mapping[str, Any], source: str) -> None:
    """Raise unless a preconditioner of this name can be built from these arguments without surprise.

    Args:
        preconditioner: the name of its class.
        arguments: all by name, those of the network included.
        source: the file, for the error.

    Raises:
        PagsError: an unknown class, an unknown or missing argument, a value out of its range.
    """
    if preconditioner not in PRECONDITIONERS:
        raise refused(f"a preconditioner among {', '.join(PRECONDITIONERS)}", shown(preconditioner), source)
    own = parameters(PRECONDITIONERS[preconditioner])
    model_type = arguments.get("model_type", own["model_type"].default)
    check_value("model_type", model_type, source)
    passed = {"img_resolution", "in_channels", "out_channels", "label_dim"}  # by the preconditioner itself
    known = own | {name: one for name, one in parameters(NETWORKS[model_type]).items() if name not in passed}
    if unknown := [name for name in arguments if name not in known]:
        expected = f"arguments of {preconditioner} and {model_type}"
        raise refused(expected, ", ".join(shown(name, 30) for name in unknown[:8]), source)
    required = [name for name, one in own.items() if one.default is inspect.Parameter.empty]
    if missing := [name for name in required if name not in arguments]:
        raise refused(f"the arguments {', '.join(required)}", f"none for {', '.join(missing)}", source)
    for name, value in arguments.items():
        check_value(name, value, source)
