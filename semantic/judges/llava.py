"""A vision-language model as judge: hidden states for eq. (11), answers in words for the match rate.

transformers' own Llava classes from a folder on this machine: any llava-hf checkpoint as it is, nanoLLaVA
through :mod:`semantic.judges.nanollava`. Weights are safetensors, no code that comes with a checkpoint is
run, nothing is fetched.

transformers' vision towers pass gradients (LLaVA's original code wraps them in no_grad, and eq. (11) would
then train nothing); the tests measure it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from semantic.codec.vq_codec import picture_to_tensor
from semantic.judges.answers import Answer, JudgeError, SelfCheck, check_pairs, run_self_checks
from semantic.judges.llava_checkpoint import fill_template, load_llava
from semantic.judges.vqa_text import normalize_answer

SELF_CHECKS = (
    SelfCheck("chelsea", "Is this a cat?", ("yes",)),
    SelfCheck("coffee", "Is this a cat?", ("no",)),
)
# What LLaVA-1.5 was trained to follow with a short answer.
SHORT_ANSWER = "Answer the question using a single word or phrase."
_MAX_ANSWER_TOKENS = 16
_BATCH = 8


class LlavaJudge:
    """A Llava checkpoint, frozen, on one device.

    Args:
        folder: the checkpoint: ``config.json``, ``*.safetensors``, tokenizer, processor.
        device: where to compute.
        dtype: of the weights; None means float32 on a CPU and bfloat16 elsewhere.
        self_check: questions that it must answer rightly before anything else; empty to skip, which
            only tests with random weights should do.

    Raises:
        JudgeError: a folder that is no such checkpoint, or a failed self-check.
    """

    def __init__(
        self,
        folder: Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        self_check: Sequence[SelfCheck] = SELF_CHECKS,
    ) -> None:
        self.folder = Path(folder)
        self.device = torch.device(device)
        if dtype is None:
            dtype = torch.float32 if self.device.type == "cpu" else torch.bfloat16
        self._parts = load_llava(self.folder, dtype)
        self._model = self._parts.model.eval().requires_grad_(False).to(self.device)
        self._image_token_id = int(self._model.config.image_token_id)
        self._mean = torch.tensor(self._parts.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(self._parts.std, device=self.device).view(1, 3, 1, 1)
        if self._parts.tokenizer.pad_token is None:
            self._parts.tokenizer.pad_token = self._parts.tokenizer.eos_token
        self.image_tokens = self._count_image_tokens()
        run_self_checks(self, self_check)

    @property
    def name(self) -> str:
        """``llava:`` and the folder's name."""
        return f"llava:{self.folder.name}"

    @cached_property
    def identity(self) -> str:
        """sha256 over the weight files."""
        digest = hashlib.sha256()
        for file in sorted(self.folder.glob("*.safetensors")):
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()

    # for eq. (11) --------------------------------------------------------------------------------

    def hidden_states(self, pictures: Tensor, queries: Sequence[str]) -> Tensor:
        """Last hidden states of the language model at the image tokens.

        The question comes before the picture: in a causal model the image tokens would otherwise not
        know of it, and the loss would be the same whatever is asked.

        Args:
            pictures: float ``[B, 3, h, w]``, 0..1.
            queries: B questions.

        Returns:
            ``[B, image tokens, width]`` in the model's precision, with a gradient to the pictures.
        """
        prompts = [self._prompt(f"{query}\n{self._picture_text}") for query in self._clean(queries)]
        # Padded on the right: what comes later cannot reach back in a causal model.
        ids, mask = self._tokens(prompts, "right")
        found = self._model.model(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=self.pixel_values(pictures),
            use_cache=False,
        ).last_hidden_state
        places = ids == self._image_token_id
        return found[places].unflatten(0, (len(prompts), self.image_tokens))

    def pixel_values(self, pictures: Tensor) -> Tensor:
        """What the vision tower takes: scaled (bicubic) and normalised, differentiable.

        Args:
            pictures: float ``[B, 3, h, w]``, 0..1, square.
        """
        side = int(self._model.config.vision_config.image_size)
        scaled = pictures.to(self.device).float()
        if scaled.shape[-2:] != (side, side):
            scaled = functional.interpolate(
                scaled, (side, side), mode="bicubic", align_corners=False, antialias=True
            ).clamp(0, 1)
        return ((scaled - self._mean) / self._std).to(self._model.dtype)

    # answers -------------------------------------------------------------------------------------

    def answer(self, pictures: Sequence[Image.Image], queries: Sequence[str]) -> list[Answer]:
        """Greedy answers, normalised."""
        check_pairs(pictures, queries)
        answers: list[Answer] = []
        for start in range(0, len(pictures), _BATCH):
            batch = slice(start, start + _BATCH)
            answers += self._answer(pictures[batch], queries[batch])
        return answers

    @torch.inference_mode()
    def _answer(self, pictures: Sequence[Image.Image], queries: Sequence[str]) -> list[Answer]:
        # Each picture scaled by itself: they may differ in size.
        pixels = [self.pixel_values(picture_to_tensor(p.convert("RGB"))) for p in pictures]
        prompts = [
            self._prompt(f"{self._picture_text}\n{query}\n{SHORT_ANSWER}")
            for query in self._clean(queries)
        ]
        ids, mask = self._tokens(prompts, "left")
        found = self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=torch.cat(pixels),
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=_MAX_ANSWER_TOKENS,
            pad_token_id=self._parts.tokenizer.pad_token_id,
            return_dict_in_generate=True,
            output_logits=True,
        )
        new = found.sequences[:, ids.shape[1] :]
        texts = self._parts.tokenizer.batch_decode(new, skip_special_tokens=True)
        confidence = self._probability(new, torch.stack(found.logits, dim=1))
        return [
            Answer(normalize_answer(text), probability)
            for text, probability in zip(texts, confidence.tolist(), strict=True)
        ]

    def _probability(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """Probability of each answer up to its end mark: ``[B]`` of ``[B, T]`` and ``[B, T, V]``."""
        chosen = logits.float().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        ends = self._model.generation_config.eos_token_id
        ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
        ended = torch.isin(tokens, torch.tensor(ends, device=tokens.device, dtype=tokens.dtype))
        before = ended.int().cumsum(-1) - ended.int() == 0
        return (chosen * before).sum(-1).exp()

    # prompts -------------------------------------------------------------------------------------

    @property
    def _picture_text(self) -> str:
        return self._parts.image_token * self.image_tokens

    def _clean(self, queries: Sequence[str]) -> list[str]:
        """Queries without the image token, which would stand for a second picture."""
        return [query.replace(self._parts.image_token, " ") for query in queries]

    def _prompt(self, text: str) -> str:
        return fill_template(self._parts, text)

    def _tokens(self, prompts: list[str], padding_side: str) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, int64 ``[B, L]`` each."""
        found = self._parts.tokenizer(
            prompts, padding=True, padding_side=padding_side, return_tensors="pt"
        )
        ids = found["input_ids"].to(self.device)
        counted = (ids == self._image_token_id).sum(dim=1)
        if not bool((counted == self.image_tokens).all()):
            raise JudgeError(
                f"{self.folder}: the tokenizer makes {counted.tolist()} image tokens of {self.image_tokens} "
                f"times {self._parts.image_token!r}; it does not belong to this model"
            )
        return ids, found["attention_mask"].to(self.device)

    @torch.inference_mode()
    def _count_image_tokens(self) -> int:
        side = int(self._model.config.vision_config.image_size)
        pixels = self.pixel_values(torch.zeros(1, 3, side, side))
        return len(self._model.get_image_features(pixels).pooler_output[0])
