"""The bundled models as they are shipped, through the command line as it is typed."""
