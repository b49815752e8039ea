"""How fast it is: programs that measure, each against a target. ``make bench`` runs them."""
