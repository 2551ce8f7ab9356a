"""`python -m app` is `studio`."""

from app.cli.main import main

raise SystemExit(main())
