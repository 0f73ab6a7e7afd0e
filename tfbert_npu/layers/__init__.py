"""The layers that `BertEncoder` is made of: Keras 3 operations only, no files and no network."""
