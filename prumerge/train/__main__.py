"""`torchrun -m prumerge.train DATA ...`: the command `prumerge train` in several processes."""

import sys

from prumerge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
