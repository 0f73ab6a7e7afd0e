"""The example in the docstring of each public name runs and shows what it says."""

from __future__ import annotations

import doctest
import inspect

import pytest

import tfbert_npu

NAMES = [name for name in tfbert_npu.__all__ if name != "__version__"]
# They need a board, the vendor's compiler, or a hub.
SHOWN_ONLY = {"export_rknn", "load_npu", "push_to_hub"}


@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs(name: str) -> None:
    value = getattr(tfbert_npu, name)
    text = inspect.getdoc(value) or ""
    assert "Example:\n" in text
    example = doctest.DocTestParser().get_doctest(text, {}, name, inspect.getsourcefile(value), 0)
    assert example is not None
    ran = [one for one in example.examples if doctest.SKIP not in one.options]
    assert name in SHOWN_ONLY or len(ran) == len(example.examples), "an example must run"
    messages: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=messages.append)
    assert result.failed == 0, "".join(messages)
