"""The vision-language judge on tiny random checkpoints in the real formats, through the real door.

No real weights are at hand: that its answers make sense is what the self-check is for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from semantic.demo_photos import load_photo
from semantic.intent_judge import intent_loss
from semantic.judge import JudgeError, LlavaJudge, SelfCheck, load_judge
from semantic.judges.nanollava import IMAGE_TOKEN, remap_names
from semantic.torchvision_operators import declare_missing_operators

declare_missing_operators()

WORDS = "is this a cat dog yes no user assistant the answer question using single word or phrase in"
CHATML = (
    "{% for message in messages %}<|im_start|> {{ message.role }} {{ message.content }} <|im_end|> "
    "{% endfor %}{% if add_generation_prompt %}<|im_start|> assistant{% endif %}"
)
SIDE, PATCH = 28, 7


def make_tokenizer(*, image_token: bool) -> Any:
    """A word-level tokenizer in the format of every recent checkpoint."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {word: k for k, word in enumerate(special + WORDS.split())}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    extra = ["<|im_start|>", "<|im_end|>"] + ([IMAGE_TOKEN] if image_token else [])
    tokenizer.add_special_tokens({"additional_special_tokens": extra})
    return tokenizer


def save_llava(folder: Path, *, seed: int = 0, template: str | None = None) -> None:
    """A random Llava as `save_pretrained` leaves it: config, safetensors, tokenizer, processor."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = make_tokenizer(image_token=True)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.15)
    model.save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE_TOKEN,
        chat_template=template,
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny-llava")
    save_llava(path)
    return path


@pytest.fixture(scope="module")
def judge(folder: Path) -> LlavaJudge:
    return LlavaJudge(folder, self_check=())


def pictures(count: int, seed: int = 0, side: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, side, side, generator=generator)


# eq. (11) ----------------------------------------------------------------------------------------


def test_hidden_states_are_those_of_the_image_tokens(judge: LlavaJudge) -> None:
    states = judge.hidden_states(pictures(2), ["is this a cat", "is this a dog in the question"])
    assert judge.image_tokens == (SIDE // PATCH) ** 2
    assert states.shape == (2, judge.image_tokens, 32)
    # Padding one question to the length of another changes nothing.
    alone = judge.hidden_states(pictures(2)[:1], ["is this a cat"])
    torch.testing.assert_close(states[:1], alone, atol=1e-5, rtol=1e-5)


def test_a_gradient_reaches_the_picture_through_the_vision_tower(judge: LlavaJudge) -> None:
    sources = pictures(2)
    received = pictures(2, seed=1).requires_grad_()
    loss = intent_loss(judge, sources, received, ["is this a cat", "yes"])
    loss.backward()
    assert received.grad is not None
    # Every picture, every colour, and not only one patch.
    assert bool((received.grad.abs().sum(dim=(2, 3)) > 0).all())
    assert float((received.grad.abs().sum(dim=1) > 0).float().mean()) > 0.9
    # It is the right one: a step against it lowers the loss by what it promises.
    step = 1e-3 * received.grad / received.grad.norm()
    with torch.no_grad():
        lower = intent_loss(judge, sources, received - step, ["is this a cat", "yes"])
        higher = intent_loss(judge, sources, received + step, ["is this a cat", "yes"])
    slope = float(higher - lower) / 2e-3
    assert slope == pytest.approx(float(received.grad.norm()), rel=0.05)
    assert not any(parameter.grad is not None for parameter in judge._model.parameters())


def test_a_gradient_reaches_a_decoder(judge: LlavaJudge) -> None:
    decoder = torch.nn.Conv2d(3, 3, 3, padding=1)
    intent_loss(judge, pictures(1), decoder(pictures(1)), ["is this a cat"]).backward()
    assert decoder.weight.grad is not None
    assert bool((decoder.weight.grad.abs() > 0).all())


def test_loss_depends_on_the_question(judge: LlavaJudge) -> None:
    sources, received = pictures(1), pictures(1, seed=1)
    first = intent_loss(judge, sources, received, ["is this a cat"])
    second = intent_loss(judge, sources, received, ["the answer or a dog"])
    assert float((first - second).abs()) > 1e-4 * float(first)


def test_loss_by_its_definition(judge: LlavaJudge) -> None:
    """Eq. (11) in NumPy; 0 for the same picture, and never the same for another one."""
    sources, received, queries = pictures(3), pictures(3, seed=1), ["yes", "no", "is this a cat"]
    a = judge.hidden_states(sources, queries).double().numpy()
    b = judge.hidden_states(received, queries).double().numpy()
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    assert float(intent_loss(judge, sources, received, queries)) == pytest.approx(
        float((1 - cosine).mean()), abs=1e-5
    )
    assert float(intent_loss(judge, sources, sources, queries)) == pytest.approx(0, abs=1e-5)


def test_the_judge_stays_frozen(judge: LlavaJudge) -> None:
    assert not any(parameter.requires_grad for parameter in judge._model.parameters())
    assert not any(module.training for module in judge._model.modules())


def test_pictures_reach_the_tower_as_its_own_processor_would_bring_them(
    judge: LlavaJudge, folder: Path
) -> None:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    photo = load_photo("coffee", 160)
    theirs = processor.image_processor(photo, return_tensors="pt")["pixel_values"]
    own = judge.pixel_values(torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255)
    # Theirs rounds to 8 bits after scaling: half a level, over a spread of 0.26.
    torch.testing.assert_close(own, theirs, atol=1.1 / 255 / 0.26, rtol=0)


# answers -----------------------------------------------------------------------------------------


def test_answers_are_those_of_transformers_own_pipeline(judge: LlavaJudge, folder: Path) -> None:
    """Greedy decoding by hand, one token after the other, without cache, batch or padding."""
    photo = Image.fromarray((pictures(1, side=SIDE)[0] * 255).byte().permute(1, 2, 0).numpy())
    queries = ["is this a cat", "yes or no"]
    answers = judge.answer([photo, photo], queries)
    for query, answer in zip(queries, answers, strict=True):
        prompt = (
            f"USER: {IMAGE_TOKEN * judge.image_tokens}\n{query}\n"
            "Answer the question using a single word or phrase. ASSISTANT:"
        )
        tokenizer = judge._parts.tokenizer
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        length, probability = ids.shape[1], 1.0
        pixels = judge.pixel_values(torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255)
        for _ in range(16):
            with torch.no_grad():
                logits = judge._model(input_ids=ids, pixel_values=pixels).logits[0, -1]
            best = int(logits.argmax())
            probability *= float(logits.softmax(-1)[best])
            ids = torch.cat([ids, torch.tensor([[best]])], dim=1)
            if best == tokenizer.eos_token_id:
                break
        text = tokenizer.decode(ids[0, length:], skip_special_tokens=True)
        assert answer.text == " ".join(w for w in text.lower().split() if w not in ("a", "the"))
        assert answer.confidence == pytest.approx(probability, rel=1e-3)
        assert answer.without_query is None


def test_an_image_token_in_the_question_is_no_second_picture(judge: LlavaJudge) -> None:
    photo = Image.new("RGB", (64, 64), "red")
    assert len(judge.answer([photo], [f"is this {IMAGE_TOKEN} a cat"])) == 1


def test_a_chat_template_is_used(folder: Path, tmp_path: Path) -> None:
    typed = (
        "{% for message in messages %}USER: {% for part in message['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %} cat:{% endif %}"
    )
    save_llava(tmp_path, template=typed)
    judge = LlavaJudge(tmp_path, self_check=())
    assert judge._prompt("is this a dog") == "USER: is this a dog cat:"
    plain = LlavaJudge(folder, self_check=())
    assert plain._prompt("is this a dog") == "USER: is this a dog ASSISTANT:"
    assert judge.identity == plain.identity, "same weights, same judge"


# what is refused ---------------------------------------------------------------------------------


def test_a_judge_of_random_numbers_fails_its_self_check(folder: Path) -> None:
    with pytest.raises(JudgeError, match=r"'Is this a cat\?' about the photo 'chelsea'"):
        load_judge(str(folder))
    judge = load_judge(str(folder), self_check=False)
    (answer,) = judge.answer([Image.new("RGB", (50, 50))], ["is this a cat"])
    right = SelfCheck("chelsea", "is this a cat", (answer.text,))
    with pytest.raises(JudgeError, match="coffee"):
        LlavaJudge(folder, self_check=[SelfCheck("coffee", "yes or no", ("certainly not",)), right])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"config\.json"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "'bert'"),
        (lambda f: (f / "model.safetensors").unlink(), r"no \*\.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no tensors"), "cannot be loaded"),
        (lambda f: (f / "tokenizer.json").unlink(), "cannot be loaded"),
    ],
)
def test_incomplete_checkpoints(tmp_path: Path, damage: Any, message: str) -> None:
    save_llava(tmp_path)
    damage(tmp_path)
    with pytest.raises(JudgeError, match=message):
        LlavaJudge(tmp_path, self_check=())


def test_a_missing_tensor_is_not_replaced_by_random_numbers(tmp_path: Path) -> None:
    save_llava(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    name = next(name for name in state if "linear_1.weight" in name)
    del state[name]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(JudgeError, match=r"missing.*linear_1\.weight"):
        LlavaJudge(tmp_path, self_check=())


# nanoLLaVA ---------------------------------------------------------------------------------------

NANO_LAYERS, NANO_VISION_LAYERS, WIDTH, VISION_WIDTH = 2, 3, 24, 16


def nano_tensors(vocabulary: int, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors under the names that nanoLLaVA's checkpoint has."""
    generator = torch.Generator().manual_seed(seed)

    def new(*shape: int) -> Tensor:
        return 0.2 * torch.randn(*shape, generator=generator)

    tower = "model.vision_tower.vision_tower.vision_model."
    patches = (SIDE // PATCH) ** 2
    state = {
        f"{tower}embeddings.patch_embedding.weight": new(VISION_WIDTH, 3, PATCH, PATCH),
        f"{tower}embeddings.patch_embedding.bias": new(VISION_WIDTH),
        f"{tower}embeddings.position_embedding.weight": new(patches, VISION_WIDTH),
        f"{tower}post_layernorm.weight": new(VISION_WIDTH),
        f"{tower}post_layernorm.bias": new(VISION_WIDTH),
        f"{tower}head.probe": new(1, 1, VISION_WIDTH),
        f"{tower}head.attention.in_proj_weight": new(3 * VISION_WIDTH, VISION_WIDTH),
        f"{tower}head.attention.in_proj_bias": new(3 * VISION_WIDTH),
        f"{tower}head.layernorm.weight": new(VISION_WIDTH),
        f"{tower}head.mlp.fc1.weight": new(20, VISION_WIDTH),
        "model.mm_projector.0.weight": new(WIDTH, VISION_WIDTH),
        "model.mm_projector.0.bias": new(WIDTH),
        "model.mm_projector.2.weight": new(WIDTH, WIDTH),
        "model.mm_projector.2.bias": new(WIDTH),
        "model.embed_tokens.weight": new(vocabulary, WIDTH),
        "model.norm.weight": new(WIDTH),
        "lm_head.weight": new(vocabulary, WIDTH),
    }
    for layer in range(NANO_VISION_LAYERS):
        name = f"{tower}encoder.layers.{layer}."
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            state[f"{name}self_attn.{part}.weight"] = new(VISION_WIDTH, VISION_WIDTH)
            state[f"{name}self_attn.{part}.bias"] = new(VISION_WIDTH)
        for part in ("layer_norm1", "layer_norm2"):
            state[f"{name}{part}.weight"] = 1 + new(VISION_WIDTH)
            state[f"{name}{part}.bias"] = new(VISION_WIDTH)
        state[f"{name}mlp.fc1.weight"], state[f"{name}mlp.fc1.bias"] = (
            new(20, VISION_WIDTH),
            new(20),
        )
        state[f"{name}mlp.fc2.weight"] = new(VISION_WIDTH, 20)
        state[f"{name}mlp.fc2.bias"] = new(VISION_WIDTH)
    for layer in range(NANO_LAYERS):
        name = f"model.layers.{layer}."
        for part in ("q_proj", "k_proj", "v_proj"):
            state[f"{name}self_attn.{part}.weight"] = new(WIDTH, WIDTH)
            state[f"{name}self_attn.{part}.bias"] = new(WIDTH)
        state[f"{name}self_attn.o_proj.weight"] = new(WIDTH, WIDTH)
        state[f"{name}mlp.gate_proj.weight"] = new(36, WIDTH)
        state[f"{name}mlp.up_proj.weight"] = new(36, WIDTH)
        state[f"{name}mlp.down_proj.weight"] = new(WIDTH, 36)
        state[f"{name}input_layernorm.weight"] = 1 + new(WIDTH)
        state[f"{name}post_attention_layernorm.weight"] = 1 + new(WIDTH)
    return state


def save_nano(folder: Path, **changes: Any) -> dict[str, Tensor]:
    """A folder as nanoLLaVA's, with weights of random numbers; returns the tensors."""
    tokenizer = make_tokenizer(image_token=False)
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    vocabulary = len(tokenizer) + 5
    config = {
        "architectures": ["LlavaQwen2ForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_llava_qwen2.LlavaQwen2ForCausalLM"},
        "model_type": "llava-qwen2",
        "hidden_size": WIDTH,
        "intermediate_size": 36,
        "num_hidden_layers": NANO_LAYERS,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "sliding_window": "None",
        "tie_word_embeddings": False,
        "vocab_size": vocabulary,
        "eos_token_id": 2,
        "mm_hidden_size": VISION_WIDTH,
        "mm_projector_type": "mlp2x_gelu",
        "vision_config": {
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 20,
            "num_hidden_layers": NANO_VISION_LAYERS,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_llava_qwen2.py").write_text("raise SystemExit('remote code was run')\n")
    state = nano_tensors(vocabulary)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return state


def test_nanollava_is_renamed_into_the_native_classes(tmp_path: Path) -> None:
    stored = save_nano(tmp_path)
    judge = LlavaJudge(tmp_path, self_check=())
    native = judge._model.state_dict()
    names = remap_names(stored)
    assert set(names.values()) == set(native), "every tensor of the model comes from the checkpoint"
    for old, new in names.items():
        torch.testing.assert_close(native[new], stored[old], atol=0, rtol=0)
    assert {name for name in stored if name not in names} == {
        name for name in stored if ".vision_model.head." in name
    }


def test_nanollava_computes_what_its_parts_compute(tmp_path: Path) -> None:
    """Tower, projector and language model assembled by hand from the stored tensors."""
    from torch.nn import functional
    from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

    stored = save_nano(tmp_path)
    judge = LlavaJudge(tmp_path, self_check=())
    tower = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=VISION_WIDTH,
            intermediate_size=20,
            # Features come from the last but one layer.
            num_hidden_layers=NANO_VISION_LAYERS - 1,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=PATCH,
            vision_use_head=False,
        )
    ).eval()
    prefix = "model.vision_tower.vision_tower.vision_model."
    inner = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
    tower.load_state_dict({k: inner[k] for k in tower.state_dict()})
    vocabulary = len(stored["model.embed_tokens.weight"])
    language = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=36,
            num_hidden_layers=NANO_LAYERS,
            num_attention_heads=3,
            num_key_value_heads=3,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        )
    ).eval()
    language.load_state_dict({k: stored[k] for k in language.state_dict()})
    photo = pictures(1, side=SIDE)
    prompt = "<|im_start|> user is this a cat"
    ids = judge._parts.tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        seen = tower(2 * photo - 1)
        last = tower.encoder(inputs_embeds=tower.embeddings(2 * photo - 1)).last_hidden_state
        assert not torch.allclose(last, seen.last_hidden_state), "taken before the last norm"
        hidden = functional.linear(
            last, stored["model.mm_projector.0.weight"], stored["model.mm_projector.0.bias"]
        )
        projected = functional.linear(
            functional.gelu(hidden),
            stored["model.mm_projector.2.weight"],
            stored["model.mm_projector.2.bias"],
        )
        embedded = torch.cat([stored["model.embed_tokens.weight"][ids], projected], dim=1)
        wanted = language(inputs_embeds=embedded).logits
        with_picture = f"{prompt} {IMAGE_TOKEN * judge.image_tokens}"
        all_ids = judge._parts.tokenizer(with_picture, return_tensors="pt")["input_ids"]
        found = judge._model(input_ids=all_ids, pixel_values=judge.pixel_values(photo)).logits
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_nanollava_answers_in_chatml_and_passes_gradients(tmp_path: Path) -> None:
    save_nano(tmp_path)
    judge = LlavaJudge(tmp_path, self_check=())
    assert judge._prompt("is this a cat").split() == [
        *["<|im_start|>", "user", "is", "this", "a", "cat", "<|im_end|>"],
        *["<|im_start|>", "assistant"],
    ]
    ends = judge._model.generation_config.eos_token_id
    assert judge._parts.tokenizer.convert_tokens_to_ids("<|im_end|>") in ends
    photo = Image.new("RGB", (64, 64), "red")
    first, second = judge.answer([photo, photo], ["is this a cat", "yes or no or the dog"])
    assert judge.answer([photo], ["is this a cat"])[0].text == first.text
    assert 0 < second.confidence < 1
    received = pictures(1, seed=1).requires_grad_()
    intent_loss(judge, pictures(1), received, ["is this a cat"]).backward()
    assert received.grad is not None
    assert float((received.grad.abs().sum(dim=1) > 0).float().mean()) > 0.9


