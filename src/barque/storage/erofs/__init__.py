"""Layers as EROFS images: an index of a layer's tar that the kernel mounts, no file unpacked.

tree.py         a tar's entries as a tree of nodes, whiteouts in overlay's form
image.py        the tree as an EROFS image whose files' bytes lie in the tar, its second device
mounts.py       mounting index and tar from their files
snapshotter.py  the contract of snapshots over such layers and plain folders
"""
