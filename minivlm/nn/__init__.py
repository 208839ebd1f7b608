"""Parts that know neither image nor text."""
