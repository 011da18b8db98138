"""Screenshots of a running stack for the README and docs/: `python -m tests.screenshots`."""
