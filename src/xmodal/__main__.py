"""``python -m xmodal``, as torchrun starts it."""

from xmodal.cli import main

main()
