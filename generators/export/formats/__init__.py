"""One file per export format; the list of formats is this folder."""
