"""What runs inside an agent's container: a server that takes runs, a loop between a model and tools, a log of every event.

It is a program of its own, installed in the image that this folder builds; the daemon ships it and never imports it.
"""

VERSION = "1.0.0"
