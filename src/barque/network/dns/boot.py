"""First file of the name server's process: python -I -S boot.py PATH LISTEN_FD."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))

from barque.network.dns.main import main

sys.exit(main(sys.argv[1:]))
