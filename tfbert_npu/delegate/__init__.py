"""An encoder's call, handed to the runtime: `BertEncoder.delegate_to` stands on this package.

Called eagerly the layer goes straight to the runtime. In a graph its call is a `tf.py_function`, the only one
in tfbert_npu, which lives in the Python process that traced it and nowhere else; so a graph that holds one
refuses to be saved.
"""

from tfbert_npu.delegate.delegation import Delegation, restored
from tfbert_npu.delegate.missing import MissingOutput, MissingOutputError
from tfbert_npu.delegate.settings import Settings
from tfbert_npu.delegate.traces import forget_traces

__all__ = ["Delegation", "MissingOutput", "MissingOutputError", "Settings", "forget_traces", "restored"]
