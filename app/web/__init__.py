"""The page: `actions` fills the queue; `views`, `results` and `shelf` show what it left; `page` lays that out.

Only `page` and `server` know Gradio. Everything else is plain functions, which tests and programs call as they are.
"""
