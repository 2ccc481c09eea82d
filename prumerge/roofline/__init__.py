"""The roofline: what fewer visual tokens gain on a model and a machine, and why not more. No torch needed."""
