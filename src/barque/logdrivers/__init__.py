"""Log drivers: where a container's output goes besides the file that `logs` reads.

The keeper writes a container's log to its file in any case; a `Shipper` reads behind it and hands entries to
a `Driver`. How far it came is written down, so that a killed daemon goes on where it was.
"""
