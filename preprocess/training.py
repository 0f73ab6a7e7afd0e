"""Training of a WordPiece vocabulary, by the `tokenizers` library on text normalized as BERT's is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.trainers import WordPieceTrainer

from tfbert_npu.preprocess.normalizer import BertNormalizer
from tfbert_npu.preprocess.options import TextOptions
from tfbert_npu.preprocess.vocabulary import SUFFIX_INDICATOR, Vocabulary

_REPEATED_AT_ONCE = 10_000

# In the order of published vocabularies, [PAD] first.
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_vocabulary(
    texts: Iterable[str],
    *,
    size: int = 30522,
    options: TextOptions | None = None,
    min_frequency: int = 2,
    alphabet_size: int = 1000,
) -> Vocabulary:
    """Learn word pieces from texts.

    Words are cut exactly as `BertTokenizer` cuts them, so that every piece can be met. Equal texts give
    equal vocabularies. Memory grows with the number of different words.

    Args:
        texts: Any number of texts; they are read once.
        size: Number of pieces to learn, the five special tokens included. Little text gives fewer.
        options: Dialect and switches; the dialect must be `"bert"`.
        min_frequency: Join two pieces only if they stand together this often.
        alphabet_size: Number of single characters to keep, the most frequent first; words with others
            are left out, and become `[UNK]`.

    Raises:
        ValueError: An argument is out of range, or the texts hold no words.
    """
    options = options or TextOptions()
    if options.dialect != "bert":
        raise ValueError("train_vocabulary cuts words in dialect 'bert' only")
    for name, value, least in (
        ("size", size, len(SPECIAL_TOKENS) + 1),
        ("min_frequency", min_frequency, 1),
        ("alphabet_size", alphabet_size, 1),
    ):
        if value < least:
            raise ValueError(f"{name}={value} is too small; it must be at least {least}")
    normalizer = BertNormalizer(options)
    counts = Counter(word for text in texts for word in normalizer.words(text))
    alphabet = _alphabet(counts, alphabet_size)
    counts = Counter({word: count for word, count in counts.items() if alphabet.issuperset(word)})
    if not counts:
        raise ValueError("the texts hold no words; a vocabulary needs some")
    inside = {char for word in counts for char in word[1:]}
    first = [*SPECIAL_TOKENS, *sorted(alphabet), *(SUFFIX_INDICATOR + char for char in sorted(inside))]
    if len(first) > size:
        raise ValueError(
            f"size={size} is too small for the {len(first)} special tokens and single characters; "
            "raise it or lower alphabet_size"
        )
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    trainer = WordPieceTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        # The trainer numbers characters in the order of a hash table, and breaks ties by number. Numbered
        # beforehand, equal texts give equal vocabularies.
        special_tokens=first,
        continuing_subword_prefix=SUFFIX_INDICATOR,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_repeated(counts), trainer)
    ids = tokenizer.get_vocab()
    return Vocabulary(tuple(sorted(ids, key=ids.__getitem__)))


def _alphabet(counts: Counter[str], size: int) -> set[str]:
    """The most frequent characters; of equally frequent ones the first in Unicode."""
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for char in word:
            characters[char] += count
    return set(sorted(characters, key=lambda char: (-characters[char], char))[:size])


def _repeated(counts: Counter[str]) -> Iterator[str]:
    for word, count in sorted(counts.items()):
        for start in range(0, count, _REPEATED_AT_ONCE):
            yield " ".join([word] * min(count - start, _REPEATED_AT_ONCE))
