"""EDM's four preconditionings (Karras et al. 2022, table 1): D(x; σ) = c_skip x + c_out F(c_in x; c_noise).

Here images are on the scale [-1, 1] and the noise is σ itself; `pags.score.edm.denoiser` adapts this to the
house's contract. Arguments may be given by position, for the published files may hold them so.
"""

import math
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pags.errors import UsageError
from pags.score.edm.dhariwal import DhariwalUNet
from pags.score.edm.song import SongUNet

NETWORKS: dict[str, type[SongUNet] | type[DhariwalUNet]] = {
    "SongUNet": SongUNet,
    "DhariwalUNet": DhariwalUNet,
}


class Coefficients(NamedTuple):
    """Of one noise level an image, or of one for all, each of the shape of σ."""

    skip: Tensor | float
    out: Tensor
    scale: Tensor | float  # c_in
    noise: Tensor


class Preconditioner(nn.Module):
    """What the four have in common: types, labels, and the equation above.

    Args:
        img_resolution: side of the images, in pixels.
        img_channels: colour channels.
        label_dim: classes; 0 for an unconditional network.
        use_fp16: run the network in half precision, on CUDA only.
        model_type: "SongUNet" or "DhariwalUNet".
        options: further arguments of the network.

    Raises:
        UsageError: an unknown network, or as the network.
    """

    answers: ClassVar[int] = 1  # channels that the network answers with, for each of the image
    sigma_min: float
    sigma_max: float

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int,
        use_fp16: bool,
        *,
        model_type: str,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        if model_type not in NETWORKS:
            raise UsageError(
                f"a network among {', '.join(NETWORKS)}", got=repr(model_type), suggestion="SongUNet"
            )
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.label_dim, self.use_fp16 = label_dim, use_fp16
        self.model_type = model_type
        # Lists, as in files, so that plain data that were written and read back are equal.
        self.options = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
        self.model = NETWORKS[model_type](
            img_resolution, img_channels, self.answers * img_channels, label_dim, **options
        )

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """c_skip, c_out, c_in and c_noise (EDM, table 1)."""
        raise NotImplementedError

    def forward(
        self,
        x: Float[Tensor, "n c h w"],
        sigma: Tensor | float,
        class_labels: Tensor | None = None,
        force_fp32: bool = False,
        **model_kwargs: Tensor | None,
    ) -> Float[Tensor, "n c h w"]:
        """The denoised images, in float32.

        Args:
            x: noisy images on the scale [-1, 1]; taken to float32.
            sigma: the standard deviation of the noise: one for all, (n,) or (n, 1, 1, 1). At 0 the answer of
                `EDMPrecond` and `VEPrecond` is NaN, for their c_noise is a logarithm.
            class_labels: (n, label_dim) or (1, label_dim), one-hot rows or any others; None for zeros.
            force_fp32: no half precision.
            model_kwargs: handed to the network, such as `augment_labels`.
        """
        x = x.to(torch.float32)
        sigma = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).reshape(-1, 1, 1, 1)
        labels = None
        if self.label_dim:
            labels = x.new_zeros(1, self.label_dim) if class_labels is None else class_labels
            labels = labels.to(x).reshape(-1, self.label_dim)
        half = self.use_fp16 and not force_fp32 and x.is_cuda
        c = self.coefficients(sigma)
        f = self.model(
            (c.scale * x).to(torch.float16 if half else torch.float32),
            c.noise.flatten(),
            labels,
            **model_kwargs,
        )
        return c.skip * x + c.out * f[:, : self.img_channels].to(torch.float32)

    def round_sigma(self, sigma: Tensor | float) -> Tensor:
        """The nearest noise level that the network knows: σ itself, as a tensor."""
        return torch.as_tensor(sigma)


