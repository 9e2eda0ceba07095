"""In which precision a training computes; bfloat16 gives float32's gradients but for its rounding."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from conftest import seeded
from pags.auditing import EvaluationSet
from pags.auditing.columns import measured
from pags.classifiers.build import build_classifier
from pags.data.batches import Batch
from pags.seeds import generator, seeded_construction
from pags.training import derivatives, precision
from pags.training.derivatives import CheaperDerivatives
from pags.training.objectives import make_objective
from pags.training.parallel import make_fabric
from pags.training.precision import choose_precision, cpu_flags
from pags.training.stepping import InPrecision

LISTED = "processor\t: 0\nflags\t\t: fpu sse2 {}\nbugs\t\t: none\nprocessor\t: 1\nflags\t\t: fpu\n"


@pytest.mark.parametrize(
    ("flags", "torch_says", "expected"),
    [
        ("amx_tile amx_bf16", True, "bf16-mixed"), ("amx_tile amx_bf16", None, "bf16-mixed"),
        ("amx_tile amx_bf16", False, "32-true"), ("amx_tile amx_int8", True, "32-true"),
        ("avx512_bf16", True, "32-true"),
    ],
)  # fmt: skip
def test_bfloat16_where_the_cpu_multiplies_it_in_tiles(
    flags: str, torch_says: bool | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    listed = tmp_path / "cpuinfo"
    listed.write_text(LISTED.format(flags))
    monkeypatch.setattr(precision, "CPU_FACTS", listed)
    monkeypatch.setattr(
        torch.cpu, "_is_amx_tile_supported", None if torch_says is None else lambda: torch_says, raising=False
    )
    assert choose_precision("cpu") == expected
    assert make_fabric(accelerator="cpu", precision="auto").strategy.precision.precision == expected
    assert make_fabric(accelerator="cpu").strategy.precision.precision == "32-true"
    assert not caplog.records  # nothing for each of a sweep's networks


def test_elsewhere() -> None:
    assert choose_precision("cuda") == choose_precision(torch.device("cuda", 1)) == "bf16-mixed"
    assert choose_precision("mps") == "32-true"
    assert cpu_flags(Path("no/such/file")) == set()


def weight_gradients(objective: str, kind: str, *, least: int = 0) -> Tensor:
    """The gradient of one step's loss with respect to all weights of a small plain network, in one row."""
    with seeded_construction(0, "test"):
        model = build_classifier("plain-16-32-32", 3, 10, activation="gelu", mean=(0.5,) * 3, std=(0.25,) * 3)
    images = torch.rand(64, 3, 16, 16, generator=seeded()).contiguous(memory_format=torch.channels_last)
    model.to(memory_format=torch.channels_last)
    batch = Batch(images, torch.arange(64) % 10, torch.arange(64))
    seen = (
        InPrecision(model, make_fabric(accelerator="cpu", precision="bf16-mixed"))
        if kind == "bf16"
        else model
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(derivatives, "CheaperDerivatives", partial(CheaperDerivatives, least=least))
        losses = make_objective(objective, 1.0)(seen.train(), batch, generator(0, "draws"))
        losses.mean().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("objective", "roundings"),
    [("cross-entropy", 2), ("smoothing", 2), ("gradient-norm", 4), ("smoothness", 4)],
)
def test_gradients_in_bfloat16_are_those_of_float32_but_for_rounding(objective: str, roundings: int) -> None:
    """A number of bfloat16 is off by 2⁻⁹ of itself at most. Some twenty operations are gone through twice for
    a gradient; one of a gradient's norm, or of the difference of two outputs, which also cancels digits,
    counts twice as much. Roundings are independent, but maxima that change places add to them: five times."""
    error = distance(weight_gradients(objective, "bf16"), weight_gradients(objective, "float32"))
    assert 1e-4 < error < 5 * roundings / 2 * 40**0.5 * 2**-9


def test_our_second_derivatives_in_bfloat16_are_as_close_as_torchs() -> None:
    exact = weight_gradients("gradient-norm", "float32", least=10**9)
    ours, torchs = (distance(weight_gradients("gradient-norm", "bf16", least=n), exact) for n in (0, 10**9))
    assert ours < 1.5 * torchs


class Watched(nn.Module):
    """Notes how products are computed while it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.seen = nn.Linear(192, 3), set[tuple[str, bool]]()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.add((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return self.linear(images.flatten(1))


def halved(images: Tensor, sigma: float, labels: Tensor | None = None) -> Tensor:
    return images / 2


def test_what_is_measured_is_in_float32_whatever_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 is torch's default for convolutions, and "medium" is bfloat16, also on a CPU."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before, model, draws = torch.get_float32_matmul_precision(), Watched(), seeded(0)
    images, labels = torch.rand((6, 3, 8, 8), generator=draws), torch.arange(6) % 3
    torch.set_float32_matmul_precision("medium")
    try:
        measured(model, EvaluationSet.of(images, labels, denoiser=halved, metrics=("cosine",)))
        assert model.seen == {("highest", False)}
        assert torch.get_float32_matmul_precision() == "medium", "what a user set is theirs again"
    finally:
        torch.set_float32_matmul_precision(before)
