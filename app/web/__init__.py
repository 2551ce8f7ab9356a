"""The page: `actions` fills the queue; the views show what it left, by templates; `page` lays that out.

Only `page` and `server` know Gradio. Everything else is plain functions, which tests and programs call as they are.
"""
