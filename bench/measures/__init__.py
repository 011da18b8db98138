"""One module for each measure. Its docstring says what is measured; `measure(quick, say)` yields the figures,
and calls `say` with a line of progress now and then."""
