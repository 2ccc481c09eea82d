"""One question, answered and timed stage by stage."""
