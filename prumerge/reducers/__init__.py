"""One paper = one file; the file name is the method's name."""
