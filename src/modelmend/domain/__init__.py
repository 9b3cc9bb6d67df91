"""Do the samples represent the model's domain; which few of a pool represent it best."""
