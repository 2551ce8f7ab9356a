"""The studio's queue of tasks and the worker processes that run them."""
