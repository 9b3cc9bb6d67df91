"""Clean samples: reading, validation, splitting."""
