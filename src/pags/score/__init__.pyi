from .denoiser import Denoiser as Denoiser
from .denoiser import score_of as score_of
from .exact import IdealDenoiser as IdealDenoiser
from .load import load_denoiser as load_denoiser
from .unet import Denoising as Denoising
from .unet import UNetDenoiser as UNetDenoiser
