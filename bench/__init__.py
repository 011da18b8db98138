"""How fast it is, against honest peers on the same machine in the same minutes. `python -m bench` runs it;
docs/performance.md says how to read it, and what the limits are made of."""
