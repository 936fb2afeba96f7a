"""What is done to a site on purpose, on one time axis, and whether the EMS coped with it."""
