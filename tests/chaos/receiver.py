"""`jobhook serve`, with batches as small as an environment variable says: so little is enough to overload it."""

import os
import sys

from app.cli import main
from app.receiver import intake

MAX_BATCH = "CHAOS_MAX_BATCH"

if __name__ == "__main__":
    intake.MAX_BATCH = int(os.environ.get(MAX_BATCH, intake.MAX_BATCH))
    sys.argv[1:1] = ["serve"]
    main()
