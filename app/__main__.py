"""`python -m app` is `studio`."""

from app.cli import main

raise SystemExit(main())
