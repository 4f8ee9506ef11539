"""Layers and rules that two or more models share."""
