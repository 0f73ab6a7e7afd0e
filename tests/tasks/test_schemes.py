"""Label schemes: recognized from label names, and the entities that seqeval 1.2.2 and transformers find."""

import json

import pytest

from tfbert_npu.tasks.metrics import entity_metrics
from tfbert_npu.tasks.schemes import LabelScheme, group_entities, recognize_scheme

# Three entities of nine words, in every scheme and spelling.
ENTITIES = [("PER", 0, 2), ("LOC", 4, 5), ("PER", 8, 9)]
FORMS = {
    "bare": "PER PER O O LOC O O O PER",
    "IOB1": "I-PER I-PER O O I-LOC O O O I-PER",
    "BIO": "B-PER I-PER O O B-LOC O O O B-PER",
    "BIOES": "B-PER E-PER O O S-LOC O O O S-PER",
    "BMES": "B-PER E-PER O O S-LOC O O O S-PER",
    "BILOU": "B-PER L-PER O O U-LOC O O O U-PER",
}


@pytest.mark.parametrize("name", FORMS)
def test_every_scheme_finds_the_same_entities(name):
    labels = FORMS[name].split()
    assert group_entities(labels, recognize_scheme(labels, name)) == ENTITIES
    assert group_entities(labels, recognize_scheme(labels)) == ENTITIES


@pytest.mark.parametrize("name", [name for name in FORMS if name != "bare"])
@pytest.mark.parametrize("form", ["{0}_{1}", "{1}-{0}", "{1}_{0}"])
def test_other_spellings(name, form):
    labels = [form.format(*tag.split("-")) if "-" in tag else tag for tag in FORMS[name].split()]
    assert group_entities(labels, recognize_scheme(labels)) == ENTITIES
    lower = [form.format(tag[0].lower(), tag[2:]) if "-" in tag else tag for tag in FORMS[name].split()]
    assert group_entities(lower, recognize_scheme(lower)) == ENTITIES


def test_the_case_files(shared):
    case = json.loads((shared / "cases" / "ner_schemes.json").read_text(encoding="utf-8"))
    for labels in case["schemes"].values():
        assert [list(e) for e in group_entities(labels, recognize_scheme(labels))] == case["entities"]


@pytest.mark.parametrize(
    ("labels", "name", "form"),
    [
        ("O B-PER.NAM I-PER.NAM", "BIO", "prefix"),
        ("O B-X M-X E-X S-X", "BMES", "prefix"),
        ("O B-address I-address S-address [PAD]", "BIOES", "prefix"),
        ("B I O", "BIO", "alone"),
        ("B M E S", "BMES", "alone"),
        ("NOUN VERB PUNCT", "bare", "prefix"),
        ("O PER X [CLS] [SEP]", "bare", "prefix"),
        ("O I-PER", "IOB1", "prefix"),
        ("O MISC-PERSON", "bare", "prefix"),
    ],
)
def test_recognized(labels, name, form):
    scheme = recognize_scheme(labels.split())
    assert (scheme.name, scheme.form) == (name, form)
    assert name in str(scheme)


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ("O B-PER I-PER LOC", None),
        ("O B-PER Q-PER", None),
        ("O B-PER M-PER I-PER E-PER", None),
        ("O B-PER I_PER", None),
        ("O B-PER E-PER", "BIO"),
        ("O PER", "BIO"),
        ("O E-MAIL PER", None),
        ("LABEL_0 LABEL_1", None),
        ("O B-PER", "IOBX"),
    ],
)
def test_unknown_schemes_are_refused(labels, name):
    with pytest.raises(ValueError, match=r"scheme|names no entity type"):
        recognize_scheme(labels.split(), name)


def test_bare_overrides():
    scheme = recognize_scheme(["O", "E-MAIL", "PER"], "bare")
    assert group_entities(["E-MAIL", "PER", "O"], scheme) == [("E-MAIL", 0, 1), ("PER", 1, 2)]


def test_seqeval_default_mode_on_broken_sequences():
    # The rules of start_of_chunk and end_of_chunk in seqeval 1.2.2, one case each.
    bioes = LabelScheme("BIOES")
    cases = {
        "B-A B-A": [("A", 0, 1), ("A", 1, 2)],
        "B-A S-A": [("A", 0, 1), ("A", 1, 2)],
        "E-A E-A": [("A", 0, 1), ("A", 1, 2)],
        "E-A I-A": [("A", 0, 1), ("A", 1, 2)],
        "S-A I-A E-A": [("A", 0, 1), ("A", 1, 3)],
        "O E-A": [("A", 1, 2)],
        "I-A I-B": [("A", 0, 1), ("B", 1, 2)],
        "B-A E-B": [("A", 0, 1), ("B", 1, 2)],
        "I-A O": [("A", 0, 1)],
    }
    for labels, entities in cases.items():
        assert group_entities(labels.split(), bioes) == entities, labels


def test_seqeval_published_example():
    # The README of seqeval: f1_score is 0.50.
    expected = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    found = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    assert entity_metrics(expected, found) == {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    # And [['B-NP', 'I-NP', 'O']] against [['I-NP', 'I-NP', 'O']] is right in its default mode.
    assert entity_metrics([["B-NP", "I-NP", "O"]], [["I-NP", "I-NP", "O"]])["f1"] == 1.0


@pytest.mark.parametrize(("name", "first"), [("bare", "LOC"), ("BIOES", "B-LOC"), ("BILOU", "B-LOC")])
def test_a_tagger_of_first_words_is_not_right(name, first):
    second = {"bare": "LOC", "BIOES": "E-LOC", "BILOU": "L-LOC"}[name]
    expected = [[first, second, "O"]] * 3
    found = [[first, "O", "O"]] * 3
    assert entity_metrics(expected, expected)["f1"] == 1.0
    assert entity_metrics(expected, found, recognize_scheme([first, second, "O"]))["f1"] == 0.0


def test_siblings_keep_the_spelling():
    assert LabelScheme("BIO").siblings("B-PER") == ["B-PER", "I-PER"]
    assert LabelScheme("BIO").siblings("I-PER") == ["I-PER"]
    assert LabelScheme("BIOES", "suffix", "_").siblings("PER_S") == ["PER_B", "PER_E", "PER_I", "PER_S"]
    assert LabelScheme("bare").siblings("PER") == ["PER"]
