"""The usual designs, on our models, settings and HTTP server: what a good engineer writes who has no inbox.

`settings.py` and `urls.py` put the one that BENCH_BASELINE names in the place of our door.
"""
