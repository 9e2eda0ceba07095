"""Cheaper derivatives of a network's usual operations on the CPU, equal up to rounding.

Some costs of robust training are not in the mathematics but in how torch takes derivatives (2.6 to 2.15):

- The weights' part of a convolution's second derivative is computed as a convolution whose filter is as large
  as the image, though it is an ordinary weight gradient; and batch normalisation's second derivative takes
  some twenty passes over the activations, where five are enough.
- GELU's second derivative is put together from a dozen operations, each with a pass over the activations,
  and that of max-pooling moves the channels outwards.
- In evaluation mode, batch normalisation is a scaling; its gradient still goes through
  the general case.

All are replaced while a forward pass runs inside `cheaper_derivatives`, in any network that reaches
`torch.nn.functional`, in float32 and under autocast. Small activations are left to torch, where calls cost
more than passes.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import batch_norm, gelu, max_pool2d
from torch.overrides import TorchFunctionMode

LEAST_NUMBERS = 2**18
"""Numbers in an activation from which the rules below are used."""

convolution_backward = torch.ops.aten.convolution_backward.default
norm_backward = torch.ops.aten.native_batch_norm_backward.default
pool_backward = torch.ops.aten.max_pool2d_with_indices_backward.default
gelu_backward = torch.ops.aten.gelu_backward.default


@contextmanager
def cheaper_derivatives(model: nn.Module) -> Iterator["CheaperDerivatives"]:
    """`CheaperDerivatives` for forward passes of `model` inside; a compiled network keeps its own rules."""
    rules = CheaperDerivatives()
    if any(hasattr(module, "_orig_mod") for module in model.modules()):
        yield rules
        return
    with rules:
        yield rules


class CheaperDerivatives(TorchFunctionMode):
    """While active, operations on large activations use the rules of this file.

    Args:
        least: numbers in an activation from which the rules are used.
    """

    def __init__(self, *, least: int = LEAST_NUMBERS) -> None:
        super().__init__()
        self.least = least
        self.inputs_alone = False

    @contextmanager
    def of_inputs_alone(self) -> Iterator[None]:
        """Gradients that are taken inside reach the images and not the weights, which are told nothing."""
        self.inputs_alone = True
        try:
            yield
        finally:
            self.inputs_alone = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and not kwargs and self._applies(args[0]):
            return self._convolution(*args)
        if func is batch_norm and len(args) == 3 and self._applies(args[0]):
            return self._normalisation(*args, **kwargs)
        if func is gelu and kwargs in ({}, {"approximate": "none"}) and self._applies(args[0]):
            return _Gelu.apply(args[0], self)
        if func is max_pool2d and args and self._applies(args[0]):
            return _pooled(self, *args, **kwargs)
        return func(*args, **kwargs)

    def _applies(self, x: Tensor) -> bool:
        return x.numel() >= self.least and x.ndim == 4 and x.device.type == "cpu"

    def _convolution(self, x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        defaults: tuple[Any, ...] = (None, 1, 0, 1, 1)
        bias, stride, padding, dilation, groups = (*rest, *defaults[len(rest) :])
        pairs = isinstance(stride, tuple) and isinstance(padding, tuple) and isinstance(dilation, tuple)
        if not pairs or not weight.requires_grad:  # torch's own rule is as good for the input alone
            return torch.conv2d(x, weight, *rest)
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(kind), weight.to(kind), None if bias is None else bias.to(kind)
        return _Convolution.apply(x, weight, bias, (stride, padding, dilation, groups), self)

    def _normalisation(self, x: Tensor, mean: Tensor | None, variance: Tensor | None, **rest: Any) -> Tensor:
        weight, bias, training = rest["weight"], rest["bias"], rest["training"]
        if weight is None or bias is None:
            return batch_norm(x, mean, variance, **rest)
        if training and weight.requires_grad:
            return _Normalisation.apply(x, weight, bias, mean, variance, rest["momentum"], rest["eps"], self)
        if training or mean is None or variance is None or weight.requires_grad or bias.requires_grad:
            return batch_norm(x, mean, variance, **rest)
        return _Scaling.apply(x, weight, bias, mean, variance, rest["eps"])


class _Scaling(Function):
    """Batch normalisation in evaluation mode with frozen parameters: y = x · scale + shift."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(weight * (variance + eps).rsqrt())
        return batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = ctx.saved_tensors
        return gradient * _channels(scale, gradient), None, None, None, None, None


