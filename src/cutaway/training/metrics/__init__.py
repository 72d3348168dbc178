"""Measures of how good answers are. The reference scorers are imported where they are used."""
