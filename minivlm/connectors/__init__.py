"""Vision tokens to language tokens."""
