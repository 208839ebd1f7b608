"""Pixels -> vision tokens."""
