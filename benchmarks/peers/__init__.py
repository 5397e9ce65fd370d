"""Published ways to fit a smile, implemented for comparison with the library."""
