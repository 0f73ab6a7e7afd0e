"""`BertEncoder`: BERT and DistilBERT as one Keras 3 layer with TF-Hub's inputs and outputs."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tfbert_npu.checkpoints.pretrained import load_encoder, save_encoder
from tfbert_npu.config import BertConfig
from tfbert_npu.delegate import Delegation, Settings, forget_traces, restored
from tfbert_npu.inputs import MASK, TYPE_IDS, WORD_IDS, check_inputs
from tfbert_npu.models.attention import attention_bias
from tfbert_npu.models.block import TransformerBlock
from tfbert_npu.models.common import dense, freeze_parts, frozen_parts
from tfbert_npu.models.embeddings import BertEmbeddings
from tfbert_npu.models.mlm import MaskedLMEncoder
from tfbert_npu.models.mlm_head import MaskedLMHead

if TYPE_CHECKING:
    from tfbert_npu.runtime.model import NpuModel


@keras.saving.register_keras_serializable(package="tfbert_npu")
class BertEncoder(keras.layers.Layer):
    """A BERT encoder with the inputs and outputs of TF-Hub's BERT modules.

    Call with a dict of three integer tensors [B, S], as `BertPreprocessor` gives them: `input_word_ids`,
    `input_mask` (1 for tokens, 0 for padding) and `input_type_ids` (0 and 1 for first and second text;
    DistilBERT, which has no token types, ignores them and does without). It gives a dict:

    - `pooled_output` [B, H]: the pooler's dense layer and tanh over the first token's last hidden state.
      Without a pooler (DistilBERT, or a checkpoint that has none) it is that hidden state itself.
    - `sequence_output` [B, S, H]: the last hidden states.
    - `encoder_outputs`: a list of [B, S, H], one per layer; the last is `sequence_output`.
    - `default`: `pooled_output` once more.

    All are of the layer's compute dtype. Hidden states at padded positions are finite and meaningless.
    Dropout works at `training=True` only.

    Args:
        config: The architecture; a `BertConfig` or a dict of its fields.
        add_pooler: Whether there is a pooler; DistilBERT never has one.
        mlm: Whether there is a masked language model head. Its weights are among those of `.mlm`, and of the
            heads that predict words, and not among the encoder's own.
        causal: Let each token attend only to itself and to tokens before it (`BertLMHeadModel`).
        gradient_checkpointing: Compute each block again for its gradient instead of keeping its
            intermediate results: about a third more time for much less memory.
        delegation: For a `.keras` file of a delegated layer; use `delegate_to`.
        frozen: For a `.keras` file: parts that are not trained, such as `"embeddings"` and `"layer_0"`; set
            their `trainable`.

    Reference: Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding"; the contract is tensorflow/models' TF-Hub export of `bert_en_*`.

    Example:
        >>> import numpy as np
        >>> from tfbert_npu import BertConfig, BertEncoder
        >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> encoder = BertEncoder(BertConfig(vocab_size=30, **sizes))
        >>> ids = np.array([[2, 7, 8, 3]], "int32")
        >>> inputs = {"input_word_ids": ids, "input_mask": ids * 0 + 1, "input_type_ids": ids * 0}
        >>> outputs = encoder(inputs)
        >>> tuple(outputs["sequence_output"].shape), tuple(outputs["pooled_output"].shape)
        ((1, 4, 8), (1, 8))
    """

    built: bool
    mlm_head: MaskedLMHead | None

    def __init__(
        self,
        config: BertConfig | Mapping[str, Any],
        *,
        add_pooler: bool = True,
        mlm: bool = False,
        causal: bool = False,
        gradient_checkpointing: bool = False,
        delegation: Mapping[str, Any] | None = None,
        frozen: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(config, BertConfig):
            config = BertConfig(**config)
        self.config = config
        self.causal = causal
        self.gradient_checkpointing = gradient_checkpointing
        self.embeddings = BertEmbeddings(config, dtype=self.dtype_policy, name="embeddings")
        self.layers = [
            TransformerBlock(config, gradient_checkpointing, dtype=self.dtype_policy, name=f"layer_{index}")
            for index in range(config.num_hidden_layers)
        ]
        self.pooler = None
        if add_pooler and config.model_type != "distilbert":
            self.pooler = dense(config.hidden_size, config, self.dtype_policy, "pooler")
        # Past Keras' tracking: in TF-Hub the head's weights are `.mlm`'s and not the encoder's to train;
        # below a classifier they would be weights without gradients.
        self.__dict__["mlm_head"] = (
            MaskedLMHead(config, dtype=self.dtype_policy, name="mlm_head") if mlm else None
        )
        self._frozen = tuple(frozen)
        self.delegation: Delegation | None = None
        if delegation is not None:
            self.delegation = restored(self, delegation)
            self.supports_jit = False

    def build(self, input_shape: Any = None) -> None:
        """Create every weight; their sizes do not depend on the input."""
        if self.built:
            return
        self.embeddings.build()
        hidden = (None, None, self.config.hidden_size)
        for layer in self.layers:
            layer.build(hidden)
        if self.pooler is not None:
            self.pooler.build((None, self.config.hidden_size))
        if self.mlm_head is not None:
            self.mlm_head.build()
        self.built = True
        freeze_parts(self, {*self._frozen, *frozen_parts(self)})
        if not self.trainable:
            # `BertEncoder(trainable=False)` was said before there were sublayers to tell.
            for layer in filter(None, (self.embeddings, *self.layers, self.pooler, self.mlm_head)):
                layer.trainable = False

    @property
    def trainable(self) -> bool:
        """Whether the weights are trained, those of the masked language model head included."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.layers.Layer.trainable.fset(self, value)
        if self.mlm_head is not None:
            self.mlm_head.trainable = value

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Check the inputs, then call the layer."""
        return super().__call__(check_inputs(inputs, self.config), *args, **kwargs)

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Encode; see the class for inputs and outputs."""
        if self.delegation is not None:
            return self.delegation.call(inputs, training)
        return self.call_in_tensorflow(inputs, training)

    def call_in_tensorflow(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Encode with this layer's own weights, delegated or not."""
        x = self.embeddings(inputs[WORD_IDS], inputs.get(TYPE_IDS), training=training)
        bias = attention_bias(inputs[MASK], self.compute_dtype, self.causal)
        hidden_states = []
        for layer in self.layers:
            x = layer(x, bias, training=training)
            hidden_states.append(x)
        pooled = x[:, 0]
        if self.pooler is not None:
            pooled = ops.tanh(self.pooler(pooled))
        return {
            "default": pooled,
            "encoder_outputs": hidden_states,
            "pooled_output": pooled,
            "sequence_output": x,
        }

    def compute_output_spec(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Shapes and dtypes of the outputs for symbolic inputs."""
        batch, length = inputs[WORD_IDS].shape
        hidden = self.config.hidden_size

        def tensor(*shape: int | None) -> keras.KerasTensor:
            return keras.KerasTensor(shape, dtype=self.compute_dtype)

        hidden_states = [tensor(batch, length, hidden) for _ in self.layers]
        pooled = tensor(batch, hidden)
        return {
            "default": pooled,
            "encoder_outputs": hidden_states,
            "pooled_output": pooled,
            "sequence_output": hidden_states[-1],
        }

    @functools.cached_property  # kept in __dict__, where Keras does not track it: it holds this layer
    def mlm(self) -> MaskedLMEncoder:
        """The same encoder with `masked_lm_positions` [B, P] as a fourth input and `mlm_logits` [B, P, V].

        It shares every variable with this layer.

        Raises:
            AttributeError: There is no masked language model head.
        """
        if self.mlm_head is None:
            raise AttributeError(
                f"{self.name} has no masked language model head; load a checkpoint that holds one, or make a "
                "new one with mlm=True"
            )
        return MaskedLMEncoder(self, name=f"{self.name}_mlm")

    def delegate_to(
        self, artifact_dir: str | os.PathLike[str], backend: str = "auto", **options: Any
    ) -> BertEncoder:
        """Compute on an NPU, or what stands for it, from now on.

        Models that hold the layer go over with it, functional and compiled ones included; nothing needs to be
        rebuilt. A `tf.function` of your own that was traced before must be traced again. At padding all
        outputs are meaningless. In the place of outputs that the artifact does not give, such as hidden
        states (`export_rknn(..., outputs=(..., "encoder_outputs"))`), stands an object that raises a
        `MissingOutputError` as soon as it is used. With an artifact that gives `mlm_logits`, `.mlm` runs
        there as well.

        Args:
            artifact_dir: What `export_rknn` made of this encoder with its present weights.
            backend: `"auto"`, `"rknn"`, `"simulator"`, `"onnx"` or `"openvino"`; see `load_npu`.
            **options: `cores`, `truncate`, `timeout`, `lend_timeout`, `retry_after`, `check_finite`,
                `warm_up`, `threads`, `toolchain`, `file`: see `load_npu`. `on_error`: `"raise"`, or what
                stands in while the backend fails: `"tf"`, this layer's own weights, or `"onnx"`.
                `allow_other_weights`: run the artifact's weights though they are not this layer's.

        Returns:
            This layer.

        Raises:
            ArtifactError: The artifact is damaged, of another model, or older than the weights.
            BackendError: The backend cannot be started here; the layer stays as it was.
            ValueError: An option is unknown or impossible.
        """
        delegation = Delegation(self, Settings.of(artifact_dir, {"backend": backend, **options}))
        _ = delegation.model  # load it now, while there is somebody to tell what is wrong
        before, self.delegation = self.delegation, delegation
        self.supports_jit = False
        forget_traces(self)
        if before is not None:
            before.close()
        return self

    def undelegate(self) -> BertEncoder:
        """Compute with this layer's own weights in TensorFlow again; does nothing if it does.

        Returns:
            This layer.
        """
        if self.delegation is not None:
            before, self.delegation = self.delegation, None
            self.supports_jit = True
            forget_traces(self)
            before.close()
        return self

    @property
    def runs_on(self) -> str:
        """What computes: `"tf"`, or the backend's name; with a stand-in at work, its name and why."""
        return "tf" if self.delegation is None else self.delegation.runs_on

    @property
    def npu(self) -> NpuModel | None:
        """The artifact that the layer is delegated to, for its `stats()`; None if it is not."""
        return None if self.delegation is None else self.delegation.model

    def __dir__(self) -> list[str]:
        # Keras' loader walks the attributes that dir() lists without looking where it has been; from here
        # to `.mlm` and back it would go on for ever.
        return [name for name in super().__dir__() if name not in ("mlm", "npu")]

    def get_config(self) -> dict[str, Any]:
        """What `from_config` rebuilds the layer from."""
        return {
            **super().get_config(),
            "config": self.config.to_dict(),
            "add_pooler": self.pooler is not None,
            "mlm": self.mlm_head is not None,
            "causal": self.causal,
            "gradient_checkpointing": self.gradient_checkpointing,
            "frozen": frozen_parts(self) if self.built else sorted({*self._frozen, *frozen_parts(self)}),
            **({"delegation": self.delegation.settings.to_dict()} if self.delegation is not None else {}),
        }

    @classmethod
    def from_pretrained(
        cls,
        dir_or_repo: str | os.PathLike[str],
        *,
        add_pooler: bool | None = None,
        mlm: bool | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> BertEncoder:
        """Load a checkpoint: Hugging Face's, a TF-Hub encoder, or Google's of TensorFlow 1.

        Hugging Face's is `config.json` and safetensors. The tensors may or may not have the `bert.` prefix
        and the old `gamma`/`beta` names, may be float32, float16 or bfloat16, and may lie in several files
        (`model.safetensors.index.json`). `pytorch_model.bin` is read where PyTorch is installed, with its
        tensors-only loader. Task heads in the checkpoint are left aside.

        Args:
            dir_or_repo: A directory, or a hub repository such as `"google-bert/bert-base-uncased"`.
            add_pooler: Whether to load the pooler; by default if the checkpoint holds one.
            mlm: Whether to load the masked language model head; by default if the checkpoint holds one.
            revision: Branch, tag or commit of the repository.
            token: Hub access token.
            cache_dir: Where downloads are kept.
            local_files_only: Never ask the network.
            **kwargs: Arguments of the layer: `dtype`, `name`, `trainable`, `gradient_checkpointing`, ...

        Raises:
            OSError: No such directory or repository, or a file is not in it.
            CheckpointError: No model of these forms; or a tensor is missing, unknown or of another shape;
                the message lists them all.
        """
        hub_options = {
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
        }
        return load_encoder(cls, dir_or_repo, hub_options, add_pooler=add_pooler, mlm=mlm, **kwargs)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `config.json` and `model.safetensors`, which transformers' `AutoModel` reads.

        Args:
            directory: Made if need be. Other files in it stay as they are.
        """
        save_encoder(self, directory)
