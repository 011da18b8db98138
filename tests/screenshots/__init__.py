"""The pictures in the README and in docs/, taken of a running house: `python -m tests.screenshots`."""
