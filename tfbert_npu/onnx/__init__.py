"""BERT as an ONNX graph, written straight from a state in the form that rknn-toolkit2 fuses."""
