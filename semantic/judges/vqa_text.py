"""Answers in words brought to one form, so that "Yes." and "yes" match.

The rules of the VQA evaluation (Antol et al., 2015; visualqa.org/evaluation.html): lower case, no
punctuation except inside numbers, number words as digits, no articles. Apostrophes are dropped instead of
put back ("dont" and "don't" both become "dont"), which matches the same pairs.
"""

from __future__ import annotations

import re

_NUMBERS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
_ARTICLES = frozenset({"a", "an", "the"})


def normalize_answer(text: str) -> str:
    """One form for answers that mean the same.

    >>> normalize_answer("There are Two dogs.")
    'there are 2 dogs'
    """
    text = text.lower().replace("'", "").replace("\N{RIGHT SINGLE QUOTATION MARK}", "")
    text = re.sub(r"(?<=\d),(?=\d)", "", text)  # 1,000 is one number
    text = re.sub(r"(?!(?<=\d)\.(?=\d))[^\w\s]", " ", text)  # 3.5 keeps its point
    words = [_NUMBERS.get(word, word) for word in text.split() if word not in _ARTICLES]
    return " ".join(words)
