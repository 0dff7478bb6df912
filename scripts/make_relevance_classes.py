"""Makes what the relevance maps need of WordNet again: under a minute of one core.

- semantic/checkpoints/relevance_classes.safetensors: vectors of the ImageNet classes' names and definitions;
- semantic/english_words.json: words of the 21,841 nouns of ImageNet-22k and of their definitions that are no
  word pieces of the text tower, so that "giraffe" is known to be English. Names that occur once alone are
  left out: most of them are Latin.

A script and no command: only here the WordNet definitions are needed, which lie in timm, a package that
open_clip brings along and that the project does not name itself.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import semantic  # noqa: F401 - before torch: it sets how torch's threads wait

# isort: split
import torch

from semantic.backbone import Backbone, load_backbone
from semantic.codec_config import PackagedTowers, read_recipe
from semantic.question import SHORTEST_WORD, WORDS_FILE, words
from semantic.relevance import CLASS_TEXTS_FILE, class_texts, word_test, write_class_texts


def imagenet_definitions() -> list[str]:
    """Synonyms and WordNet definition of the 1000 ImageNet classes."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.index_to_description(number, detailed=True) for number in range(1000)]


def wordnet_words() -> list[str]:
    """Words of definitions, and of names that occur more than once, in ImageNet-22k."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-22k")
    named: Counter[str] = Counter()
    defined: set[str] = set()
    for number in range(info.num_classes()):
        names, _, definition = info.index_to_description(number, detailed=True).partition(": ")
        named.update(set(words(names)))
        defined.update(words(definition))
    found = defined | {word for word, count in named.items() if count > 1}
    return sorted(word for word in found if word.isascii() and len(word) >= SHORTEST_WORD)


def unknown_words(backbone: Backbone) -> list[str]:
    """Those of :func:`wordnet_words` that are no word pieces of the text tower."""
    knows = word_test(backbone, listed=frozenset())
    return [word for word in wordnet_words() if not knows(word)]


def main() -> None:
    """Write the files."""
    towers = read_recipe(Path("embedded")).codec.backbone
    assert isinstance(towers, PackagedTowers)
    torch.set_num_threads(1)  # short texts: more threads only wait for each other
    backbone = load_backbone(towers, [4], 160)  # first: it makes timm importable
    write_class_texts(
        class_texts(backbone, imagenet_definitions()), towers.text_tower, CLASS_TEXTS_FILE
    )
    lines = json.dumps(unknown_words(backbone), separators=(",", ":"))
    WORDS_FILE.write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
