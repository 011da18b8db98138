"""Benchmarks against baseline designs on the same machine in the same minutes. `python -m bench` runs them;
docs/performance.md explains the results and what limits them."""
