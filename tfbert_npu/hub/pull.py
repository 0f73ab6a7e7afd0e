"""`pull_from_hub`: a layer from a hub repository or a directory, whatever form the model there has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, get_args

from tfbert_npu.checkpoints.layout import Component, Layout, find_layout, layout_of_file
from tfbert_npu.errors import CheckpointError, require
from tfbert_npu.paths import list_files
from tfbert_npu.repository import local_directory
from tfbert_npu.runtime.load import load_npu


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
            raise CheckpointError(
                f"{folder} holds an artifact for a Rockchip NPU and no weights that Keras can load",
                "run it with load_npu(directory), or load the model it was made from and call "
                ".delegate_to(directory)",
            )
        return load_npu(folder, file=file and file.removeprefix(layout.folder))
    require("tensorflow", "tf")
    from tfbert_npu.hub import layers  # TensorFlow, which a board with an artifact does without

    if layout.form == "saved_model":
        layer = layers.from_saved_model(folder, component, trust_saved_model, allow_ops)
    else:
        name = layout.folder.rstrip("/") or os.fspath(repo_id)
        layer = layers.from_checkpoint(folder, layout.form, component, name)
    layer.trainable = trainable
    return layer


def _layout(
    repo_id: str | os.PathLike[str], files: Sequence[str], component: Component, file: str | None
) -> Layout:
    try:
        return find_layout(files, component) if file is None else layout_of_file(files, file)
    except CheckpointError as error:
        raise error.within(os.fspath(repo_id)) from error
