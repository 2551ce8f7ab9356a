"""Reports as HTML pages and galleries."""
