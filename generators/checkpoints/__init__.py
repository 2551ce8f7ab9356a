"""Reading models from foreign files, without ever running code that a file carries."""
