"""The command line and the documents it comes with."""
