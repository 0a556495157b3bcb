"""``python -m padp`` is the command line."""

from padp.cli import main

raise SystemExit(main())
