"""Measuring and planning: what a model is and costs (`card`), and how close it is to a peer (`verify`)."""
