"""Entry of ``python -m loraland_operator``; ``release`` behind it prepares an uninstallation."""

import sys

if sys.argv[1:2] == ["release"] and len(sys.argv) == 2:
    from loraland_operator.release import main
elif sys.argv[1:]:
    sys.exit(f"loraland-operator: unknown argument {sys.argv[1]!r}; expected nothing or release")
else:
    from loraland_operator.main import main

sys.exit(main())
