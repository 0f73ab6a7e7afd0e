"""How many pieces of each segment fit: the trimming rules, for arrays of numpy and tensors alike.

Each rule keeps the first pieces of a segment. Lengths and the budget are integers or integer arrays, and
`minimum` and `maximum` are the element-wise functions of the library they come from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfbert_npu.preprocess.options import Trimming, one_of

_Function = Callable[[Any, Any], Any]


def trim_pair(
    trimming: Trimming, first: Any, second: Any, budget: Any, minimum: _Function, maximum: _Function
) -> tuple[Any, Any]:
    """Lengths of two segments after trimming to `budget` pieces together.

    `"round_robin"` gives the segments one place each in turn until both are satisfied or the budget is
    spent, the first segment first (tensorflow-text's RoundRobinTrimmer, TF-Hub's rule).
    `"longest_first"` evens out the longer one, the odd place going to the segment that was longer and on
    a tie to the second (Hugging Face tokenizers' rule).
    `"waterfall"` fills the first segment before the second (tensorflow-text's WaterfallTrimmer).
    """
    one_of(trimming, Trimming, "trimming")
    if trimming == "waterfall":
        kept_first = minimum(first, budget)
        return kept_first, minimum(second, budget - kept_first)
    half = budget // 2
    if trimming == "round_robin":
        kept_first = minimum(first, maximum(budget - half, budget - second))
        return kept_first, minimum(second, budget - kept_first)
    odd = budget - 2 * half
    # 1 where the first segment is strictly longer, else 0, without comparing: lengths are integers.
    first_longer = minimum(maximum(first - second, 0), 1)
    kept_first = minimum(first, maximum(half + odd * first_longer, budget - second))
    return kept_first, minimum(second, maximum(half + odd * (1 - first_longer), budget - first))
