"""The page: `actions` puts things into the queue, `views` reads what they left, `page` lays both out for a browser."""
