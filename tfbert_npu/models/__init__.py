"""BERT as pure Keras 3: the layers, the encoder and the heads. No files, no network."""
