"""What a model takes on this machine, measured stage by stage, beside what the roofline predicts."""
