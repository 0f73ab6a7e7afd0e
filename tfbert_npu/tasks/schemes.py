"""Label schemes of token classifiers: which words make an entity, read from the names of the labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

SchemeName = Literal["bare", "IOB1", "BIO", "BIOES", "BMES", "BILOU"]

_LETTERS: dict[str, frozenset[str]] = {
    "IOB1": frozenset("BI"),
    "BIO": frozenset("BI"),
    "BIOES": frozenset("BIES"),
    "BMES": frozenset("BMES"),
    "BILOU": frozenset("BILU"),
}
# What a word's place is called elsewhere, in the letters of BIOES.
_PLACES = {"M": "I", "L": "E", "U": "S"}
_PREFIX = re.compile(r"([A-Za-z])([-_])(.+)", re.DOTALL)
_SUFFIX = re.compile(r"(.+)([-_])([A-Za-z])", re.DOTALL)
# Words outside of entities, word pieces after the first, and special tokens, as training scripts name them.
_OUTSIDE = re.compile(r"O|o|X|PAD|\[.*\]|<.*>")
_NUMBERED = re.compile(r"LABEL_\d+")


@dataclass(frozen=True)
class LabelScheme:
    """How a label says the type of an entity and the word's place in it.

    Attributes:
        name: `"bare"`: the type alone, and neighbors of one type are one entity. `"BIO"` is IOB2; `"IOB1"`
            begins an entity with I- where no other of its type ends. `"BMES"` and `"BILOU"` are BIOES with
            other letters.
        form: Where the letter stands: `"prefix"` (`B-PER`), `"suffix"` (`PER-B`), or `"alone"` (`B`).
        separator: Between letter and type.
    """

    name: SchemeName = "BIO"
    form: Literal["prefix", "suffix", "alone"] = "prefix"
    separator: str = "-"

    def split(self, label: str) -> tuple[str, str]:
        """Place (`B`, `I`, `E`, `S` or `O`) and type of a label; what the scheme does not know is outside."""
        if self.name == "bare":
            return ("O", "") if _OUTSIDE.fullmatch(label) else ("I", label)
        parts = _split(label, self.form)
        if parts is None or parts[0] not in _LETTERS[self.name]:
            return "O", ""
        return _PLACES.get(parts[0], parts[0]), parts[2]

    def siblings(self, label: str) -> list[str]:
        """The label, and the labels of its type that may follow it in other sentences."""
        parts = None if self.name in ("bare", "IOB1") else _split(label, self.form)
        if parts is None or (self.name == "BIO" and parts[0] != "B"):
            return [label]
        kind, mark = parts[2], parts[1]
        joined = {"prefix": "{0}{1}{2}", "suffix": "{2}{1}{0}", "alone": "{0}"}[self.form]
        return [joined.format(letter, mark, kind) for letter in sorted(_LETTERS[self.name])]

    def __str__(self) -> str:
        """For messages, such as `BIOES (B-PER)`."""
        example = {"prefix": f"B{self.separator}PER", "suffix": f"PER{self.separator}B", "alone": "B"}
        return f"{self.name} ({'PER' if self.name == 'bare' else example[self.form]})"


def recognize_scheme(labels: Iterable[str], name: SchemeName | None = None) -> LabelScheme:
    """The scheme of a set of label names.

    Args:
        labels: The names; their order does not matter.
        name: The scheme, where it is known; only the place of the letter is then looked for.

    Raises:
        ValueError: The names follow no known scheme, or not the one that `name` says.
    """
    if name is not None and name not in get_args(SchemeName):
        raise ValueError(f"the label scheme must be one of {', '.join(get_args(SchemeName))}, got {name!r}")
    inside = sorted({label for label in labels if not _OUTSIDE.fullmatch(label)})
    if name == "bare" or not inside:
        return LabelScheme(name or "BIO")
    if all(_NUMBERED.fullmatch(label) for label in inside):
        raise ValueError(
            f"the labels are called {', '.join(inside[:3])}, which names no entity type; give the label names"
        )
    split: dict[str, int] = {}
    for form in ("alone", "prefix", "suffix"):
        parts = [_split(label, form) for label in inside]
        found = [part for part in parts if part is not None]
        letters, marks = {part[0] for part in found}, {part[1] for part in found}
        split[form] = sum(1 for letter, _, _ in found if letter in "BIESMLU")
        scheme = name or _scheme_of(letters)
        if len(found) == len(inside) and len(marks) == 1 and scheme and letters <= _LETTERS[scheme]:
            return LabelScheme(scheme, form, marks.pop())
    if name is None and not split["prefix"] and not split["suffix"] and not split["alone"]:
        return LabelScheme("bare")
    known = f"scheme {name}" if name else f"one scheme of {', '.join(get_args(SchemeName))}"
    shown = ", ".join(inside[:8]) + (", ..." if len(inside) > 8 else "")
    raise ValueError(f"the labels {shown} do not follow {known}; name their scheme, or correct the labels")


def group_entities(labels: Sequence[str], scheme: LabelScheme = LabelScheme()) -> list[tuple[str, int, int]]:
    """Entities of a sequence of labels, as (type, first, end) with `end` behind the last word.

    An entity begins at B and S, at any inside label after an outside one or after E and S, and where the type
    changes; it ends at E and S and before O. This is the definition of conlleval (Tjong Kim Sang & De Meulder
    2003) and of seqeval's default mode.
    """
    entities: list[tuple[str, int, int]] = []
    opened: str | None = None
    first = 0
    for index, label in enumerate([*labels, "O"]):
        place, kind = scheme.split(label)
        if opened is not None and (place in ("O", "B", "S") or kind != opened):
            entities.append((opened, first, index))
            opened = None
        if place != "O" and opened is None:
            opened, first = kind, index
        if place in ("E", "S") and opened is not None:
            entities.append((opened, first, index + 1))
            opened = None
    return entities


def _split(label: str, form: str) -> tuple[str, str, str] | None:
    """Letter, separator and type."""
    if form == "alone":
        return (label, "", "_") if len(label) == 1 and label.isalpha() else None
    match = (_PREFIX if form == "prefix" else _SUFFIX).fullmatch(label)
    if match is None:
        return None
    parts = match.groups()
    letter, separator, kind = parts if form == "prefix" else parts[::-1]
    return letter.upper(), separator, kind


def _scheme_of(letters: set[str]) -> SchemeName | None:
    if letters == {"I"}:
        return "IOB1"
    # E, L and M alone begin nothing: more likely a type such as E-MAIL.
    if not letters & {"B", "S", "U"}:
        return None
    for name in ("BIO", "BIOES", "BMES", "BILOU"):
        if letters <= _LETTERS[name]:
            return name
    return None
