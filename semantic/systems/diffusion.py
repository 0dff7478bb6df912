"""A picture drawn anew by a pretrained diffusion model, through diffusers' image-to-image pipelines.

Everything comes from a folder on this machine in the format of ``save_pretrained``: safetensors only, no code
that comes with it is run, nothing is fetched.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError

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

    Raises:
        UnavailableError: diffusers is not installed, or the folder holds no such pipeline.
    """

    def __init__(
        self, folder: Path, device: torch.device, *, strength: float, steps: int, seed: int
    ) -> None:
        self._settings = {"strength": strength, "num_inference_steps": steps}
        self._seed = seed
        self._pipeline = _load(folder, device)
        self._side = _native_side(self._pipeline, folder)

    def notes(self) -> list[str]:
        """What a report must say about it, a clause each."""
        how = f"{type(self._pipeline).__name__} redraws at {self._side}x{self._side} pixels"
        found = [
            f"{how}, strength {self._settings['strength']:g}, "
            f"{self._settings['num_inference_steps']} steps, seed {self._seed}"
        ]
        if getattr(self._pipeline, "safety_checker", None) is not None:
            found.append("what the pipeline's safety checker refuses is shown as it came")
        return found

    def redraw(self, picture: Image.Image, prompt: str) -> Image.Image:
        """A picture of the same size that the prompt describes; as it came where a safety checker refuses.

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


def _load(folder: Path, device: torch.device) -> Any:
    declare_missing_operators()
    try:
        from diffusers import AutoPipelineForImage2Image
    except (ImportError, RuntimeError) as error:
        # The latter is diffusers' own name for a part of it that cannot be imported.
        raise UnavailableError(
            f"diffusion: Python package diffusers cannot be used ({error}); install it with "
            "pip install '.[diffusion]', or leave the step out (diffusion: null)"
        ) from None
    index = _read_index(folder)
    code = next(folder.rglob("*.py"), None)
    if code is not None:
        raise UnavailableError(f"diffusion: {code}: code that comes with weights is not run")
    try:
        with _quiet():
            pipeline = AutoPipelineForImage2Image.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                **_load_text_encoders(folder, index),
            )
            # Also where a tensor that the folder lacks is noticed.
            pipeline.to(device, torch.float16 if device.type == "cuda" else torch.float32)
    except UnavailableError:
        raise
    except (
        OSError,
        ValueError,
        RuntimeError,
        KeyError,
        TypeError,
        AttributeError,
        SafetensorError,
    ) as error:
        # What diffusers and transformers answer to an incomplete or damaged folder.
        raise UnavailableError(f"diffusion: {folder}: cannot be loaded ({error})") from None
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _read_index(folder: Path) -> dict[str, Any]:
    """What a pipeline is made of: name of a component -> its library and class."""
    file = folder / "model_index.json"
    try:
        found = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UnavailableError(
            f"diffusion: {file}: {error.strerror}; expected the folder of a pipeline"
        ) from None
    except ValueError as error:
        raise UnavailableError(f"diffusion: {file}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise UnavailableError(f"diffusion: {file}: expected a JSON object")
    return found


def _load_text_encoders(folder: Path, index: dict[str, Any]) -> dict[str, Any]:
    """The components that transformers would fill with random numbers where the folder lacks a tensor."""
    import transformers

    found = {}
    for name, value in index.items():
        if not name.startswith("text_encoder") or value == [None, None]:
            continue
        _, class_name = value
        found[name], report = getattr(transformers, class_name).from_pretrained(
            folder / name, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        if lacking:
            raise UnavailableError(
                f"diffusion: {folder / name}: {len(lacking)} tensors are missing or misshapen: "
                f"{lacking[0]}, ..."
            )
    return found


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
