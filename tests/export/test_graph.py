"""The ONNX graph against PyTorch transformers, run by onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from tfbert_npu.heads import ENCODER, MASKED_LM, MULTIPLE_CHOICE, head_named
from tfbert_npu.onnx.model import GraphOptions, write_graph

from .models import bert, distilbert, padded_inputs, run_torch

TOLERANCE = 2e-5


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]
    return dict(zip(outputs, session.run(None, {name: inputs[name] for name in names}), strict=True))


def real(values: np.ndarray, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The rows of real tokens: what stands at padding means nothing."""
    return values[inputs["input_mask"].astype(bool)]


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new", "relu", "silu"])
@pytest.mark.parametrize("shape", [(3, 11), ("batch", "length")])
def test_encoder_equals_transformers(hidden_act, shape):
    config, state, model = bert("BertModel", hidden_act=hidden_act)
    inputs = padded_inputs(config)
    options = GraphOptions(
        outputs=("sequence_output", "pooled_output", "encoder_outputs"), batch=shape[0], length=shape[1]
    )
    ours = run(write_graph(config, state, ENCODER, options), inputs)
    theirs = run_torch(model, inputs, output_hidden_states=True)
    assert list(ours) == ["sequence_output", "pooled_output", "encoder_outputs_0", "encoder_outputs_1"]
    np.testing.assert_allclose(ours["pooled_output"], theirs.pooler_output.numpy(), atol=TOLERANCE)
    for name, value in (
        ("sequence_output", theirs.last_hidden_state),
        ("encoder_outputs_0", theirs.hidden_states[1]),
        ("encoder_outputs_1", theirs.hidden_states[2]),
    ):
        np.testing.assert_allclose(real(ours[name], inputs), real(value.numpy(), inputs), atol=TOLERANCE)


def test_one_dynamic_file_serves_every_shape():
    config, state, model = bert("BertModel")
    graph = write_graph(config, state)
    for batch, length in ((1, 2), (5, 40), (2, 17)):
        inputs = padded_inputs(config, batch, length)
        ours = run(graph, inputs)["sequence_output"]
        theirs = run_torch(model, inputs).last_hidden_state.numpy()
        np.testing.assert_allclose(real(ours, inputs), real(theirs, inputs), atol=TOLERANCE)


@pytest.mark.parametrize("slices", [2, 3, 6])
def test_slices_of_the_feed_forward_block_add_up(slices):
    config, state, model = bert("BertModel")
    inputs = padded_inputs(config)
    ours = run(write_graph(config, state, ENCODER, GraphOptions(ffn_slices=slices)), inputs)
    theirs = run_torch(model, inputs).last_hidden_state.numpy()
    np.testing.assert_allclose(real(ours["sequence_output"], inputs), real(theirs, inputs), atol=TOLERANCE)


def test_a_model_without_a_pooler_gives_the_first_token():
    config, state, _ = bert("BertModel", add_pooling_layer=False)
    state = {name: value for name, value in state.items() if not name.startswith("pooler")}
    inputs = padded_inputs(config)
    ours = run(write_graph(config, state), inputs)
    np.testing.assert_array_equal(ours["pooled_output"], ours["sequence_output"][:, 0])


