"""Start-up and the end, nothing between."""
pass
