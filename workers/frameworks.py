"""`python -m workers.frameworks`: which backends lack their package, as JSON; workers are who would need it."""

import json
import sys

from workers.backend import lacking

if __name__ == "__main__":
    sys.stdout.write(json.dumps(lacking()))
