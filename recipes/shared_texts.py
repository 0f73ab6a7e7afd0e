"""Plain text for pre-training from the test data: a sentence per line, an empty line between documents.

    python recipes/shared_texts.py en|zh|articles SHARED_DATA OUT_DIRECTORY

writes train.txt and dev.txt; `articles` are XQuAD's in English, each of them one document. A tenth of the
documents is held out, of the few articles a third; the test and dev files of the tasks that are fine-tuned
afterwards are not read.
"""

import csv
import json
import random
import re
import sys
from pathlib import Path


def squad_documents(path: Path) -> list[list[str]]:
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]
    return [[line for line in re.split(r"(?<=[.!?])\s+|(?<=[。！？])", text) if line] for text in paragraphs]


def squad_articles(path: Path) -> list[list[str]]:
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    texts = [" ".join(paragraph["context"] for paragraph in article["paragraphs"]) for article in articles]
    return [[line for line in re.split(r"(?<=[.!?])\s+", text) if line] for text in texts]


def conll_documents(path: Path, separator: str) -> list[list[str]]:
    sentences, words = [], []
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        if line.strip():
            # Weibo's tokens are a character and a digit that says its place in the word.
            words.append(line.split("\t")[0][0] if not separator else line.split("\t")[0])
        elif words:
            sentences.append([separator.join(words)])
            words = []
    return sentences


def main(language: str, data: Path, out: Path) -> None:
    if language == "articles":
        documents = squad_articles(data / "qa/xquad/xquad.en.dev.json")
    elif language == "en":
        documents = squad_documents(data / "qa/xquad/xquad.en.dev.json")
        documents += conll_documents(data / "ner/wnut17/wnut17train.conll", " ")
        with (data / "cls/banking77/train.csv").open(encoding="utf-8", newline="") as file:
            documents += [[row["text"].replace("\n", " ")] for row in csv.DictReader(file)]
    else:
        documents = squad_documents(data / "qa/xquad/xquad.zh.dev.json")
        documents += conll_documents(data / "ner/weibo/weiboNER_2nd_conll.train", "")
    random.Random(0).shuffle(documents)
    out.mkdir(parents=True, exist_ok=True)
    cut = len(documents) // (3 if language == "articles" else 10)
    for name, part in (("dev.txt", documents[:cut]), ("train.txt", documents[cut:])):
        (out / name).write_text("\n\n".join("\n".join(lines) for lines in part) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
