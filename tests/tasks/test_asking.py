"""The tasks: against transformers' own pipelines, with places in the text, and over any backend."""

import json

import numpy as np
import pytest
import tiny_bert
from click.testing import CliRunner

from tfbert_npu import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertPreprocessor,
)
from tfbert_npu.cli import cli
from tfbert_npu.tasks import answer, classify, fill_mask, masked_words, ner, running
from tfbert_npu.tasks.answers import question_windows
from tfbert_npu.train.fine_tuning import save_tokenizer

TOKENIZER = tiny_bert.tokenizer()
TEXTS = ["the cat sat in berlin.", "anna ran!", "who, the dog?"]


def saved(head, directory, **kwargs):
    model = head(tiny_bert.config(), **kwargs)
    rng = np.random.default_rng(0)
    model.build()
    for variable in model.trainable_variables:
        variable.assign_add(rng.normal(0, 0.3, variable.shape).astype(np.float32))
    model.save_pretrained(directory)
    save_tokenizer(TOKENIZER, directory, "bert", 64)
    return model


def pipeline(task, head, directory, **kwargs):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.BertTokenizerFast(str(directory / "vocab.txt"), do_lower_case=True)
    model = getattr(transformers, head).from_pretrained(directory)
    return transformers.pipeline(task, model=model, tokenizer=tokenizer, device="cpu", **kwargs)


def test_fill_mask_is_transformers(tmp_path):
    model = saved(BertForMaskedLM, tmp_path)
    texts = ["the [MASK] sat", "anna [MASK] in [MASK]."]
    ours = fill_mask(model, TOKENIZER, texts, top_k=3)
    assert [len(masks) for masks in ours] == [1, 2]
    theirs = pipeline("fill-mask", "BertForMaskedLM", tmp_path, top_k=3)
    expected = [[theirs(texts[0])], theirs(texts[1])]
    for masks, wanted_masks in zip(ours, expected, strict=True):
        for mask, wanted in zip(masks, wanted_masks, strict=True):
            for name in ("token", "token_str", "sequence"):
                assert [getattr(one, name) for one in mask] == [one[name] for one in wanted]
            assert [one.score for one in mask] == pytest.approx([one["score"] for one in wanted], abs=1e-5)


def test_fill_mask_without_a_mask(tmp_path):
    model = BertForMaskedLM(tiny_bert.config())
    with pytest.raises(ValueError, match=r"texts\[1\] has no \[MASK\] in it"):
        fill_mask(model, TOKENIZER, ["a [MASK]", "b"])
    with pytest.raises(ValueError, match="within its first 6 tokens"):
        fill_mask(model, TOKENIZER, ["a b c d e f g [MASK]"], seq_length=8)


def test_classify_is_transformers(tmp_path):
    model = saved(BertForSequenceClassification, tmp_path, labels=["x", "y", "z"])
    ours = classify(model, TOKENIZER, TEXTS)
    theirs = pipeline("text-classification", "BertForSequenceClassification", tmp_path, top_k=None)(TEXTS)
    for found, wanted in zip(ours, theirs, strict=True):
        assert [one.label for one in found] == [one["label"] for one in wanted]
        assert [one.score for one in found] == pytest.approx([one["score"] for one in wanted], abs=1e-5)


def test_classify_kinds(tmp_path):
    model = saved(BertForSequenceClassification, tmp_path, labels=["x", "y"])
    logits = {one.label: one.score for one in classify(model, TOKENIZER, ["a"], problem_type="regression")[0]}
    several = classify(model, TOKENIZER, ["a"], problem_type="multi_label_classification")[0]
    for one in several:
        assert one.score == pytest.approx(1 / (1 + np.exp(-logits[one.label])), abs=1e-6)
    pairs = classify(model, TOKENIZER, ["a", "b"], ["c", "d"])
    assert pairs != classify(model, TOKENIZER, ["a", "b"])
    with pytest.raises(ValueError, match="scores 2 labels but 3 are named"):
        classify(model, TOKENIZER, ["a"], labels=["x", "y", "z"])


def test_any_callable_is_a_model(tmp_path):
    model = saved(BertForSequenceClassification, tmp_path, labels=["x", "y"])

    def session(inputs):
        assert {array.dtype for array in inputs.values()} == {np.dtype(np.int32)}
        return {"logits": np.asarray(model(inputs))}

    expected = classify(model, TOKENIZER, TEXTS)

    class Backend:
        run = staticmethod(session)

    for other in (session, Backend()):
        found = classify(other, TOKENIZER, TEXTS, labels=["x", "y"], batch_size=2)
        for a, b in zip(expected, found, strict=True):
            assert [one.score for one in a] == pytest.approx([one.score for one in b], abs=1e-5)
    with pytest.raises(ValueError, match="carries no label names"):
        classify(session, TOKENIZER, TEXTS)