class _Convolution(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, options: Any, rules: CheaperDerivatives
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options, ctx.rules = options, rules
        return torch.conv2d(x, weight, bias, *options)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        if ctx.rules.inputs_alone:
            return _InputGradient.apply(gradient, weight, x, ctx.options), None, None, None, None
        wanted = ctx.needs_input_grad[:3]
        return *_backward(gradient, x, weight, ctx.options, wanted), None, None


class _InputGradient(Function):
    """The gradient of a convolution's input, Wᵀ g; linear in g and in W."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, weight: Tensor, x: Tensor, options: Any) -> Tensor:
        ctx.save_for_backward(gradient, weight)
        ctx.options = options
        return _backward(gradient, x, weight, options, (True, False, False))[0]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        # <v, Wᵀ g> = <W v, g>: a convolution of v, and the weight gradient of that convolution.
        gradient, weight = ctx.saved_tensors
        onward = torch.conv2d(v, weight, None, *ctx.options)
        return onward, _backward(gradient, v, weight, ctx.options, (False, True, False))[1], None, None


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, options: Any, wanted: Any) -> Any:
    """Gradients of a convolution's input, weight and bias, those that are wanted."""
    stride, padding, dilation, groups = options
    return convolution_backward(
        gradient, x, weight, [len(weight)], stride, padding, dilation, False, [0, 0], groups, list(wanted)
    )


class _Normalisation(Function):
    """Batch normalisation with the batch's own statistics."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor | None, variance: Tensor | None,
        momentum: float, eps: float, rules: CheaperDerivatives,
    ) -> Tensor:  # fmt: skip
        y, centre, rate = torch.native_batch_norm(x, weight, bias, mean, variance, True, momentum, eps)
        ctx.save_for_backward(x, weight, centre, rate)
        ctx.eps, ctx.rules = eps, rules
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, centre, rate = ctx.saved_tensors
        nothing = (None,) * 5
        if ctx.rules.inputs_alone:
            onward = _NormalisationGradient.apply(gradient, x, weight, centre, rate, ctx.eps)
            return onward, None, None, *nothing
        wanted = list(ctx.needs_input_grad[:3])
        found = norm_backward(gradient, x, weight, None, None, centre, rate, True, ctx.eps, wanted)
        return *found, *nothing


class _NormalisationGradient(Function):
    """γ r P(g), where P(g) = g − ḡ − x̂ mean(g x̂) is symmetric, r = 1/√(variance + eps), x̂ = r (x − x̄)."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor, centre: Tensor, rate: Tensor, eps: float
    ) -> Tensor:
        onward, along, total = norm_backward(
            gradient, x, weight, None, None, centre, rate, True, eps, [True, True, True]
        )
        m = x.numel() // x.shape[1]
        ctx.save_for_backward(gradient, x, weight, centre, rate, total / m, along / m)
        ctx.eps = eps
        return onward

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        # S = <v, γ r P(g)> = γ r m (mean(v g) − v̄ ḡ − b c), with b = mean(g x̂), c = mean(v x̂).
        # It depends on x through r, with ∂r = −r² mean(x̂ ∂x), and through x̂, with ∂x̂ = r P(∂x).
        g, x, weight, centre, rate, g_mean, b = ctx.saved_tensors
        m = x.numel() // x.shape[1]
        everything = [True, True, True]
        onward, along, total = norm_backward(
            v, x, weight, None, None, centre, rate, True, ctx.eps, everything
        )
        v_mean, c = total / m, along / m
        # The sum of v g in each channel, by the kernel that sums v (g − 0) · 1 in one pass.
        zero, one = torch.zeros_like(rate), torch.ones_like(rate)
        product = norm_backward(v, g, one, None, None, zero, one, True, ctx.eps, [False, True, False])[1] / m
        k = product - v_mean * g_mean - b * c
        # ∂S/∂x = −γ r² (c g + b v + (k − 2bc) x̂ − (c ḡ + b v̄))
        outer = -weight * rate**2
        of_x = outer * rate * (k - 2 * b * c)
        constant = -outer * (c * g_mean + b * v_mean) - of_x * centre
        of_images = torch.addcmul(_channels(constant, x), g, _channels(outer * c, x))
        of_images.addcmul_(v, _channels(outer * b, x)).addcmul_(x, _channels(of_x, x))
        return onward, of_images, rate * k * m, None, None, None


def _channels(values: Tensor, like: Tensor) -> Tensor:  # (1, c, 1, 1)
    return values.view(1, -1, 1, 1).to(like.dtype)


class _Gelu(Function):
    """x Φ(x), with the distribution function Φ and the density φ of a standard normal number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rules: CheaperDerivatives) -> Tensor:
        ctx.save_for_backward(x)
        ctx.rules = rules
        return gelu(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        take = _GeluGradient.apply if ctx.rules.inputs_alone else gelu_backward
        return take(gradient, x), None


class _GeluGradient(Function):
    """g f'(x), with f'(x) = Φ(x) + x φ(x) and f''(x) = φ(x) (2 − x²)."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(gradient, x)
        return gelu_backward(gradient, x)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor]:
        gradient, x = ctx.saved_tensors
        square = x * x
        second = (square * -0.5).exp_().mul_(square.sub_(2)).mul_(-1 / math.sqrt(2 * math.pi))
        return gelu_backward(v, x), second.mul_(gradient).mul_(v)


def _pooled(
    rules: CheaperDerivatives, x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    if return_indices:
        return max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    sizes = (kernel_size, kernel_size if stride is None else stride, padding, dilation)
    pairs = [[each, each] if isinstance(each, int) else list(each) for each in sizes]
    return _MaxPool.apply(x, (*pairs, ceil_mode), rules)


class _MaxPool(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, options: Any, rules: CheaperDerivatives) -> Tensor:
        y, places = torch.ops.aten.max_pool2d_with_indices.default(x, *options)
        ctx.save_for_backward(x, places)
        ctx.options, ctx.rules = options, rules
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, places = ctx.saved_tensors
        if ctx.rules.inputs_alone:
            return _MaxPoolGradient.apply(gradient, x, places, ctx.options), None, None
        return pool_backward(gradient, x, *ctx.options, places), None, None


class _MaxPoolGradient(Function):
    """Each number of the gradient put where the largest of its window was; linear in the gradient."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, places: Tensor, options: Any) -> Tensor:
        ctx.save_for_backward(places)
        return pool_backward(gradient, x, *options, places)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = ctx.saved_tensors  # (n, c, h', w'), each a place among h · w
        n, c, height, width = places.shape
        # With the channels innermost, as they lie in memory.
        rows, chosen = v.permute(0, 2, 3, 1).flatten(1, 2), places.permute(0, 2, 3, 1).flatten(1, 2)
        found = rows.gather(1, chosen).view(n, height, width, c)
        return found.permute(0, 3, 1, 2), None, None, None
