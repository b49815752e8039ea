"""``make demo``: the labs do the lwAFTR's work before one's eyes, and every claim is checked."""
