"""Changes that make the science wrong, one line each, and the tests that have to notice them."""
