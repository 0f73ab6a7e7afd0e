"""`pull_from_hub`: a layer from a hub repository or a directory, whatever form the model there has."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from tfbert_npu.checkpoints.layout import Component, Layout, find_layout, layout_of_file
from tfbert_npu.checkpoints.repository import local_directory
from tfbert_npu.errors import CheckpointError, require
from tfbert_npu.paths import list_files


def pull_from_hub(
    repo_id: str | os.PathLike[str],
    *,
    component: Component = "auto",
    trainable: bool = False,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    trust_saved_model: bool = False,
    allow_ops: Sequence[str] = (),
    file: str | None = None,
) -> Any:
    """A Keras 3 layer from a hub repository or a local directory.

    Finds out what is there, downloads only the files of that form, and rebuilds the model natively: no
    foreign graph or pickle runs. Known forms, the first found counts:

    - Hugging Face: `config.json` with safetensors, BERT or DistilBERT; a `BertEncoder`, with
      `component="preprocessor"` its `BertPreprocessor`, with `component="model"` the class that
      `config.json` names in `architectures`.
    - A TF-Hub encoder (`bert_en_*`, `small_bert`, `experts`): a `BertEncoder` with `.mlm` where the
      SavedModel has one.
    - A TF-Hub preprocessor: a `BertPreprocessor` of dialect `"tf_text"` with the published casing and default
      seq_length. `component="preprocessor"` makes one from an encoder's vocabulary as well.
    - Google's TensorFlow 1 checkpoint: as Hugging Face; `component="model"` gives the class whose weights it
      holds, such as `BertForPreTraining`.
    - `pytorch_model.bin` alone: only where PyTorch is installed, with its tensors-only loader.
    - An NPU artifact of `export_rknn`, or a `.rknn` file of rk-transformers: `load_npu(directory)`, which
      takes and gives numpy arrays and is no Keras layer. Of several files name one with `file`.
    - Any other TF2 SavedModel: only with `trust_saved_model=True`, as a `TrustedSavedModel` that runs the
      SavedModel's own graph.

    A `BertEncoder` that comes with a vocabulary has TF-Hub's attributes `vocab_file`, its path, and, where
    the files say it, `do_lower_case`.

    Args:
        repo_id: A directory, or the id of a Hugging Face hub repository. A directory of that name comes
            first.
        component: `"encoder"`, `"preprocessor"` or `"model"`; `"auto"` takes the preprocessor of a TF-Hub
            preprocessor and the encoder of everything else.
        trainable: Whether the layer's weights are to be trained.
        revision: Branch, tag or commit of the repository.
        token: Hub access token; by default the one stored by `hf auth login`.
        cache_dir: Where downloads are kept; by default huggingface_hub's cache.
        local_files_only: Never ask the network.
        trust_saved_model: Run the graph of a SavedModel that cannot be rebuilt.
        allow_ops: Operations that run code or touch files and that a SavedModel may have all the same. They
            make a SavedModel refused otherwise, trusted or not.
        file: The `.rknn` file that is wanted, such as `"rknn/model_o3.rknn"`, whatever else the repository
            holds; its other `.rknn` files are not downloaded.

    Raises:
        OSError: The repository does not exist, is gated, cannot be reached, or is not complete in the cache.
        CheckpointError: No known form, or a damaged, hostile or unsupported file; says which and what to do.
        ValueError: An unknown component.

    Example:
        >>> import tempfile
        >>> from tfbert_npu import BertConfig, BertEncoder, pull_from_hub
        >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> encoder = BertEncoder(BertConfig(vocab_size=30, **sizes))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     encoder.save_pretrained(folder)
        ...     type(pull_from_hub(folder)).__name__
        'BertEncoder'
    """
    if component not in get_args(Component):
        raise ValueError(f"component must be one of {get_args(Component)}, got {component!r}")
    if file is not None and component not in ("auto", "model"):
        raise ValueError(f"file names a compiled model and has no {component}; leave out one of the two")
    directory = local_directory(
        repo_id,
        lambda files: _layout(repo_id, files, component, file).files,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    layout = _layout(repo_id, list_files(directory), component, file)
    folder = directory / layout.folder
    if layout.form == "npu":
        if component not in ("auto", "model"):
            raise CheckpointError(_npu_message(folder))
        from tfbert_npu.runtime import load_npu

        return load_npu(folder, file=file and file.removeprefix(layout.folder))
    if layout.form == "saved_model":
        layer = _from_saved_model(folder, component, trust_saved_model, allow_ops)
    else:
        layer = _from_checkpoint(folder, layout, component, layout.folder.rstrip("/") or os.fspath(repo_id))
    layer.trainable = trainable
    return layer


def _layout(
    repo_id: str | os.PathLike[str], files: Sequence[str], component: Component, file: str | None
) -> Layout:
    try:
        return find_layout(files, component) if file is None else layout_of_file(files, file)
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(repo_id)}: {error}") from error


def _from_checkpoint(folder: Path, layout: Layout, component: Component, name: str) -> Any:
    """A component of a Hugging Face, Google or PyTorch checkpoint called `name`."""
    require("tensorflow", "tf")
    if component == "preprocessor":
        from tfbert_npu.preprocess import BertPreprocessor, BertTokenizer

        return BertPreprocessor.of(BertTokenizer.from_directory(folder, name))
    if component == "model":
        from tfbert_npu.hub.models import pull_model

        return pull_model(folder, layout.form)
    from tfbert_npu.checkpoints.pretrained import build_encoder
    from tfbert_npu.checkpoints.reading import read_form
    from tfbert_npu.models.encoder import BertEncoder

    checkpoint = read_form(folder, layout.form)
    encoder = build_encoder(BertEncoder, checkpoint.config, checkpoint.state, folder)
    _remember_vocabulary(encoder, folder / "vocab.txt", _lower_case(folder))
    return encoder


def _from_saved_model(folder: Path, component: Component, trust: bool, allow_ops: Sequence[str]) -> Any:
    from tfbert_npu.checkpoints.saved_model import read_saved_model
    from tfbert_npu.checkpoints.tfhub import (
        CONFIG_ASSET,
        PREPROCESSOR_ASSET,
        kind_of,
        read_encoder,
        read_preprocessor,
    )

    model = read_saved_model(folder)
    model.refuse_dangerous_ops(allow_ops)
    kind = kind_of(model)
    try:
        if kind == "preprocessor" and component in ("auto", "preprocessor"):
            spec = read_preprocessor(model)
            if spec.settings is not None:
                return _own_preprocessor(spec.vocabulary, spec.settings)
            return _tfhub_preprocessor(spec.vocabulary, spec.lower_case, spec.seq_length)
        if kind == "encoder":
            checkpoint = read_encoder(model)
            if component == "model":
                from tfbert_npu.checkpoints.reading import named_head
                from tfbert_npu.hub.models import build_model

                own = model.asset(CONFIG_ASSET) if model.child(0, CONFIG_ASSET) is not None else None
                return build_model(checkpoint, folder, None if own is None else named_head(own))
            if component == "preprocessor":
                if model.child(0, PREPROCESSOR_ASSET) is not None:
                    spec = read_preprocessor(model)
                    return _own_preprocessor(spec.vocabulary, spec.settings or {})
                if checkpoint.vocabulary is None or checkpoint.lower_case is None:
                    raise CheckpointError(f"{folder} has no vocab_file and do_lower_case")
                return _tfhub_preprocessor(checkpoint.vocabulary, checkpoint.lower_case, 128)
            from tfbert_npu.checkpoints.pretrained import build_encoder
            from tfbert_npu.models.encoder import BertEncoder

            encoder = build_encoder(BertEncoder, checkpoint.config, checkpoint.state, folder)
            _remember_vocabulary(encoder, checkpoint.vocabulary, checkpoint.lower_case)
            return encoder
        if kind == "preprocessor":
            raise ValueError(f"{folder} is a TF-Hub preprocessor; it has no {component}")
    except CheckpointError:
        if not trust:
            raise
    if not trust:
        raise CheckpointError(
            f"{folder} is a SavedModel that is neither a BERT encoder nor its preprocessor, so it cannot be "
            "rebuilt; if you trust its source, pass trust_saved_model=True to run its own graph"
        )
    from tfbert_npu.hub.trusted import TrustedSavedModel

    return TrustedSavedModel(folder, allow_ops)


def _tfhub_preprocessor(vocabulary: Path, lower_case: bool, seq_length: int) -> Any:
    from tfbert_npu.preprocess import BertPreprocessor, TextOptions, Vocabulary

    options = TextOptions(dialect="tf_text", lower_case=lower_case)
    return BertPreprocessor(Vocabulary.from_file(vocabulary), options, seq_length)


def _own_preprocessor(vocabulary: Path, settings: Mapping[str, Any]) -> Any:
    from tfbert_npu.preprocess import BertPreprocessor, Vocabulary

    text = Vocabulary.from_file(vocabulary).to_text()
    try:
        return BertPreprocessor.from_config({**settings, "vocabulary": text})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{vocabulary.parent} holds settings that are not a preprocessor's ({error!r}); export it again"
        ) from error


def _remember_vocabulary(encoder: Any, path: Path | None, lower_case: bool | None) -> None:
    """Give an encoder TF-Hub's attributes, which `export_saved_model` passes on."""
    if path is not None and path.is_file():
        encoder.vocab_file = os.fspath(path)
        if lower_case is not None:
            encoder.do_lower_case = lower_case


def _lower_case(folder: Path) -> bool | None:
    try:
        values = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    value = values.get("do_lower_case") if isinstance(values, dict) else None
    return value if isinstance(value, bool) else None


def _npu_message(folder: Path) -> str:
    return (
        f"{folder} holds an artifact for a Rockchip NPU and no weights that Keras can load; run it with "
        "load_npu(directory), or load the model it was made from and call .delegate_to(directory)"
    )
