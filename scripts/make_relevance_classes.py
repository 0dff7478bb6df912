"""Makes semantic/checkpoints/relevance_classes.safetensors again: under a minute of one core.

A script and no command: only here the WordNet definitions are needed, which lie in timm, a package that
open_clip brings along and that the project does not name itself.
"""

from __future__ import annotations

from pathlib import Path

import torch

from semantic.backbone import load_backbone
from semantic.codec_config import PackagedTowers, read_recipe
from semantic.relevance import CLASS_TEXTS_FILE, class_texts, write_class_texts


def imagenet_definitions() -> list[str]:
    """Synonyms and WordNet definition of the 1000 ImageNet classes."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.index_to_description(number, detailed=True) for number in range(1000)]


def main() -> None:
    """Write the file."""
    towers = read_recipe(Path("embedded")).codec.backbone
    assert isinstance(towers, PackagedTowers)
    torch.set_num_threads(1)  # short texts: more threads only wait for each other
    backbone = load_backbone(towers, [4], 160)  # first: it makes timm importable
    write_class_texts(
        class_texts(backbone, imagenet_definitions()), towers.text_tower, CLASS_TEXTS_FILE
    )


if __name__ == "__main__":
    main()
