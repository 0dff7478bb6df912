"""Questions: what they ask about, and whether the text tower can have understood them."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from semantic.backbone import Backbone, load_backbone
from semantic.codec_config import read_recipe
from semantic.question import asked_thing, english_share, is_english, read_words, words
from semantic.relevance import word_test


@pytest.mark.parametrize(
    ("query", "thing"),
    [
        ("Is there a keyboard?", "keyboard"),
        ("What colour is the dog?", "dog"),
        ("What is the color of the car?", "car"),
        ("Which kind of bird is on the branch?", "bird branch"),
        ("How many dogs are there?", "dogs"),
        ("Can you see a traffic light in this photo?", "traffic light"),
        ("Show me the man's hat", "man hat"),
        ("Please find the remote control.", "remote control"),
        ("Is there a person wearing a red hat?", "person wearing red hat"),
        ("dining table", "dining table"),
        # Nothing but function words: better the whole than nothing.
        ("What is this?", "What is this?"),
        ("???", "???"),
    ],
)
def test_what_is_asked_about(query: str, thing: str) -> None:
    assert asked_thing(query) == thing


def test_words_are_letters_of_any_alphabet() -> None:
    assert words("Is 1 dog's Straße?") == ["is", "dog", "s", "straße"]


def test_share_of_english_words() -> None:
    def knows(word: str) -> bool:
        return word in {"dog", "katze", "der"}

    assert english_share("Is there a dog?", knows) == 1
    assert english_share("dog Hund", knows) == 0.5
    assert english_share("der", knows) == 0  # a piece of names, but a German word
    assert english_share("", knows) == 0
    # Half its words are known, but those that hold it together are German.
    assert not is_english("der dog", knows)


@pytest.fixture(scope="module")
def towers() -> Backbone:
    return load_backbone(read_recipe(Path("embedded")).codec.backbone, [4], 160)


@pytest.fixture(scope="module")
def knows_word(towers: Backbone) -> Callable[[str], bool]:
    return word_test(towers)


def _lines(text: str) -> list[str]:
    return text.strip().splitlines()


# None of these were looked at while the word lists were made.
ENGLISH = [
    "",
    "Is there a giraffe behind the fence?",
    "Are the zebras drinking?",
    "Where did she leave her umbrella?",
    "What is the woman holding in her left hand?",
    "How many surfboards lean against the wall?",
    "Is the traffic light red or green?",
    "Does the boy wear a helmet?",
    "Which fruit lies beside the toaster?",
    "Has anybody left a suitcase on the platform?",
    "Can you read the licence plate?",
    "Is it a poodle or a dachshund?",
    "What's written on the blackboard?",
    "Who is riding the motorbike?",
    "Any skiers?",
    "Is the hairdryer plugged in?",
    "Show me the hydrant.",
    "Find the wristwatch!",
    "Is the doughnut glazed?",
    "a stethoscope",
    "giraffe",
    "fire engine",
    "hot dog with mustard",
    "Look at the pelican's beak",
    "Would a vegetarian eat this?",
    "",
][1:-1]
GERMAN = [
    "",
    "Hängt ein Bild an der Wand?",
    "Wo liegt die Fernbedienung?",
    "Spielt das Kind mit dem Ball?",
    "Welches Tier frisst gerade?",
    "Ist die Ampel grün?",
    "Wie viele Vögel sitzen im Baum?",
    "Hält die Frau einen Regenschirm?",
    "Schläft der Hund auf dem Sofa?",
    "Was steht neben dem Kühlschrank?",
    "Zeig mir bitte das Fahrrad",
    "Sieht man Berge?",
    "Schmetterling",
    "",
][1:-1]
FRENCH = [
    "",
    "Y a-t-il un parapluie ?",
    "Où se trouve la bouteille ?",
    "De quelle couleur est le vélo ?",
    "Combien d'oiseaux voit-on ?",
    "Le garçon porte-t-il un casque ?",
    "Est-ce que la lampe est allumée ?",
    "Qui conduit le camion ?",
    "Que mange le cheval ?",
    "Montre-moi le gâteau",
    "Les enfants jouent-ils au ballon ?",
    "",
][1:-1]
SPANISH = [
    "",
    "¿Hay una bicicleta?",
    "¿Dónde está la botella?",
    "¿De qué color es el paraguas?",
    "¿Cuántos pájaros hay en el árbol?",
    "¿Qué come el caballo?",
    "¿Lleva sombrero el niño?",
    "¿Quién conduce el camión?",
    "Enséñame el pastel",
    "¿Está encendida la lámpara?",
    "¿Juegan los niños con la pelota?",
    "",
][1:-1]
GIBBERISH = [
    "asdf qwerty zxcv",
    "jkl jkl uiop",
    "xrtz bnmk",
    "flurb gronk snazzlefitz",
    "hhhh",
    "?!",
]


def test_english_questions_are_known(knows_word: Callable[[str], bool]) -> None:
    assert [query for query in ENGLISH if not is_english(query, knows_word)] == []


@pytest.mark.parametrize("queries", [GERMAN, FRENCH, SPANISH, GIBBERISH])
def test_other_languages_and_gibberish_are_not(
    queries: list[str], knows_word: Callable[[str], bool]
) -> None:
    assert [query for query in queries if is_english(query, knows_word)] == []


def test_words_that_look_english_are_taken_for_it(knows_word: Callable[[str], bool]) -> None:
    # A limit: without a function word nothing tells French from English that is spelt alike.
    assert is_english("chat orange", knows_word)


def test_shipped_words_are_what_the_script_finds(
    towers: Backbone, knows_word: Callable[[str], bool]
) -> None:
    script = Path(__file__).parents[1] / "scripts" / "make_relevance_classes.py"
    made = runpy.run_path(str(script))
    found = made["wordnet_words"]()
    shipped = read_words()
    assert set(made["unknown_words"](towers)) == shipped
    assert {"giraffe", "skateboard"} <= shipped <= set(found)
    # All that is left out are word pieces of the tower.
    assert all(knows_word(word) for word in found[::50])
