"""Text <-> tokens -> text."""
