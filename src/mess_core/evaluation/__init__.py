"""Evaluation: how well spaces of features, and the answers of an index, serve musicians."""
