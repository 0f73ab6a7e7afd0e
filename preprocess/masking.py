"""Masked-language-model inputs inside a graph (Devlin et al., "BERT", NAACL 2019, section 3.1)."""

from __future__ import annotations

import re
from typing import Any

import tensorflow as tf

from tfbert_npu.preprocess.vocabulary import SUFFIX_INDICATOR, Vocabulary

_SPECIAL = re.compile(r"\[(PAD|UNK|CLS|SEP|MASK|unused\d+)\]")


class TokenMasker:
    """Hides some word pieces of BERT's inputs and says which.

    Of the pieces of each row `mask_rate` are chosen, at least one and at most `max_predictions`; never a
    special token or padding. Of the chosen, `mask_token_rate` become `[MASK]`, `random_token_rate` a
    random ordinary piece, and the rest stay as they are.

    A masker has no state: equal inputs and seeds give equal outputs, on any device.

    Args:
        vocabulary: The word pieces; it must have `[MASK]`.
        mask_rate: Share of a row's pieces to choose.
        max_predictions: P, the most pieces to choose in a row, and the width of the outputs.
        whole_words: Choose all pieces of a word or none. Words come in random order, each taken unless it
            would exceed the number to choose, as in Google's create_pretraining_data.py.
        mask_token_rate: Share of the chosen that become `[MASK]`.
        random_token_rate: Share of the chosen that become a random piece.

    Raises:
        ValueError: A rate is outside 0 to 1, or `max_predictions` is not positive.
        VocabularyError: The vocabulary has no `[MASK]`.

    Example:
        >>> from tfbert_npu import BertTokenizer, TokenMasker, Vocabulary
        >>> vocabulary = Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "##s"))
        >>> inputs = BertTokenizer(vocabulary)(["a cat"], seq_length=4)
        >>> masker = TokenMasker(vocabulary, max_predictions=1, mask_token_rate=1.0, random_token_rate=0.0)
        >>> masked = masker(inputs, seed=(1, 2))
        >>> int((masked["input_word_ids"].numpy() == vocabulary.mask_id).sum())
        1
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        mask_rate: float = 0.15,
        max_predictions: int = 20,
        whole_words: bool = False,
        mask_token_rate: float = 0.8,
        random_token_rate: float = 0.1,
    ):
        rates = {
            "mask_rate": mask_rate,
            "mask_token_rate": mask_token_rate,
            "random_token_rate": random_token_rate,
            "mask_token_rate + random_token_rate": mask_token_rate + random_token_rate,
        }
        for name, rate in rates.items():
            if not 0 <= rate <= 1 + 1e-9:
                raise ValueError(f"{name}={rate} must be between 0 and 1")
        if max_predictions < 1:
            raise ValueError(f"max_predictions={max_predictions} must be at least 1")
        self.mask_rate = mask_rate
        self.max_predictions = max_predictions
        self.whole_words = whole_words
        self.mask_token_rate = mask_token_rate
        self.random_token_rate = random_token_rate
        self._mask_id = vocabulary.mask_id
        special = [_SPECIAL.fullmatch(token) is not None for token in vocabulary.tokens]
        with tf.init_scope():
            self._special = tf.constant(special)
            self._ordinary_ids = tf.constant(
                [i for i, is_special in enumerate(special) if not is_special], tf.int32
            )
            self._continues = tf.constant([token.startswith(SUFFIX_INDICATOR) for token in vocabulary.tokens])
        if all(special):
            raise ValueError("the vocabulary holds special tokens only; there is nothing to mask")

    def __call__(self, inputs: dict[str, tf.Tensor], seed: Any) -> dict[str, tf.Tensor]:
        """Mask a batch.

        Args:
            inputs: At least `input_word_ids` and `input_mask`, int32 [B, L].
            seed: Two integers, [2].

        Returns:
            The inputs with other `input_word_ids`, and `masked_lm_positions` and `masked_lm_ids`, int32
            [B, P], and `masked_lm_weights`, float32 [B, P]. Positions ascend; unused ones are zero, and so
            are their weights.
        """
        ids = inputs["input_word_ids"]
        choose_seed, kind_seed, piece_seed = tf.unstack(tf.random.split(seed, 3, alg="philox"))
        candidates = (inputs["input_mask"] != 0) & ~tf.gather(self._special, ids)
        chosen = self._choose(ids, candidates, choose_seed)

        positions, weights = self._positions(chosen)
        original = tf.gather(ids, positions, batch_dims=1)
        kind = tf.random.stateless_uniform(tf.shape(ids), kind_seed, alg="philox")
        ordinary = tf.random.stateless_uniform(
            tf.shape(ids), piece_seed, 0, tf.size(self._ordinary_ids), tf.int32, alg="philox"
        )
        changed = tf.where(
            kind < self.mask_token_rate,
            self._mask_id,
            tf.where(
                kind < self.mask_token_rate + self.random_token_rate,
                tf.gather(self._ordinary_ids, ordinary),
                ids,
            ),
        )
        return {
            **inputs,
            "input_word_ids": tf.where(chosen, changed, ids),
            "masked_lm_positions": positions,
            "masked_lm_ids": original * tf.cast(weights, tf.int32),
            "masked_lm_weights": weights,
        }

    def apply_to(self, dataset: tf.data.Dataset, seed: int, reshuffle: bool = True) -> tf.data.Dataset:
        """Mask every batch of a dataset, each with a seed of its own.

        Args:
            dataset: Batches of BERT's inputs.
            seed: Makes the masks reproducible.
            reshuffle: Mask differently each time the dataset is read from the start, as RoBERTa does.
        """
        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=reshuffle).batch(
            2, drop_remainder=True
        )
        return tf.data.Dataset.zip(dataset, seeds).map(self, num_parallel_calls=tf.data.AUTOTUNE)

    def _choose(self, ids: tf.Tensor, candidates: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The pieces to hide: bool [B, L]."""
        counts = tf.reduce_sum(tf.cast(candidates, tf.int32), 1)
        wanted = tf.cast(tf.round(tf.cast(counts, tf.float32) * self.mask_rate), tf.int32)
        least = 1 if self.mask_rate > 0 else 0
        wanted = tf.minimum(tf.maximum(wanted, least), tf.minimum(counts, self.max_predictions))

        starts = candidates
        if self.whole_words:
            follows = tf.pad(candidates[:, :-1], [[0, 0], [1, 0]])
            starts = candidates & ~(tf.gather(self._continues, ids) & follows)
        words = tf.maximum(tf.cumsum(tf.cast(starts, tf.int32), axis=1) - 1, 0)
        rows, width = tf.shape(ids)[0], tf.shape(ids)[1]
        slots = words + tf.range(rows)[:, None] * width
        sizes = tf.math.unsorted_segment_sum(
            tf.reshape(tf.cast(candidates, tf.int32), [-1]), tf.reshape(slots, [-1]), rows * width
        )
        sizes = tf.reshape(sizes, [rows, width])
        order_keys = tf.random.stateless_uniform([rows, width], seed, alg="philox")
        order = tf.argsort(tf.where(sizes > 0, order_keys, 2.0), axis=1)
        ordered_sizes = tf.gather(sizes, order, batch_dims=1)
        taken = self._take(ordered_sizes, wanted)
        taken = tf.gather(taken, tf.argsort(order, axis=1), batch_dims=1)
        return candidates & tf.gather(taken, words, batch_dims=1)

    def _take(self, sizes: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
        """Which words, in this order, to take for `wanted` pieces: bool [B, L]."""
        if not self.whole_words:
            return (tf.range(tf.shape(sizes)[1])[None, :] < wanted[:, None]) & (sizes > 0)
        total = tf.scan(
            lambda total, size: tf.where(total + size <= wanted, total + size, total),
            tf.transpose(sizes),
            tf.zeros_like(wanted),
        )
        before = tf.concat([tf.zeros_like(total[:1]), total[:-1]], 0)
        return tf.transpose(total > before)

    def _positions(self, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Positions of the chosen pieces, int32 [B, P], and which are in use, float32 [B, P]."""
        width = tf.shape(chosen)[1]
        # Unchosen positions sort behind all others.
        keys = tf.where(chosen, tf.range(width)[None, :], width)
        keys = tf.pad(
            tf.sort(keys, axis=1)[:, : self.max_predictions],
            [[0, 0], [0, tf.maximum(self.max_predictions - width, 0)]],
            constant_values=width,
        )
        used = keys < width
        positions = tf.ensure_shape(tf.where(used, keys, 0), [None, self.max_predictions])
        return positions, tf.ensure_shape(tf.cast(used, tf.float32), [None, self.max_predictions])
