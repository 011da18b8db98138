"""The fault suite: production processes under load, seeded faults, a checker for lost or doubled money.

`python -m faults` runs it; docs/reliability.md has the results.
"""
