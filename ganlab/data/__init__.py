"""Data sets as Lightning DataModules."""