def test_nanollava_with_tied_embeddings(tmp_path: Path) -> None:
    stored = save_nano(tmp_path, tie_word_embeddings=True)
    del stored["lm_head.weight"]
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    native = LlavaJudge(tmp_path, self_check=())._model.state_dict()
    torch.testing.assert_close(
        native["lm_head.weight"], stored["model.embed_tokens.weight"], atol=0, rtol=0
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.mm_projector.2.bias"), r"lacks .*linear_2\.bias"),
        (lambda s: s.update({"model.mm_projector.4.bias": torch.ones(1)}), r"mm_projector\.4"),
        (lambda s: s.update({"model.layers.9.mlp.up_proj.weight": torch.ones(1)}), "no place"),
        (lambda s: s.update({"model.norm.weight": torch.ones(3)}), r"norm\.weight is \[3\]"),
    ],
)
def test_nanollava_must_be_complete(tmp_path: Path, change: Any, message: str) -> None:
    state = save_nano(tmp_path)
    change(state)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(JudgeError, match=message):
        LlavaJudge(tmp_path, self_check=())


def test_nanollava_with_another_projector(tmp_path: Path) -> None:
    save_nano(tmp_path, mm_projector_type="linear")
    with pytest.raises(JudgeError, match="mlp2x_gelu"):
        LlavaJudge(tmp_path, self_check=())
