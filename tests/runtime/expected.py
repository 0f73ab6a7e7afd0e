"""What the double computes for one text, whatever it is batched or padded with."""

from __future__ import annotations

import numpy as np

from tests.runtime.double.model_file import checksum


def expected(inputs: dict[str, np.ndarray], hidden: int = 16) -> dict[str, np.ndarray]:
    arrays = [inputs[name] for name in ("input_word_ids", "input_mask", "input_type_ids")]
    batch, width = arrays[0].shape
    return {
        "pooled_output": checksum(arrays, (batch, hidden)),
        "sequence_output": checksum(arrays, (batch, width, hidden)),
    }


def assert_right(outputs: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> None:
    """The outputs are those of these inputs; values at padding do not count."""
    wanted = expected(inputs)
    np.testing.assert_array_equal(outputs["pooled_output"], wanted["pooled_output"])
    real = inputs["input_mask"] == 1
    np.testing.assert_array_equal(outputs["sequence_output"][real], wanted["sequence_output"][real])
