"""First file of the keeper's process: python -I -S boot.py EXEC_ROOT LISTEN_FD."""

import os
import sys

sys.dont_write_bytecode = False
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from barque.keeper.main import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
