"""Training: readers of data files, features, batches, optimizer, callbacks and the loop that joins them."""
