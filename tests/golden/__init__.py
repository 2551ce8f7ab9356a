"""Golden tests: what must stay as it is, in numbers, names and formats, while the code is moved about."""
