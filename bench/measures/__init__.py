"""One module for each measure. Its docstring says what is measured; `measure(quick, log)` yields measurements
and reports progress with `log`."""
