"""Bad days on purpose: the production processes under load, seeded faults, and a checker that looks for lost
or doubled money afterwards. `python -m faults` runs it; docs/reliability.md says what it has shown."""
