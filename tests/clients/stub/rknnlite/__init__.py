"""In place of the vendor's wheel."""
