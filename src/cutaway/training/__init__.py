"""Training: from text to a trained model, on one machine or many."""
