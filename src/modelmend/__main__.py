"""``python -m modelmend`` is the command ``modelmend``."""

from modelmend.cli.main import main

main()
