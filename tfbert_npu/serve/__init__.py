"""HTTP over `SentenceEncoder`: the embedding routes of OpenAI, Text Embeddings Inference and Ollama."""
