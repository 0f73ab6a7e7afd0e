"""What guessing by frequency alone reaches on held-out text, to hold a masked language model against.

    python recipes/unigram_baseline.py MODEL_DIRECTORY TRAIN_TEXT DEV_TEXT

prints the perplexity of the pieces' frequencies in the training text (one added to each) and the accuracy of
always guessing the most frequent piece.
"""

import math
import sys
from collections import Counter
from pathlib import Path

from tfbert_npu import BertTokenizer


def main(model: str, train: str, dev: str) -> None:
    tokenizer = BertTokenizer.from_pretrained(model)

    def count(path: str) -> Counter[int]:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        return Counter(piece for line in lines for piece in tokenizer.encode(line))

    seen, wanted = count(train), count(dev)
    total = seen.total() + len(tokenizer.vocabulary)
    loss = -sum(n * math.log((seen[piece] + 1) / total) for piece, n in wanted.items()) / wanted.total()
    guess = seen.most_common(1)[0][0]
    print(f"perplexity {math.exp(loss):.0f}  accuracy {wanted[guess] / wanted.total():.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
