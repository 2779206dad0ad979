"""The layer below all others: TensorFlow, devices, hosts, flags, files, and how a script ends."""

import sys

from runtime.cli import report_uncaught

# The one effect of an import here: every script imports this package first, and Ctrl-C or a missing
# package during the imports that follow is then one line. A hook set by someone else stays.
if sys.excepthook is sys.__excepthook__:
    sys.excepthook = report_uncaught
