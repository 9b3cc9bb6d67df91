"""Editing: scale the weights that a trigger excites, repair what that cost, or fine-tune as a fallback."""
