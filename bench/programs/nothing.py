"""Start and end of the interpreter."""
pass
