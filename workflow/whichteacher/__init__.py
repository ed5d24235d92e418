"""What the scripts of several rules share."""
