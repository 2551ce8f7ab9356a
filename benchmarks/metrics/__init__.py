"""One kind of number per file; every file is pure arithmetic on tables or features."""
