"""Hub repositories to layers and back."""
