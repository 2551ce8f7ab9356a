"""The command line: parsing, progress and answers."""
