"""Transforms of a state that leave the model as it is in exact arithmetic, and make it easier to quantize.

int8 activations have one scale for a whole tensor. A channel that is a hundred times larger than the others
leaves them nothing of the 255 steps, so each transform here makes channels of one tensor alike, or takes the
few that cannot be made alike out of it. Weights have a scale for each output channel and can take the
difference. Every function takes a state and gives a new one; arrays are computed in float64.

Besides the weights a transformed state holds tensors that `graph.encoder` looks for:
    <LayerNorm>.scale                 what the LayerNorm's output was divided by, [H]
    <LayerNorm>.shift                 what is then missing from it, [H]
    <block>.residual.scale            multiplies the residual connection, [H]
    <block>.residual.unscale          multiplies the sum before its LayerNorm, [H]
    <layer>.side.{up,down}.*          neurons computed apart in float16
    embeddings.word_embeddings.scale  the word table is divided by it and its rows multiplied again, [H]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tfbert_npu.config import BertConfig
from tfbert_npu.quantize.activations import Activations
from tfbert_npu.quantize.emulation import product_error
from tfbert_npu.quantize.grid import INT8

State = Mapping[str, np.ndarray]

_TINY = 1e-6
_ALPHAS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def level_word_embeddings(state: State) -> dict[str, np.ndarray]:
    """Give each channel of the word table the same range, for the compiler makes int8 of the whole table.

    Only operators can be named for float16, not constants.
    """
    peak = np.abs(state["embeddings.word_embeddings.weight"]).max(axis=0)
    return {**state, "embeddings.word_embeddings.scale": np.maximum(peak, _TINY).astype(np.float32)}


def smooth_layer_norms(
    state: State, config: BertConfig, seen: Activations, alpha: float | None = None
) -> dict[str, np.ndarray]:
    """Move the range of LayerNorm's channels into the weights behind it (SmoothQuant, Xiao et al. 2022).

    Channel j of the output is divided by s_j = max|x_j|^alpha / max|w_j|^(1 - alpha), and column j of the
    weights multiplied. The residual connection, which wants the undivided output, is multiplied back
    (`residual.scale`; outlier suppression, Wei et al. 2022, does so for the gain). The last LayerNorm is the
    model's output and stays.

    Without `alpha` each LayerNorm gets the one with which its products, emulated in int8, err least: where
    one channel stands out far, as before a feed-forward block, it is 0.7 to 1, elsewhere less.
    """
    out = _copy(state)
    for norm, block, readers in _norms(config):
        columns = np.max([np.abs(out[f"{name}.weight"]).max(axis=0) for name in readers], axis=0)
        peak, columns = _peak(seen[norm]), np.maximum(columns, _TINY)
        scales = [_level(peak**a / columns ** (1 - a)) for a in (_ALPHAS if alpha is None else (alpha,))]
        scale = (
            scales[0]
            if len(scales) == 1
            else _best(scales, seen[norm], [out[f"{n}.weight"] for n in readers])
        )
        for part in ("weight", "bias"):
            out[f"{norm}.{part}"] = out[f"{norm}.{part}"] / scale
        for name in readers:
            out[f"{name}.weight"] = out[f"{name}.weight"] * scale
        out[f"{norm}.scale"] = scale
        out[f"{block}.residual.scale"] = out.get(f"{block}.residual.scale", 1.0) * scale
    return _single(out)


def fit_layer_norms(state: State, config: BertConfig) -> dict[str, np.ndarray]:
    """Put gains and biases of LayerNorms on the int8 grid, which the compiler rounds them to in any case.

    It does so for a LayerNorm in float16, too, with one range for all channels, and no setting prevents it.
    The error is the same for every token, so that it adds up. Here each gain moves to the nearest step and
    what it was is divided out of the products behind it and of the residual connection; what a bias loses is
    added to the biases behind it. The last LayerNorm, with nothing behind it, stays.
    """
    out = _copy(state)
    for norm, block, readers in _norms(config):
        gain, bias = out[f"{norm}.weight"], out[f"{norm}.bias"]
        step = INT8.of(gain[None])[0][0]
        kept = INT8.nearest(gain[None])[0]
        # A gain must not become 0: nothing behind could undo that.
        kept = np.where((kept == 0) & (gain != 0), np.copysign(step, gain), kept)
        ratio = np.divide(kept, gain, out=np.ones_like(gain), where=gain != 0)
        bias = bias * ratio
        out[f"{norm}.weight"], out[f"{norm}.bias"] = kept, INT8.nearest(bias[None])[0]
        lost = bias - out[f"{norm}.bias"]
        side = [f"{block}.side.up"] if f"{block}.side.up.weight" in out else []
        for name in (*readers, *side):
            out[f"{name}.weight"] = out[f"{name}.weight"] / ratio
            out[f"{name}.bias"] = out[f"{name}.bias"] + out[f"{name}.weight"] @ lost
        back = out.get(f"{block}.residual.scale", 1.0) / ratio
        out[f"{block}.residual.scale"] = back
        out[f"{block}.output.dense.bias"] = out[f"{block}.output.dense.bias"] + lost * back
        out[f"{norm}.scale"] = out.get(f"{norm}.scale", 1.0) / ratio
        out[f"{norm}.shift"] = lost * out[f"{norm}.scale"]
    return _single(out)


def level_branches(
    state: State, config: BertConfig, seen: Activations, power: float = 1.0
) -> dict[str, np.ndarray]:
    """Give each output channel of both output projections its own int8 scale.

    Row c of the projection is divided by t_c = max|y_c|^power, so is the residual added to it, and the
    sum is multiplied by t_c before its LayerNorm. The sum stands between the product and the multiplication,
    so a compiler cannot fold the scale back into the weights, as it does with one behind the product itself.
    """
    out = _copy(state)
    for layer in range(config.num_hidden_layers):
        for block in (f"encoder.layer.{layer}.attention", f"encoder.layer.{layer}"):
            dense = f"{block}.output.dense"
            scale = _level(_peak(seen[dense]) ** power)
            out[f"{dense}.weight"] = out[f"{dense}.weight"] / scale[:, None]
            out[f"{dense}.bias"] = out[f"{dense}.bias"] / scale
            if f"{block}.side.down.weight" in out:
                out[f"{block}.side.down.weight"] = out[f"{block}.side.down.weight"] / scale[:, None]
            out[f"{block}.residual.scale"] = out.get(f"{block}.residual.scale", 1.0) / scale
            out[f"{block}.residual.unscale"] = scale
    return _single(out)


def balance_values(state: State, config: BertConfig, seen: Activations) -> dict[str, np.ndarray]:
    """Make the channels of the attention's values alike; the output projection's columns undo it.

    Attention mixes positions, never channels, so the context's channels become alike with them.
    """
    out = _copy(state)
    for layer in range(config.num_hidden_layers):
        name = f"encoder.layer.{layer}.attention"
        scale = _level(_peak(seen[f"{name}.self.value"]))
        _divide_rows(out, f"{name}.self.value", scale)
        out[f"{name}.output.dense.weight"] = out[f"{name}.output.dense.weight"] * scale
    return _single(out)


def balance_queries_and_keys(state: State, config: BertConfig, seen: Activations) -> dict[str, np.ndarray]:
    """Give channel c of queries and keys the same range: q_c k_c is what the scores hold."""
    out = _copy(state)
    for layer in range(config.num_hidden_layers):
        name = f"encoder.layer.{layer}.attention.self"
        scale = np.sqrt(_peak(seen[f"{name}.query"]) / _peak(seen[f"{name}.key"]))
        _divide_rows(out, f"{name}.query", scale)
        _divide_rows(out, f"{name}.key", 1 / scale)
    return _single(out)


def split_off_neurons(
    state: State, config: BertConfig, seen: Activations, count: int
) -> tuple[dict[str, np.ndarray], Activations]:
    """Compute the `count` feed-forward neurons of the largest peaks apart (LLM.int8(), Dettmers et al. 2022).

    The large block keeps its shape with those neurons zeroed; a small one beside it, which stays in float16,
    holds them, and their outputs are added.

    Returns:
        The state, and the activations with those of the large block as they now are.
    """
    out, now = _copy(state), dict(seen)
    for layer in range(config.num_hidden_layers if count else 0):
        name = f"encoder.layer.{layer}"
        up, down, side = f"{name}.intermediate.dense", f"{name}.output.dense", f"{name}.side"
        inner = seen[f"{name}.intermediate"]
        chosen = np.sort(np.argsort(-_peak(inner), kind="stable")[:count])
        out[f"{side}.up.weight"] = out[f"{up}.weight"][chosen]
        out[f"{side}.up.bias"] = out[f"{up}.bias"][chosen]
        out[f"{side}.down.weight"] = out[f"{down}.weight"][:, chosen]
        for part in ("weight", "bias"):
            out[f"{up}.{part}"] = out[f"{up}.{part}"].copy()
            out[f"{up}.{part}"][chosen] = 0.0
        out[f"{down}.weight"] = out[f"{down}.weight"].copy()
        out[f"{down}.weight"][:, chosen] = 0.0
        kept = inner.copy()
        kept[:, chosen] = 0.0
        now[f"{name}.intermediate"] = kept
        now[down] = seen[down] - inner[:, chosen] @ out[f"{side}.down.weight"].T.astype(np.float32)
    return _single(out), now


def _norms(config: BertConfig) -> list[tuple[str, str, tuple[str, ...]]]:
    """Each LayerNorm but the last: its name, the block whose residual it is, the products that read it."""
    rows = []
    for layer in range(config.num_hidden_layers):
        name = f"encoder.layer.{layer}"
        before = "embeddings.LayerNorm" if layer == 0 else f"encoder.layer.{layer - 1}.output.LayerNorm"
        parts = tuple(f"{name}.attention.self.{part}" for part in ("query", "key", "value"))
        rows.append((before, f"{name}.attention", parts))
        rows.append((f"{name}.attention.output.LayerNorm", name, (f"{name}.intermediate.dense",)))
    return rows


def _best(scales: Sequence[np.ndarray], x: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    def error(scale: np.ndarray) -> float:
        return product_error(
            (x / scale).astype(np.float32), [(w * scale).astype(np.float32) for w in weights]
        )

    return min(scales, key=error)


def _divide_rows(out: dict[str, np.ndarray], name: str, scale: np.ndarray) -> None:
    out[f"{name}.weight"] = out[f"{name}.weight"] / scale[:, None]
    out[f"{name}.bias"] = out[f"{name}.bias"] / scale


def _peak(values: np.ndarray) -> np.ndarray:
    """Largest absolute value of each channel, never 0."""
    return np.maximum(np.abs(values.astype(np.float64)).max(axis=0), _TINY)


def _level(scale: np.ndarray) -> np.ndarray:
    """The scale about 1: only its differences matter, and float16 holds them best there."""
    return np.asarray(scale / np.exp(np.mean(np.log(scale))))


def _copy(state: State) -> dict[str, np.ndarray]:
    """The layers' tensors in float64; the others, such as the embedding tables, as they are."""
    return {
        name: tensor.astype(np.float64) if name.startswith("encoder.") or "LayerNorm" in name else tensor
        for name, tensor in state.items()
    }


def _single(state: State) -> dict[str, np.ndarray]:
    return {
        name: np.asarray(tensor, np.float32) if tensor.dtype == np.float64 else tensor
        for name, tensor in state.items()
    }
