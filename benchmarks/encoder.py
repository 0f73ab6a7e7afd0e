"""Race our encoder against its peers, in one process, in turn: forward passes and training steps.

    python benchmarks/encoder.py [--layers 6 --hidden 384 --heads 12 --batch 32 --length 64 --rounds 7]

Peers that are not installed are left out: keras-hub's BertBackbone, and BertModel of PyTorch transformers.
Random weights: the arithmetic does not depend on them. A figure is the best of the rounds, as a ratio to
ours; below 1 is faster than ours. Machines are noisy and shared: trust the ratios, not the milliseconds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from tfbert_npu import BertConfig, BertEncoder

Runs = dict[str, dict[str, Callable[[], Any]]]


def keras_runs(name: str, layer: Any, inputs: dict[str, tf.Tensor], output: str) -> Runs:
    """Forward and training steps of a Keras encoder, as TensorFlow graphs with and without XLA."""
    runs: Runs = {}
    for jit_compile in (False, True):

        def forward(inputs: Any = inputs) -> Any:
            return layer(inputs, training=False)[output]

        def step(inputs: Any = inputs) -> Any:
            variables = [variable.value for variable in layer.trainable_variables]
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(layer(inputs, training=True)[output] ** 2)
            return tape.gradient(loss, variables)

        runs[f"{name}{', XLA' if jit_compile else ''}"] = {
            "forward": tf.function(forward, jit_compile=jit_compile),
            "training step": tf.function(step, jit_compile=jit_compile),
        }
    return runs


def ours(sizes: argparse.Namespace, ids: np.ndarray, mask: np.ndarray) -> Runs:
    """This package."""
    encoder = BertEncoder(
        BertConfig(
            hidden_size=sizes.hidden,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            intermediate_size=4 * sizes.hidden,
        )
    )
    encoder.build()
    inputs = {
        "input_word_ids": tf.constant(ids),
        "input_mask": tf.constant(mask),
        "input_type_ids": tf.zeros_like(ids),
    }
    return keras_runs("tfbert-npu", encoder, inputs, "sequence_output")


def keras_hub_runs(sizes: argparse.Namespace, ids: np.ndarray, mask: np.ndarray) -> Runs:
    """keras-hub's BertBackbone."""
    try:
        import keras_hub
    except ImportError:
        return {}
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=30522,
        num_layers=sizes.layers,
        num_heads=sizes.heads,
        hidden_dim=sizes.hidden,
        intermediate_dim=4 * sizes.hidden,
        max_sequence_length=512,
    )
    inputs = {
        "token_ids": tf.constant(ids),
        "padding_mask": tf.constant(mask),
        "segment_ids": tf.zeros_like(ids),
    }
    return keras_runs("keras-hub", backbone, inputs, "sequence_output")


def torch_runs(sizes: argparse.Namespace, ids: np.ndarray, mask: np.ndarray) -> Runs:
    """transformers' BertModel in PyTorch."""
    try:
        import torch
        import transformers
    except ImportError:
        return {}
    torch.set_num_threads(os.cpu_count() or 1)
    model = transformers.BertModel(
        transformers.BertConfig(
            hidden_size=sizes.hidden,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            intermediate_size=4 * sizes.hidden,
        )
    )
    token_ids, attention_mask = torch.tensor(ids).long(), torch.tensor(mask)

    def forward() -> None:
        model.eval()
        with torch.no_grad():
            model(token_ids, attention_mask)

    def step() -> None:
        model.train()
        model.zero_grad()
        (model(token_ids, attention_mask).last_hidden_state ** 2).mean().backward()

    return {"transformers (PyTorch)": {"forward": forward, "training step": step}}


def main() -> None:
    """Race, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (
        ("layers", 6),
        ("hidden", 384),
        ("heads", 12),
        ("batch", 32),
        ("length", 64),
        ("rounds", 7),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    sizes = parser.parse_args()
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 30000, (sizes.batch, sizes.length), dtype=np.int32)
    lengths = rng.integers(sizes.length // 2, sizes.length + 1, (sizes.batch, 1))
    mask = (np.arange(sizes.length) < lengths).astype(np.int32)
    runs = {**ours(sizes, ids, mask), **keras_hub_runs(sizes, ids, mask), **torch_runs(sizes, ids, mask)}
    best = {name: dict.fromkeys(work, float("inf")) for name, work in runs.items()}
    for work in runs.values():
        for run in work.values():
            run()  # tracing and compilation
    for _ in range(sizes.rounds):
        for name, work in runs.items():
            for what, run in work.items():
                start = time.perf_counter()
                run()
                best[name][what] = min(best[name][what], time.perf_counter() - start)
    table = Table(title=f"{sizes.batch} x {sizes.length} tokens, {sizes.layers} layers, {sizes.hidden} wide")
    table.add_column("")
    for what in ("forward", "training step"):
        table.add_column(f"{what}, ms", justify="right")
        table.add_column("ratio to ours", justify="right")
    reference = best["tfbert-npu"]
    for name, seconds in best.items():
        cells = [(f"{value * 1e3:.0f}", f"{value / reference[what]:.2f}") for what, value in seconds.items()]
        table.add_row(name, *(cell for pair in cells for cell in pair))
    Console().print(table)


if __name__ == "__main__":
    main()
