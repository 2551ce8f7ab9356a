"""Closed forms: what they are solved from, the subspaces they keep, and the fold into the layers that read codes."""
