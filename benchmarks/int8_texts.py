"""Texts for the int8 benchmarks, drawn from the test data.

    python benchmarks/int8_texts.py SHARED_DATA OUT.txt [--half tune]

Tweets, bank customers' questions, encyclopaedia sentences and paragraphs, stories, in English and Chinese,
from one token to more than 128. Every text belongs to one of two halves by its own hash: `--half tune` is for
trying things out, `--half test`, the default, for the figures.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import random
import re
from pathlib import Path
from xml.etree import ElementTree


def _sentences(path: Path) -> list[str]:
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]
    sentences = [line for text in paragraphs for line in re.split(r"(?<=[.!?])\s+|(?<=[。！？])", text)]
    return paragraphs + sentences


def _conll(path: Path, joined_by: str) -> list[str]:
    blocks = re.split(r"\n\s*\n", path.read_text(encoding="utf-8"))
    # Weibo's tokens are a character and a digit that says its place in the word.
    cut = 1 if not joined_by else None
    return [
        joined_by.join(line.split("\t")[0][:cut] for line in block.splitlines() if line.strip())
        for block in blocks
    ]


def sources(data: Path) -> dict[str, list[str]]:
    """All texts by source."""
    with (data / "cls/banking77/train.csv").open(encoding="utf-8", newline="") as file:
        banking = [row["text"] for row in csv.DictReader(file)]
    copa = ElementTree.parse(data / "mc/copa/copa-dev.xml").getroot()
    return {
        "banking77": banking,
        "copa": [str(node.text) for item in copa for node in item],
        "wnut17": _conll(data / "ner/wnut17/wnut17train.conll", " "),
        "weibo": _conll(data / "ner/weibo/weiboNER_2nd_conll.train", ""),
        "xquad.en": _sentences(data / "qa/xquad/xquad.en.dev.json"),
        "xquad.zh": _sentences(data / "qa/xquad/xquad.zh.dev.json"),
    }


def sample(texts: list[str], count: int, half: str, rng: random.Random) -> list[str]:
    """`count` texts of one half, one from each of `count` equal parts of the texts sorted by length."""
    lines = {" ".join(text.split()) for text in texts}
    parity = {"tune": 0, "test": 1}[half]
    mine = sorted(
        (line for line in lines if line and hashlib.sha256(line.encode()).digest()[0] % 2 == parity),
        key=lambda line: (len(line), line),
    )
    bounds = [round(index * len(mine) / count) for index in range(count + 1)]
    return [mine[rng.randrange(low, high)] for low, high in itertools.pairwise(bounds)]


def main() -> None:
    """Write one text per line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--half", choices=("tune", "test"), default="test")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    rng = random.Random(arguments.seed)
    found = sources(arguments.data)
    share, rest = divmod(arguments.count, len(found))
    chosen = []
    for index, name in enumerate(sorted(found)):
        chosen += sample(found[name], share + (index < rest), arguments.half, rng)
    rng.shuffle(chosen)
    arguments.out.write_text("\n".join(chosen) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
