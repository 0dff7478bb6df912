"""A picture drawn anew by a pretrained diffusion model, through diffusers' image-to-image pipelines.

Everything comes from a folder on this machine in the format of ``save_pretrained``: safetensors only, no code
that comes with it is run, nothing is fetched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from semantic.backbone import quiet_offline
from semantic.systems.system import UnavailableError
from semantic.torchvision_operators import declare_missing_operators


class Redrawer:
    """An image-to-image pipeline with fixed settings: the same picture and prompt give the same picture.

    The picture is enlarged to the side that the model was trained at, redrawn and made small again.

    Args:
        folder: of the pipeline, e.g. Stable Diffusion's.
        device: where it computes; on a GPU in float16.
        strength: how far it may depart from the picture, 0..1.
        steps: of the noise schedule, of which the share ``strength`` is run.
        seed: of the noise, the same for every picture.

    Attributes:
        name: class of the pipeline.
        refuses: True where it brings a safety checker, whose refusals are shown as they came.

    Raises:
        UnavailableError: diffusers is not installed, or the folder holds no such pipeline.
    """

    def __init__(
        self, folder: Path, device: torch.device, *, strength: float, steps: int, seed: int
    ) -> None:
        self._settings = {"strength": strength, "num_inference_steps": steps}
        self._seed = seed
        self._pipeline = _load(folder, torch.float16 if device.type == "cuda" else torch.float32)
        self._pipeline.to(device)
        self._side = _native_side(self._pipeline, folder)
        self.name = type(self._pipeline).__name__
        self.refuses = getattr(self._pipeline, "safety_checker", None) is not None

    def redraw(self, picture: Image.Image, prompt: str) -> Image.Image:
        """A picture of the same size that says the same and looks as the prompt says.

        Args:
            picture: RGB, a square.
            prompt: any text; what the model's text tower cannot take is cut off.
        """
        native = picture.resize((self._side, self._side), Image.Resampling.LANCZOS)
        generator = torch.Generator("cpu").manual_seed(self._seed)
        with torch.inference_mode(), _quiet():
            drawn = self._pipeline(prompt, native, generator=generator, **self._settings)
        refused = getattr(drawn, "nsfw_content_detected", None)
        if refused and refused[0]:
            return picture
        found: Image.Image = drawn.images[0].convert("RGB")
        return found.resize(picture.size, Image.Resampling.LANCZOS)


def _load(folder: Path, dtype: torch.dtype) -> Any:
    declare_missing_operators()
    try:
        from diffusers import AutoPipelineForImage2Image
    except ImportError as error:
        raise UnavailableError(
            f"diffusion: Python package diffusers cannot be used ({error}); install it with "
            "pip install '.[diffusion]', or leave the step out (diffusion: null)"
        ) from None
    if not (folder / "model_index.json").is_file():
        raise UnavailableError(
            f"diffusion: {folder}: expected the folder of a pipeline, with model_index.json"
        )
    code = next(folder.rglob("*.py"), None)
    if code is not None:
        raise UnavailableError(f"diffusion: {code}: code that comes with weights is not run")
    try:
        with _quiet():
            pipeline = AutoPipelineForImage2Image.from_pretrained(
                folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        # What diffusers and transformers answer to an incomplete or damaged folder.
        raise UnavailableError(f"diffusion: {folder}: cannot be loaded ({error})") from None
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _native_side(pipeline: Any, folder: Path) -> int:
    """Side in pixels of the pictures that a pipeline was trained with."""
    network = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    latent_side = getattr(getattr(network, "config", None), "sample_size", None)
    if not isinstance(latent_side, int):
        raise UnavailableError(
            f"diffusion: {folder}: its network does not say its sample_size, so the side of its pictures "
            "is not known"
        )
    return latent_side * int(pipeline.vae_scale_factor)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No network look-ups and no chatter from diffusers meanwhile."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with quiet_offline():
            yield
    finally:
        logging.set_verbosity(level)
