"""The one model form: a graph of aten operators, read as data, never executed from the file."""
