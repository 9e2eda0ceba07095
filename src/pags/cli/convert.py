"""`pags convert`: foreign checkpoints to plain weights, without running code from them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pags.cli.progress import console

if TYPE_CHECKING:
    from torch import Tensor


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(epilog="Example: pags convert resnet50_l2_eps3.ckpt resnet50_l2_eps3.safetensors")(convert)


def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A pickle or a torch file.")],
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT.safetensors", help="The file to write; not with --list.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="Show what is in it; write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
) -> None:
    """Weights out of a foreign checkpoint as safetensors; no code of the file is ever run."""
    from pags.checkpoints import read

    if show:
        _list(read(checkpoint))
        return
    target = _checked(checkpoint, out, force=force)
    tree = read(checkpoint)
    network = _is_edm(tree)
    if network:
        del tree  # the networks of EDM take a gigabyte
        tensors, about = _denoiser(checkpoint)
    else:
        tensors, about = _classifier(tree)
    _write(checkpoint, target, tensors, about)


def _checked(checkpoint: Path, out: Path | None, *, force: bool) -> Path:
    """The file to write, unless it is missing, of another kind, or there already."""
    from pags.errors import UsageError

    if out is None or out.suffix != ".safetensors":
        raise UsageError(
            "OUT.safetensors, the file to write",
            got="no second file" if out is None else str(out),
            suggestion=f"pags convert {checkpoint} {checkpoint.with_suffix('.safetensors').name}, or --list",
        )
    if out.exists() and (not force or out.samefile(checkpoint)):
        raise UsageError(
            "a file that is not there yet",
            got=str(out),
            suggestion="another name, or --force to write over a file other than CKPT itself",
        )
    return out


def _is_edm(tree: Any) -> bool:
    """Whether a tree is what EDM's training wrote: a persistent object under "ema"."""
    from pags.checkpoints import Opaque

    network = tree.get("ema") if isinstance(tree, dict) else None
    return isinstance(network, Opaque) and network.name.endswith("_reconstruct_persistent_obj")


def _denoiser(checkpoint: Path) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    from pags.score.load import export, load_denoiser

    tensors, about = export(load_denoiser(checkpoint, which="ema"))
    return dict(tensors), dict(about)


def _classifier(tree: Any) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    from pags.checkpoints import state_dict_in

    key, tensors = state_dict_in(tree)
    return tensors, {"kind": "classifier", "key": key}


def _write(checkpoint: Path, out: Path, tensors: "dict[str, Tensor]", about: dict[str, Any]) -> None:
    import hashlib

    from pags.cli.show import finish
    from pags.store import Store

    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    origin = {"source": checkpoint.name, "sha256": digest}
    path = Store(out.parent).write_tensors(out.name, tensors, {**about, **origin})
    console.print(f"{len(tensors)} tensors of the {about['kind']} in {checkpoint.name}", markup=False)
    finish({"tensors": len(tensors), "kind": about["kind"]}, [path])


def _list(tree: Any) -> None:
    """Every tensor with its shape and type, and the classes that stayed opaque."""
    from collections import Counter

    from torch import Tensor

    from pags.checkpoints import leaves
    from pags.checkpoints.bounds import shown
    from pags.cli.show import finish

    opaque, tensors = Counter[str](), dict[str, str]()
    for name, leaf in leaves(tree):
        if isinstance(leaf, Tensor):
            about = f"{tuple(leaf.shape)}  {str(leaf.dtype).removeprefix('torch.')}"
            tensors[shown(name, 160)] = about
            console.print(f"{shown(name, 160)}  {about}", markup=False)
        else:
            opaque[leaf.name] += 1
    for name, count in opaque.most_common():
        console.print(f"opaque: {shown(name)}  {count} times", markup=False)
    finish({"tensors": tensors, "opaque": {shown(name): count for name, count in opaque.items()}})
