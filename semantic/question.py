"""What a question asks about, and whether the text tower can have understood it. Pure text, no tower.

The packaged text tower (MiniLM) was trained on English. Other languages and typing at random still give it a
vector, which points anywhere: :func:`is_english` is a cheap test that runs before that vector is trusted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

# Words of WordNet (Princeton University) that are no word pieces of the tower, by
# scripts/make_relevance_classes.py
WORDS_FILE = Path(__file__).parent / "english_words.json"

# Where fewer of the words are English, the question is taken for another language or none.
LEAST_ENGLISH = 0.5
# Letters: shorter words than this are English only among the function words.
SHORTEST_WORD = 3

LANGUAGE_NOTE = (
    "This does not read as English. The text tower knows English only, so the bits stay where they are "
    "without a question: please ask in English."
)

_WORD = re.compile(r"[^\W\d_]+")

# What may stand around the name of a thing without naming one.
_FRAMES = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b(?:in|on|of|from) (?:this|the|that) (?:photo|photograph|picture|image|scene|shot)\b",
        r"\bwhat (?:is|are|s) (?:the )?(?:colou?r|kind|type|sort|shape|size|breed|brand|make|name) of\b",
        r"\b(?:what|which) (?:colou?rs?|kind of|type of|sort of|shape|size|breed of|brand of|make of)\b",
        r"\bhow (?:many|much|big|large|small|tall|old|far)\b",
        r"\b(?:can|could|do|did|will|would) (?:you|we|i|anyone|anybody) (?:please )?"
        r"(?:see|find|spot|show|tell|describe|identify|locate|notice|recogni[sz]e)\b",
        r"\b(?:show|tell|give|let) (?:me|us)\b",
        r"^(?:please )?(?:find|locate|describe|identify|show|look at|look for|focus on|zoom in on)\b",
    )
)


def words(text: str) -> list[str]:
    """Its words in lower case, without digits and punctuation: ``"Dog's"`` gives ``["dog", "s"]``."""
    return _WORD.findall(text.lower())


_FUNCTION_WORDS = frozenset(
    words("""
    a an the this that these those some any no every each all both either neither another other such
    i me my mine we us our ours you your yours he him his she her hers it its they them their theirs
    who whom whose what which where when why how there here
    am is are was were be been being do does did done doing have has had having can could will would shall
    should may might must let
    isn aren wasn weren don doesn didn hasn haven hadn couldn wouldn shouldn ain s t re ve ll d m
    and or but nor if then than so as because while although though
    of in on at by for from with without to into onto over under above below between behind beside near
    through across along around about off out up down against among inside outside during before after
    not yes only also just very really too more most less least much many few several one ones
    anything something anyone someone anybody somebody everything everyone nothing nobody
    please ok okay hello hi hey thanks maybe perhaps possibly actually
    """)
)

# Frequent words of German, French, Spanish, Italian, Portuguese and Dutch that are no English ones.
# Many of them are word pieces of the tower all the same, from names and titles.
_FOREIGN_WORDS = frozenset(
    words("""
    der das ist da ein eine einen einem einer und wo wer wie welche welcher welches sind dem den des im auf
    auch nicht mit von zu zum zur gibt es ich du er sie wir ihr mir dir bitte zeig zeige dort bild
    haus mann frau kann haben wird oder aber vor bei aus nach viele
    le la les un une de est ce que qui quoi il elle et dans sur sous avec pour par y au aux où quelle quel
    quels quelles combien moi je tu nous vous sont ici homme femme chien rouge cette ces mon
    el los las una unos unas en está hay qué cuál quién dónde donde como con para del al yo tú ella
    esta este esto muy hombre mujer casa mesa perro
    lo gli uno di che chi dove quale quanti quante sono nel nella sul sulla per questo questa è
    os uma umas em na nos nas onde quem qual quantos há tem são não isto isso
    het een waar hoe wat welk welke zijn op ik je jij wij deze dit niet aan staat naar
    """)
)


def asked_thing(query: str) -> str:
    """What a query asks about: its words without question frames and function words.

    ``"What colour is the dog in this photo?"`` gives ``"dog"``. A query of nothing else stays as it is.
    """
    left = " ".join(words(query))
    for frame in _FRAMES:
        left = frame.sub(" ", left)
    kept = [word for word in left.split() if word not in _FUNCTION_WORDS]
    return " ".join(kept) or query


def english_share(query: str, knows_word: Callable[[str], bool]) -> float:
    """Share of a query's words that are English, 0..1; 0 for a query without words.

    Args:
        query: any text.
        knows_word: whether the text tower knows a word in lower case as a whole.
    """
    found = words(query)
    known = [
        word in _FUNCTION_WORDS
        or (
            len(word) >= SHORTEST_WORD
            and word.isascii()
            and word not in _FOREIGN_WORDS
            and knows_word(word)
        )
        for word in found
    ]
    return sum(known) / len(found) if found else 0.0


def is_english(query: str, knows_word: Callable[[str], bool]) -> bool:
    """Whether a query reads as English: at least half its words, and no more foreign function words than own.

    Args:
        query: any text.
        knows_word: as in :func:`english_share`.
    """
    found = words(query)
    foreign = sum(word in _FOREIGN_WORDS and word not in _FUNCTION_WORDS for word in found)
    own = sum(word in _FUNCTION_WORDS for word in found)
    return english_share(query, knows_word) >= LEAST_ENGLISH and (foreign == 0 or own > foreign)


def read_words(file: Path = WORDS_FILE) -> frozenset[str]:
    """The shipped list of English words."""
    return frozenset(json.loads(file.read_text(encoding="utf-8")))