class VPPrecond(Preconditioner):
    """Variance preserving (DDPM++).

    Args:
        beta_d, beta_min: slope and start of the noise schedule.
        M: steps for which the network's time was meant.
        epsilon_t: the smallest time, which gives `sigma_min`.
        others: as in `Preconditioner`; the last are the network's.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        beta_d: float = 19.9,
        beta_min: float = 0.1,
        M: int = 1000,
        epsilon_t: float = 1e-5,
        model_type: str = "SongUNet",
        **options: Any,
    ) -> None:
        common = (img_resolution, img_channels, label_dim, use_fp16)
        super().__init__(*common, model_type=model_type, options=options)
        self.beta_d, self.beta_min, self.M, self.epsilon_t = beta_d, beta_min, M, epsilon_t
        self.sigma_min, self.sigma_max = self._sigma(epsilon_t), self._sigma(1.0)

    def _sigma(self, time: float) -> float:
        # In float32: the published numbers hold its rounding, which at the smallest time is 2 %.
        t = torch.tensor(time, dtype=torch.float32, device="cpu")
        return float(((0.5 * self.beta_d * t**2 + self.beta_min * t).exp() - 1).sqrt())

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """EDM, table 1, column VP."""
        time = (
            (self.beta_min**2 + 2 * self.beta_d * (1 + sigma**2).log()).sqrt() - self.beta_min
        ) / self.beta_d
        return Coefficients(1, -sigma, 1 / (sigma**2 + 1).sqrt(), (self.M - 1) * time)


class VEPrecond(Preconditioner):
    """Variance exploding (NCSN++).

    Args:
        sigma_min, sigma_max: range of noise for which the network was trained.
        others: as in `Preconditioner`; the last are the network's.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        sigma_min: float = 0.02,
        sigma_max: float = 100,
        model_type: str = "SongUNet",
        **options: Any,
    ) -> None:
        common = (img_resolution, img_channels, label_dim, use_fp16)
        super().__init__(*common, model_type=model_type, options=options)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """EDM, table 1, column VE."""
        return Coefficients(1, sigma, 1, (0.5 * sigma).log())


class iDDPMPrecond(Preconditioner):
    """Improved DDPM (ADM), which knows M noise levels `u` only.

    Args:
        C_1, C_2: limit of the decay of ᾱ in one step, and its offset.
        M: noise levels.
        others: as in `Preconditioner`; the last are the network's.
    """

    answers = 2  # the second half is a variance, of no use here
    u: Tensor

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        C_1: float = 0.001,
        C_2: float = 0.008,
        M: int = 1000,
        model_type: str = "DhariwalUNet",
        **options: Any,
    ) -> None:
        super().__init__(
            img_resolution,
            img_channels,
            label_dim,
            use_fp16,
            model_type=model_type,
            options=options,
        )
        self.C_1, self.C_2, self.M = C_1, C_2, M
        self.register_buffer("u", _noise_levels(M, C_1, C_2))
        self.sigma_min, self.sigma_max = float(self.u[M - 1]), float(self.u[0])

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """EDM, table 1, column iDDPM."""
        index = self.round_sigma(sigma, return_index=True)
        return Coefficients(1, -sigma, 1 / (sigma**2 + 1).sqrt(), self.M - 1 - index.to(torch.float32))

    def round_sigma(self, sigma: Tensor | float, *, return_index: bool = False) -> Tensor:
        """The entry of `u` nearest to σ, in σ's shape and type; or its place.

        Where σ is half way between two entries, to within 3e-5, the reference may take the other one.
        """
        sigma = torch.as_tensor(sigma)
        # Distances by differences: torch.cdist, which has no forward mode, also rounds more.
        distances = (sigma.to(self.u).reshape(-1, 1) - self.u).abs()
        index = distances.argmin(1)
        found = index if return_index else self.u[index].to(sigma.dtype)
        return found.reshape(sigma.shape).to(sigma.device)


def _noise_levels(M: int, C_1: float, C_2: float) -> Float[Tensor, "levels"]:
    """u_0 > … > u_M = 0 (EDM, table 1), in float32 throughout."""
    j = torch.arange(M + 1, dtype=torch.float32, device="cpu")
    alphas = (0.5 * math.pi * j / M / (C_2 + 1)).sin() ** 2
    ratios = (alphas[:-1] / alphas[1:]).clamp_min(C_1)
    u = torch.zeros(M + 1, device="cpu")
    for step in range(M, 0, -1):
        u[step - 1] = ((u[step] ** 2 + 1) / ratios[step - 1] - 1).sqrt()
    return u


class EDMPrecond(Preconditioner):
    """EDM's own, in which inputs and training targets have unit variance.

    Args:
        sigma_min, sigma_max: range of noise that callers may ask for.
        sigma_data: the standard deviation of the data.
        others: as in `Preconditioner`; the last are the network's.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        sigma_min: float = 0,
        sigma_max: float = math.inf,
        sigma_data: float = 0.5,
        model_type: str = "DhariwalUNet",
        **options: Any,
    ) -> None:
        common = (img_resolution, img_channels, label_dim, use_fp16)
        super().__init__(*common, model_type=model_type, options=options)
        self.sigma_min, self.sigma_max, self.sigma_data = sigma_min, sigma_max, sigma_data

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """EDM, table 1, last column."""
        spread = (sigma**2 + self.sigma_data**2).sqrt()
        skip = self.sigma_data**2 / (sigma**2 + self.sigma_data**2)
        return Coefficients(skip, sigma * self.sigma_data / spread, 1 / spread, sigma.log() / 4)


PRECONDITIONERS: dict[str, type[Preconditioner]] = {
    kind.__name__: kind for kind in (VPPrecond, VEPrecond, iDDPMPrecond, EDMPrecond)
}
