"""`SentenceEncoder`: texts to the sentence vectors that the model's authors meant."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfbert_npu.checkpoints.sentence_options import (
    Dense,
    PoolingMode,
    SentenceOptions,
    check_width,
    read_sentence_options,
)
from tfbert_npu.errors import TaskError
from tfbert_npu.preprocess import BertTokenizer
from tfbert_npu.tasks.loading import Backend, TaskModel, load
from tfbert_npu.tasks.running import as_function, check_command, scores_of

TextOrIds = str | Sequence[int]
Arrays = Mapping[str, np.ndarray]

_LOG = logging.getLogger(__name__)
_LONGEST_DEFAULT = 512
_LENGTH_MULTIPLE = 16
READY = "sentence_embedding"
"""An output that is the vector already, in files that others compiled."""
_BATCHES_PER_WINDOW = 32


class SentenceEncoder:
    """Texts to sentence vectors.

    Pooling, normalization, Dense layers, prompts and the maximum length come from the model's
    sentence-transformers files (https://sbert.net); the vectors are those of `SentenceTransformer.encode`. A
    model without such files gets the mean of its hidden states, and a log line says so.

    Args:
        encoder: A `BertEncoder`, a `load_npu` model, or a function from the three inputs, int32 [B, S], to a
            dict with `sequence_output`, float32 [B, S, H].
        tokenizer: Its tokenizer.
        options: How to pool.
        hidden_size: H; by default what the encoder's config says.

    Example:
        >>> from tfbert_npu import BertConfig, BertEncoder, BertTokenizer, SentenceEncoder, Vocabulary
        >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> vocabulary = Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "##s"))
        >>> model = BertEncoder(BertConfig(vocab_size=8, **sizes))
        >>> encoder = SentenceEncoder(model, BertTokenizer(vocabulary))
        >>> vectors = encoder.encode(["a cat", "cats"])
        >>> vectors.shape, encoder.similarity(vectors, vectors).shape
        ((2, 8), (2, 2))
    """

    def __init__(
        self,
        encoder: Any,
        tokenizer: BertTokenizer,
        options: SentenceOptions | None = None,
        *,
        hidden_size: int | None = None,
        origin: object = "this model",
    ) -> None:
        self.tokenizer = tokenizer
        self.options = options or SentenceOptions()
        config = getattr(encoder, "config", None)
        if hidden_size is None:
            if config is None:
                raise ValueError("the encoder has no config; pass hidden_size=")
            hidden_size = int(config.hidden_size)
        self.dimensions = check_width(self.options, hidden_size, origin)
        if not self.options.stated:
            _LOG.warning("%s has no sentence-transformers files; its vectors are plain means", origin)
        longest = getattr(config, "max_position_embeddings", _LONGEST_DEFAULT)
        if shapes := getattr(encoder, "shapes", ()):  # a compiled model takes no more than its longest
            longest = max(length for _, length in shapes)
        self.longest = int(longest)
        self.max_seq_length = min(self.options.max_seq_length or longest, longest)
        # A packed row holds many texts; few of them would leave cores idle and rows half empty.
        self._calls_together = 8 if getattr(encoder, "packed", False) else 1
        npu = getattr(encoder, "npu", None) or encoder
        self.outputs: tuple[str, ...] | None = getattr(npu, "output_names", None)
        """What a compiled model gives; None: all that an encoder gives."""
        self.run: Callable[[Arrays], Arrays] = as_function(encoder)
        self._close = getattr(encoder, "close", None)

    @classmethod
    def from_pretrained(
        cls,
        directory_or_repo_or_artifact: str | os.PathLike[str],
        backend: Backend = "auto",
        **hub_options: Any,
    ) -> SentenceEncoder:
        """Load a model.

        Args:
            directory_or_repo_or_artifact: A checkpoint, a hub repository, or what an exporter wrote.
            backend: What computes: `"tf"`: TensorFlow, for a checkpoint. `"onnx"`, `"openvino"`: that engine;
                a checkpoint is converted once. `"rknn"`, `"simulator"`: see `load_npu`, for an artifact.
                `"auto"`: TensorFlow for a checkpoint; for an artifact the NPU, else the CPU.
            **hub_options: `revision`, `token`, `cache_dir`, `local_files_only`; also `cores`, `threads` and
                `file`.

        Raises:
            FileNotFoundError: No such model.
            CheckpointError: The sentence-transformers files cannot be followed.
            ValueError: The backend cannot run such a model.
        """
        return cls.of(load(directory_or_repo_or_artifact, "embed", backend, **hub_options))

    @classmethod
    def of(cls, model: TaskModel) -> SentenceEncoder:
        """The sentence encoder of a loaded model.

        Raises:
            TaskError: The model has a head for something else.
            CheckpointError: The sentence-transformers files cannot be followed.
        """
        check_command(model, "embed")
        return cls(model, model.tokenizer, read_sentence_options(model.folder), origin=model.name)

    def check_outputs(self, needed: str | None = None) -> None:
        """Make sure, before any text is read, that the model gives what a vector is made of.

        Args:
            needed: The output; by default hidden states, or a vector that the model pools itself.

        Raises:
            TaskError: It does not.
        """
        given = self.outputs
        if given is None or (needed or "sequence_output") in given:
            return
        if needed is None and READY in given:
            return
        raise TaskError(
            f"the model gives {', '.join(given)} and no {needed or 'sequence_output'}",
            f"export it with that output{', or choose another --pooling' if needed else ''}",
        )

    def encode(
        self,
        texts: str | Sequence[TextOrIds],
        prompt_name: str | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        batch_size: int = 32,
    ) -> np.ndarray:
        """Embed texts.

        Args:
            texts: The texts; a single one is a batch of one. A text may be the ids of its word pieces,
                without [CLS] and [SEP]; it gets no prompt then.
            prompt_name: The prompt to put before each; by default the model's default prompt, if any.
            normalize: Scale the vectors to length 1; by default what the model does.
            dimensions: Keep that many numbers of each vector, scaled to length 1 again where the vectors were
                (Kusupati et al. 2022, Matryoshka); by default the model's own.
            batch_size: Texts per call of the encoder.

        Returns:
            float32 [N, dimensions], in the order of the texts.

        Raises:
            ValueError: The prompt is unknown, `dimensions` is more than the vectors have, or an id is not in
                the vocabulary.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        chunks = list(self.stream(texts, prompt_name, normalize, dimensions, batch_size))
        if not chunks:
            return np.zeros((0, dimensions or self.options.truncate_dim or self.dimensions), np.float32)
        return np.concatenate(chunks)

    def stream(
        self,
        texts: Iterable[TextOrIds],
        prompt_name: str | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        batch_size: int = 32,
    ) -> Iterator[np.ndarray]:
        """`encode` for any number of texts, of which a window is held at a time.

        Yields:
            float32 [n, dimensions] for the next n texts.
        """
        if dimensions is not None and not 1 <= dimensions <= self.dimensions:
            raise ValueError(f"dimensions must be between 1 and {self.dimensions}, got {dimensions}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        prompt = self._prompt(prompt_name)
        # The last special token follows the text, not the prompt.
        skipped = 0 if self.options.include_prompt or not prompt else self.count_tokens([prompt]) - 1
        iterator = iter(texts)
        while window := list(itertools.islice(iterator, batch_size * _BATCHES_PER_WINDOW)):
            prompted = [prompt + text if isinstance(text, str) else text for text in window]
            vectors = self._window(prompted, batch_size, skipped)
            yield self._finish(vectors, normalize, dimensions)

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Cosine of each row of `a` [N, H] and each of `b` [M, H]: float32 [N, M]."""
        return unit(np.asarray(a, np.float32)) @ unit(np.asarray(b, np.float32)).T

    def close(self) -> None:
        """Give back what the backend holds."""
        if self._close is not None:
            self._close()

    def __enter__(self) -> SentenceEncoder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _prompt(self, name: str | None) -> str:
        name = self.options.default_prompt_name if name is None else name
        if name is None:
            return ""
        if name not in self.options.prompts:
            raise ValueError(
                f"the model has no prompt {name!r}; known are {', '.join(self.options.prompts) or 'none'}"
            )
        return self.options.prompts[name]

    def count_tokens(self, texts: Sequence[TextOrIds]) -> int:
        """Tokens that the encoder reads for these texts, special tokens included, prompts not."""
        return int(self._inputs(texts)["input_mask"].sum())

    def _inputs(self, texts: Sequence[TextOrIds]) -> Arrays:
        strings = [text for text in texts if isinstance(text, str)]
        if len(strings) == len(texts):
            lowered = [text.lower() for text in strings] if self.options.lower_case else strings
            return self.tokenizer(lowered, seq_length=self.max_seq_length)
        vocabulary = self.tokenizer.vocabulary
        inputs = {
            name: np.zeros((len(texts), self.max_seq_length), np.int32)
            for name in ("input_word_ids", "input_mask", "input_type_ids")
        }
        inputs["input_word_ids"][:] = vocabulary.pad_id
        for row, text in enumerate(texts):
            ids = self.tokenizer.encode(text) if isinstance(text, str) else list(text)
            if any(not 0 <= one < len(vocabulary.tokens) for one in ids):
                raise ValueError(
                    f"a token id is outside of the vocabulary, 0 to {len(vocabulary.tokens) - 1}"
                )
            ids = [vocabulary.cls_id, *ids[: self.max_seq_length - 2], vocabulary.sep_id]
            inputs["input_word_ids"][row, : len(ids)] = ids
            inputs["input_mask"][row, : len(ids)] = 1
        return inputs

    def _window(self, texts: Sequence[TextOrIds], batch_size: int, skipped: int) -> np.ndarray:
        inputs = self._inputs(texts)
        lengths = inputs["input_mask"].sum(axis=1)
        # Texts of like length together, longest first, so that what does not fit in memory fails at once.
        order = np.argsort(-lengths, kind="stable")
        rows = []
        step = batch_size * self._calls_together
        for start in range(0, len(order), step):
            chosen = order[start : start + step]
            width = -(-max(int(lengths[chosen].max()), 1) // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
            batch = {name: np.ascontiguousarray(value[chosen, :width]) for name, value in inputs.items()}
            outputs = self.run(batch)
            if READY in outputs and "sequence_output" not in outputs:
                rows.append(np.asarray(outputs[READY], np.float32))
                continue
            states = np.asarray(scores_of(outputs, "sequence_output"), np.float32)
            rows.append(pool(states, batch["input_mask"], self.options.pooling, skipped))
        vectors = np.concatenate(rows)
        result = np.empty_like(vectors)
        result[order] = vectors
        return result

    def _finish(self, vectors: np.ndarray, normalize: bool | None, dimensions: int | None) -> np.ndarray:
        for layer in self.options.dense:
            vectors = apply_dense(layer, vectors)
        # As sentence-transformers: the model's own normalization comes before its own cut.
        if self.options.normalize and normalize is None:
            vectors = unit(vectors)
        vectors = vectors[:, : dimensions or self.options.truncate_dim]
        if normalize or (normalize is None and self.options.normalize and dimensions is not None):
            vectors = unit(vectors)
        return np.ascontiguousarray(vectors, np.float32)


def pool(states: np.ndarray, mask: np.ndarray, modes: Sequence[PoolingMode], skipped: int = 0) -> np.ndarray:
    """Hidden states to one vector a text.

    Args:
        states: float32 [B, S, H].
        mask: int [B, S], 1 for tokens and 0 for padding.
        modes: Concatenated in this order.
        skipped: Leading tokens that are left out: those of a prompt.

    Returns:
        float32 [B, H * len(modes)].
    """
    kept = mask[:, : states.shape[1]].astype(bool).copy()
    kept[:, :skipped] = False
    weights = kept.astype(np.float32)[..., None]
    rows = np.arange(len(states))
    count = np.maximum(weights.sum(axis=1), 1e-9)
    found = []
    for mode in modes:
        if mode == "cls":
            found.append(states[rows, kept.argmax(axis=1)])
        elif mode == "lasttoken":
            last = kept.shape[1] - 1 - kept[:, ::-1].argmax(axis=1)
            found.append(states[rows, last] * weights[rows, last])
        elif mode == "max":
            found.append(np.where(kept[..., None], states, -np.inf).max(axis=1))
        elif mode == "weightedmean":
            rising = weights * np.arange(1, states.shape[1] + 1, dtype=np.float32)[:, None]
            found.append((states * rising).sum(axis=1) / np.maximum(rising.sum(axis=1), 1e-9))
        else:
            total = (states * weights).sum(axis=1)
            found.append(total / (count if mode == "mean" else np.sqrt(count)))
    return np.concatenate(found, axis=1)


def apply_dense(layer: Dense, vectors: np.ndarray) -> np.ndarray:
    """A Dense layer over float32 [N, in]: float32 [N, out]."""
    out = vectors @ layer.weight.T
    if layer.bias is not None:
        out = out + layer.bias
    if layer.activation == "Tanh":
        return np.tanh(out)
    if layer.activation == "ReLU":
        return np.maximum(out, 0)
    if layer.activation == "Sigmoid":
        return 1 / (1 + np.exp(-out))
    return out


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; a zero row stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
