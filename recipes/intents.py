"""Few texts with their intents as pairs, and how often a text's nearest neighbor has its intent.

    python recipes/intents.py write ROWS.csv OUT_DIRECTORY [SEED]
    python recipes/intents.py recall TEST.csv MODEL [MODEL ...]

`write` draws 8 texts of each category to train on and 20 others to test: pairs.csv (anchor, positive: a text
and the name of its category), few.csv and test.csv (text, category). `recall` prints recall@1 among the test
texts, with the 95 % bootstrap interval, and the difference to the first model.
"""

import csv
import random
import sys
from pathlib import Path

import numpy as np

from tfbert_npu import SentenceEncoder
from tfbert_npu.tasks.evaluation import Prediction, difference, score

TRAIN, TEST = 8, 20


def read(path: str) -> list[tuple[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return [(row["text"].strip(), row["category"]) for row in csv.DictReader(file)]


def write(rows: str, out: str, seed: str = "0") -> None:
    categories: dict[str, list[str]] = {}
    for text, category in read(rows):
        categories.setdefault(category, []).append(text)
    generator = random.Random(int(seed))
    pairs, few, test = [], [], []
    for category, texts in categories.items():
        chosen = generator.sample(sorted(set(texts)), min(TRAIN + TEST, len(set(texts))))
        train, held_out = chosen[:TRAIN], chosen[TRAIN:]
        pairs += [(text, category.replace("_", " ")) for text in train]
        few += [(text, category) for text in train]
        test += [(text, category) for text in held_out]
    Path(out).mkdir(parents=True, exist_ok=True)
    for name, header, lines in (
        ("pairs", ("anchor", "positive"), pairs),
        ("few", ("text", "category"), few),
        ("test", ("text", "category"), test),
    ):
        with (Path(out) / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *lines])


def recall(test: str, *models: str) -> None:
    texts, categories = zip(*read(test), strict=True)
    first: list[Prediction] | None = None
    for model in models:
        encoder = SentenceEncoder.from_pretrained(model)
        vectors = encoder.encode(texts)
        cosines = encoder.similarity(vectors, vectors)
        np.fill_diagonal(cosines, -1)
        nearest = cosines.argmax(axis=1)
        found = [Prediction(own, categories[place]) for own, place in zip(categories, nearest, strict=True)]
        result = score("classify", found)
        low, high = result.interval
        line = f"{model}: recall@1 {result.metrics['accuracy']:.4f} (95 %: {low:.4f} to {high:.4f})"
        if first is not None:
            change, (low, high) = difference("classify", first, found)
            line += f", difference {change:+.4f} (95 %: {low:+.4f} to {high:+.4f})"
        print(line, flush=True)
        first = first or found


if __name__ == "__main__":
    {"write": write, "recall": recall}[sys.argv[1]](*sys.argv[2:])
