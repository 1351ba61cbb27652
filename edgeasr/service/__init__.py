"""Running for months: the unit of a service manager, and what it is told meanwhile."""
