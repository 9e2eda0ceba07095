"""BatchNorm over the images of all processes, on any device, and differentiable twice.

torch's `SyncBatchNorm` refuses CPUs and has no second derivative, which penalties on a gradient need. Here
the sums of all processes are taken by an all-reduce whose derivative is an all-reduce again, so it has
derivatives of every order, and the gradient of one image's loss reaches the images of the other processes as
it would reach them within one batch.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pags.errors import UsageError


class _SumOverProcesses(torch.autograd.Function):
    """y = Σ_r x_r in every process r; as each x_r is in every y, its gradient is Σ_r ∂/∂y_r: the same sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_over_processes(gradients[0])


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of all processes' `x`, in each of them; differentiable any number of times."""
    return _SumOverProcesses.apply(x)


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` whose training statistics are those of the images of all processes.

    In evaluation mode, with one process, and where `shared` is False it is `BatchNorm2d` itself. Weights,
    statistics and their names are the same.
    """

    shared = True
    """Whether the processes hold different images of one batch, or all of them the same."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, input: Tensor) -> Tensor:
        alone = not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
        if not self.training or alone or not self.shared:
            return super().forward(input)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        mean, variance, count = _moments(x)
        self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = (variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        out = (x - _across(mean)) * _across(scale)
        return (out if self.bias is None else out + _across(self.bias)).to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics; the variance is the unbiased one, as in `BatchNorm2d`."""
        if not self.track_running_stats:
            return
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # (c,), (c,), ()
    """Mean and variance of each channel over all processes, in two passes: one would cancel digits."""
    count = x.new_full((1,), x.numel() / x.shape[1])
    sums = sum_over_processes(torch.cat([x.sum((0, 2, 3)), count]))
    mean, total = sums[:-1] / sums[-1].detach(), sums[-1].detach()
    variance = sum_over_processes((x - _across(mean)).square().sum((0, 2, 3))) / total
    return mean, variance, total


def _across(values: Tensor) -> Tensor:
    """One value per channel, shaped to broadcast against images."""
    return values[:, None, None]


def synchronise(model: nn.Module) -> list[SynchronisedBatchNorm2d]:
    """Replace every `BatchNorm2d` inside `model`; weights and statistics are shared with what is replaced.

    Returns:
        The layers that take part, for `shared` to be set.

    Raises:
        UsageError: the model is itself a BatchNorm, or has one of another kind, which would see its own
            process's images alone.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, _synchronised(child))
    for layer in model.modules():
        if isinstance(layer, _BatchNorm) and not isinstance(layer, SynchronisedBatchNorm2d):
            raise UsageError(
                "a network whose only batch normalisation is BatchNorm2d, for several processes",
                got=type(layer).__name__,
                suggestion="one device, or a network with BatchNorm2d or without batch normalisation",
            )
    return [layer for layer in model.modules() if isinstance(layer, SynchronisedBatchNorm2d)]


def _synchronised(layer: nn.BatchNorm2d) -> SynchronisedBatchNorm2d:
    new = SynchronisedBatchNorm2d.__new__(SynchronisedBatchNorm2d)
    vars(new).update(vars(layer))
    return new
