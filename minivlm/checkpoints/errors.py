"""The error that a checkpoint gets which cannot be read or written."""


class CheckpointError(ValueError):
    """A folder, file, config or tensor is not as expected. The text says what was given, what was expected, what to do."""
