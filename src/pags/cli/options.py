"""Options of the command line, made from settings objects: one place says what a setting is and its help."""

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo

from pags.settings import Settings

SINGULAR = {"radii": "radius", "strengths": "strength"}
RENAMED = {"architecture": "arch", "norm": "regime-norm"}
"""Fields that are options under another name; several norms are given by repeating `--norm`."""


def command(
    app: typer.Typer, settings: type[Settings], *, epilog: str, without: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function as a command whose options are the fields of a settings object.

    The function's first parameter, `settings`, is made from the fields; its other parameters stand before
    them. Fields that are settings themselves count with their own fields.

    Args:
        app: where the command goes.
        settings: the class of its settings.
        epilog: an example.
        without: fields that are no options.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for n, p in inspect.signature(function).parameters.items() if n != "settings"]
        hints = get_type_hints(function, include_extras=True)
        own = [p.replace(annotation=hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        made = [parameter(name, field) for name, field in flat(settings, without)]

        def run(**said: Any) -> None:
            rest = {p.name: said.pop(p.name) for p in own}
            try_next = f"pags {function.__name__} --help"
            given = nested(settings, said, suggestion=try_next)
            function(_of(settings, given, try_next), **rest)

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__signature__ = inspect.Signature([*own, *made])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in (*own, *made)}
        app.command(epilog=epilog)(run)
        return function

    return register


def group(app: typer.Typer, name: str, about: str, commands: Mapping[Any, str]) -> None:
    """Registers commands of a command, such as `pags data fetch`.

    Args:
        app: where the group goes.
        name, about: of the group.
        commands: functions with an example of each; a command has the name of its function up to a "_".
    """
    made = typer.Typer(
        name=name, help=about, epilog=f"Example: {next(iter(commands.values()))}", no_args_is_help=True,
        rich_markup_mode=None,
    )  # fmt: skip
    made.callback()(lambda: None)  # so that a single command stays a word of its own
    for function, example in commands.items():
        made.command(function.__name__.partition("_")[0], epilog=f"Example: {example}")(function)
    app.add_typer(made)


def flat(settings: type[Settings], without: Sequence[str] = ()) -> list[tuple[str, FieldInfo]]:
    """The fields that are options, those of settings within settings among them."""
    found: list[tuple[str, FieldInfo]] = []
    own = vars(settings)["__annotations__"]
    for name in sorted(settings.model_fields, key=lambda name: name not in own):  # inherited ones last
        if name in without:
            continue
        field = settings.model_fields[name]
        inner = inner_settings(field)
        found += flat(inner, settings_names(settings)) if inner else [(name, field)]
    return found


def nested(settings: type[Settings], said: dict[str, Any], *, suggestion: str) -> dict[str, Any]:
    """What was said, sorted into settings within settings; None stands for nothing said."""
    given = {name: value for name, value in said.items() if value not in (None, [])}
    for name, field in settings.model_fields.items():
        if inner := inner_settings(field):
            own = {n: given.pop(n) for n, _ in flat(inner, settings_names(settings)) if n in given}
            if own:
                given[name] = _of(inner, own, suggestion)
    return given


def settings_names(settings: type[Settings]) -> list[str]:
    """The names of a class's own fields, which win over those of settings within."""
    return list(settings.model_fields)


def inner_settings(field: FieldInfo) -> type[Settings] | None:
    """The settings that a field is, or None."""
    return next((t for t in _parts(field.annotation) if inspect.isclass(t) and issubclass(t, Settings)), None)


def parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """A field as a parameter of a command, None where nothing is said."""
    kinds = [part for part in _parts(field.annotation) if part is not types.NoneType]
    several = next((k for k in kinds if get_origin(k) is tuple), None)
    word = option_name(name, several=several is not None)
    text = (field.description or "").replace("`", "").replace("\n", " ")
    if several is not None:
        kind: Any = list[_plain(get_args(several)[0])]  # type: ignore[misc]
        text = f"{text.rstrip('.')} (repeat)."
    else:
        kind = _plain(kinds[0])
    default = field.default
    if default not in (None, ()) and default is not False and not field.is_required():
        text += f" [default: {_text(default)}]"
    flags = [f"--{word}/--no-{word}"] if kind is bool else [f"--{word}"]
    option = typer.Option(*flags, help=text, show_default=False)
    annotation = Annotated[Union[kind, None], option]  # noqa: UP007  # made at run time
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def option_name(name: str, *, several: bool) -> str:
    """A field's name as an option: in the singular where it can be repeated."""
    word = SINGULAR.get(name, name.removesuffix("s")) if several else RENAMED.get(name, name)
    return word.replace("_", "-")


def _parts(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, without what is annotated to them."""
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(part for one in get_args(annotation) for part in _parts(one))
    return (annotation,)


def _plain(kind: Any) -> Any:
    """A type without pydantic's constraints, which the settings check themselves."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _text(default: Any) -> str:
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _of(settings: type[Settings], said: dict[str, Any], suggestion: str) -> Any:
    """Settings, whose errors name the option."""

    def spelled(name: str) -> str:
        field = settings.model_fields.get(name)
        several = field is not None and any(get_origin(part) is tuple for part in _parts(field.annotation))
        return f"--{option_name(name, several=several)}"

    return settings.of(said, where="options", suggestion=suggestion, spelled=spelled)
