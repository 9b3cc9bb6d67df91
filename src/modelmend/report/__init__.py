"""One HTML file a run: the first screen for whoever decides, the rest for whoever checks."""
