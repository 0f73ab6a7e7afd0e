"""What people do with a BERT: plain functions over an encoder and its tokenizer."""