HEADS = [
    ("BertForMaskedLM", "masked_lm", {"mlm_logits": "logits"}),
    ("BertLMHeadModel", "causal_lm", {"mlm_logits": "logits"}),
    ("BertForPreTraining", "pretraining", {"mlm_logits": "prediction_logits", "nsp_logits": "seq_relationship_logits"}),
    ("BertForNextSentencePrediction", "next_sentence", {"nsp_logits": "logits"}),
    ("BertForSequenceClassification", "sequence_classification", {"logits": "logits"}),
    ("BertForTokenClassification", "token_classification", {"logits": "logits"}),
    ("BertForQuestionAnswering", "question_answering", {"start_logits": "start_logits", "end_logits": "end_logits"}),
    ("DistilBertForMaskedLM", "masked_lm", {"mlm_logits": "logits"}),
    ("DistilBertForSequenceClassification", "sequence_classification", {"logits": "logits"}),
    ("DistilBertForTokenClassification", "token_classification", {"logits": "logits"}),
    (
        "DistilBertForQuestionAnswering",
        "question_answering",
        {"start_logits": "start_logits", "end_logits": "end_logits"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("class_name", "head", "names"), HEADS, ids=[case[0] for case in HEADS])
@pytest.mark.parametrize("shape", [(3, 11), ("batch", "length")], ids=["static", "dynamic"])
def test_heads_equal_transformers(class_name, head, names, shape):
    labels = {} if head in ("question_answering", "next_sentence") else {"num_labels": 5}
    causal = {"is_decoder": True} if head == "causal_lm" else {}
    config, state, model = (distilbert if class_name.startswith("Distil") else bert)(
        class_name, **labels, **causal
    )
    inputs = padded_inputs(config)
    ours = run(
        write_graph(
            config,
            state,
            head_named(head),
            GraphOptions(batch=shape[0], length=shape[1], batched=shape[0] == 3),
        ),
        inputs,
    )
    theirs = run_torch(model, inputs)
    assert list(ours) == list(names)
    for name, attribute in names.items():
        expected = getattr(theirs, attribute).numpy()
        got = ours[name]
        assert got.shape == expected.shape
        if got.shape[1:2] == inputs["input_mask"].shape[1:]:
            got, expected = real(got, inputs), real(expected, inputs)
        np.testing.assert_allclose(got, expected, atol=5e-5)


def test_multiple_choice_takes_choices_as_rows():
    config, state, model = bert("BertForMultipleChoice")
    inputs = padded_inputs(config, batch=6)
    ours = run(write_graph(config, state, MULTIPLE_CHOICE), inputs)["logits"]
    as_choices = {name: value.reshape(2, 3, -1) for name, value in inputs.items()}
    theirs = run_torch(model, as_choices).logits.numpy()
    np.testing.assert_allclose(ours.reshape(2, 3), theirs, atol=TOLERANCE)


def test_masked_positions_pick_the_rows_of_the_full_logits():
    config, state, _ = bert("BertForMaskedLM")
    inputs = padded_inputs(config)
    everywhere = run(write_graph(config, state, MASKED_LM), inputs)["mlm_logits"]
    positions = np.array([[0, 3], [10, 1], [2, 2]], np.int32)
    for length in (11, "length"):
        options = GraphOptions(masked_positions=2, batch=3, length=length)
        picked = run(
            write_graph(config, state, MASKED_LM, options), {**inputs, "masked_lm_positions": positions}
        )["mlm_logits"]
        np.testing.assert_allclose(
            picked, np.take_along_axis(everywhere, positions[..., None], axis=1), atol=TOLERANCE
        )


def test_form_is_the_one_that_the_compiler_fuses():
    config, state, _ = bert("BertModel")
    graph = write_graph(config, state, ENCODER, GraphOptions(batch=1, length=16)).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("LayerNormalization") == 2 * config.num_hidden_layers + 1
    assert kinds.count("Softmax") == kinds.count("Erf") == config.num_hidden_layers
    assert not {"ReduceMean", "Sqrt", "Pow", "Where", "Expand"} & set(kinds)
    fours = [list(onnx.numpy_helper.to_array(t)) for t in graph.initializer if t.name == "split_heads"]
    assert fours == [[0, 0, 4, 8]]  # zeros copy the dimension: the same Reshape serves every shape
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.INT32


def test_no_number_overflows_float16():
    config, state, _ = bert("BertLMHeadModel", is_decoder=True)
    for tensor in write_graph(config, state, head_named("causal_lm")).graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            assert np.abs(array).max() < 65504


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 41}, "max_position_embeddings 40"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"outputs": ("logits",)}, "known are sequence_output"),
        ({"outputs": ()}, "at least one"),
        ({"outputs": ("pooled_output", "pooled_output")}, "none twice"),
        ({"embeddings": "elsewhere"}, "'inside', 'host'"),
        ({"ffn_slices": 5}, "does not divide"),
    ],
)
def test_impossible_options_are_refused(options, message):
    config, state, _ = bert("BertModel")
    with pytest.raises(ValueError, match=message):
        write_graph(config, state, ENCODER, GraphOptions(**options))


def test_missing_head_is_named():
    config, state, _ = bert("BertModel")
    with pytest.raises(ValueError, match=r"no question_answering head: qa_outputs\.weight"):
        write_graph(config, state, head_named("question_answering"))
    with pytest.raises(ValueError, match="'regression' is unknown; known are encoder, masked_lm"):
        head_named("regression")
