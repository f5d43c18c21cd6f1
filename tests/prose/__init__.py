"""Check the project's prose: retired words, docstrings that are fragments, references that lead nowhere, long lines."""
