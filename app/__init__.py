"""The studio: a command line over `erase`, `generators` and `benchmarks`; it computes nothing itself."""