def test_a_preprocessor_will_do(tmp_path):
    model = saved(BertForSequenceClassification, tmp_path, labels=["x", "y"])
    preprocessor = BertPreprocessor(TOKENIZER.vocabulary, TOKENIZER.options)
    assert classify(model, preprocessor, TEXTS) == classify(model, TOKENIZER, TEXTS)
    with pytest.raises(ValueError, match="must be a BertPreprocessor or a BertTokenizer, not str"):
        classify(model, "bert", TEXTS)


class Oracle:
    """A token classifier that knows which ids begin or continue a place."""

    def __init__(self, tags, names):
        self.tags, self.names = tags, names

    def __call__(self, inputs):
        ids = inputs["input_word_ids"]
        logits = np.zeros((*ids.shape, len(self.names)), np.float32)
        for row, column in np.ndindex(ids.shape):
            token = TOKENIZER.vocabulary.tokens[ids[row, column]]
            logits[row, column, self.names.index(self.tags.get(token, "O"))] = 9
        return logits


def test_entities_have_places():
    oracle = Oracle({"anna": "B-PER", "berlin": "B-LOC", "paris": "I-LOC"}, ["O", "B-PER", "B-LOC", "I-LOC"])
    text = "The cat: Anna sat in Berlin-Paris; ANNA ran."
    (found,) = ner(oracle, TOKENIZER, [text], labels=oracle.names)
    assert [(one.label, one.text) for one in found] == [
        ("PER", "Anna"), ("LOC", "Berlin"), ("LOC", "Paris"), ("PER", "ANNA"),
    ]  # fmt: skip
    assert all(text[one.start : one.end] == one.text for one in found)
    (words,) = ner(oracle, TOKENIZER, [["Anna", "in", "Berlin", "Paris"]], labels=oracle.names)
    assert [(one.label, one.text, one.start, one.end) for one in words] == [
        ("PER", "Anna", 0, 1),
        ("LOC", "Berlin Paris", 2, 4),
    ]
    assert words[0].score == pytest.approx(1, abs=1e-3)


def test_long_texts_are_read_in_windows():
    oracle = Oracle({"anna": "B-PER"}, ["O", "B-PER"])
    text = "the dog sat. " * 60 + "Anna ran. " + "a cat " * 40 + "Anna"
    (found,) = ner(oracle, TOKENIZER, [text], labels=oracle.names, seq_length=32)
    assert [one.start for one in found] == [
        index for index in range(len(text)) if text.startswith("Anna", index)
    ]


class Finder:
    """A question answerer that marks a word."""

    def __init__(self, start, end):
        self.start, self.end = (TOKENIZER.vocabulary.ids[word] for word in (start, end))

    def __call__(self, inputs):
        ids, context = inputs["input_word_ids"], inputs["input_type_ids"] == 1
        low = np.where(ids == TOKENIZER.vocabulary.cls_id, 0.0, -1.0)
        return {
            "start_logits": np.where(context & (ids == self.start), 8.0, low),
            "end_logits": np.where(context & (ids == self.end), 8.0, low),
        }


LONG = "a cat sat. " * 50 + "It was the Dog, who ran. " + "a cat sat. " * 30


def test_answers_are_found_in_long_texts():
    (best,) = answer(
        Finder("the", "dog"), TOKENIZER, ["who sat in the dog?"], [LONG], seq_length=48, stride=16, top_k=3
    )
    assert best[0].text == LONG[best[0].start : best[0].end] == "the Dog"
    assert best[0].score > 0.9
    assert len({(one.start, one.end) for one in best}) == 3
    assert best[0].score >= best[1].score >= best[2].score
    assert len(question_windows(TOKENIZER, "who?", LONG, seq_length=48, stride=16)) > 5


def test_no_answer():
    finder = Finder("paris", "paris")
    (found,) = answer(finder, TOKENIZER, ["who?"], ["the cat sat"], no_answer=True)
    assert (found[0].text, found[0].start, found[0].end) == ("", 0, 0)
    (found,) = answer(finder, TOKENIZER, ["who?"], ["the cat sat in paris"], no_answer=True)
    assert found[0].text == "paris"
    (found,) = answer(
        finder, TOKENIZER, ["who?"], ["the cat sat in paris"], no_answer=True, no_answer_threshold=-20
    )
    assert found[0].text == ""
    (found,) = answer(finder, TOKENIZER, ["who?"], [" "])
    assert [one.text for one in found] == [""]
    with pytest.raises(ValueError, match="2 questions but 1 contexts"):
        answer(finder, TOKENIZER, ["a", "b"], ["c"])


def test_an_answer_does_not_end_before_it_starts():
    (found,) = answer(Finder("dog", "the"), TOKENIZER, ["?"], ["the cat, dog"], top_k=50)
    assert all(one.start < one.end for one in found)
    (found,) = answer(Finder("the", "dog"), TOKENIZER, ["?"], ["the cat sat in a dog"], max_answer_pieces=3)
    assert len(TOKENIZER.encode(found[0].text)) <= 3


