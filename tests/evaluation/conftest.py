import sys
from pathlib import Path

# The stand-ins live beside the tests; tests are no packages.
sys.path.insert(0, str(Path(__file__).parent))
