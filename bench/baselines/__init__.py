"""The usual designs without an inbox, on Prihod's models, parser and settings.

`settings.py` and `urls.py` route the endpoint to the one that BENCH_BASELINE names.
"""
