"""How good is it? Metrics that serve every model with the right methods."""

from minivlm.evaluation.zero_shot import recall_at, text_classifier

__all__ = ["recall_at", "text_classifier"]
