"""Scores, and the feature extractors that they look through."""
