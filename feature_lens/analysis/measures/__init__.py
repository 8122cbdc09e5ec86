"""What features are measured by: small functions of values (k, n), labels and known concepts, the same for every set."""
