"""Every file format of a BERT checkpoint, and fetching one. No Keras."""
