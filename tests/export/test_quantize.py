"""int8: transforms are exact, ranges and calibration sets are what they say, the search finds the cheapest."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.export.models import bert, distilbert, padded_inputs, run_torch
from tests.export.test_graph import real, run
from tfbert_npu.errors import ArtifactError
from tfbert_npu.export.picture import draw_search
from tfbert_npu.heads import ENCODER, ENCODER_OUTPUTS
from tfbert_npu.onnx.model import GraphOptions, write_graph
from tfbert_npu.quantize import transforms
from tfbert_npu.quantize.activations import points, record
from tfbert_npu.quantize.calibration import calibration_set, default_texts, read_texts, resized
from tfbert_npu.quantize.emulation import product_error
from tfbert_npu.quantize.measure import Quality, quality, rank_correlation
from tfbert_npu.quantize.ranges import activation_range, rounded, rounding_error
from tfbert_npu.quantize.recipe import Operator, Recipe, operators
from tfbert_npu.quantize.samples import TEXTS, text_inputs, with_positions
from tfbert_npu.quantize.search import SearchError, Trial, frontier_of, search
from tfbert_npu.rknn.hybrid import float16_tensors

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def outlying():
    """A small BERT with what makes real ones hard: one loud channel and one loud neuron in each layer."""
    config, state, model = bert("BertModel")
    for layer in model.encoder.layer:
        layer.attention.output.LayerNorm.weight.data[3] *= 12
        layer.output.dense.weight.data[5] *= 15
        layer.intermediate.dense.bias.data[7] += 9
    state = {**state, **{n: v.numpy() for n, v in model.state_dict().items() if n in state}}
    inputs = padded_inputs(config, batch=6, length=20)
    seen = record(write_graph(config, state), config, [inputs])
    return config, state, model, inputs, seen


RECIPES = {
    "nothing": Recipe(
        smooth=False, branches=None, balance=False, side_neurons=0, norms=False, embeddings=False
    ),
    "smooth": Recipe(branches=None, balance=False, side_neurons=0),
    "smooth at 1": Recipe(alpha=1.0, branches=None, balance=False, side_neurons=0, norms=False),
    "norms": Recipe(smooth=False, branches=None, balance=False, side_neurons=0, embeddings=False),
    "norms and side": Recipe(smooth=False, branches=None, balance=False, side_neurons=5),
    "branches": Recipe(smooth=False, balance=False, side_neurons=0),
    "balance": Recipe(smooth=False, branches=None, side_neurons=0),
    "side": Recipe(smooth=False, branches=None, balance=False, side_neurons=5),
    "all": Recipe(side_neurons=5),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_transform_leaves_the_model_as_it_is(outlying, recipe):
    config, state, model, inputs, seen = outlying
    options = GraphOptions(outputs=("sequence_output", "pooled_output", "encoder_outputs"))
    changed = recipe.apply(state, config, seen)
    ours = run(write_graph(config, changed, ENCODER, options), inputs)
    theirs = run_torch(model, inputs, output_hidden_states=True)
    expected = {
        "sequence_output": theirs.last_hidden_state,
        "encoder_outputs_0": theirs.hidden_states[1],
        "encoder_outputs_1": theirs.hidden_states[2],
    }
    for name, value in expected.items():
        value = real(value.numpy(), inputs)
        # The loud channels of this model raise float32's own rounding with them.
        np.testing.assert_allclose(real(ours[name], inputs), value, atol=TOLERANCE * np.abs(value).max())
    np.testing.assert_allclose(ours["pooled_output"], theirs.pooler_output.numpy(), TOLERANCE, TOLERANCE)


def test_transforms_hold_for_distilbert():
    config, state, model = distilbert("DistilBertModel")
    inputs = padded_inputs(config)
    seen = record(write_graph(config, state), config, [inputs])
    ours = run(write_graph(config, Recipe(side_neurons=4).apply(state, config, seen)), inputs)
    theirs = run_torch(model, inputs).last_hidden_state.numpy()
    np.testing.assert_allclose(real(ours["sequence_output"], inputs), real(theirs, inputs), atol=TOLERANCE)


def test_after_the_transforms_channels_are_alike(outlying):
    config, state, _, inputs, seen = outlying
    changed = Recipe(side_neurons=2).apply(state, config, seen)
    after = record(write_graph(config, changed), config, [inputs])

    def spread(found, point):
        peaks = np.abs(found[point]).max(axis=0)
        peaks = peaks[peaks > 0]
        return peaks.max() / np.median(peaks)

    for layer in range(config.num_hidden_layers):
        name = f"encoder.layer.{layer}"
        assert spread(seen, f"{name}.output.dense") > 5
        assert spread(after, f"{name}.output.dense") < 1.01
        assert spread(after, f"{name}.attention.output.dense") < 1.01
        assert spread(after, f"{name}.attention.self.value") < 1.01
        norm = f"{name}.attention.output.LayerNorm"
        assert spread(after, norm) < 0.5 * spread(seen, norm)
        peaks = np.sort(np.abs(seen[f"{name}.intermediate"]).max(axis=0))
        assert np.abs(after[f"{name}.intermediate"]).max() == pytest.approx(peaks[-3], rel=1e-5)


def test_the_chosen_exponent_errs_no_more_than_any_fixed_one(outlying):
    config, state, _, _, seen = outlying
    norm, _, readers = transforms._norms(config)[1]

    def error(alpha):
        out = transforms.smooth_layer_norms(state, config, seen, alpha)
        x = (seen[norm] / out[f"{norm}.scale"]).astype(np.float32)
        return product_error(x, [out[f"{name}.weight"] for name in readers])

    best = error(None)
    assert best <= min(error(alpha) for alpha in transforms._ALPHAS) * 1.001
    assert best < 0.5 * error(0.0)


def test_activations_are_those_of_real_tokens(outlying):
    config, _, model, inputs, seen = outlying
    hidden = run_torch(model, inputs, output_hidden_states=True).hidden_states
    assert set(seen) == set(points(config))
    for layer in range(config.num_hidden_layers):
        expected = hidden[layer + 1].numpy()[inputs["input_mask"].astype(bool)]
        np.testing.assert_allclose(seen[f"encoder.layer.{layer}.output.LayerNorm"], expected, atol=2e-5)
    assert seen["encoder.layer.0.intermediate"].shape[1] == config.intermediate_size


def test_a_graph_in_slices_is_refused(outlying):
    config, state, _, inputs, _ = outlying
    with pytest.raises(ValueError, match="ffn_slices=1"):
        record(write_graph(config, state, ENCODER, GraphOptions(ffn_slices=2)), config, [inputs])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["normal", "heavy", "positive"]))
def test_the_mse_range_is_never_worse_than_the_full_one(seed, kind):
    rng = np.random.default_rng(seed)
    values = {
        "normal": rng.normal(size=3000),
        "heavy": rng.standard_t(2, 3000),
        "positive": rng.exponential(1, 3000),
    }
    x = values[kind].astype(np.float32)
    low, high = activation_range(x, "mse")
    wide = activation_range(x, "minmax")
    assert low <= 0 <= high
    assert rounding_error(x, low, high) <= rounding_error(x, *wide)
    inside = x[(x >= low) & (x <= high)]
    assert np.abs(rounded(inside, low, high) - inside).max() <= 0.51 * (high - low) / 255 + 1e-6
    assert len(np.unique(rounded(x, low, high))) <= 256


def test_an_unknown_method_of_ranges_is_refused():
    with pytest.raises(ValueError, match="'minmax' or 'mse'"):
        activation_range(np.ones(3), "percentile")


@pytest.fixture
def tokenizer(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "e"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    return tmp_path


def test_a_calibration_set_covers_all_lengths_and_is_seeded(tokenizer):
    texts = [" ".join("abcde"[i % 5] for i in range(n)) for n in [1] * 50 + list(range(2, 12))]
    texts = [f"{text} {'abcde'[i % 5]} {'abcde'[i // 5 % 5]}" for i, text in enumerate(texts)]
    batches = calibration_set(tokenizer, texts, (1, 16), size=8)
    lengths = sorted(int(batch["input_mask"].sum()) for batch in batches)
    assert len(batches) == 8
    assert lengths[0] == 5
    assert lengths[-1] >= 10
    again = calibration_set(tokenizer, texts, (1, 16), size=8)
    other = calibration_set(tokenizer, texts, (1, 16), size=8, seed=1)
    ids = [b["input_word_ids"].tolist() for b in batches]
    assert ids == [b["input_word_ids"].tolist() for b in again]
    assert ids != [b["input_word_ids"].tolist() for b in other]
    four = calibration_set(tokenizer, texts, (4, 16), size=6)
    assert [b["input_mask"].shape for b in four] == [(4, 16), (4, 16)]


def test_a_tokenizer_json_alone_serves(tokenizer):
    texts = ["a b", "c", "d e a b"]
    expected = calibration_set(tokenizer, texts, (1, 16))
    words = (tokenizer / "vocab.txt").read_text().split()
    model = {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {word: i for i, word in enumerate(words)}}
    normalizer = {"type": "BertNormalizer", "lowercase": True, "clean_text": True}
    content = {"model": model, "normalizer": normalizer, "pre_tokenizer": {"type": "BertPreTokenizer"}}
    (tokenizer / "tokenizer.json").write_text(json.dumps(content))
    (tokenizer / "vocab.txt").unlink()
    for batch, other in zip(calibration_set(tokenizer, texts, (1, 16)), expected, strict=True):
        np.testing.assert_array_equal(batch["input_word_ids"], other["input_word_ids"])
    with pytest.raises(ValueError, match="not in the vocabulary"):
        calibration_set(tokenizer, ["слово за словом", "ещё несколько слов", "a"], (1, 8))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "at least two"),
        (["a b", " a b "], "at least two"),
        ("a b c", "not one string"),
        (["a b c d e a b c d e", "b c d e a b c d e a"], "longer than 8 tokens"),
        (["слово за словом", "ещё несколько слов", "a"], "not in the vocabulary"),
    ],
)
def test_bad_calibration_texts_are_refused(tokenizer, texts, message):
    with pytest.raises(ValueError, match=message):
        calibration_set(tokenizer, texts, (1, 8))


def test_our_own_sentences_are_many_and_different(tmp_path):
    texts = default_texts()
    assert len(set(texts)) == len(texts) >= 60
    assert sum(not text.isascii() for text in texts) > 15
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe a")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_texts(tmp_path / "t.txt")


def test_batches_are_regrouped_cut_and_padded():
    batch = {
        "input_word_ids": np.arange(12, dtype=np.int32).reshape(3, 4),
        "input_mask": np.ones((3, 4), np.int32),
    }
    short = resized([batch], (2, 3))
    assert [one["input_word_ids"].tolist() for one in short] == [
        [[0, 1, 2], [4, 5, 6]],
        [[8, 9, 10], [0, 0, 0]],
    ]
    assert short[1]["input_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert resized([batch], (3, 6))[0]["input_mask"].sum(axis=1).tolist() == [4, 4, 4]


def test_recipes_survive_json_and_refuse_the_unknown():
    recipe = Recipe(side_neurons=4, float16=frozenset({Operator(1, "down"), Operator(0, "query")}))
    assert recipe.as_dict()["float16"] == ["0.query", "1.down"]
    assert Recipe.from_dict(recipe.as_dict()) == recipe
    with pytest.raises(ValueError, match="no product"):
        Recipe.from_dict({"float16": ["0.sideways"]})
    with pytest.raises(ValueError, match="no beta"):
        Recipe.from_dict({"beta": 1})


def test_only_products_that_the_recipe_leaves_are_int8():
    config, _, _ = bert("BertModel")
    names = [
        "embeddings.LayerNorm/LayerNormalization#1",
        "encoder.layer.0.attention.self.query/MatMul:0_mm_tp_sw",
        "encoder.layer.0.attention.self.context/MatMul_2sdpa_q_softmax",
        "encoder.layer.0.attention.self.context/Transpose:0_sw",
        "encoder.layer.0.residual/Add:0-rs",
        "encoder.layer.1.output.dense/MatMul:0_mm_tp_sw",
        "encoder.layer.1.side.up/MatMul:0",
        "sequence_output-rs",
        "input_embeddings_tp-rs",
        "sequence_output_int8",
        "encoder.layer.0.attention.self.context/MatMul:0_mm",  # where attention is split, as on rk3566
    ]
    parameters = {name: {"dtype": "int8"} for name in names}
    parameters |= {
        "encoder.layer.0.output.LayerNorm.weight": {"dtype": "int8"},
        "pooled_output": {"dtype": "float32"},
        "encoder.layer.0.attention.self.scores/Div_2mul_i1": {"dtype": "int8"},  # a constant
    }
    recipe = Recipe(float16=frozenset({Operator(1, "down")}))
    found = float16_tensors(parameters, config, recipe, ("input_embeddings", "sequence_output"))
    assert found == {names[i] for i in (0, 2, 4, 5, 6, 7, 8, 9, 10)}


def test_pairs_are_in_every_set_and_make_up_those_of_pair_models(tokenizer):
    """Otherwise the second token type is never seen, nor what stands behind a middle [SEP]."""
    texts = [" ".join("abcde"[(index + n) % 5] for n in range(1 + index % 5)) for index in range(40)]
    texts = [f"{text} {'abcde'[i % 5]} {'abcde'[i // 8]}" for i, text in enumerate(texts)]
    some = calibration_set(tokenizer, texts, (1, 16), size=32)
    typed = [bool(batch["input_type_ids"].any()) for batch in some]
    assert sum(typed) == len(some) // 8
    every = calibration_set(tokenizer, texts, (1, 16), size=32, pairs=True)
    assert all(batch["input_type_ids"].any() for batch in every)
    gate = text_inputs(tokenizer, TEXTS, (2, 32), 4)
    assert [bool(batch["input_type_ids"].any()) for batch in gate] == [False, False, False, True]
    assert all(
        batch["input_type_ids"].any() for batch in text_inputs(tokenizer, TEXTS, (2, 32), 4, pairs=True)
    )


def test_masked_positions_are_real_tokens_of_their_row(tokenizer):
    batches = calibration_set(tokenizer, ["a b", "c d e a b c"], (2, 16), size=2)
    (one,) = with_positions(batches, 5)
    assert one["masked_lm_positions"].shape == (2, 5)
    assert (one["masked_lm_positions"] < one["input_mask"].sum(axis=1, keepdims=True)).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=3, max_size=30), st.integers(0, 1000))
def test_rank_correlation_is_scipys(values, seed):
    a = np.array(values, float)
    b = np.random.default_rng(seed).integers(0, 5, len(a)).astype(float)
    if len(set(a)) > 1 and len(set(b)) > 1:
        assert rank_correlation(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-9)


def test_quality_is_the_worst_text_over_real_tokens():
    rng = np.random.default_rng(0)
    mask = np.array([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 1]])
    exact = {"sequence_output": rng.normal(size=(4, 3, 8))}
    got = {"sequence_output": exact["sequence_output"].copy()}
    got["sequence_output"][0, 2] = 1e3  # padding
    assert quality([got], [exact], [{"input_mask": mask}], ENCODER_OUTPUTS[:1]).cosine == pytest.approx(1)
    got["sequence_output"][2, 0] *= -1
    found = quality([got], [exact], [{"input_mask": mask}], ENCODER_OUTPUTS[:1])
    assert found.cosine == pytest.approx(-1)
    assert found.median["sequence_output"] == pytest.approx(1)
    assert found.spearman < 0.99
    assert found.texts == 4


@dataclass
class FakeStudy:
    """Independent errors and costs, as the search takes them to be."""

    errors: dict
    costs: dict
    measured: int = 0

    @property
    def operators(self):
        return tuple(self.errors)

    def measure(self, float16):
        self.measured += 1
        return self._trial(Recipe(float16=frozenset(float16)), 1.0)

    def screen(self, float16):
        return self._trial(Recipe(float16=frozenset(float16), rounding="nearest"), 1.5)

    def _trial(self, recipe, worse):
        kept = recipe.float16
        cosine = 1 - worse * sum(error for one, error in self.errors.items() if one not in kept)
        found = Quality({"x": cosine}, {"x": cosine}, None, 1)
        return Trial(recipe, found, 0.5 + sum(self.costs[one] for one in kept), 0.0)


@pytest.fixture
def study():
    config, _, _ = bert("BertModel")
    rng = np.random.default_rng(1)
    ops = operators(config)
    return FakeStudy(
        {o: float(e) for o, e in zip(ops, rng.exponential(1e-3, 12), strict=True)}, dict.fromkeys(ops, 0.04)
    )


def test_the_search_keeps_the_fewest_products_that_suffice(study):
    target = 0.998
    found = search(study, min_cosine=target)
    errors = sorted(study.errors.values(), reverse=True)
    fewest = next(n for n in range(13) if 1 - sum(errors[n:]) >= target)
    assert len(found.chosen.recipe.float16) == fewest
    assert found.chosen.quality.cosine >= target
    costs = [trial.cost for trial in found.frontier]
    assert costs == sorted(costs)
    assert found.frontier == frontier_of(found.frontier)
    # What was only screened was never meant to be exported, and comparing is what it is for.
    assert {trial.recipe.rounding for trial in found.frontier} == {"gptq"}
    assert {trial.recipe.rounding for trial in found.screened} == {"nearest"}
    assert len(found.screened) == 13
    assert study.measured < 7


def test_the_search_takes_the_best_within_the_cost(study):
    found = search(study, max_cost=0.63)
    assert len(found.chosen.recipe.float16) == 3
    worst = sorted(study.errors, key=lambda one: -study.errors[one])[:3]
    assert found.chosen.recipe.float16 == frozenset(worst)


def test_what_a_search_measured_is_drawn(study, tmp_path):
    found = search(study, max_cost=0.63).as_dict()
    draw_search(json.loads(json.dumps(found)), tmp_path / "search.png")
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")
    del found["chosen"], found["screened"][1:]
    draw_search(found, tmp_path / "failed.svg")
    assert "<svg" in (tmp_path / "failed.svg").read_text()
    with pytest.raises(ArtifactError, match="not what a search writes"):
        draw_search({"frontier": [3], "screened": []}, tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


def test_what_cannot_be_met_is_said(study):
    with pytest.raises(
        SearchError, match=r"min_cosine 0\.9999 cannot be met within max_cost 0\.55"
    ) as caught:
        search(study, min_cosine=0.9999, max_cost=0.55)
    assert [len(trial["float16"]) for trial in caught.value.evidence["frontier"]] == [0, 1]
    assert len(caught.value.evidence["screened"]) == 13
    with pytest.raises(SearchError, match=r"max_cost 0\.4 cannot be met"):
        search(study, max_cost=0.4)
    with pytest.raises(ValueError, match="give min_cosine"):
        search(study)
