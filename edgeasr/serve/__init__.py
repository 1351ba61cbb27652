"""Recognition for other programs: several streams at once on one model, over web sockets, HTTP and Wyoming.

Start reading at hub.py, whose docstring shows how a protocol is put on top of it; server.py puts them together.
"""
