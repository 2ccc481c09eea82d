"""From a processor's output to a shorter prompt: read, encode, decide, project, splice."""