def test_question_answering_is_transformers(tmp_path):
    model = saved(BertForQuestionAnswering, tmp_path)
    theirs = pipeline("question-answering", "BertForQuestionAnswering", tmp_path) if _has_qa() else None
    if theirs is None:
        pytest.skip("this transformers has no question-answering pipeline")
    wanted = theirs(question="who ran?", context="the cat sat. anna ran in paris", max_answer_len=30)
    (found,) = answer(model, TOKENIZER, ["who ran?"], ["the cat sat. anna ran in paris"])
    assert (found[0].start, found[0].end) == (wanted["start"], wanted["end"])


def _has_qa():
    transformers = pytest.importorskip("transformers")
    return hasattr(transformers, "QuestionAnsweringPipeline")


def run(*arguments, **kwargs):
    result = CliRunner().invoke(cli, [str(one) for one in arguments], catch_exceptions=False, **kwargs)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_commands(tmp_path):
    saved(BertForMaskedLM, tmp_path / "mlm")
    lines = run("fill-mask", tmp_path / "mlm", "--json", "--top-k", 2, input="the [MASK]\n").splitlines()
    assert len(json.loads(lines[0])["masks"][0]) == 2
    saved(BertForSequenceClassification, tmp_path / "class", labels=["x", "y"])
    output = run("classify", tmp_path / "class", "--json", input="the cat\nanna\n").splitlines()
    assert [set(json.loads(line)) for line in output] == [{"text", "labels"}] * 2
    saved(BertForTokenClassification, tmp_path / "ner", labels=["O", "B-X", "I-X"])
    (line,) = run("ner", tmp_path / "ner", "--json", input="anna ran\n").splitlines()
    for entity in json.loads(line)["entities"]:
        assert "anna ran"[entity["start"] : entity["end"]] == entity["word"]
    saved(BertForQuestionAnswering, tmp_path / "qa")
    (tmp_path / "context.txt").write_text("the cat sat in berlin. anna ran.")
    output = run("qa", tmp_path / "qa", "--question", "who?", "--context", tmp_path / "context.txt", "--json")
    found = json.loads(output)
    assert "the cat sat in berlin. anna ran."[found["start"] : found["end"]] == found["answer"]


def test_one_text_is_a_batch_of_one(tmp_path):
    """A string is a sequence too, of its characters."""
    model = saved(BertForSequenceClassification, tmp_path, labels=["a", "b"])
    assert classify(model, TOKENIZER, TEXTS[0]) == classify(model, TOKENIZER, [TEXTS[0]])
    assert classify(model, TOKENIZER, TEXTS[0], TEXTS[1]) == classify(model, TOKENIZER, TEXTS[:1], TEXTS[1:2])
    lm = BertForMaskedLM(tiny_bert.config())
    assert fill_mask(lm, TOKENIZER, "the [MASK]") == fill_mask(lm, TOKENIZER, ["the [MASK]"])
    tagger = BertForTokenClassification(tiny_bert.config(), labels=["O", "B-X", "I-X"])
    assert ner(tagger, TOKENIZER, TEXTS[0]) == ner(tagger, TOKENIZER, [TEXTS[0]])
    reader = BertForQuestionAnswering(tiny_bert.config())
    one = answer(reader, TOKENIZER, "who sat?", TEXTS[0], seq_length=48, stride=8)
    assert one == answer(reader, TOKENIZER, ["who sat?"], TEXTS[:1], seq_length=48, stride=8)


def test_the_longest_compiled_shape_is_the_default_length():
    """An artifact of 32 tokens takes no row of 128."""
    widths = []

    class Compiled:
        shapes = ((1, 16), (1, 32))

        def __call__(self, inputs):
            rows, width = inputs["input_word_ids"].shape
            widths.append(width)
            spans = np.zeros((rows, width), np.float32)
            return {"logits": np.zeros((rows, 2), np.float32), "start_logits": spans, "end_logits": spans}

    text = "the cat sat in berlin " * 20
    classify(Compiled(), TOKENIZER, [text], labels=["a", "b"])
    answer(Compiled(), TOKENIZER, ["who?"], [text])
    assert max(widths) == 32
    classify(Compiled(), TOKENIZER, [text], labels=["a", "b"], seq_length=16)
    assert widths[-1] == 16


def test_fill_mask_keeps_the_scores_of_masks_only():
    kept = []

    def model(inputs):
        rows, width = inputs["input_word_ids"].shape
        return {"logits": np.random.default_rng(0).normal(size=(rows, width, len(TOKENIZER.vocabulary)))}

    def keep(row, outputs):
        kept.append(outputs["logits"].base is None and outputs["logits"].shape[0])
        return outputs

    original = running.run

    def noted(*args, **options):
        inner = options["keep"]
        return original(*args, **{**options, "keep": lambda row, outputs: keep(row, inner(row, outputs))})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masked_words, "run", noted)
        fill_mask(model, TOKENIZER, ["the [MASK] sat", "[MASK] [MASK]"])
    assert sorted(kept) == [1, 2]
